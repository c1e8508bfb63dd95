//! The writer: from the queue to a server, for ever.
//!
//! **Problem.** A server may be absent, slow, mute, hostile, or go away in the middle of a line, and none of that may reach the
//! application or lose a point unseen.
//!
//! **Idea.** One thread that never blocks but in one place, its wait for events, and that asks everything anew after each of them.
//!
//! **Mechanism.** Its states:
//!
//! 1. *Idle*: no connection, because there is nothing to send or because the last failure is too fresh. After a quiet time there is
//!    a short random wait, *scattered*: the ticks of all clients of a server are at one moment, and their connects are not to be.
//! 2. *Dialing*: an [`Attempt`] goes through the endpoints. It ends in 3, or, failed, in 1 with a wait.
//! 3. *Connected*: a [`Session`] sends and has it confirmed. It ends in 1: without a wait when it ended in good order, with one when
//!    it failed. Whatever is not confirmed then is sent again by the next one.
//!
//! It is over when the queue is closed and everything is confirmed, or when the queue is abandoned; which the writer does itself
//! when nobody is left to do it and the time for that has come. A panic, which only a user's
//! log subscriber should be able to cause, costs the connection and is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Poll};

use super::backoff::{Backoff, Cost};
use super::connection::{Connection, Drained};
use super::delivery::Delivery;
use super::dial::{Attempt, Dialer, Progress};
use super::failure::Failure;
use super::session::{End, Next, Session, earliest};
use crate::clock::{Clock, Instant};
use crate::queue::{Link, Phase};

/// How long an abandoned connection is read on from.
const LINGER: Duration = Duration::from_secs(2);
/// What is read at once.
pub(super) const READ_BUFFER: usize = 16 * 1024;

pub(super) struct Writer {
    pub(super) delivery: Delivery,
    pub(super) dialer: Dialer,
    pub(super) backoff: Backoff,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
    pub(super) events: Events,
    /// For reading.
    pub(super) buffer: Box<[u8]>,
    pub(super) state: State,
    /// The most that a connect waits after a quiet time, unless somebody waits for it.
    pub(super) scatter: Duration,
    /// Whether the log was last told that points arrive.
    pub(super) is_announced: bool,
    /// When to give up.
    pub(super) ends_at: Option<Instant>,
    /// Whether the shutdown was seen to begin.
    pub(super) is_ending: bool,
}

pub(super) enum State {
    /// No attempt before the time, if there is one.
    Idle(Option<Instant>),
    /// There is something to send, and the connect waits until then.
    Scattered(Instant),
    Dialing(Attempt),
    Connected(Box<Session>),
}

impl Writer {
    /// Works until the queue is done with.
    pub(super) fn run(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.delivery.counters.restarts.add(1);
            // Nothing is logged here: the log may be what panicked, and the panic hook has spoken.
            self.back_off(Cost::Gone, self.clock.now());
        }
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
    }

    fn work(&mut self) {
        while let Some(next) = self.turn(self.clock.now()) {
            let until = match next {
                Next::Again => Some(self.clock.now()),
                Next::Wait(until) => until,
            };
            let timeout = earliest(until, self.ends_at)
                .map(|until| until.saturating_duration_since(self.clock.now()));
            let alarm = self.delivery.queue.alarm();
            let may_wait = timeout != Some(Duration::ZERO) && alarm.lie_down();
            let timeout = if may_wait { timeout } else { Some(Duration::ZERO) };
            let waited = self.poll.poll(&mut self.events, timeout);
            alarm.get_up();
            if let Err(error) = waited {
                if error.kind() != std::io::ErrorKind::Interrupted {
                    tracing::error!("the writer ends, since it cannot wait for events: {error}");
                    return;
                }
            }
        }
    }

    /// Goes on as far as it can without waiting; `None` when it is over.
    fn turn(&mut self, now: Instant) -> Option<Next> {
        self.ends_at = self.delivery.queue.ends_at();
        let is_late = self.ends_at.is_some_and(|at| now >= at);
        if is_late && self.delivery.queue.phase() < Phase::Abandoned {
            self.delivery.queue.abandon();
            tracing::warn!("nobody has the exporter any more, and it gives its last points up");
        }
        let phase = self.delivery.queue.phase();
        if phase >= Phase::Abandoned {
            self.abandon();
            return None;
        }
        if phase == Phase::Closing && !std::mem::replace(&mut self.is_ending, true) {
            self.hasten(now);
        }
        match &mut self.state {
            State::Idle(_) | State::Scattered(_) if !self.delivery.has_work() => {
                // The phase was asked first: so nothing can have come in between that would be left behind.
                (phase == Phase::Open).then_some(Next::Wait(None))
            }
            State::Idle(Some(not_before)) if now < *not_before => {
                Some(Next::Wait(Some(*not_before)))
            }
            State::Idle(None) => {
                self.state = State::Scattered(now + self.scatter.mul_f64(fastrand::f64()));
                Some(Next::Again)
            }
            State::Scattered(until) if now < *until && !self.delivery.work().demand.is_hurried => {
                Some(Next::Wait(Some(*until)))
            }
            State::Idle(Some(_)) | State::Scattered(_) => {
                self.state = State::Dialing(Attempt::new(&mut self.dialer, now));
                Some(Next::Again)
            }
            State::Dialing(_) => Some(self.dial(now)),
            State::Connected(_) => Some(self.serve(now)),
        }
    }

    fn dial(&mut self, now: Instant) -> Next {
        let State::Dialing(attempt) = &mut self.state else { return Next::Again };
        match attempt.turn(&mut self.dialer, now) {
            Progress::Wait(until) => Next::Wait(Some(until)),
            Progress::Connected(endpoint, connection) => {
                self.delivery.modes.connected(endpoint, now);
                self.delivery.limiter.connected(endpoint);
                let leave_at = self.dialer.rotation.return_at();
                let session = Session::new(connection, endpoint, leave_at, &self.delivery, now);
                self.state = State::Connected(Box::new(session));
                let counters = &self.delivery.counters;
                counters.connects.add(1);
                counters.connected.store(true, Ordering::Relaxed);
                counters.set_confirmation(self.delivery.modes.of(endpoint).in_force());
                self.delivery.queue.set_link(Link::Up);
                Next::Again
            }
            Progress::Failed(failure) => {
                self.delivery.counters.connect_failures.add(1);
                self.dialer.rotation.unreachable();
                self.lose(&failure, now);
                Next::Again
            }
        }
    }

    fn serve(&mut self, now: Instant) -> Next {
        let State::Connected(session) = &mut self.state else { return Next::Again };
        let endpoint = session.endpoint;
        let name = &self.dialer.endpoints[endpoint];
        let result = session.turn(&mut self.delivery, &mut self.buffer, name, now);
        let mode = self.delivery.modes.of(endpoint).in_force();
        self.delivery.counters.set_confirmation(mode);
        if session.is_proved(&self.delivery, now) {
            self.backoff.reset();
            self.dialer.rotation.confirmed();
            if !self.is_announced {
                self.is_announced = true;
                if self.delivery.notices.is_due("connected", now) {
                    tracing::info!("{name} takes points; they are confirmed by {mode:?}");
                }
            }
        }
        match result {
            Ok(next) => next,
            Err(End::Quiet) => {
                self.disconnect(State::Idle(None));
                Next::Again
            }
            Err(End::Failed(failure)) => {
                self.delivery.failed();
                if failure.cost() == Cost::GivenUp {
                    // The kernel still delivers what it holds should the server go on, and that had better be whole lines.
                    drop(self.let_go());
                }
                if self.dialer.rotation.failed(endpoint) {
                    // The preferred endpoint is no better yet; the one before it takes over.
                    self.disconnect(State::Idle(None));
                } else {
                    self.lose(&failure, now);
                }
                Next::Again
            }
        }
    }

    /// There is no connection, and none will be tried for a while.
    fn lose(&mut self, failure: &Failure, now: Instant) {
        let wait = self.back_off(failure.cost(), now);
        if self.delivery.notices.is_due(failure.phase(), now) {
            tracing::warn!("no points arrive: {}; next attempt in {wait:.1?}", failure.in_full());
        }
    }

    fn back_off(&mut self, cost: Cost, now: Instant) -> Duration {
        let wait = self.backoff.next(cost);
        self.disconnect(State::Idle(Some(now + wait)));
        self.delivery.queue.set_link(Link::Down);
        self.is_announced = false;
        wait
    }

    /// Waits as after a first failure: the shutdown has seconds, and the server may have come back long before the next attempt.
    fn hasten(&mut self, now: Instant) {
        self.backoff.reset();
        if let State::Idle(Some(not_before)) = &mut self.state {
            *not_before = (*not_before).min(now + self.backoff.next(Cost::Gone));
        }
    }

    fn disconnect(&mut self, state: State) {
        self.state = state;
        self.delivery.window.rewind();
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
    }

    fn abandon(&mut self) {
        let connection = self.let_go();
        self.delivery.abandon();
        // Nobody waits for what follows.
        self.delivery.queue.finish();
        if let Some(connection) = connection {
            self.linger(connection);
        }
    }

    fn let_go(&mut self) -> Option<Connection> {
        match std::mem::replace(&mut self.state, State::Idle(None)) {
            State::Connected(session) => {
                Some(session.abandon(&mut self.delivery, &mut self.buffer))
            }
            _ => None,
        }
    }

    /// Reads on until the server closes too, for a moment: a reply that comes after our end would be answered with a reset, and the
    /// kernel would throw away what it has not sent yet, in the middle of a line.
    fn linger(&mut self, mut connection: Connection) {
        let until = self.clock.now() + LINGER;
        while let Ok(drained @ (Drained::Empty | Drained::More)) =
            connection.drain(&mut self.buffer, |_| {})
        {
            let left = until.saturating_duration_since(self.clock.now());
            let wait = if drained == Drained::More { Duration::ZERO } else { left };
            if left.is_zero() || self.poll.poll(&mut self.events, Some(wait)).is_err() {
                return;
            }
        }
    }
}
