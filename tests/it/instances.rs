//! Several exporters on one machine: one series, one writer.
//!
//! An application in a process of its own is the test itself, started once more with the address of
//! the server in its environment; it does what it reads on its input, a word a line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use metrics::{counter, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{BuildError, InstanceTag, OpenTsdbBuilder, Point, Value};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::rig::{self, PATIENCE, eventually};

/// Where the server of an application is.
const ADDRESS: &str = "METRICS_EXPORTER_OPENTSDB_TEST_ADDRESS";
/// What an application counts at a time.
const CUPS: u64 = 100;

fn builder(address: &str) -> OpenTsdbBuilder {
    rig::builder_to(address).with_instance_tag(InstanceTag::Auto)
}

struct App {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl App {
    /// Starts the test of this name once more.
    fn start(test: &str, tsd: &FakeTsd) -> App {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", test])
            .env(ADDRESS, tsd.address())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut app = App { child, input, output: BufReader::new(output) };
        app.wait_for("started");
        app
    }

    /// Has it do something; answers what it says of it when that is done.
    fn tell(&mut self, word: &str) -> String {
        self.begin(word);
        self.wait_for(word)
    }

    fn begin(&mut self, word: &str) {
        writeln!(self.input, "{word}").unwrap();
    }

    fn wait_for(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended before: {word}");
            if let Some((_, said)) = line.trim_end().split_once(&format!("app: {word} ")) {
                return said.to_owned();
            }
        }
    }
}

impl Drop for App {
    /// Ends it as the kernel does, with nothing that it would do at its end.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process is an application; it is at its end then.
fn is_app() -> bool {
    let Ok(address) = std::env::var(ADDRESS) else { return false };
    let (recorder, handle) = builder(&address).with_telemetry(true).build().unwrap();
    println!("app: started now");
    for word in std::io::stdin().lines().map_while(Result::ok) {
        let said = match word.as_str() {
            "count" => metrics::with_local_recorder(&recorder, || {
                counter!("cups", "tea" => "assam").increment(CUPS);
                histogram!("seconds").record(0.5);
                handle.flush(PATIENCE).unwrap().points
            }),
            "exec" => {
                let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
                child.unwrap().id().into()
            }
            "fork" => {
                // SAFETY: the child calls nothing but what may be called after a fork, and ends by
                // the alarm at the latest.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    unsafe { libc::alarm(60) };
                    loop {
                        unsafe { libc::pause() };
                    }
                }
                child.try_into().unwrap()
            }
            "shutdown" => handle.shutdown(PATIENCE).unwrap().points,
            other => panic!("{other}"),
        };
        println!("app: {word} {said}");
    }
    true
}

/// The number that an exporter that starts now has; it ends at once.
fn next_number(tsd: &FakeTsd) -> String {
    let (_recorder, handle) = builder(&tsd.address()).build().unwrap();
    handle.send(Point::new("started", 1).timestamp(1_700_000_000)).unwrap();
    handle.shutdown(PATIENCE).unwrap();
    let point = tsd.points().pop().unwrap();
    let tag = point.tags.into_iter().find(|(key, _)| key == "instance");
    tag.map_or("1".into(), |(_, number)| number)
}

fn kill(process: &str) {
    // SAFETY: it is one that an application has started.
    unsafe { libc::kill(process.parse().unwrap(), libc::SIGKILL) };
}

/// The last count of the series without an instance tag, or of the one with this.
fn cups(tsd: &FakeTsd, instance: Option<&str>) -> Option<Value> {
    let is_it = |point: &Point| {
        let tag = point.tags.iter().find(|(key, _)| key == "instance");
        point.metric == "cups" && tag.map(|(_, value)| value.as_str()) == instance
    };
    tsd.points().into_iter().filter(is_it).max_by_key(|point| point.timestamp).map(|p| p.value)
}

#[test]
fn three_processes_at_once_write_no_series_twice() {
    if is_app() {
        return;
    }
    let tsd = FakeTsd::start();
    let test = "instances::three_processes_at_once_write_no_series_twice";
    let mut apps = [(); 3].map(|()| App::start(test, &tsd));
    for word in ["count", "count", "count", "shutdown"] {
        apps.iter_mut().for_each(|app| app.begin(word));
        apps.iter_mut().for_each(|app| drop(app.wait_for(word)));
    }
    assert_eq!(tsd.log().poisoned(), [""; 0]);
    for instance in [None, Some("2"), Some("3")] {
        assert_eq!(cups(&tsd, instance), Some(Value::from(3 * CUPS)), "{instance:?}");
    }
    let telemetry = |instance| tsd.value("opentsdb.client.connects", &[("instance", instance)]);
    assert!(telemetry("2").is_some() && telemetry("3").is_some());
}

#[test]
fn a_restart_that_overlaps_is_the_second_until_the_first_has_ended() {
    if is_app() {
        return;
    }
    let tsd = FakeTsd::start();
    let test = "instances::a_restart_that_overlaps_is_the_second_until_the_first_has_ended";
    let mut old = App::start(test, &tsd);
    old.tell("count");
    let mut new = App::start(test, &tsd);
    new.tell("count");
    old.tell("count");
    old.tell("shutdown");
    // The process is still there, and its exporter is not.
    assert_eq!(cups(&tsd, None), Some(Value::from(2 * CUPS)));
    let last = tsd.points().iter().filter_map(|point| point.timestamp).max().unwrap();
    eventually("the next second", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.as_secs() > last
    });
    let mut third = App::start(test, &tsd);
    for app in [&mut third, &mut new] {
        app.tell("count");
        app.tell("shutdown");
    }
    assert_eq!(tsd.log().poisoned(), [""; 0]);
    assert_eq!(cups(&tsd, None), Some(Value::from(CUPS)));
    assert_eq!(cups(&tsd, Some("2")), Some(Value::from(2 * CUPS)));
}

#[test]
fn a_child_holds_no_number_unless_it_was_forked_and_its_parent_killed() {
    if is_app() {
        return;
    }
    let test = "instances::a_child_holds_no_number_unless_it_was_forked_and_its_parent_killed";
    for (child, end, meanwhile) in [
        ("exec", "shutdown", "1"),
        ("exec", "kill", "1"),
        ("fork", "shutdown", "1"),
        ("fork", "kill", "2"),
    ] {
        let tsd = FakeTsd::start();
        let mut app = App::start(test, &tsd);
        assert_eq!(next_number(&tsd), "2", "{child} {end}");
        let process = app.tell(child);
        if end == "shutdown" {
            app.tell(end);
        } else {
            drop(app);
        }
        let number = next_number(&tsd);
        kill(&process);
        assert_eq!(number, meanwhile, "{child} {end}");
        eventually("it is free when the child has ended", || next_number(&tsd) == "1");
    }
}

/// Counts warnings.
struct Warnings(Arc<AtomicU64>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn the_second_exporter_and_no_other_warns_once() {
    let tsd = FakeTsd::start();
    let warnings = Arc::new(AtomicU64::new(0));
    let subscriber = tracing_subscriber::registry().with(Warnings(Arc::clone(&warnings)));
    let _default = tracing::subscriber::set_default(subscriber);
    let mut running = Vec::new();
    for (tag, warned) in [
        (InstanceTag::Auto, 0),
        (InstanceTag::Auto, 1),
        (InstanceTag::Off, 1),
        (InstanceTag::Value("w1".into()), 1),
        (InstanceTag::Auto, 2),
    ] {
        running.push(builder(&tsd.address()).with_instance_tag(tag).build().unwrap());
        assert_eq!(warnings.load(Ordering::SeqCst), warned);
    }
}

#[test]
fn a_value_is_on_every_series_and_an_empty_one_is_refused() {
    let tsd = FakeTsd::start();
    let value =
        |value: &str| builder(&tsd.address()).with_instance_tag(InstanceTag::Value(value.into()));
    let (recorder, handle) = value("worker 3").with_telemetry(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        // Nine with the host tag: the last labels go.
        counter!("cups", "a" => "1", "b" => "1", "c" => "1", "d" => "1", "e" => "1", "f" => "1", "g" => "1")
            .increment(1);
        counter!("pools", "instance" => "main").increment(1);
    });
    handle.send(Point::new("raw", 1)).unwrap();
    handle.shutdown(PATIENCE).unwrap();
    let has = |point: &Point, key: &str| point.tags.contains(&(key.into(), "worker_3".into()));
    let points = tsd.points();
    assert!(points.len() > 3);
    for point in points {
        assert!(has(&point, if point.metric == "pools" { "instance_" } else { "instance" }));
    }
    let error = value("").build().unwrap_err();
    assert!(
        matches!(&error, BuildError::InvalidConfiguration { option: "with_instance_tag", .. }),
        "{error}"
    );
}
