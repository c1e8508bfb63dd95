//! The flusher's loop: wait for the tick or a request, snapshot, encode, push.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use super::reading::Sink;
use super::schedule::{Occasion, Schedule, Stamp};
use super::snapshot::Snapshot;
use super::telemetry::Telemetry;
use crate::clock::{Clock, Instant};
use crate::queue::{BATCH_BYTES, Phase, Queue, Watermark};
use crate::record::notices::Cause;
use crate::stats::{Counters, Stats};
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// The name of the thread.
pub(crate) const NAME: &str = "opentsdb-flusher";
/// Requests that may wait; more only if someone flushes from that many threads at once.
const REQUESTS: usize = 64;
/// How often a flusher that nobody can ask any more looks whether anybody still records.
const ORPHAN_CHECK: Duration = Duration::from_secs(1);
/// How long points are sent once nobody records or asks any more.
const LAST_CHANCE: Duration = Duration::from_secs(30);
/// The least time between two log lines of one cause.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What a handle asks of the flusher.
pub(crate) enum Request {
    /// Take a snapshot; answer with the watermark that covers its points.
    Flush(Sender<Watermark>),
    /// The same for the last time, then close the queue and end.
    Shutdown(Sender<Watermark>),
}

/// What the flusher works with.
pub(crate) struct Flusher {
    pub(crate) snapshot: Snapshot,
    pub(crate) telemetry: Telemetry,
    pub(crate) schedule: Schedule,
    /// Whether the lines carry differences, of which none may be dropped while it can be helped.
    pub(crate) is_delta: bool,
    pub(crate) lines: Lines,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) log: Log,
}

/// Keeps each cause of a log line to one line a minute.
#[derive(Debug, Default)]
pub(crate) struct Log {
    too_long: Option<Instant>,
    not_finite: Option<Instant>,
    clock: Option<Instant>,
    overflow: Option<Instant>,
    /// By the causes of the registry's notices.
    notices: [Option<Instant>; Cause::ALL.len()],
}

/// Whether this cause was not told within the last minute; from now on it was.
fn is_untold(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_untold = last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_INTERVAL);
    if is_untold {
        *last = Some(now);
    }
    is_untold
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn spawn(mut self) -> io::Result<(Sender<Request>, JoinHandle<()>)> {
        let (sender, receiver) = bounded(REQUESTS);
        let thread = thread::Builder::new().name(NAME.into()).spawn(move || {
            // A panic, from a user's tracing subscriber say, costs the snapshot that it interrupted.
            while catch_unwind(AssertUnwindSafe(|| self.run(&receiver))).is_err() {
                self.counters.restarts.add(1);
            }
        })?;
        Ok((sender, thread))
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        let (mut requests, mut is_alone) = (requests.clone(), false);
        while self.queue.phase() == Phase::Open {
            let wait = self.schedule.until_tick(self.clock.wall());
            match requests.recv_timeout(if is_alone { wait.min(ORPHAN_CHECK) } else { wait }) {
                Ok(request) => {
                    if self.serve(request).is_break() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The last handle is gone; its share of the registry goes a moment later, and a recorder may stay for long.
                Err(RecvTimeoutError::Disconnected) => (requests, is_alone) = (never(), true),
            }
            // Nobody can record or ask any more.
            if is_alone && self.snapshot.is_orphaned() {
                // First, since the queue may have no room.
                self.queue.end_at(self.clock.now() + LAST_CHANCE);
                self.by_hand();
                return self.queue.close();
            }
            self.tick();
        }
    }

    fn serve(&mut self, request: Request) -> ControlFlow<()> {
        match request {
            Request::Flush(answer) => {
                self.by_hand();
                let _ = answer.send(self.queue.watermark());
                ControlFlow::Continue(())
            }
            Request::Shutdown(answer) => {
                self.by_hand();
                self.queue.close();
                let _ = answer.send(self.queue.watermark());
                ControlFlow::Break(())
            }
        }
    }

    /// Logs which keys are not sent as they are.
    fn log_notices(&mut self) {
        let now = self.clock.now();
        for (cause, last) in Cause::ALL.into_iter().zip(&mut self.log.notices) {
            if last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
                continue;
            }
            if let Some(notice) = self.snapshot.take_notice(cause) {
                *last = Some(now);
                notice.log();
            }
        }
    }

    fn tick(&mut self) {
        let wall = self.clock.wall();
        let (is_due, has_stepped) = self.schedule.turn(self.clock.now(), wall);
        if has_stepped {
            self.counters.clock_steps.add(1);
            if is_untold(&mut self.log.clock, self.clock.now()) {
                tracing::warn!(
                    "the wall clock stepped; timestamps go on one by one until it has caught up"
                );
            }
        }
        if !is_due {
            return;
        }
        self.log_notices();
        if self.queue.is_busy() || (self.is_delta && self.queue.has_unsent_snapshot()) {
            self.counters.ticks_skipped.add(1);
            // Perhaps for hours, in which many threads end.
            return self.snapshot.sweep();
        }
        if let Some(stamp) = self.schedule.stamp(Occasion::Tick, wall) {
            self.flush(stamp);
        }
        let dormant = self.snapshot.evict();
        self.counters.series_dormant.set(dormant as u64);
    }

    fn by_hand(&mut self) {
        self.log_notices();
        if let Some(stamp) = self.schedule.stamp(Occasion::ByHand, self.clock.wall()) {
            self.flush(stamp);
        }
    }

    fn flush(&mut self, stamp: Stamp) {
        let now = self.clock.now();
        let stats = self.queue.stats(now);
        let mut lines = mem::take(&mut self.lines);
        lines.set_time(stamp.timestamp);
        let mut out = Output {
            lines,
            batch_points: self.queue.batch_points(),
            queue: &self.queue,
            counters: &self.counters,
            taken: now,
            points: 0,
            refused: Refused::default(),
        };
        self.snapshot.take(stamp, now.saturating_duration_since(self.started), &mut out);
        self.telemetry.take(stamp, &stats, &mut out);
        out.push();
        self.queue.set_snapshot_points(out.points);
        let refused = mem::take(&mut out.refused);
        self.lines = mem::take(&mut out.lines);
        self.tell(refused, &stats, now);
    }

    /// Logs, once everything is on its way, what went wrong.
    fn tell(&mut self, refused: Refused, stats: &Stats, now: Instant) {
        if let Some(metric) = refused.too_long.filter(|_| is_untold(&mut self.log.too_long, now)) {
            tracing::warn!(
                metric,
                "a line is longer than the 1024 bytes that a TSD reads and is not sent; shorten its labels"
            );
        }
        if let Some(metric) =
            refused.not_finite.filter(|_| is_untold(&mut self.log.not_finite, now))
        {
            tracing::warn!(metric, "a value is NaN or infinite and is not sent");
        }
        if stats.series_overflow > 0 && self.log.overflow.is_none() {
            self.log.overflow = Some(now);
            let label = self.snapshot.most_varied_tag().unwrap_or_default();
            tracing::warn!(
                label,
                "the series limit is reached: new series share one with overflow=true; this label has the most values"
            );
        }
    }
}

/// The lines of a snapshot on their way into the queue.
struct Output<'a> {
    lines: Lines,
    batch_points: usize,
    queue: &'a Queue,
    counters: &'a Counters,
    taken: Instant,
    /// Lines that were pushed.
    points: usize,
    refused: Refused,
}

/// The first metric that could not be sent, by cause.
#[derive(Default)]
struct Refused {
    too_long: Option<String>,
    not_finite: Option<String>,
}

impl Output<'_> {
    #[cold]
    #[inline(never)]
    fn push(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let (bytes, points) = self.lines.take(self.queue.buffer());
        self.points += points;
        self.queue.push(bytes, points, self.taken);
    }

    #[inline(always)]
    fn sent(&mut self, line: Line<'_>, pushed: Result<(), Unsendable>) {
        match pushed {
            Ok(()) if self.lines.is_full(BATCH_BYTES, self.batch_points) => self.push(),
            Ok(()) => {}
            Err(why) => self.refuse(line, why, 1),
        }
    }
}

impl Sink for Output<'_> {
    #[inline(always)]
    fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value) {
        let pushed = self.lines.push(line, variant, value);
        self.sent(line, pushed);
    }

    fn histogram(&mut self, line: Line<'_>, value: &[u8]) {
        let pushed = self.lines.push_histogram(line, value);
        self.sent(line, pushed);
    }

    #[cold]
    fn refuse(&mut self, line: Line<'_>, why: Unsendable, points: u64) {
        let (counter, first) = match why {
            Unsendable::TooLong => (&self.counters.dropped_too_long, &mut self.refused.too_long),
            Unsendable::NotFinite => {
                (&self.counters.dropped_not_finite, &mut self.refused.not_finite)
            }
        };
        self.counters.points_taken.add(points);
        counter.add(points);
        first.get_or_insert_with(|| line.metric().chars().take(100).collect());
    }
}
