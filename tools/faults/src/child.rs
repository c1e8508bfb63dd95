//! Applications in processes of their own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// One that runs, or has run.
pub(crate) struct App {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it has said so far, `key=value` a line.
    pub(crate) said: HashMap<String, String>,
}

/// This program as `faults app …`.
pub(crate) fn app(arguments: &[&str]) -> Command {
    under(&[], arguments)
}

/// The same, behind another program.
pub(crate) fn under(front: &[&str], arguments: &[&str]) -> Command {
    let own = std::env::current_exe().expect("a program has a path");
    let mut command = match front.split_first() {
        None => Command::new(own),
        Some((program, rest)) => {
            let mut command = Command::new(program);
            command.args(rest).arg(own);
            command
        }
    };
    command.arg("app").args(arguments);
    command
}

impl App {
    pub(crate) fn start(mut command: Command) -> App {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        App { child, out, said: HashMap::new() }
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it; answers all that it has said since this was last read, in order.
    pub(crate) fn kill(&mut self) -> Vec<(String, String)> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut text = String::new();
        let _ = self.out.read_to_string(&mut text);
        let said = text.lines().filter_map(|line| line.split_once('='));
        said.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Reads until it has said this; `None` if it ends before.
    pub(crate) fn await_word(&mut self, key: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).expect("it is piped") == 0 {
                return None;
            }
            let (said, value) = line.trim_end().split_once('=').unwrap_or((line.trim_end(), ""));
            self.said.insert(said.to_owned(), value.to_owned());
            if said == key {
                return Some(value.to_owned());
            }
        }
    }

    /// Lets it go on: it waits for the end of its input.
    pub(crate) fn go_on(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end; answers its exit code, `None` for a signal, and what it printed on
    /// stderr.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        self.go_on();
        self.await_word("");
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        let _ = stderr.read_to_string(&mut errors);
        (self.child.wait().expect("it is ours").code(), errors)
    }

    #[track_caller]
    pub(crate) fn figure(&self, key: &str) -> u64 {
        let said =
            self.said.get(key).unwrap_or_else(|| panic!("it never said {key}: {:?}", self.said));
        said.parse().unwrap_or_else(|_| panic!("{key}={said}"))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one to its end, which must be a good one and a silent one.
#[track_caller]
pub(crate) fn run(command: Command) -> App {
    let mut app = App::start(command);
    let (code, errors) = app.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    app
}
