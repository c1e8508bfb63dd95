//! The writer thread: from the queue to a server, confirmed, or sent again.
//!
//! 1. [`endpoint`]: where a server is, as it was written;
//! 2. [`check`](mod@check): whether any is there, asked once at the start;
//! 3. [`writer`]: the loop, and its three states;
//! 4. [`dial`]: an attempt to reach one, with [`resolve`] and [`rotation`] behind it;
//! 5. [`backoff`]: how long to stay away when it failed;
//! 6. [`connection`]: one socket;
//! 7. [`telnet`]: what is written to it and read from it; its sessions answer each [`turn`] alike;
//! 8. [`delivery`]: what outlives a connection: the [`window`] of unconfirmed lines, and the
//!    [`limiter`];
//! 9. [`failure`] and [`status`]: what went wrong, and what the log says of it.

mod backoff;
mod check;
mod connection;
mod delivery;
mod dial;
pub(crate) mod endpoint;
mod failure;
pub(crate) mod limiter;
mod resolve;
pub(crate) mod rotation;
mod status;
mod telnet;
#[cfg(test)]
mod tests;
mod turn;
mod window;
mod writer;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use self::backoff::Backoff;
pub(crate) use self::check::check;
use self::delivery::Delivery;
use self::dial::Dialer;
use self::endpoint::Endpoint;
use self::limiter::{Limiter, RateLimit};
use self::rotation::{EndpointOrder, Rotation};
use self::status::Status;
use self::telnet::Profile;
use self::window::Window;
use self::writer::{Finish, READ_BUFFER, State, Writer};
use crate::clock::Clock;
use crate::log_limiter::LogLimiter;
use crate::queue::Queue;
use crate::stats::{Confirmation, Counters};

/// The name of the thread.
pub(crate) const THREAD: &str = "opentsdb-writer";
/// Upper bound of the random connect delay: a tenth of the interval, at most 1 s.
const SCATTER: (u32, Duration) = (10, Duration::from_secs(1));
/// The thread is woken by the queue or a resolver.
const WAKE: Token = Token(0);

/// What the writer needs to know.
#[derive(Debug)]
pub(crate) struct Options {
    /// As they were added; at least one.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) order: EndpointOrder,
    /// Upper bound of the time for which an endpoint is used.
    pub(crate) max_age: Option<Duration>,
    pub(crate) rate: RateLimit,
    /// Between two snapshots.
    pub(crate) interval: Duration,
    /// For one attempt to connect, shared by all addresses.
    pub(crate) connect_timeout: Duration,
    /// How long a connection may make no progress.
    pub(crate) write_timeout: Duration,
    /// The first and the last ceiling of the wait after a failure.
    pub(crate) backoff: RangeInclusive<Duration>,
    pub(crate) confirmation: Confirmation,
    /// Dropped when nothing more is sent, before anybody is told so.
    pub(crate) held: Option<Box<dyn Any + Send>>,
}

/// Why the writer could not be started. Nothing is left behind.
#[derive(Debug)]
pub(crate) enum SpawnError {
    EventQueue(io::Error),
    Thread(io::Error),
}

/// Starts the writer. It ends, and says so to the queue, when that is closed and everything is
/// confirmed, or when it is abandoned.
pub(crate) fn spawn(
    options: Options,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    clock: Clock,
) -> Result<JoinHandle<()>, SpawnError> {
    let (mut writer, waker) =
        prepare(options, Arc::clone(&queue), counters, clock).map_err(SpawnError::EventQueue)?;
    let run = move || {
        // The waker cannot fail but for want of memory, and the next who rings tries again.
        queue.set_waker(move || waker.wake().is_ok());
        writer.run();
    };
    thread::Builder::new().name(THREAD.into()).spawn(run).map_err(SpawnError::Thread)
}

fn prepare(
    options: Options,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    clock: Clock,
) -> io::Result<(Writer, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let endpoints = options.endpoints.len();
    let dialer = Dialer::new(
        options.endpoints,
        Rotation::new(endpoints, options.order, options.max_age),
        options.connect_timeout,
        poll.registry(),
        Arc::clone(&waker),
    )?;
    let finish = Finish { held: options.held, queue: Arc::clone(&queue) };
    let delivery = Delivery {
        queue,
        counters,
        window: Window::new(),
        limiter: Limiter::new(options.rate, options.interval, endpoints, clock.now()),
        log: LogLimiter::default(),
        write_timeout: options.write_timeout,
    };
    let (min, max) = options.backoff.into_inner();
    let writer = Writer {
        delivery,
        profiles: vec![Profile::new(options.confirmation); endpoints],
        dialer,
        backoff: Backoff::new(min, max),
        status: Status::new(clock.now()),
        clock,
        poll,
        events: Events::with_capacity(16),
        buffer: vec![0; READ_BUFFER].into_boxed_slice(),
        state: State::Idle(None),
        released: VecDeque::new(),
        scatter: (options.interval / SCATTER.0).min(SCATTER.1),
        ends_at: None,
        is_ending: false,
        finish: Some(finish),
    };
    Ok((writer, waker))
}
