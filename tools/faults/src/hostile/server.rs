//! A server that draws what it does to each connection, until it is healed.
//!
//! It takes every whole line that it reads for stored, whatever it answers. So what it is honest
//! about is what it says of the lines: an answer to `version`, or an orderly end, stands for all
//! that it has read there before. A *liar* also answers what nobody asked, and twice.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::evidence::Evidence;

/// How often a thread looks whether the server was healed or has ended.
const LOOK: Duration = Duration::from_millis(10);

const VERSION: &[u8] = b"net.opentsdb.tools 2.4.1 built at revision eb125a342 (MODIFIED)\n\
    Built on 2021/09/08 03:26:53 +0000 by u@h:/p\n";
const REFUSALS: [&[u8]; 6] = [
    b"put: unknown metric: No such name for 'metrics': 'n.unknown'\n",
    b"put: Please throttle writes: x\n",
    b"put: HBase error: boom\n  at net.opentsdb.Foo(Foo.java:1)\n\tcaused by \xff\xfe\xc3\xa9\n",
    b"put: illegal argument: invalid tag: host\n",
    b"put: Throttling exception: y\n",
    b"put: Request timed out: 1\n",
];
const ALIENS: [&[u8]; 5] = [
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"SSH-2.0-x\r\n",
    b"\0",
    b"1garbage",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Hostile,
    Healed,
    Ended,
}

/// What a server may do, drawn once for each seed.
#[derive(Clone, Debug)]
pub(super) struct Character {
    pub(super) is_liar: bool,
    /// In a hundred, how often it refuses new connections for a moment, and accepts late.
    refuses: u8,
    is_slow: u8,
    /// In a hundred, how often a line is answered with a refusal.
    complains: u8,
    answers: Vec<Answer>,
    /// Whether it draws how it answers for each question, instead of each connection.
    is_fickle: bool,
    acts: Vec<Act>,
    receive_buffer: Option<usize>,
}

/// How it answers `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Tsd,
    Kairos,
    Influx,
    Taos,
    Never,
    Late(u64),
    Garbled,
    Pieces,
    /// Says so many bytes of it, and resets the connection.
    Cut(usize),
    /// Lies.
    Twice,
    Early,
}

/// What becomes of a connection when so many bytes were read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Serve,
    Reset,
    /// Stops in good order: closes, with a reset where something is unread.
    Close,
    /// Lies: sends a FIN and reads on. Where the client had finished, that looks like an end.
    HalfClose,
    /// Does not read for so many milliseconds.
    Stop(u64),
    /// Does not read, and resets after so many milliseconds.
    StopAndReset(u64),
    Trickle(usize),
    Flood,
    Alien,
    /// Does not close for so many milliseconds when the client has finished.
    HoldOpen(u64),
}

impl Character {
    pub(super) fn of(random: &mut fastrand::Rng) -> Character {
        let is_liar = random.u8(0..5) == 0;
        let answers = match random.u8(0..7) {
            0 | 1 => vec![Answer::Tsd],
            2 => vec![Answer::Kairos],
            3 => vec![Answer::Influx],
            4 => vec![Answer::Taos],
            // What stands behind the address changes.
            5 => vec![Answer::Tsd, Answer::Kairos, Answer::Influx, Answer::Taos, Answer::Never],
            _ => vec![
                Answer::Tsd,
                Answer::Kairos,
                Answer::Never,
                Answer::Garbled,
                Answer::Pieces,
                Answer::Late(random.u64(0..700)),
                Answer::Cut(random.usize(0..VERSION.len())),
            ],
        };
        let mut acts = vec![
            Act::Serve,
            Act::Serve,
            Act::Reset,
            Act::Reset,
            Act::Close,
            Act::Stop(random.u64(0..900)),
            Act::StopAndReset(random.u64(0..900)),
            Act::Trickle(random.usize(1..2_000)),
            Act::Flood,
            Act::Alien,
            Act::HoldOpen(random.u64(0..900)),
        ];
        if random.bool() {
            random.shuffle(&mut acts);
            acts.truncate(random.usize(1..4));
        }
        let mut character = Character {
            is_liar,
            refuses: random.choice([0, 0, 30]).unwrap_or(0),
            is_slow: random.choice([0, 30]).unwrap_or(0),
            complains: random.choice([0, 0, 3, 100]).unwrap_or(0),
            answers,
            is_fickle: random.u8(0..4) == 0,
            acts,
            receive_buffer: random.choice([None, None, Some(4_096), Some(65_536)]).flatten(),
        };
        if is_liar {
            character.answers.extend([Answer::Twice, Answer::Early]);
            character.acts.push(Act::HalfClose);
        }
        character
    }
}

struct Shared {
    character: Character,
    evidence: Arc<Evidence>,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.changed.notify_all();
    }

    /// Waits, at most until the server is healed.
    fn pause(&self, time: Duration) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let is_hostile = |phase: &mut Phase| *phase == Phase::Hostile;
        drop(self.changed.wait_timeout_while(phase, time, is_hostile));
    }
}

/// A server that runs until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(character: Character, evidence: &Arc<Evidence>, seed: u64) -> Server {
        // It never listens and keeps the port while the one that listens is away.
        let keeper = socket(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = keeper.local_addr().unwrap().as_socket().unwrap();
        let evidence = Arc::clone(evidence);
        let (phase, changed) = (Mutex::new(Phase::Hostile), Condvar::new());
        let shared = Arc::new(Shared { character, evidence, phase, changed });
        let acceptor = {
            let (shared, listener) = (Arc::clone(&shared), listen(address, &shared));
            std::thread::spawn(move || {
                accept(&shared, Some(listener), address, fastrand::Rng::with_seed(seed));
                drop(keeper);
            })
        };
        Server { address, shared, acceptor: Some(acceptor) }
    }

    /// From now on new connections are served as a TSD does, and old ones soon end.
    pub(super) fn heal(&self) {
        self.shared.set(Phase::Healed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.set(Phase::Ended);
        let ended = self.acceptor.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) {
            self.shared.evidence.fault("a thread of the server panicked".to_owned());
        }
    }
}

fn socket(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    #[cfg(unix)]
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn listen(address: SocketAddr, shared: &Shared) -> TcpListener {
    let socket = socket(address);
    if let Some(bytes) = shared.character.receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    // `accept` waits so long.
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn accept(
    shared: &Arc<Shared>,
    mut listener: Option<TcpListener>,
    address: SocketAddr,
    mut random: fastrand::Rng,
) {
    let mut sessions = Vec::new();
    while shared.phase() < Phase::Ended {
        let is_hostile = shared.phase() == Phase::Hostile;
        if is_hostile && random.u8(0..100) < shared.character.refuses {
            listener = None;
            shared.pause(Duration::from_millis(random.u64(5..200)));
        }
        if is_hostile && random.u8(0..100) < shared.character.is_slow {
            shared.pause(Duration::from_millis(random.u64(5..200)));
        }
        let listener = listener.get_or_insert_with(|| listen(address, shared));
        let Ok((stream, _)) = listener.accept() else { continue };
        let session = Session::new(shared, stream, fastrand::Rng::with_seed(random.u64(..)));
        sessions.push(std::thread::spawn(move || session.run()));
    }
    if sessions.into_iter().any(|session| session.join().is_err()) {
        shared.evidence.fault("a connection's thread panicked".to_owned());
    }
}

struct Session {
    shared: Arc<Shared>,
    stream: TcpStream,
    random: fastrand::Rng,
    act: Act,
    answer: Answer,
    /// Bytes of a line that has not ended.
    rest: Vec<u8>,
    /// Lines that nothing was said about yet.
    unproven: Vec<String>,
    has_lines: bool,
    /// Whether it has reset the connection within an answer.
    is_cut: bool,
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The client has finished.
    Finished,
    /// The client has reset the connection, or the server has ended.
    Gone,
    /// So many bytes were read, or so much time has passed.
    Enough,
}

impl Session {
    fn new(shared: &Arc<Shared>, stream: TcpStream, mut random: fastrand::Rng) -> Session {
        let is_hostile = shared.phase() == Phase::Hostile;
        let Character { acts, answers, .. } = &shared.character;
        let mut pick = |count: usize| random.usize(0..count);
        let (act, answer) = match is_hostile {
            true => (acts[pick(acts.len())], answers[pick(answers.len())]),
            false => (Act::Serve, Answer::Tsd),
        };
        Session {
            shared: Arc::clone(shared),
            stream,
            random,
            act,
            answer,
            rest: Vec::new(),
            unproven: Vec::new(),
            has_lines: false,
            is_cut: false,
        }
    }

    fn run(mut self) {
        // So a reset and a close are what they say, and a blocked write ends.
        let _ = self.stream.set_write_timeout(Some(Duration::from_secs(1)));
        let _ = self.stream.set_nodelay(true);
        if self.answer == Answer::Early {
            self.say(VERSION);
        }
        let few = self.random.usize(1..3_000);
        let bytes = self.random.choice([0, 1, 17, 100, few, 20 * few]).unwrap_or(0);
        let mut stop = match self.act {
            Act::Serve | Act::HoldOpen(_) => self.read(usize::MAX, 64 * 1024, None),
            Act::Trickle(portion) => {
                self.read(usize::MAX, portion, Some(Duration::from_millis(600)))
            }
            _ => self.read(bytes, 64 * 1024, None),
        };
        if stop == Stop::Enough {
            stop = match self.act {
                Act::Reset => return self.reset(),
                Act::StopAndReset(time) => {
                    self.shared.pause(Duration::from_millis(time));
                    return self.reset();
                }
                // What was read is handled; the rest the kernel refuses with a reset.
                Act::Close => return self.prove(),
                Act::HalfClose => {
                    self.prove();
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.read_all()
                }
                Act::Stop(time) => {
                    self.shared.pause(Duration::from_millis(time));
                    self.read_all()
                }
                Act::Flood => self.flood(),
                Act::Alien => {
                    let alien = self.random.choice(ALIENS).unwrap_or_default();
                    self.say(alien);
                    self.prove();
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.read_all()
                }
                _ => self.read_all(),
            };
        }
        if stop == Stop::Finished {
            if let Act::HoldOpen(time) = self.act {
                self.shared.pause(Duration::from_millis(time));
            }
            self.prove();
        }
    }

    fn read_all(&mut self) -> Stop {
        self.read(usize::MAX, 64 * 1024, None)
    }

    /// Reads so many bytes, at most `portion` at a time, or for so long.
    fn read(&mut self, bytes: usize, portion: usize, time: Option<Duration>) -> Stop {
        let (mut left, began) = (bytes, Instant::now());
        let mut buffer = vec![0; portion];
        let _ = self.stream.set_read_timeout(Some(LOOK));
        while left > 0 {
            if self.shared.phase() == Phase::Ended {
                return Stop::Gone;
            }
            if time.is_some_and(|time| began.elapsed() > time) {
                return Stop::Enough;
            }
            let room = portion.min(left);
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return self.finished(),
                Ok(count) => {
                    left -= count;
                    self.take(&buffer[..count]);
                    if self.is_cut {
                        self.reset();
                        return Stop::Gone;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    if !self.rest.is_empty() {
                        self.shared.evidence.tear();
                    }
                    return Stop::Gone;
                }
            }
            if portion < 64 * 1024 {
                self.shared.pause(Duration::from_millis(1));
            }
        }
        Stop::Enough
    }

    fn finished(&self) -> Stop {
        if !self.rest.is_empty() {
            let rest = String::from_utf8_lossy(&self.rest);
            self.shared.evidence.fault(format!("an end within a line: {rest:?}, {:?}", self.act));
        }
        Stop::Finished
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut lines = rest.split(|&byte| byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() {
                self.rest = line.to_vec();
            } else if line == b"version" {
                self.version();
            } else {
                self.has_lines = true;
                self.shared.evidence.line(line);
                self.unproven.push(String::from_utf8_lossy(line).into_owned());
                if self.random.u8(0..100) < self.shared.character.complains && self.is_hostile() {
                    let refusal = self.random.choice(REFUSALS).unwrap_or_default();
                    self.say(refusal);
                }
            }
        }
    }

    fn is_hostile(&self) -> bool {
        self.shared.phase() == Phase::Hostile
    }

    fn version(&mut self) {
        if !self.has_lines {
            self.shared.evidence.fault("`version` came first".to_owned());
        }
        if self.shared.character.is_fickle && self.is_hostile() {
            let answers = &self.shared.character.answers;
            self.answer = self.random.choice(answers).copied().unwrap_or(self.answer);
        }
        let answer: &[u8] = match self.answer {
            Answer::Never => return,
            Answer::Garbled => b"net.opentsdb.tool 2.4.1 made at x\n",
            Answer::Kairos => b"KairosDB 1.3.0-1.20210808\n",
            Answer::Influx => b"InfluxDB TSDB proxy",
            Answer::Taos => b"1",
            _ => VERSION,
        };
        if let Answer::Late(time) = self.answer {
            self.shared.pause(Duration::from_millis(time));
        }
        self.prove();
        match self.answer {
            Answer::Twice => self.say(&[answer, answer].concat()),
            Answer::Pieces => answer.chunks(7).for_each(|piece| {
                self.say(piece);
                self.shared.pause(Duration::from_millis(1));
            }),
            Answer::Cut(bytes) => {
                self.say(&answer[..bytes]);
                self.is_cut = true;
            }
            _ => self.say(answer),
        }
    }

    fn prove(&mut self) {
        self.shared.evidence.prove(self.unproven.drain(..));
    }

    /// Complains as fast as it can while it goes on.
    fn flood(&mut self) -> Stop {
        let end = Instant::now() + Duration::from_millis(300);
        while self.is_hostile() && Instant::now() < end {
            let refusals: Vec<_> = (0..200).filter_map(|_| self.random.choice(REFUSALS)).collect();
            self.say(&refusals.concat());
            match self.read(64 * 1024, 64 * 1024 - 1, Some(Duration::ZERO)) {
                Stop::Enough => {}
                stop => return stop,
            }
        }
        self.read_all()
    }

    fn reset(&self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    // That the client is gone already is no matter.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }
}
