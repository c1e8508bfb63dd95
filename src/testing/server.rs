//! The server: a port, its connections, and the loop over both.
//!
//! One thread serves all connections, each in the order of its lines, as a TSD's workers do. It
//! does everything under one lock, in turns that never block: what
//! [`script`](super::FakeTsd::script) changes under that lock is in force when it returns, for a
//! read either happened before or sees the change. Between two turns the thread waits for sockets,
//! for the next deadline, or to be woken.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::fault::{Action, Fault, Mode, Script, Step, Task, When};
use super::log::{End, Log};
use super::options::FakeTsdBuilder;
use super::port::Port;
use super::rpc::Desk;
use super::session::{READ_SIZE, Session};

pub(super) const WAKER: Token = Token(1);
/// The token of the first connection.
const FIRST: usize = 2;

#[derive(Debug)]
pub(super) struct Server {
    /// Shared with who asks for it; see [`log_mut`](Self::log_mut).
    pub(super) log: Arc<Log>,
    pub(super) options: FakeTsdBuilder,
    pub(super) script: Script,
    pub(super) is_stopped: bool,
    /// How connections to come are treated.
    mode: Mode,
    pub(super) port: Port,
    /// What becomes of those who connect, if they are not served.
    door: Option<Fault>,
    /// When the port is opened again.
    reopens: Option<Instant>,
    sessions: BTreeMap<usize, Session>,
    registry: Registry,
    /// What a read fills, reused.
    buffer: Box<[u8]>,
}

impl Server {
    pub(super) fn new(registry: Registry, options: FakeTsdBuilder) -> io::Result<Self> {
        Ok(Server {
            log: Arc::new(Log::new(options.keeps_lines)),
            options,
            script: Script::default(),
            is_stopped: false,
            mode: Mode::default(),
            port: Port::bind(registry.try_clone()?)?,
            door: None,
            reopens: None,
            sessions: BTreeMap::new(),
            registry,
            buffer: vec![0; READ_SIZE].into(),
        })
    }

    /// Copies the log first if a test still holds what it was.
    pub(super) fn log_mut(&mut self) -> &mut Log {
        Arc::make_mut(&mut self.log)
    }

    // ---- the loop's side ----

    /// Takes down what the system says.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(number) = event.token().0.checked_sub(FIRST) else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        session.is_writable |= event.is_writable();
        session.is_left |= event.is_read_closed() || event.is_error();
    }

    /// Does what can be done now; returns how long there is nothing to do unless the system says
    /// something.
    pub(super) fn turn(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.reopens.is_some_and(|at| at <= now) {
            self.reopen();
        }
        self.run_due_steps(now);
        self.accept(now);
        let numbers: Vec<_> = self.sessions.keys().copied().collect();
        for number in numbers {
            self.serve(number, now);
            self.run_due_steps(now);
        }
        let sessions = self.sessions.values().filter_map(|session| session.next_turn(now));
        let next = sessions.chain(self.script.deadline()).chain(self.reopens).min();
        next.map(|next| next.saturating_duration_since(now))
    }

    fn accept(&mut self, now: Instant) {
        while self.door != Some(Fault::IgnoreNew) {
            let Some(mut stream) = self.port.accept() else { return };
            let number = self.log_mut().open(now);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let watched = self.registry.register(&mut stream, Token(FIRST + number), interest);
            watched.expect("the event queue takes any number of connections");
            let session = Session::new(stream, self.mode.clone(), &self.options);
            self.sessions.insert(number, session);
            match self.door {
                Some(Fault::CloseNew) => self.close(number, End::ByServer, now),
                Some(_) => self.reset(number, now),
                None => {}
            }
            if let Some(step) = self.script.due_at_connection() {
                self.apply(&step, Some(number), now);
                self.script.begin();
            }
        }
    }

    /// Reads once, handles what that completed, writes, and closes when all is said.
    fn serve(&mut self, number: usize, now: Instant) {
        if let Err(end) = self.receive(number, self.script.left(), now) {
            return self.close(number, end, now);
        }
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.mode.breaks_after == Some(0) {
            return self.reset(number, now);
        }
        session.write(now);
        let (is_left_alone, end) = (session.is_left_alone(), session.is_done(now));
        if is_left_alone {
            self.log_mut().connections[number].is_left = true;
        }
        if let Some(end) = end {
            self.close(number, end, now);
        }
    }

    /// Reads once and handles what that completed, at most so many bytes and lines.
    fn receive(&mut self, number: usize, most: (usize, usize), now: Instant) -> Result<usize, End> {
        let Server { log, options, script, sessions, buffer, .. } = self;
        let Some(session) = sessions.get_mut(&number) else { return Ok(0) };
        let (log, (bytes, lines)) = (Arc::make_mut(log), most);
        let size = bytes.min(buffer.len());
        let progress = session.read(&mut buffer[..size], now);
        let read = progress.unwrap_or(0);
        log.read(number, &buffer[..read]);
        let before = log.accepted_count();
        let mut desk = Desk { options, log, connection: number };
        let handled = session.handle(lines, now, &mut desk);
        if handled < lines && session.is_read_out() {
            session.handle_tail(now, &mut desk);
        }
        log.arrived(log.accepted_count() - before, now);
        script.count(read, handled);
        progress
    }

    fn run_due_steps(&mut self, now: Instant) {
        while let Some(step) = self.script.due(now) {
            self.apply(&step, None, now);
            self.script.begin();
        }
    }

    // ---- the script's side ----

    /// Does the step now, or keeps it for its moment.
    pub(super) fn script(&mut self, step: Step) {
        if step.when == When::Now {
            self.apply(&step, None, Instant::now());
        } else {
            self.script.push(step);
        }
    }

    /// Does what the step says, to one connection or to all.
    fn apply(&mut self, step: &Step, only: Option<usize>, now: Instant) {
        let targets: Vec<_> = match only {
            Some(number) => vec![number],
            None => self.sessions.keys().copied().collect(),
        };
        match &step.task {
            Task::Do(action) => self.act(action, &targets, now),
            Task::Begin { fault, spares_new } => {
                self.begin(fault, *spares_new || only.is_some(), &targets);
            }
        }
    }

    fn act(&mut self, action: &Action, targets: &[usize], now: Instant) {
        for &number in targets {
            match action {
                Action::Reset | Action::Crash { .. } => self.reset(number, now),
                Action::Close | Action::Restart { .. } => self.end_politely(number, now),
                Action::CloseUnread => {
                    self.with(number, Session::close_unread);
                    self.read_out(number, now);
                    self.log_mut().end(number, End::ByServer, now);
                }
                Action::HalfClose => self.with(number, |session| session.half_close(now)),
                Action::Say(bytes) => self.with(number, |session| {
                    session.say(bytes, now);
                    session.write(now);
                }),
                Action::Heal => {}
            }
        }
        match action {
            Action::Restart { down } | Action::Crash { down } => self.shut_for(*down, now),
            Action::Heal => self.heal(),
            _ => {}
        }
    }

    fn with(&mut self, number: usize, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&number) {
            change(session);
        }
    }

    fn begin(&mut self, fault: &Fault, spares_new: bool, targets: &[usize]) {
        match fault {
            Fault::Refuse if self.port.close() => {}
            Fault::Refuse | Fault::IgnoreNew | Fault::ResetNew | Fault::CloseNew => {
                self.door = Some(fault.clone());
            }
            Fault::ReceiveBuffer(bytes) => self.set_receive_buffer(*bytes, spares_new, targets),
            fault => {
                targets.iter().for_each(|&number| self.with(number, |it| it.mode.begin(fault)));
                if !spares_new {
                    self.mode.begin(fault);
                }
            }
        }
    }

    fn set_receive_buffer(&mut self, bytes: usize, spares_new: bool, targets: &[usize]) {
        // A system that does not set it leaves all as it was, which the test sees.
        if !spares_new {
            let _ = self.port.set_receive_buffer(bytes);
        }
        for session in targets.iter().filter_map(|number| self.sessions.get(number)) {
            let _ = SockRef::from(&session.stream).set_recv_buffer_size(bytes);
        }
    }

    /// Ends every lasting fault.
    fn heal(&mut self) {
        self.mode = Mode::default();
        self.door = None;
        if self.reopens.is_none() {
            self.reopen();
        }
        for session in self.sessions.values_mut() {
            session.mode = Mode::default();
            session.is_blocked = false;
        }
    }

    fn shut_for(&mut self, down: Duration, now: Instant) {
        if !self.port.close() {
            self.door = Some(Fault::Refuse);
        }
        self.reopens = Some(now + down);
        if down.is_zero() {
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        self.reopens = None;
        self.port.open().expect("the port is ours");
        self.door = None;
    }

    /// Handles what has arrived, answers, and closes. That sends a FIN, or a RST if something is
    /// left unread.
    fn end_politely(&mut self, number: usize, now: Instant) {
        self.read_out(number, now);
        self.with(number, |session| session.write(now));
        self.close(number, End::ByServer, now);
    }

    fn read_out(&mut self, number: usize, now: Instant) {
        // The system may have more to say than was asked so far.
        self.with(number, |session| (session.is_readable, session.is_writable) = (true, true));
        let all = (usize::MAX, usize::MAX);
        while self.receive(number, all, now).is_ok_and(|bytes| bytes > 0) {}
    }

    fn reset(&mut self, number: usize, now: Instant) {
        if let Some(session) = self.sessions.get(&number) {
            // Without a wait to linger, closing sends a RST.
            let _ = SockRef::from(&session.stream).set_linger(Some(Duration::ZERO));
        }
        self.close(number, End::ByServer, now);
    }

    fn close(&mut self, number: usize, end: End, now: Instant) {
        self.sessions.remove(&number);
        self.log_mut().end(number, end, now);
    }
}
