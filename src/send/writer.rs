//! The writer: from the queue to a server, for as long as there is something to send.
//!
//! **Problem.** A server may be absent, slow, mute, hostile, or go away in the middle of a line,
//! and none of that may reach the application or lose a point unseen.
//!
//! **Idea.** One thread that blocks in one place alone, its wait for events, and looks at
//! everything anew after each of them.
//!
//! **Mechanism.** Its states:
//!
//! 1. *Idle*: no connection, because there is nothing to send or because the last failure is too
//!    fresh. After a quiet time there is a short random wait, *scattered*: all clients of a server
//!    tick at one moment, and must not connect at one moment.
//! 2. *Dialing*: an [`Attempt`] goes through the endpoints. It ends in 3, or, failed, in 1 with a
//!    wait.
//! 3. *Connected*: a [`Session`] sends lines and has them confirmed. It ends in 1: without a wait
//!    when it ended in good order, with one when it failed. Whatever is not confirmed then is sent
//!    again by the next one.
//!
//! A connection that fails is [`Released`]: it is kept beside the state for a while, so that what
//! the server has of it does not end within a line.
//!
//! The writer ends when the queue is closed and everything is confirmed, or when the queue is
//! abandoned. It abandons the queue itself when no handle is left to do it and the time for that
//! has come, and when it cannot wait for events any more. A panic, which only a user's log
//! subscriber should be able to cause, costs the connection and is counted.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Poll};

use super::backoff::{Backoff, Wait};
use super::connection::Released;
use super::delivery::Delivery;
use super::dial::{Attempt, Dialer, Progress};
use super::failure::Failure;
use super::status::Status;
use super::telnet::{Context, Profile, Session};
use super::turn::{End, Next, earliest};
use crate::clock::{Clock, Instant};
use crate::queue::{Link, Phase, Queue};

/// How long the end of an abandoned writer may take that somebody waits for: so long the kernel has
/// to take the rest of a line. `shutdown` has to return within 100 ms of its deadline.
const LAST_LINE: Duration = Duration::from_millis(40);
/// How long connections that were given up are read on from once the writer has ended.
const LINGER: Duration = Duration::from_secs(2);
/// Connections that were given up and are read on from, at most.
const MAX_RELEASED: usize = 4;
/// What is read at once.
pub(super) const READ_BUFFER: usize = 16 * 1024;

pub(super) struct Writer {
    pub(super) delivery: Delivery,
    /// What is known of each endpoint, by its index.
    pub(super) profiles: Vec<Profile>,
    pub(super) dialer: Dialer,
    pub(super) backoff: Backoff,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
    pub(super) events: Events,
    /// For reading.
    pub(super) buffer: Box<[u8]>,
    pub(super) state: State,
    /// Connections that were given up, oldest first; at most `MAX_RELEASED`.
    pub(super) released: VecDeque<Released>,
    /// Upper bound of the random connect delay, which does not apply while somebody waits.
    pub(super) scatter: Duration,
    pub(super) status: Status,
    /// When to give up.
    pub(super) ends_at: Option<Instant>,
    /// Whether the shutdown was seen to begin.
    pub(super) is_ending: bool,
    /// Until nothing more is sent.
    pub(super) finish: Option<Finish>,
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
            let now = self.clock.now();
            self.release(now);
            self.back_off(Wait::Jittered, now);
        }
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
        self.finish = None;
    }

    fn work(&mut self) {
        while let Some(next) = self.turn(self.clock.now()) {
            let until = match next.or(self.turn_released(self.clock.now())) {
                Next::Wait(until) => until,
                Next::Again => Some(self.clock.now()),
            };
            let timeout = earliest(until, self.ends_at)
                .map(|until| until.saturating_duration_since(self.clock.now()));
            let waited = self.poll.poll(&mut self.events, timeout);
            self.delivery.queue.waker().unpark();
            if let Err(error) = waited {
                if error.kind() != io::ErrorKind::Interrupted {
                    return self.on_poll_failure(&error);
                }
            }
        }
    }

    /// Goes on as far as it can without waiting; `None` when it is over.
    fn turn(&mut self, now: Instant) -> Option<Next> {
        let Delivery { counters, log, .. } = &mut self.delivery;
        self.status.log_drops(counters, log, now);
        self.ends_at = self.delivery.queue.ends_at();
        let is_late = self.ends_at.is_some_and(|at| now >= at);
        if is_late && self.delivery.queue.phase() < Phase::Abandoned {
            self.delivery.queue.abandon();
            tracing::warn!("the last points are dropped: no handle is left to wait for them");
        }
        let phase = self.delivery.queue.phase();
        if phase >= Phase::Abandoned {
            self.abandon();
            return None;
        }
        if phase == Phase::Closing && !std::mem::replace(&mut self.is_ending, true) {
            self.shorten_backoff(now);
        }
        match &mut self.state {
            State::Idle(_) | State::Scattered(_) if !self.delivery.has_work() => {
                // The phase was asked first, so nothing that came in between is left behind.
                (phase == Phase::Open).then_some(Next::Wait(None))
            }
            State::Idle(Some(not_before)) if now < *not_before => {
                Some(Next::Wait(Some(*not_before)))
            }
            State::Idle(None) => {
                self.state = State::Scattered(now + self.scatter.mul_f64(fastrand::f64()));
                Some(Next::Again)
            }
            State::Scattered(until)
                if now < *until && !self.delivery.work().demand.is_expedited =>
            {
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
                self.profiles[endpoint].connected(now);
                self.delivery.limiter.connected(endpoint);
                let leave_at = self.dialer.rotation.leave_at();
                let session = Session::new(connection, endpoint, leave_at, &self.delivery, now);
                self.state = State::Connected(Box::new(session));
                let counters = &self.delivery.counters;
                counters.connects.add(1);
                counters.connected.store(true, Ordering::Relaxed);
                counters.set_confirmation(self.profiles[endpoint].mode());
                self.delivery.queue.set_link(Link::Up);
                Next::Again
            }
            Progress::Failed(endpoint, failure) => {
                self.delivery.counters.connect_failures.add(1);
                self.dialer.rotation.restart();
                self.profiles.iter_mut().for_each(Profile::failed);
                self.on_failure(endpoint, &failure, now);
                Next::Again
            }
        }
    }

    fn serve(&mut self, now: Instant) -> Next {
        let State::Connected(session) = &mut self.state else { return Next::Again };
        let endpoint = session.endpoint;
        let name = &self.dialer.endpoints[endpoint];
        let profile = &mut self.profiles[endpoint];
        let result = session.turn(&mut Context {
            delivery: &mut self.delivery,
            profile,
            name,
            buffer: &mut self.buffer,
            now,
        });
        let confirmation = profile.mode();
        self.delivery.counters.set_confirmation(confirmation);
        if session.is_proved(profile, now) {
            self.backoff.reset();
            self.status.delivered(name, confirmation, &self.delivery.counters, now);
        }
        match result {
            Ok(next) => return next,
            Err(End::Finished) => self.disconnect(State::Idle(None)),
            Err(End::Closed) => {
                self.delivery.counters.disconnects.add(1);
                self.delivery.counters.connected.store(false, Ordering::Relaxed);
                self.disconnect(State::Idle(None));
            }
            Err(End::Failed(failure)) => {
                self.delivery.counters.disconnects.add(1);
                self.profiles[endpoint].failed();
                self.release(now);
                self.dialer.rotation.failed(endpoint);
                self.on_failure(endpoint, &failure, now);
            }
        }
        Next::Again
    }

    /// There is no connection, and none will be tried for a while.
    fn on_failure(&mut self, endpoint: usize, failure: &Failure, now: Instant) {
        let wait = self.back_off(failure.wait(), now);
        let Delivery { counters, log, .. } = &mut self.delivery;
        let endpoint = &self.dialer.endpoints[endpoint];
        self.status.failed(endpoint, failure, wait, counters, log, now);
    }

    fn back_off(&mut self, kind: Wait, now: Instant) -> Duration {
        let wait = self.backoff.next(kind);
        self.disconnect(State::Idle(Some(now + wait)));
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
        self.delivery.queue.set_link(Link::Down);
        wait
    }

    /// Waits as after a first failure: the shutdown has seconds, and the server may have come back
    /// long before the next attempt.
    fn shorten_backoff(&mut self, now: Instant) {
        self.backoff.reset();
        if let State::Idle(Some(not_before)) = &mut self.state {
            *not_before = (*not_before).min(now + self.backoff.next(Wait::Jittered));
        }
    }

    fn disconnect(&mut self, state: State) {
        self.state = state;
        self.delivery.window.rewind();
    }

    /// Gives the connection up, if there is one.
    fn release(&mut self, now: Instant) {
        let State::Connected(session) = std::mem::replace(&mut self.state, State::Idle(None))
        else {
            return;
        };
        if self.released.len() == MAX_RELEASED {
            self.released.pop_front();
        }
        self.released.push_back(session.release(&self.delivery, now));
        self.turn_released(now);
    }

    /// Goes on with the connections that were given up.
    fn turn_released(&mut self, now: Instant) -> Next {
        let mut next = Next::Wait(None);
        self.released.retain_mut(|released| {
            let turn = released.turn(&mut self.buffer, now);
            next = turn.map_or(next, |turn| next.or(turn));
            turn.is_some()
        });
        next
    }

    /// Without events nothing can be sent any more.
    pub(super) fn on_poll_failure(&mut self, error: &io::Error) {
        self.delivery.queue.abandon();
        tracing::error!(%error, "no more points are delivered: cannot wait for network events");
        self.abandon();
    }

    /// Ends with what is not confirmed, but not within a line.
    fn abandon(&mut self) {
        self.release(self.clock.now());
        self.linger(LAST_LINE, |released| !released.is_whole());
        // Nobody waits for what follows.
        self.finish = None;
        self.linger(LINGER, |_| true);
    }

    /// Goes on with the connections that were given up, for as long as there are such, at most for
    /// a time.
    fn linger(&mut self, time: Duration, such: impl Fn(&Released) -> bool) {
        let until = self.clock.now() + time;
        loop {
            let now = self.clock.now();
            let next = self.turn_released(now);
            let left = until.saturating_duration_since(now);
            if left.is_zero() || !self.released.iter().any(&such) {
                return;
            }
            let wait = if next == Next::Again { Duration::ZERO } else { left };
            if self.poll.poll(&mut self.events, Some(wait)).is_err() {
                return;
            }
        }
    }
}

/// Dropped when nothing more is sent, however that came about; tells the queue.
pub(super) struct Finish {
    pub(super) held: Option<Box<dyn Any + Send>>,
    pub(super) queue: Arc<Queue>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.held = None;
        self.queue.finish();
    }
}
