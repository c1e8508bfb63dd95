//! A server on a loopback address of its own that does with each connection what it was told to.
//!
//! Of its own, since the port of 127.0.0.1 that one test got may be one that another's client, of
//! this or of any other process, still tries to reach.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    /// Reads lines and answers `version`, as a TSD does; closes after the client has.
    Tsd,
    /// Reads lines and answers nothing.
    Mute,
    /// As `Tsd`, but answers `version` after so many milliseconds.
    Late(u64),
    /// Resets the connection once it has read so many bytes.
    ResetAfter(usize),
    /// Closes the connection at once.
    Close,
    /// Closes the connection when it has answered so many questions.
    CloseAfterAnswers(usize),
    /// Reads nothing before [`Server::resume`], then as `Tsd`.
    Stuck,
    /// Reads so many bytes every two milliseconds, with a receive buffer of 4 KiB; answers as
    /// `Tsd`.
    Slow(usize),
    /// As `Tsd`, and refuses each line.
    Refusing(&'static str),
    /// As `Tsd`, but sends junk all the time.
    Flood,
    /// Says this once to the first line, and closes after the client has.
    Alien(&'static [u8]),
}

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// The client has closed its side.
    pub(super) is_ended: bool,
}

#[derive(Default)]
struct Log {
    received: Mutex<Vec<Received>>,
    changed: Condvar,
    /// Stuck connections go on.
    is_resumed: AtomicBool,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
}

impl Server {
    /// The first connection gets the first script, and so on; the last one is for all others.
    pub(super) fn start(scripts: &[Script]) -> Self {
        Self::on(TcpListener::bind((own_address(), 0)).unwrap(), scripts)
    }

    /// The same on a socket that listens already.
    pub(super) fn on(listener: TcpListener, scripts: &[Script]) -> Self {
        let address = listener.local_addr().unwrap();
        if scripts.iter().any(|script| matches!(script, Script::Slow(_))) {
            // Connections inherit it.
            socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        }
        let log = Arc::new(Log::default());
        let (scripts, shared) = (scripts.to_vec(), Arc::clone(&log));
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let log = Arc::clone(&shared);
                let script = scripts[index.min(scripts.len() - 1)];
                let received = Received::default();
                log.change(|log| log.push(received));
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, script, index, &log));
            }
        });
        Server { address, log }
    }

    /// Waits until the connections have brought what is asked for.
    pub(super) fn wait(&self, what: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let log = self.log.received.lock().unwrap();
        let (log, timeout) = self
            .log
            .changed
            .wait_timeout_while(log, Duration::from_secs(5), |log| !what(log))
            .unwrap();
        assert!(!timeout.timed_out(), "{log:?}");
        log.clone()
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.log.received.lock().unwrap().clone()
    }

    /// Lets stuck connections go on.
    pub(super) fn resume(&self) {
        self.log.change(|_| self.log.is_resumed.store(true, Ordering::Relaxed));
    }
}

/// A loopback address that no other server of this process has, and hardly one of another process.
pub(super) fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST.into();
    }
    let n = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 128, low, n as u8).into()
}

impl Log {
    fn change(&self, change: impl FnOnce(&mut Vec<Received>)) {
        change(&mut self.received.lock().unwrap());
        self.changed.notify_all();
    }
}

impl Received {
    /// The whole lines, without the questions.
    pub(super) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| line.trim_end().to_owned()).filter(|line| line != "version").collect()
    }

    pub(super) fn questions(&self) -> usize {
        String::from_utf8_lossy(&self.bytes).lines().filter(|line| *line == "version").count()
    }
}

fn serve(mut stream: TcpStream, script: Script, index: usize, log: &Log) {
    let limit = match script {
        Script::Close => return,
        Script::Stuck => {
            let received = log.received.lock().unwrap();
            let is_stuck = |_: &mut Vec<Received>| !log.is_resumed.load(Ordering::Relaxed);
            drop(log.changed.wait_while(received, is_stuck));
            usize::MAX
        }
        Script::ResetAfter(bytes) => bytes,
        _ => usize::MAX,
    };
    if matches!(script, Script::Flood) {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || while stream.write_all(&[b'x'; 4096]).is_ok() {});
    }
    let (mut buffer, mut seen, mut line, mut answers) = ([0; 4096], 0, Vec::new(), 0);
    while seen < limit {
        let mut room = buffer.len().min(limit - seen);
        if let Script::Slow(bytes) = script {
            std::thread::park_timeout(Duration::from_millis(2));
            room = room.min(bytes);
        }
        let read = match stream.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        seen += read;
        log.change(|log| log[index].bytes.extend_from_slice(&buffer[..read]));
        for byte in &buffer[..read] {
            line.push(*byte);
            if *byte == b'\n' {
                answers += usize::from(line == b"version\n");
                match script {
                    Script::Alien(said) if seen == read => drop(stream.write_all(said)),
                    Script::Alien(_) => {}
                    _ => answer(&mut stream, script, &line),
                }
                line.clear();
            }
        }
        if matches!(script, Script::CloseAfterAnswers(most) if answers >= most) {
            return;
        }
    }
    if let Script::ResetAfter(_) = script {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    log.change(|log| log[index].is_ended = true);
}

fn answer(stream: &mut TcpStream, script: Script, line: &[u8]) {
    let reply = match (script, line) {
        (Script::Mute | Script::ResetAfter(_), _) => return,
        (Script::Flood, b"version\n") => {
            "\nnet.opentsdb.tools 2.4.1 built at revision x\nBuilt on y\n"
        }
        (Script::Late(millis), b"version\n") => {
            // The answer is due at a time, whatever else happens.
            std::thread::park_timeout(Duration::from_millis(millis));
            "net.opentsdb.tools 2.4.1 built at revision x\nBuilt on y\n"
        }
        (_, b"version\n") => "net.opentsdb.tools 2.4.1 built at revision x\nBuilt on y\n",
        (Script::Refusing(reply), _) => reply,
        _ => return,
    };
    let _ = stream.write_all(reply.as_bytes());
}
