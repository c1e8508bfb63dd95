//! The application's hold on a running exporter: flush, shutdown, wait, send, render, stats.
//!
//! A call waits for the flusher's answer and then for the queue to settle, each with the caller's deadline; it never joins a thread
//! and never waits for the network itself, so no state of the server can hold it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock::{Clock, Instant};
use crate::error::{FlushError, SendError};
use crate::flush::flusher::Request;
use crate::flush::raw::RawPoints;
use crate::flush::render::Renderer;
use crate::queue::Queue;
use crate::record::descriptions::Description;
use crate::stats::{Counters, Stats};
use crate::wire::point::Point;

/// How long past its deadline a shutdown waits for the writer to be between two lines.
const LAST_LINE: Duration = Duration::from_millis(60);

/// What became of the points of a [`flush`](OpenTsdbHandle::flush) or [`shutdown`](OpenTsdbHandle::shutdown): those that were
/// pending when it was called and those that were made until it returned.
///
/// `points = confirmed + pending + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushReport {
    /// All of them.
    pub points: u64,
    /// Those that the server has parsed.
    pub confirmed: u64,
    /// Those of which that is not known: still in the queue, or written but not confirmed.
    pub pending: u64,
    /// Those that were given up, see [`Drops`](crate::Drops).
    pub dropped: u64,
}

/// The hold on a running exporter. Cheap to clone, may be shared by threads.
///
/// Dropping it does nothing while the recorder or another handle lives, and an installed recorder lives as long as the process. When
/// the last of them is gone, the exporter takes a last snapshot, within a second or so, and ends when everything is confirmed, or
/// after 30 s; what was not sent then is lost. [`shutdown`](Self::shutdown) tells what became of it, and lets the process wait.
#[derive(Clone)]
pub struct OpenTsdbHandle {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) requests: Sender<Request>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) raw: RawPoints,
    pub(crate) renderer: Renderer,
    pub(crate) clock: Clock,
    /// The process whose threads these are; a fork of it has none.
    pub(crate) process: u32,
    pub(crate) is_shut_down: AtomicBool,
}

impl std::fmt::Debug for OpenTsdbHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenTsdbHandle").field("stats", &self.stats()).finish()
    }
}

impl OpenTsdbHandle {
    pub(crate) fn new(shared: Shared) -> Self {
        OpenTsdbHandle { shared: Arc::new(shared) }
    }

    /// Takes a snapshot now and waits until it, and every point before it, is confirmed or dropped; at most for `timeout`.
    ///
    /// The points are sent at once instead of spread over the interval, but never faster than
    /// [`RateLimit::PerSecond`](crate::RateLimit::PerSecond) allows. In a second that has a snapshot already, only series that
    /// changed are sent, under the next second: who flushes more often than once a second for long sends points from the future.
    ///
    /// # Errors
    /// After [`shutdown`](Self::shutdown), and in a forked process. Running out of time is no error: what could not be confirmed
    /// is in [`FlushReport::pending`] and goes on being sent.
    pub fn flush(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.check()?;
        let deadline = deadline(timeout);
        let before = self.stats();
        let _expedite = self.shared.queue.expedite();
        if let Some(watermark) = self.ask(Request::Flush, deadline) {
            self.shared.queue.wait_settled(watermark, deadline);
        }
        Ok(self.report(&before))
    }

    /// Takes the last snapshot, sends everything, waits for the confirmation and closes the connection; at most for `timeout`.
    ///
    /// At the deadline what was not sent is given up (`points_dropped.shutdown`) and the exporter ends. Metrics recorded after this
    /// call are not sent. Returns within 100 ms of the deadline whatever the server or the resolver does.
    ///
    /// # Errors
    /// If it was called before, and in a forked process.
    pub fn shutdown(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.end(deadline(timeout))
    }

    /// potsdb's `wait()`: [`shutdown`](Self::shutdown) without a deadline. Returns when every point is confirmed or dropped, so
    /// perhaps never while the server is away; does nothing after a shutdown and in a forked process.
    pub fn wait(&self) {
        let _ = self.end(None);
    }

    /// A guard that calls [`shutdown`](Self::shutdown) with this timeout when it is dropped, for the end of `main`.
    pub fn guard(&self, timeout: Duration) -> FlushGuard {
        FlushGuard { handle: self.clone(), timeout }
    }

    /// Queues one raw point past the aggregation: potsdb's `send(name, value, **tags, timestamp=…)`.
    ///
    /// It gets the global prefix, the global labels and the host tag like any series, unless it has tags of these keys itself. It
    /// never waits: when the queue is full the oldest point is dropped. A second point for the same series and time is dropped and
    /// counted (`points_dropped.duplicate`).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use metrics_exporter_opentsdb::{OpenTsdbBuilder, Point};
    ///
    /// let handle = OpenTsdbBuilder::new("tsd").install()?;
    /// handle.send(Point::new("backup.bytes", 1_048_576).tag("volume", "home"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a word has characters that cannot be sent, if the timestamp is not in the exporter's precision, if a recorded metric is
    /// the same series, and after [`shutdown`](Self::shutdown). See [`SendError`].
    #[doc(alias = "log")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a point is made to be sent: `send(Point::new(…))`"
    )]
    pub fn send(&self, point: Point) -> Result<(), SendError> {
        self.check().map_err(|_| SendError::AlreadyShutdown)?;
        self.shared.raw.send(&point)
    }

    /// The `put` lines of a snapshot taken now, in order of their names. Changes nothing and waits for nobody, whatever the server
    /// does; with [`CounterMode::Delta`](crate::CounterMode::Delta) a counter's line says its count since the start.
    pub fn render(&self) -> String {
        self.shared.renderer.render(&self.stats())
    }

    /// What the application said of its metrics by `describe_counter!` and the like: the protocol cannot carry it.
    pub fn describe(&self) -> Vec<Description> {
        self.shared.raw.registry.descriptions().all()
    }

    /// What the exporter did so far.
    pub fn stats(&self) -> Stats {
        // In a forked process nobody would ever unlock what was locked at that moment.
        match self.check_process() {
            Ok(()) => self.shared.queue.stats(self.shared.clock.now()),
            Err(_) => self.shared.counters.stats(),
        }
    }

    fn end(&self, deadline: Option<Instant>) -> Result<FlushReport, FlushError> {
        self.check_process()?;
        if self.shared.is_shut_down.swap(true, Ordering::SeqCst) {
            return Err(FlushError::AlreadyShutdown);
        }
        let queue = &self.shared.queue;
        let before = self.stats();
        let _expedite = queue.expedite();
        // Without an answer the flusher is still pushing, or has ended; either way nothing more is taken.
        let _ = self.ask(Request::Shutdown, deadline);
        queue.close();
        if !queue.wait_finished(deadline) {
            queue.abandon();
            // The process may exit when this returns: the writer finishes the line that it is in.
            queue.wait_finished(Some(Instant::now() + LAST_LINE));
        }
        Ok(self.report(&before))
    }

    /// Asks the flusher and waits for its answer; `None` at the deadline, or if the flusher has ended.
    fn ask<T>(
        &self,
        request: impl FnOnce(Sender<T>) -> Request,
        deadline: Option<Instant>,
    ) -> Option<T> {
        let (answer, answers): (Sender<T>, Receiver<T>) = bounded(1);
        match deadline {
            Some(deadline) => {
                self.shared.requests.send_timeout(request(answer), left(deadline)).ok()?;
                answers.recv_timeout(left(deadline)).ok()
            }
            None => {
                self.shared.requests.send(request(answer)).ok()?;
                answers.recv().ok()
            }
        }
    }

    fn report(&self, before: &Stats) -> FlushReport {
        let after = self.stats();
        FlushReport {
            points: before.points_pending + (after.points_taken - before.points_taken),
            confirmed: after.points_confirmed - before.points_confirmed,
            pending: after.points_pending,
            dropped: after.points_dropped.total() - before.points_dropped.total(),
        }
    }

    fn check(&self) -> Result<(), FlushError> {
        self.check_process()?;
        if self.shared.is_shut_down.load(Ordering::SeqCst) {
            Err(FlushError::AlreadyShutdown)
        } else {
            Ok(())
        }
    }

    fn check_process(&self) -> Result<(), FlushError> {
        if self.shared.process == std::process::id() { Ok(()) } else { Err(FlushError::Forked) }
    }
}

/// The time at which a wait ends; `None` for a wait so long that there is no such time.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Shuts the exporter down when it is dropped; made by [`OpenTsdbHandle::guard`].
#[must_use = "the guard shuts the exporter down when it is dropped: bind it to a name for as long as metrics are to be sent"]
#[derive(Debug)]
pub struct FlushGuard {
    handle: OpenTsdbHandle,
    timeout: Duration,
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        // Shut down by hand before: then there is nothing left to do.
        let _ = self.handle.shutdown(self.timeout);
    }
}
