//! The flusher's loop: wait for the tick or a request, snapshot, encode, push.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use super::callbacks::Callbacks;
use super::exporter::Exporter;
use super::reading::{CounterMode, Sink};
use super::schedule::{Occasion, Schedule, Slot, Stamp};
use super::snapshot::Snapshot;
use super::telemetry::Telemetry;
use crate::clock::Instant;
use crate::log_limiter::LogLimiter;
use crate::queue::{BATCH_BYTES, Phase, Watermark};
use crate::record::notices::{Cause, Notice};
use crate::stats::Counters;
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// The name of the thread.
pub(crate) const NAME: &str = "opentsdb-flusher";
/// Requests that may wait in the channel; it fills only if that many threads flush at once.
const REQUESTS: usize = 64;
/// How long past its deadline a request is still served. Then its caller has given up; one that
/// asks with no time to wait wants a snapshot nevertheless.
const LATENESS: Duration = Duration::from_millis(100);
/// What the log says when the wall clock has stepped.
const STEP_FORWARD: &str = "the wall clock stepped forward, or the machine was suspended";
const STEP_BACK: &str = "the wall clock stepped back; no timestamp is used twice, so those of the \
                         next points may be ahead of it";
/// Once no handle is left: how often to look whether a recorder is.
const ORPHAN_CHECK: Duration = Duration::from_secs(1);
/// Once no handle and no recorder is left: how long the last points are still sent.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(30);

/// A snapshot that a handle asks for.
pub(crate) struct Request {
    /// [`Occasion::Manual`], or [`Occasion::Last`] to close the queue behind the snapshot.
    pub(crate) occasion: Occasion,
    /// When the caller stops waiting; `None` for never.
    pub(crate) deadline: Option<Instant>,
    /// Takes the watermark that covers the snapshot.
    pub(crate) answer: Sender<Watermark>,
}

/// Settings of the flusher alone.
pub(crate) struct Options {
    /// Between two ticks.
    pub(crate) interval: Duration,
    pub(crate) telemetry: Telemetry,
    pub(crate) callbacks: Callbacks,
    /// Whether a counter that is new gets a zero before its first value.
    pub(crate) has_birth_zeros: bool,
}

/// What the flusher works with.
pub(crate) struct Flusher {
    exporter: Arc<Exporter>,
    options: Options,
    snapshot: Snapshot,
    schedule: Schedule,
    lines: Lines,
    started: Instant,
    /// Requests that no snapshot has answered yet.
    waiting: Vec<Request>,
    log: LogLimiter,
    /// Whether it was logged that the series limit is reached.
    is_overflow_logged: bool,
}

impl Flusher {
    pub(crate) fn new(exporter: Arc<Exporter>, options: Options) -> Self {
        let Exporter { queue, clock, precision, .. } = &*exporter;
        Flusher {
            snapshot: Snapshot::default(),
            schedule: Schedule::new(options.interval, *precision, clock.now(), clock.wall()),
            lines: Lines::new(queue.buffer(), exporter.max_line)
                .bounded(BATCH_BYTES, queue.batch_points()),
            started: clock.now(),
            waiting: Vec::new(),
            log: LogLimiter::default(),
            is_overflow_logged: false,
            options,
            exporter,
        }
    }

    /// Starts the thread.
    pub(crate) fn spawn(mut self) -> io::Result<(Sender<Request>, JoinHandle<()>)> {
        let (sender, receiver) = bounded(REQUESTS);
        let thread = thread::Builder::new().name(NAME.into()).spawn(move || {
            // A panic, from a user's tracing subscriber say, costs the snapshot that it
            // interrupted.
            while catch_unwind(AssertUnwindSafe(|| self.run(&receiver))).is_err() {
                self.exporter.counters.restarts.add(1);
            }
        })?;
        Ok((sender, thread))
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        let (mut requests, mut is_alone) = (requests.clone(), false);
        while self.exporter.queue.phase() == Phase::Open {
            let wait = self.wait();
            match requests.recv_timeout(if is_alone { wait.min(ORPHAN_CHECK) } else { wait }) {
                // All that came meanwhile share one snapshot.
                Ok(request) => {
                    self.waiting.push(request);
                    self.waiting.extend(requests.try_iter());
                }
                Err(RecvTimeoutError::Timeout) => {}
                // A recorder may live on for long.
                Err(RecvTimeoutError::Disconnected) => (requests, is_alone) = (never(), true),
            }
            let has_recorder = Arc::strong_count(&self.exporter.registry) > 1;
            if is_alone && !has_recorder && self.waiting.is_empty() {
                // First, since the queue may have no room for the last snapshot.
                self.exporter.queue.end_at(self.exporter.clock.now() + ORPHAN_TIMEOUT);
                let (occasion, answer) = (Occasion::Last, bounded(1).0);
                self.waiting.push(Request { occasion, deadline: None, answer });
            }
            self.log_notices();
            self.tick();
            self.serve();
        }
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Duration {
        let wall = self.exporter.clock.wall();
        let until_tick = self.schedule.until_tick(wall);
        let Some(wanted) = self.wanted() else { return until_tick };
        match self.schedule.slot(wanted, self.exporter.clock.now(), wall) {
            Slot::After(wait) => wait.min(until_tick),
            Slot::Free(_) | Slot::ClockUnset => Duration::ZERO,
        }
    }

    fn wanted(&self) -> Option<Occasion> {
        self.waiting.iter().map(|request| request.occasion).max()
    }

    /// Takes the snapshot that the requests wait for, if it is time.
    fn serve(&mut self) {
        let now = self.exporter.clock.now();
        let lateness = |at| now.saturating_duration_since(at);
        self.waiting.retain(|request| request.deadline.is_none_or(|at| lateness(at) < LATENESS));
        let Some(wanted) = self.wanted() else { return };
        self.flush_if_time(wanted, now, self.exporter.clock.wall());
    }

    /// Takes a snapshot, unless its second has not come.
    fn flush_if_time(&mut self, occasion: Occasion, now: Instant, wall: Duration) {
        match self.schedule.slot(occasion, now, wall) {
            Slot::Free(stamp) => self.flush(stamp),
            Slot::After(_) => {}
            Slot::ClockUnset => {
                if self.log.should_log("unset", now) {
                    tracing::warn!(
                        "the wall clock is before 2001 or after 2286; nothing is sent until it is set"
                    );
                }
                let requests = mem::take(&mut self.waiting);
                self.answer(requests);
            }
        }
    }

    fn answer(&mut self, mut requests: Vec<Request>) {
        if requests.iter().any(|request| request.occasion == Occasion::Last) {
            self.exporter.queue.close();
        }
        let watermark = self.exporter.queue.watermark();
        for request in requests.drain(..) {
            let _ = request.answer.send(watermark);
        }
        // To be filled again without an allocation.
        self.waiting = requests;
    }

    /// Logs which keys are not sent as they are.
    fn log_notices(&mut self) {
        let now = self.exporter.clock.now();
        for cause in Cause::ALL {
            let may_log = || self.log.should_log(cause.text(), now);
            let notice = self.exporter.registry.notices.take_if(cause, may_log);
            if let Some(Notice { metric, label }) = notice {
                tracing::warn!(metric, label, "{}", cause.text());
            }
        }
    }

    fn tick(&mut self) {
        let (now, wall) = (self.exporter.clock.now(), self.exporter.clock.wall());
        if let Some(seconds) = self.schedule.step(now, wall) {
            self.exporter.counters.clock_steps.add(1);
            self.log_step(seconds, now);
        }
        if !self.schedule.is_tick_due(wall) {
            return;
        }
        let Exporter { options, queue, counters, .. } = &*self.exporter;
        // Lines that carry differences are lost with what they carry.
        let is_delta = options.counter_mode == CounterMode::Delta;
        if queue.is_busy() || (is_delta && queue.risks_snapshot()) {
            counters.ticks_skipped.add(1);
            return;
        }
        // What is evicted below is silent in this snapshot.
        let unused_from = self.schedule.unused_from();
        self.flush_if_time(Occasion::Tick, now, wall);
        let Counters { series_evicted, series_dormant, .. } = &*self.exporter.counters;
        let evicted = series_evicted.get();
        series_dormant.set(self.snapshot.evict(&self.exporter, unused_from) as u64);
        if series_evicted.get() > evicted {
            self.schedule.evicted(unused_from);
        }
    }

    /// Takes a snapshot and answers the requests that wait for one.
    fn flush(&mut self, stamp: Stamp) {
        // Taken first: a request that a panic interrupts is not tried again and again.
        let requests = mem::take(&mut self.waiting);
        self.call_back();
        let now = self.exporter.clock.now();
        let stats = self.exporter.queue.stats(now);
        let cork = self.exporter.queue.cork();
        // A panic may have left some.
        self.lines.clear();
        self.lines.set_time(stamp.timestamp);
        let mut out = Output {
            lines: &mut self.lines,
            exporter: &self.exporter,
            birth: self.schedule.birth(stamp).filter(|_| self.options.has_birth_zeros),
            schedule: &mut self.schedule,
            stamp,
            taken: now,
            pushed: 0,
            log: &mut self.log,
        };
        let age = now.saturating_duration_since(self.started);
        self.snapshot.take(&self.exporter, stamp, age, &mut out);
        // The exporter's own counters change with each flush: alone they are no reason to use a
        // second up.
        if !stamp.only_changed || out.pushed > 0 || !out.lines.is_empty() {
            self.options.telemetry.take(stamp, &stats, &mut out);
        }
        out.push();
        if !stamp.only_changed {
            self.exporter.queue.set_snapshot_points(out.pushed);
        }
        drop(cork);
        self.answer(requests);
        if stats.series_overflow > 0 && !mem::replace(&mut self.is_overflow_logged, true) {
            self.log_overflow();
        }
    }

    fn call_back(&mut self) {
        for panic in self.options.callbacks.call() {
            self.exporter.counters.restarts.add(1);
            if self.log.should_log("callback", self.exporter.clock.now()) {
                tracing::error!(panic, "a callback of on_snapshot panicked; the snapshot is taken");
            }
        }
    }

    fn log_overflow(&mut self) {
        let label = self.snapshot.most_varied_tag().unwrap_or_default();
        tracing::warn!(
            label,
            "the series limit is reached: new series share one with overflow=true; this label has the most values"
        );
    }

    fn log_step(&mut self, seconds: f64, now: Instant) {
        let what = if seconds > 0.0 { STEP_FORWARD } else { STEP_BACK };
        if self.log.should_log(what, now) {
            tracing::warn!(seconds, "{what}");
        }
    }
}

/// The lines of a snapshot on their way into the queue.
struct Output<'a> {
    lines: &'a mut Lines,
    exporter: &'a Exporter,
    /// The time of a zero before the first value of a counter.
    birth: Option<u64>,
    schedule: &'a mut Schedule,
    stamp: Stamp,
    taken: Instant,
    /// Lines in the queue so far.
    pushed: usize,
    log: &'a mut LogLimiter,
}

impl Output<'_> {
    #[cold]
    #[inline(never)]
    fn push(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if self.pushed == 0 {
            // Now, since a panic may end the snapshot before its end.
            self.schedule.take(self.stamp, self.taken);
        }
        let (bytes, points) = self.lines.take(self.exporter.queue.buffer());
        self.pushed += points;
        self.exporter.queue.push(bytes, points, self.taken);
    }

    #[inline(always)]
    fn sent(&mut self, line: Line<'_>, pushed: Result<(), Unsendable>) {
        match pushed {
            Ok(()) if self.lines.is_full() => self.push(),
            Ok(()) => {}
            Err(why) => self.refuse(line, why, 1),
        }
    }
}

impl Sink for Output<'_> {
    #[cold]
    fn birth(&mut self, line: Line<'_>) {
        let Some(time) = self.birth else { return };
        self.lines.set_time(time);
        self.point(line, Variant::default(), Value::Integer(0));
        self.lines.set_time(self.stamp.timestamp);
    }

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
        let Counters { points_taken, points_dropped, .. } = &*self.exporter.counters;
        let (dropped, why) = match why {
            Unsendable::TooLong => (
                &points_dropped.too_long,
                "a line is longer than the server reads and is not sent; shorten its name or its labels",
            ),
            Unsendable::NotFinite => {
                (&points_dropped.not_finite, "a value is NaN or infinite and is not sent")
            }
        };
        points_taken.add(points);
        dropped.add(points);
        if self.log.should_log(why, self.taken) {
            tracing::warn!(metric = %format_args!("{:.100}", line.metric()), "{why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::idle::Idle;
    use super::super::reading;
    use super::*;
    use crate::clock::{Clock, Mock};
    use crate::record::counter::Counter;
    use crate::wire::series::Rules;
    use metrics::{CounterFn, Key};
    use metrics_util::MetricKindMask;

    const T: u64 = 1_700_000_000;
    const INTERVAL: Duration = Duration::from_secs(10);

    /// A flusher without a thread, on a clock that the test moves.
    struct Fixture {
        flusher: Flusher,
        mock: Mock,
    }

    impl Fixture {
        fn new(wall: u64) -> Self {
            Fixture::with(wall, reading::Options::of_a_test())
        }

        fn with(wall: u64, options: reading::Options) -> Self {
            let (clock, mock) = Clock::mock(Duration::from_secs(wall));
            let exporter = Exporter::of_a_test(options, clock);
            let options = Options {
                interval: INTERVAL,
                telemetry: Telemetry::new(&Rules::of_a_test()),
                callbacks: Callbacks::default(),
                has_birth_zeros: true,
            };
            Fixture { flusher: Flusher::new(exporter, options), mock }
        }

        fn count(&self, name: &'static str) {
            self.add(name, 1);
        }

        fn add(&self, name: &'static str, n: u64) {
            let found = self.flusher.exporter.registry.get::<Counter>(&Key::from_static_name(name));
            found.unwrap().series.increment(n);
        }

        fn ask(&mut self, occasion: Occasion, timeout: Duration) -> Receiver<Watermark> {
            let (answer, answers) = bounded(1);
            let deadline = Some(self.flusher.exporter.clock.now() + timeout);
            self.flusher.waiting.push(Request { occasion, deadline, answer });
            self.flusher.serve();
            answers
        }

        /// The lines made since the last time, without the exporter's own.
        fn lines(&mut self) -> Vec<String> {
            let mut lines = Vec::new();
            while let Some(batch) = self.flusher.exporter.queue.pop() {
                let text = String::from_utf8_lossy(batch.lines()).into_owned();
                lines.extend(text.lines().map(str::to_owned));
            }
            lines.retain(|line| !line.contains("opentsdb.client."));
            lines
        }
    }

    #[test]
    fn flushes_without_a_change_are_answered_at_once_and_use_no_second() {
        let mut fixture = Fixture::new(T);
        fixture.count("c");
        let long = Duration::from_secs(60);
        for _ in 0..3_600 {
            assert!(fixture.ask(Occasion::Manual, long).try_recv().is_ok());
        }
        assert_eq!(fixture.lines(), [format!("put c {T} 1 host=a")]);
        fixture.count("c");
        assert!(fixture.ask(Occasion::Manual, long).try_recv().is_ok());
        assert_eq!(fixture.lines(), [format!("put c {} 2 host=a", T + 1)]);
    }

    #[test]
    fn a_flush_that_has_to_wait_is_served_in_its_second_or_not_at_all() {
        let mut fixture = Fixture::new(T);
        for _ in 0..2 {
            fixture.count("c");
            assert!(fixture.ask(Occasion::Manual, INTERVAL).try_recv().is_ok());
        }
        assert_eq!(fixture.lines().len(), 2);
        fixture.count("c");
        let patient = fixture.ask(Occasion::Manual, INTERVAL);
        let hasty = fixture.ask(Occasion::Manual, Duration::from_millis(300));
        assert!(patient.try_recv().is_err() && hasty.try_recv().is_err());
        assert_eq!(fixture.flusher.wait(), Duration::from_secs(1));
        fixture.mock.advance(Duration::from_secs(1));
        fixture.flusher.serve();
        assert!(patient.try_recv().is_ok() && hasty.try_recv().is_err());
        assert_eq!(fixture.lines(), [format!("put c {} 3 host=a", T + 2)]);
        // Nobody waits any more when its second comes.
        fixture.count("c");
        fixture.ask(Occasion::Manual, Duration::from_millis(300));
        fixture.mock.advance(Duration::from_secs(1));
        fixture.flusher.serve();
        assert_eq!((fixture.lines().len(), fixture.flusher.waiting.len()), (0, 0));
    }

    #[test]
    fn a_tick_answers_the_flushes_that_wait() {
        let mut fixture = Fixture::new(T + 9);
        for _ in 0..2 {
            fixture.count("c");
            fixture.ask(Occasion::Manual, INTERVAL);
        }
        let waiting = fixture.ask(Occasion::Last, INTERVAL);
        assert_eq!(fixture.lines().len(), 2);
        fixture.mock.advance(Duration::from_secs(5));
        fixture.flusher.tick();
        assert!(waiting.try_recv().is_ok());
        assert_eq!(fixture.flusher.exporter.queue.phase(), Phase::Closing);
        assert_eq!(fixture.lines(), [format!("put c {} 2 host=a", T + 14)]);
    }

    /// Lets the time come, then a flush or, at a multiple of the interval, a tick.
    fn lines_at(fixture: &mut Fixture, time: u64) -> Vec<String> {
        let wall = fixture.flusher.exporter.clock.wall();
        fixture.mock.advance(Duration::from_secs(T + time) - wall);
        fixture.flusher.tick();
        if time % INTERVAL.as_secs() != 0 {
            fixture.ask(Occasion::Manual, INTERVAL);
        }
        let line = |line: String| {
            let words: Vec<_> = line.split(' ').collect();
            let time = words[2].parse::<u64>().unwrap() as i64 - T as i64;
            format!("{} {time} {}", words[1], words[3])
        };
        fixture.lines().into_iter().map(line).collect()
    }

    #[test]
    fn a_counter_that_is_new_was_zero_an_interval_before_unless_another_value_may_be_there() {
        let mut fixture = Fixture::new(T);
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 0), [""; 0], "a process may have ended in this second");
        assert_eq!(lines_at(&mut fixture, 10), ["a 10 1"], "it may have used the start's");
        fixture.count("b");
        assert_eq!(lines_at(&mut fixture, 14), ["a 14 1", "b 14 1"]);
        fixture.count("c");
        fixture.count("d");
        let first = ["c 10 0", "c 20 1", "d 10 0", "d 20 1"];
        assert_eq!(lines_at(&mut fixture, 20)[2..], first);
        fixture.count("d");
        fixture.count("e");
        assert_eq!(lines_at(&mut fixture, 24)[3..], ["d 24 2", "e 14 0", "e 24 1"]);
        // A handle that was made at the start, and not used yet.
        fixture.add("f", 0);
        assert_eq!(lines_at(&mut fixture, 28)[5..], ["f 28 0"]);
    }

    /// As on a machine that sets its clock after the start.
    #[test]
    fn no_counter_was_zero_before_the_clock_stepped_forward() {
        let mut fixture = Fixture::new(T);
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 13), ["a 13 1"]);
        fixture.mock.step_to(Duration::from_secs(T + 1_005));
        fixture.count("b");
        assert_eq!(lines_at(&mut fixture, 1_010), ["a 1010 1", "b 1010 1"]);
        fixture.count("c");
        assert_eq!(lines_at(&mut fixture, 1_020)[2..], ["c 1020 1"], "the step was seen at 1010");
        fixture.count("d");
        assert_eq!(lines_at(&mut fixture, 1_030)[3..], ["d 1020 0", "d 1030 1"]);
    }

    #[test]
    fn a_step_back_is_logged_behind_a_step_forward() {
        let mut fixture = Fixture::new(T);
        let flusher = &mut fixture.flusher;
        let now = flusher.exporter.clock.now();
        flusher.log_step(100.0, now);
        flusher.log_step(-90.0, now);
        assert!([STEP_FORWARD, STEP_BACK].iter().all(|step| !flusher.log.should_log(step, now)));
    }

    #[test]
    fn a_counter_that_was_evicted_and_comes_back_gets_no_second_value() {
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(5)));
        let idle = Idle { general: idle, ..Idle::default() };
        let mut fixture =
            Fixture::with(T, reading::Options { idle, ..reading::Options::of_a_test() });
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 10), ["a 10 1"]);
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 13), ["a 13 2"]);
        assert_eq!(lines_at(&mut fixture, 20), [""; 0], "it is evicted");
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 23), ["a 23 1"], "it has a value of 13");
        assert_eq!(lines_at(&mut fixture, 30), [""; 0], "it is evicted");
        fixture.count("a");
        assert_eq!(lines_at(&mut fixture, 40), ["a 30 0", "a 40 1"]);
    }

    #[test]
    fn while_the_clock_is_not_set_requests_are_answered_without_a_snapshot() {
        let mut fixture = Fixture::new(22);
        fixture.count("c");
        assert!(fixture.ask(Occasion::Manual, INTERVAL).try_recv().is_ok());
        fixture.mock.advance(INTERVAL);
        fixture.flusher.tick();
        assert!(fixture.lines().is_empty());
        fixture.mock.step_to(Duration::from_secs(T));
        fixture.flusher.tick();
        assert_eq!(fixture.lines(), [format!("put c {T} 1 host=a")]);
        assert_eq!(fixture.flusher.exporter.counters.clock_steps.get(), 1);
    }
}
