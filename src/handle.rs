//! The application's hold on a running exporter: flush, shutdown, wait, send, render, stats.
//!
//! A call waits for the flusher's answer and then for the queue to settle, each within the caller's
//! deadline. It never joins a thread and never waits for the network itself, so no state of the
//! server can hold it longer. In a forked process, which has none of the threads and where nobody
//! unlocks what was locked at that moment, it answers without a lock.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::clock::Instant;
use crate::error::{FlushError, SendError};
use crate::flush::exporter::Exporter;
use crate::flush::flusher::Request;
use crate::flush::raw::{self, SentTimes};
use crate::flush::render::render;
use crate::flush::schedule::Occasion;
use crate::flush::telemetry::Telemetry;
use crate::queue::{Phase, Watermark};
use crate::record::descriptions::Description;
use crate::stats::Stats;
use crate::wire::point::Point;

/// How long a shutdown that has given up lets the writer finish the line that it is in, so that no
/// server stores half of one.
const LINE_TIME: Duration = Duration::from_millis(75);
/// How much of that a disk has that is being written.
const DISK_TIME: Duration = Duration::from_millis(40);

/// What became of the points of a [`flush`](OpenTsdbHandle::flush) or
/// [`shutdown`](OpenTsdbHandle::shutdown): those that were pending when it was called, and those
/// that were made until it returned.
///
/// `points = confirmed + pending + dropped + spooled`, and after a shutdown `pending` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushReport {
    /// All of them.
    pub points: u64,
    /// Those that the server has parsed, or that the system has taken with
    /// [`Confirmation::Written`](crate::Confirmation::Written).
    pub confirmed: u64,
    /// Those of the confirmed ones that the server has refused; see
    /// [`Rejections`](crate::Rejections). A refusal may come after the report: a server answers
    /// late while its storage is slow.
    pub rejected: u64,
    /// Those that are still in the queue, or written and not confirmed. They go on being sent.
    pub pending: u64,
    /// Those that were given up; see [`Drops`](crate::Drops).
    pub dropped: u64,
    /// Those that were moved to the spool: they are delivered later, by another process if this one
    /// ends. Always 0 without the feature `spool`.
    pub spooled: u64,
}

impl FlushReport {
    /// Whether the server has parsed every point and refused none of them, as far as it has said.
    pub fn is_delivered(&self) -> bool {
        self.confirmed == self.points && self.rejected == 0
    }

    /// For who does not look at the report of a shutdown.
    fn log_losses(self) {
        let FlushReport { points, spooled, dropped: lost, .. } = self;
        if spooled > 0 {
            tracing::warn!(
                spooled,
                points,
                "points were left in the spool at the shutdown: the next process delivers them"
            );
        }
        if lost > 0 {
            tracing::warn!(
                lost,
                points,
                "points were lost at the shutdown: the server did not confirm them in time"
            );
        }
    }
}

/// The hold on a running exporter. Cheap to clone, may be shared by threads.
///
/// Dropping it does nothing while the recorder or another handle lives, and an installed recorder
/// lives as long as the process. When the last of them is gone, the exporter takes a last snapshot,
/// within two seconds, and ends when everything is confirmed, or after 30 s; what was not sent then
/// is lost. [`shutdown`](Self::shutdown) says what became of it, and lets the process wait.
///
/// In a process that was forked from the exporter's, [`flush`](Self::flush) and
/// [`shutdown`](Self::shutdown) answer [`FlushError::Forked`], [`send`](Self::send) refuses,
/// [`render`](Self::render) and [`describe`](Self::describe) are empty, and [`stats`](Self::stats)
/// are those of the moment of the fork.
#[derive(Clone)]
pub struct OpenTsdbHandle {
    shared: Arc<Shared>,
}

/// A panic of the application leaves no state behind that it could not go on with: every lock here
/// guards a few plain fields.
impl UnwindSafe for OpenTsdbHandle {}
impl RefUnwindSafe for OpenTsdbHandle {}

pub(crate) struct Shared {
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) requests: Sender<Request>,
    pub(crate) telemetry: Telemetry,
    /// Of raw points.
    pub(crate) sent: SentTimes,
    /// The process whose threads these are; a fork of it has none.
    pub(crate) process: u32,
    /// The thread that calls what [`on_snapshot`](crate::OpenTsdbBuilder::on_snapshot) was given.
    pub(crate) flusher: ThreadId,
    pub(crate) is_shut_down: AtomicBool,
    /// Whether what is left at the end goes to disk.
    pub(crate) has_spool: bool,
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

    /// Takes a snapshot now and waits until it, and every point before it, is confirmed or dropped;
    /// at most for `timeout`.
    ///
    /// The points are sent at once instead of spread over the interval, but never faster than
    /// [`RateLimit::PerSecond`](crate::RateLimit::PerSecond) allows.
    ///
    /// A timestamp is used once, and none is more than a second ahead of the clock:
    ///
    /// | in this second there was | the flush |
    /// |---|---|
    /// | no snapshot yet | sends all series |
    /// | one | sends the series that changed since, under the next second; nothing if none did |
    /// | that flush as well | waits for the next second, together with all others that wait |
    ///
    /// A flush whose `timeout` ends while it waits for its second takes no snapshot. Nor does one
    /// while the clock shows a time before 2001 or after 2286. With a `timeout` of zero it asks for
    /// a snapshot and returns at once.
    ///
    /// # Errors
    /// After [`shutdown`](Self::shutdown), in a forked process, and in a callback of
    /// [`on_snapshot`](crate::OpenTsdbBuilder::on_snapshot). Running out of time is no
    /// error: what could not be confirmed is in [`FlushReport::pending`] and goes on being sent. A
    /// shutdown meanwhile ends the flush with it.
    pub fn flush(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.check()?;
        self.check_thread()?;
        let deadline = deadline(timeout);
        let queue = &self.shared.exporter.queue;
        let before = self.stats();
        let _expedite = queue.expedite();
        match self.ask(Occasion::Manual, deadline) {
            Some(watermark) => queue.wait_settled(watermark, deadline),
            // The exporter is being shut down: its last snapshot holds what this one would have.
            None => queue.phase() != Phase::Open && queue.wait_finished(deadline),
        };
        Ok(self.report(&before))
    }

    /// Takes the last snapshot, sends everything, waits for the confirmation and closes the
    /// connection; at most for `timeout`.
    ///
    /// At the deadline what was not confirmed is given up (`points_dropped.shutdown`) and the
    /// exporter ends. That is no error: the report says it, see
    /// [`is_delivered`](FlushReport::is_delivered), and the log. Metrics recorded after this call
    /// are not sent. Returns within 100 ms of the deadline whatever the server or the resolver
    /// does. The last snapshot is a [`flush`](Self::flush), so it may have to wait for the next
    /// second: give it more than one.
    ///
    /// # Errors
    /// [`FlushError::AlreadyShutdown`] if it was called before, by a guard or [`wait`](Self::wait)
    /// too; it is answered when that call's work is done, or after `timeout`. Also in a forked
    /// process, and in a callback of [`on_snapshot`](crate::OpenTsdbBuilder::on_snapshot).
    pub fn shutdown(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.end(deadline(timeout))
    }

    /// potsdb's `wait()`: [`shutdown`](Self::shutdown) without a deadline. Returns when every point
    /// is confirmed or dropped, so perhaps never while the server is away. After a shutdown it
    /// waits for that one; in a forked process it does nothing.
    pub fn wait(&self) {
        let _ = self.end(None);
    }

    /// A guard that calls [`shutdown`](Self::shutdown) with this timeout when it is dropped, for
    /// the end of `main`.
    pub fn guard(&self, timeout: Duration) -> FlushGuard {
        FlushGuard { handle: self.clone(), timeout }
    }

    /// Queues one raw point past the aggregation: potsdb's `send(name, value, **tags,
    /// timestamp=…)`.
    ///
    /// It gets the global prefix, the global labels and the host tag like any series, unless it has
    /// tags of these keys itself. It never waits: when the queue is full the oldest point is
    /// dropped.
    ///
    /// A second point for one series and time would make an OpenTSDB row unreadable, so it is
    /// refused with [`SendError::Duplicate`], and so is one of which it is not known:
    ///
    /// | a point of a series | is |
    /// |---|---|
    /// | that has a point of this time | refused, and counted (`points_dropped.duplicate`) |
    /// | whose last point is newer by 64 seconds or more (milliseconds, in that precision) | the same |
    /// | of a metric of which a recorded series went by its [`idle_timeout`](crate::OpenTsdbBuilder::idle_timeout), not later than that, where no point of the series was sent before | the same |
    /// | any other | queued |
    ///
    /// Where the series that went have more than 10,000 names, the third row is for points of
    /// all other names too, up to when the last of them went that is not remembered.
    ///
    /// So the points of a series are to be sent in the order of their times, more or less. That
    /// memory has 64 bytes a series, and as many series as
    /// [`with_series_limit`](crate::OpenTsdbBuilder::with_series_limit) allows; a point of a
    /// further one is refused with [`SendError::SeriesLimit`].
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
    /// See [`SendError`]. After [`shutdown`](Self::shutdown), and in a forked process, it is
    /// [`SendError::AlreadyShutdown`].
    #[doc(alias = "log")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a point is made to be sent: `send(Point::new(…))`"
    )]
    pub fn send(&self, point: Point) -> Result<(), SendError> {
        self.check().map_err(|_| SendError::AlreadyShutdown)?;
        raw::send(&self.shared.exporter, &self.shared.sent, &point)
    }

    /// The `put` lines of a snapshot taken now: of counters, gauges and histograms, each in order
    /// of their names, and the exporter's own. Changes nothing and waits for nobody, whatever the
    /// server does; with [`CounterMode::Delta`](crate::CounterMode::Delta) a counter's line says
    /// its count since the start. Empty in a forked process.
    pub fn render(&self) -> String {
        let Shared { exporter, telemetry, .. } = &*self.shared;
        let render = |()| render(exporter, telemetry, &self.stats());
        self.check_process().map(render).unwrap_or_default()
    }

    /// What the application said of its metrics by `describe_counter!` and the like, which the
    /// protocol cannot carry. Of at most 10,000 names. Empty in a forked process.
    pub fn describe(&self) -> Vec<Description> {
        let describe = |()| self.shared.exporter.registry.descriptions.all();
        self.check_process().map(describe).unwrap_or_default()
    }

    /// What the exporter did so far.
    pub fn stats(&self) -> Stats {
        let Exporter { queue, counters, clock, .. } = &*self.shared.exporter;
        match self.check_process() {
            Ok(()) => queue.stats(clock.now()),
            Err(_) => counters.stats(),
        }
    }

    fn end(&self, deadline: Option<Instant>) -> Result<FlushReport, FlushError> {
        self.check_process()?;
        self.check_thread()?;
        let queue = &self.shared.exporter.queue;
        if self.shared.is_shut_down.swap(true, Ordering::SeqCst) {
            // Who returns from here may end the process.
            queue.wait_finished(deadline);
            return Err(FlushError::AlreadyShutdown);
        }
        let before = self.stats();
        let _expedite = queue.expedite();
        queue.set_deadline(deadline);
        // Without an answer the flusher still waits for room, or has ended; no more is taken then.
        let _ = self.ask(Occasion::Last, deadline);
        queue.close();
        let mut is_finished = queue.wait_finished(deadline);
        let now = Instant::now();
        if !is_finished && self.shared.has_spool {
            is_finished = queue.wait_finished(Some(now + DISK_TIME));
        }
        if !is_finished {
            queue.abandon();
            queue.wait_finished(Some(now + LINE_TIME));
        }
        let report = self.report(&before);
        report.log_losses();
        Ok(report)
    }

    /// Asks the flusher for a snapshot and waits for it; `None` at the deadline, or if the flusher
    /// has ended.
    fn ask(&self, occasion: Occasion, deadline: Option<Instant>) -> Option<Watermark> {
        let (answer, answers) = bounded(1);
        let request = Request { occasion, deadline, answer };
        self.shared.requests.send_timeout(request, left(deadline)).ok()?;
        answers.recv_timeout(left(deadline)).ok()
    }

    fn report(&self, before: &Stats) -> FlushReport {
        let after = self.stats();
        FlushReport {
            points: before.points_pending + (after.points_taken - before.points_taken),
            confirmed: after.points_confirmed - before.points_confirmed,
            rejected: after.points_rejected.total() - before.points_rejected.total(),
            pending: after.points_pending,
            dropped: after.points_dropped.total() - before.points_dropped.total(),
            spooled: after.points_spooled - before.points_spooled,
        }
    }

    fn check(&self) -> Result<(), FlushError> {
        self.check_process()?;
        let is_shut_down = self.shared.is_shut_down.load(Ordering::SeqCst);
        if is_shut_down { Err(FlushError::AlreadyShutdown) } else { Ok(()) }
    }

    /// The flusher would wait for itself.
    fn check_thread(&self) -> Result<(), FlushError> {
        let is_flusher = self.shared.flusher == thread::current().id();
        if is_flusher { Err(FlushError::OnSnapshot) } else { Ok(()) }
    }

    fn check_process(&self) -> Result<(), FlushError> {
        if self.shared.process == std::process::id() { Ok(()) } else { Err(FlushError::Forked) }
    }
}

/// The time at which a wait ends; `None` for a wait so long that there is no such time.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// How long it is until then; to the channels the longest time is no limit.
fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
}

/// Shuts the exporter down when it is dropped; made by [`OpenTsdbHandle::guard`].
///
/// If points are lost by then, or left in the spool, a warning in the log says how many.
#[must_use = "the guard shuts the exporter down when it is dropped: bind it to a name for as long as metrics are to be sent"]
#[derive(Debug)]
pub struct FlushGuard {
    handle: OpenTsdbHandle,
    timeout: Duration,
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        // An error says that somebody else has shut it down, who has the report.
        let _ = self.handle.shutdown(self.timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenTsdbRecorder;

    #[test]
    fn handle_recorder_and_guard_may_be_used_across_catch_unwind() {
        fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
        is_unwind_safe::<OpenTsdbHandle>();
        is_unwind_safe::<OpenTsdbRecorder>();
        is_unwind_safe::<FlushGuard>();
    }

    #[test]
    fn delivered_is_confirmed_and_not_refused() {
        let all = FlushReport { points: 3, confirmed: 3, ..FlushReport::default() };
        assert!(all.is_delivered() && FlushReport::default().is_delivered());
        assert!(!FlushReport { rejected: 1, ..all }.is_delivered());
        assert!(!FlushReport { confirmed: 2, pending: 1, ..all }.is_delivered());
        assert!(!FlushReport { confirmed: 2, dropped: 1, ..all }.is_delivered());
    }
}
