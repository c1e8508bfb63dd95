//! The server: a port, its connections, and the loop over both.
//!
//! One thread serves all connections, each in the order of its lines, as a TSD's workers do. It
//! does everything under one lock, in turns that never block: what
//! [`script`](super::FakeTsd::script) changes under that lock is in force when it returns, for a
//! read either happened before or sees the change. Between two turns the thread waits for sockets,
//! for the next deadline, or to be woken.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Registry, Token};

use super::fault::{Action, Fault, Mode, Script, Step, Task, When};
use super::log::{End, Log};
use super::options::FakeTsdBuilder;
use super::port::Port;
use super::rpc::Desk;
use super::session::{READ_SIZE, Session};

pub(super) const WAKER: Token = Token(1);
/// The token of the first connection.
const FIRST: usize = 2;

/// The indices of connections.
type Numbers = RangeInclusive<usize>;

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
            script: Script::new(),
            is_stopped: false,
            mode: Mode::default(),
            port: Port::bind(&registry)?,
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

    /// Takes down what the system says that no read does, since there may be something before it.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(number) = event.token().0.checked_sub(FIRST) else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
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
        let mut is_busy = false;
        let numbers: Vec<_> = self.sessions.keys().copied().collect();
        for number in numbers {
            is_busy |= self.serve(number, now);
            self.run_due_steps(now);
        }
        if is_busy {
            return Some(Duration::ZERO);
        }
        let sessions = self.sessions.values().filter_map(|session| session.deadline(now));
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
            self.with(number, now, |server, session| match server.door {
                Some(Fault::CloseNew) => Some(End::ByServer),
                Some(_) => Some(session.reset()),
                None => None,
            });
            if let Some(step) = self.script.due_at_connection() {
                self.apply(&step, Some(number), now);
                self.script.advance();
            }
        }
    }

    /// Does something with a connection, which is closed if it has ended by that.
    fn with(
        &mut self,
        number: usize,
        now: Instant,
        act: impl FnOnce(&mut Server, &mut Session) -> Option<End>,
    ) {
        let Some(mut session) = self.sessions.remove(&number) else { return };
        match act(self, &mut session) {
            Some(end) => self.log_mut().end(number, end, now),
            None => drop(self.sessions.insert(number, session)),
        }
    }

    /// Reads once, handles what that completed, writes, and closes when all is said. Returns
    /// whether there was anything to do: then there may be more.
    fn serve(&mut self, number: usize, now: Instant) -> bool {
        let (most, mut is_busy) = (self.script.left(), false);
        self.with(number, now, |server, session| {
            is_busy = match server.receive(number, session, most, now) {
                Ok(is_busy) => is_busy,
                Err(end) => return Some(end),
            };
            if session.mode.breaks_after == Some(0) {
                return Some(session.reset());
            }
            is_busy |= session.write(now);
            if !is_busy && session.is_left_alone() {
                server.log_mut().connections[number].is_left = true;
            }
            session.is_done(now)
        });
        is_busy
    }

    /// Handles what was read before and had to wait, reads once, and handles what that completed:
    /// at most so many bytes and lines. Returns whether there was anything.
    fn receive(
        &mut self,
        number: usize,
        session: &mut Session,
        (bytes, lines): (usize, usize),
        now: Instant,
    ) -> Result<bool, End> {
        let Server { log, options, script, buffer, .. } = self;
        let (log, mode) = (Arc::make_mut(log), &session.mode.clone());
        let before = log.accepted_count();
        let mut desk = Desk { options, mode, log, connection: number };
        let mut handled = session.handle(lines, now, &mut desk);
        let size = bytes.min(buffer.len());
        let progress = session.read(&mut buffer[..size], now);
        let read = progress.unwrap_or(0);
        desk.log.read(number, &buffer[..read]);
        handled += session.handle(lines - handled, now, &mut desk);
        log.arrived(log.accepted_count() - before, now);
        script.count(read, handled);
        progress.map(|read| read + handled > 0)
    }

    fn read_out(&mut self, number: usize, session: &mut Session, now: Instant) {
        let all = (usize::MAX, usize::MAX);
        while self.receive(number, session, all, now).is_ok_and(|is_busy| is_busy) {}
    }

    fn run_due_steps(&mut self, now: Instant) {
        while let Some(step) = self.script.due(now) {
            self.apply(&step, None, now);
            self.script.advance();
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
        let targets = only.map_or(0..=usize::MAX, |number| number..=number);
        match &step.task {
            Task::Do(action) => self.act(action, targets, now),
            Task::Begin { fault, spares_new } => {
                self.begin(fault, *spares_new || only.is_some(), targets);
            }
        }
    }

    fn act(&mut self, action: &Action, targets: Numbers, now: Instant) {
        let numbers: Vec<_> = self.sessions.range(targets).map(|(number, _)| *number).collect();
        for number in numbers {
            self.with(number, now, |server, session| match action {
                Action::Reset | Action::Crash { .. } => Some(session.reset()),
                Action::Close | Action::Restart { .. } => {
                    server.read_out(number, session, now);
                    session.write(now);
                    // A RST, if something is left unread.
                    Some(End::ByServer)
                }
                Action::CloseUnread => {
                    session.close_unread();
                    server.read_out(number, session, now);
                    server.log_mut().end(number, End::ByServer, now);
                    None
                }
                Action::HalfClose => {
                    session.half_close(now);
                    None
                }
                Action::Say(bytes) => {
                    session.say(bytes, now);
                    session.write(now);
                    None
                }
                Action::Heal => None,
            });
        }
        match action {
            Action::Restart { down } | Action::Crash { down } => self.shut_for(*down, now),
            Action::Heal => self.heal(),
            _ => {}
        }
    }

    fn begin(&mut self, fault: &Fault, spares_new: bool, targets: Numbers) {
        match fault {
            Fault::Refuse if self.port.close() => return,
            Fault::Refuse | Fault::IgnoreNew | Fault::ResetNew | Fault::CloseNew => {
                self.door = Some(fault.clone());
                return;
            }
            Fault::ReceiveBuffer(bytes) if !spares_new => self.port.set_receive_buffer(*bytes),
            _ => {}
        }
        self.sessions.range_mut(targets).for_each(|(_, session)| session.begin(fault));
        if !spares_new {
            self.mode.begin(fault);
        }
    }

    /// Ends every lasting fault.
    fn heal(&mut self) {
        self.mode = Mode::default();
        self.door = None;
        if self.reopens.is_none() {
            self.reopen();
        }
        self.sessions.values_mut().for_each(|session| session.mode = Mode::default());
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
        self.port.open(&self.registry).expect("the port is ours");
        self.door = None;
    }
}
