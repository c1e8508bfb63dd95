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
//! 3. *Connected*: a [`Peer`] sends lines and has them confirmed. It ends in 1, with a wait when it
//!    failed. The next one follows at once when we ended it and there is more to send; it sends
//!    again what was not confirmed.
//!
//! A connection that the server has not closed is [`Released`]: the last one is kept beside the
//! state for a while, at the writer's end too, so that what the server has of it does not end
//! within a line.
//!
//! The writer ends when the queue is closed and everything is confirmed, or when the queue is
//! abandoned. It abandons the queue itself when no handle is left to do it and the time for that
//! has come, and when it cannot wait for events any more. A panic, which only a user's log
//! subscriber should be able to cause, costs the connection and is counted.

use std::any::Any;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::backoff::Backoff;
use super::connection::Released;
use super::delivery::{Delivery, Keep};
use super::dial::{Attempt, Dialer, Progress};
use super::endpoint::Endpoint;
use super::limiter::{Limiter, RateLimit};
use super::peer::Peer;
use super::protocols::Protocols;
use super::rotation::{EndpointOrder, Rotation};
use super::status::{End, Failure, Status};
use super::window::Window;
use crate::clock::{Clock, Instant};
use crate::queue::{Link, Phase, Queue};
use crate::stats::Counters;

/// The name of the thread.
pub(crate) const THREAD: &str = "opentsdb-writer";
/// Upper bound of the random connect delay: a tenth of the interval, at most 1 s.
const SCATTER: (u32, Duration) = (10, Duration::from_secs(1));
/// How many connections that were given up are kept until they are done with.
const MAX_RELEASED: usize = 8;
/// How long the writer's end may take that somebody waits for: so long the kernel has to take the
/// rest of a line. `shutdown` has to return within 100 ms of its deadline.
const LAST_LINE: Duration = Duration::from_millis(40);
/// How long a connection that was given up is read on from once the writer has ended.
const LINGER: Duration = Duration::from_secs(2);

/// What the writer needs to know.
pub(crate) struct Options {
    /// As they were added; at least one.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) order: EndpointOrder,
    /// Upper bound of the time for which an endpoint is used.
    pub(crate) max_age: Option<Duration>,
    pub(crate) rate: RateLimit,
    /// Between two snapshots.
    pub(crate) interval: Duration,
    /// For one attempt to connect to an endpoint, shared by its addresses.
    pub(crate) connect_timeout: Duration,
    /// How long a connection may make no progress.
    pub(crate) write_timeout: Duration,
    /// The first and the last ceiling of the wait after a failure.
    pub(crate) backoff: RangeInclusive<Duration>,
    pub(crate) protocols: Protocols,
    /// Moves points to and from the spool, if there is one.
    pub(crate) keeper: Option<Box<dyn Keep>>,
    /// Dropped when nothing more is sent, before anybody is told so.
    pub(crate) held: Option<Box<dyn Any + Send>>,
}

pub(crate) struct Writer {
    delivery: Delivery,
    /// Each endpoint, by its index.
    peers: Vec<Box<dyn Peer>>,
    pub(super) dialer: Dialer,
    backoff: Backoff,
    clock: Clock,
    state: State,
    /// The connections that were given up and are not done with.
    released: Vec<Released>,
    /// Upper bound of the random connect delay, which does not apply while somebody waits.
    scatter: Duration,
    /// Whether the shutdown was seen to begin.
    is_ending: bool,
    /// See [`Options::held`].
    held: Option<Box<dyn Any + Send>>,
}

enum State {
    /// No attempt before the time, if there is one.
    Idle(Option<Instant>),
    /// There is something to send, and the connect waits until then.
    Scattered(Instant),
    Dialing(Attempt),
    /// To the endpoint of this index.
    Connected(usize),
}

impl Writer {
    pub(crate) fn new(
        options: Options,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> io::Result<Self> {
        let count = options.endpoints.len();
        let rotation = Rotation::new(count, options.order, options.max_age);
        let peers = options.endpoints.iter().map(|it| options.protocols.peer(it)).collect();
        let (min, max) = options.backoff.into_inner();
        Ok(Writer {
            dialer: Dialer::new(options.endpoints, rotation, options.connect_timeout)?,
            delivery: Delivery {
                queue,
                status: Status::new(Arc::clone(&counters)),
                counters,
                window: Window::new(),
                leave_at: None,
                limiter: Limiter::new(options.rate, options.interval, clock.now()),
                write_timeout: options.write_timeout,
                keeper: options.keeper,
            },
            peers,
            backoff: Backoff::new(min, max),
            clock,
            state: State::Idle(None),
            released: Vec::new(),
            scatter: (options.interval / SCATTER.0).min(SCATTER.1),
            is_ending: false,
            held: options.held,
        })
    }

    /// Starts the thread. It ends, and says so to the queue, when that is closed and everything is
    /// confirmed, or when it is abandoned.
    pub(crate) fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(THREAD.into()).spawn(move || self.run())
    }

    /// Works until the queue is done with.
    pub(super) fn run(&mut self) {
        let waker = Arc::clone(&self.dialer.waker);
        // It cannot fail but for want of memory, and the next caller tries again.
        self.delivery.queue.set_waker(move || waker.wake().is_ok());
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.delivery.counters.restarts.add(1);
            // Nothing is logged here: the log may be what panicked, and the panic hook has reported
            // it.
            let now = self.clock.now();
            self.release(now);
            self.back_off(now);
        }
        self.end();
    }

    fn work(&mut self) {
        loop {
            let now = self.clock.now();
            let Delivery { queue, status, .. } = &mut self.delivery;
            status.log_drops(now);
            let is_late = queue.ends_at().is_some_and(|at| now >= at);
            if is_late && queue.phase() < Phase::Abandoned {
                self.delivery.abandon();
                tracing::warn!("the last points are given up: no handle is left to wait for them");
            }
            // The phase first, so that nothing is left behind that was pushed before it changed.
            let phase = self.delivery.queue.phase();
            let is_done = matches!(self.state, State::Idle(_) | State::Scattered(_))
                && self.delivery.is_empty();
            // A shutdown does not wait for points that are only on disk.
            let is_idle = is_done && !self.delivery.has_backlog_on_disk();
            match phase {
                Phase::Abandoned | Phase::Finished => return,
                Phase::Closing if is_done => return,
                Phase::Closing if !self.is_ending => self.shorten_backoff(now),
                Phase::Closing | Phase::Open => {}
            }
            let next = if is_idle { None } else { self.turn(now) };
            let kept = self.delivery.keep();
            let times = [next, kept, self.turn_released(now), self.delivery.queue.ends_at()];
            if let Err(error) = self.wait(times.into_iter().flatten().min()) {
                return self.on_poll_failure(&error);
            }
        }
    }

    /// Waits for an event, or until the time.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        let waited = self.dialer.wait(until, self.clock.now());
        self.delivery.queue.waker().unpark();
        waited
    }

    /// Goes on as far as it can without waiting; returns when to go on should nothing happen until
    /// then.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Idle(Some(not_before)) if now < not_before => return Some(not_before),
            State::Idle(None) => {
                self.state = State::Scattered(now + self.scatter.mul_f64(fastrand::f64()));
            }
            State::Scattered(until) if now < until && !self.delivery.demand().is_expedited => {
                return Some(until);
            }
            State::Idle(Some(_)) | State::Scattered(_) => {
                self.state = State::Dialing(Attempt::new(&mut self.dialer, now));
            }
            State::Dialing(_) => return self.dial(now),
            State::Connected(endpoint) => return self.serve(endpoint, now),
        }
        Some(now)
    }

    fn dial(&mut self, now: Instant) -> Option<Instant> {
        let State::Dialing(attempt) = &mut self.state else { return Some(now) };
        match attempt.turn(&mut self.dialer, now) {
            Progress::Wait(until) => Some(until),
            Progress::Connected(endpoint, connection) => {
                if let Some((skipped, unreached)) = attempt.skipped.take() {
                    let [skipped, next] = [skipped, endpoint].map(|at| &self.dialer.endpoints[at]);
                    self.delivery.status.skipped(skipped, &unreached.into(), next, now);
                }
                self.delivery.window.rewind();
                self.delivery.leave_at = self.dialer.rotation.leave_at();
                self.peers[endpoint].connected(connection, now);
                self.state = State::Connected(endpoint);
                let counters = &self.delivery.counters;
                counters.connects.add(1);
                counters.connected.store(true, Ordering::Relaxed);
                self.delivery.queue.set_link(Link::Up);
                Some(now)
            }
            Progress::Failed(endpoint, unreached) => {
                self.delivery.counters.connect_failures.add(1);
                self.peers.iter_mut().for_each(|peer| peer.failed());
                self.on_failure(endpoint, &unreached.into(), now);
                Some(now)
            }
        }
    }

    fn serve(&mut self, endpoint: usize, now: Instant) -> Option<Instant> {
        let name = &self.dialer.endpoints[endpoint];
        let peer = &mut self.peers[endpoint];
        let result = peer.turn(&mut self.delivery, name, now);
        let confirmation = peer.confirmation();
        self.delivery.counters.set_confirmation(confirmation);
        let is_proved = peer.is_proved(now);
        if is_proved {
            self.backoff.reset();
            self.delivery.status.delivered(name, confirmation, now);
        }
        match result {
            Ok(next) => return next,
            // Who takes points gets the next ones at once.
            Err(End::Finished) => self.leave(is_proved && !self.delivery.is_empty(), now),
            Err(End::Closed(how)) => {
                self.delivery.counters.disconnects.add(1);
                // A server that closes what is idle does so behind each burst.
                if !matches!(how, Failure::Closed) {
                    self.delivery.counters.connected.store(false, Ordering::Relaxed);
                }
                // A request that nobody has answered is sent once more at once; else a server that
                // closes all its connections would have all its clients back at one moment.
                self.leave(self.delivery.window.has_unconfirmed_writes(), now);
            }
            Err(End::Failed(failure)) => {
                self.delivery.counters.disconnects.add(1);
                self.peers[endpoint].failed();
                self.release(now);
                let not_before = now + self.backoff.least(failure.wait());
                self.dialer.rotation.address_failed(endpoint);
                self.dialer.rotation.failed(endpoint, not_before);
                self.on_failure(endpoint, &failure, now);
            }
        }
        Some(now)
    }

    /// The connection ended in good order. The next one follows at once, or after a random wait.
    fn leave(&mut self, at_once: bool, now: Instant) {
        self.release(now);
        if at_once {
            self.state = State::Idle(Some(now));
        }
    }

    /// There is no connection, and none will be tried for a while.
    fn on_failure(&mut self, endpoint: usize, failure: &Failure, now: Instant) {
        let wait = self.back_off(now);
        self.delivery.status.failed(&self.dialer.endpoints[endpoint], failure, wait, now);
    }

    fn back_off(&mut self, now: Instant) -> Duration {
        let earliest = self.dialer.rotation.earliest().unwrap_or(now);
        let not_before = earliest.max(now + self.backoff.next());
        self.state = State::Idle(Some(not_before));
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
        self.delivery.queue.set_link(Link::Down);
        not_before - now
    }

    /// Waits as after a first failure: the shutdown has seconds, and the server may have come back
    /// long before the next attempt.
    fn shorten_backoff(&mut self, now: Instant) {
        self.is_ending = true;
        self.backoff.reset();
        if let State::Idle(Some(not_before)) = &mut self.state {
            *not_before = (*not_before).min(now + self.backoff.next());
        }
    }

    /// Gives the connection up, if there is one.
    fn release(&mut self, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Idle(None));
        let State::Connected(endpoint) = state else { return };
        let released = self.peers[endpoint].release(&self.delivery.window, now);
        let Some(mut released) = released else { return };
        // One that is done with at once does not take another's place.
        if released.turn(now).is_some() {
            if self.released.len() == MAX_RELEASED {
                // The oldest that is not within a line, since its time ends first.
                let whole = self.released.iter().position(Released::is_whole);
                self.released.remove(whole.unwrap_or(0));
            }
            self.released.push(released);
        }
    }

    /// Goes on with the connections that were given up; returns when to do so again.
    fn turn_released(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.released.retain_mut(|released| {
            let at = released.turn(now);
            next = next.into_iter().chain(at).min();
            at.is_some()
        });
        next
    }

    /// Without events nothing can be sent any more.
    pub(super) fn on_poll_failure(&mut self, error: &io::Error) {
        self.delivery.abandon();
        tracing::error!(%error, "no more points are delivered: cannot wait for network events");
    }

    /// Ends with what is not confirmed, but not within a line.
    pub(super) fn end(&mut self) {
        let began = self.clock.now();
        self.release(began);
        loop {
            let now = self.clock.now();
            let next = self.turn_released(now);
            let is_whole = self.released.iter().all(Released::is_whole);
            let until = if is_whole || now >= began + LAST_LINE {
                // Nobody waits for what follows.
                self.finish();
                began + LINGER
            } else {
                began + LAST_LINE
            };
            let Some(next) = next.filter(|_| now < until) else { return };
            if self.wait(Some(next.min(until))).is_err() {
                return;
            }
        }
    }

    /// Nothing more is sent.
    fn finish(&mut self) {
        self.delivery.counters.connected.store(false, Ordering::Relaxed);
        self.held = None;
        self.delivery.finish();
    }
}

/// However the writer ends, nobody waits for it after that.
impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}
