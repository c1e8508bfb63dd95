//! When a snapshot is taken, and which timestamp it has.
//!
//! Ticks fall on multiples of the interval on the wall clock, so that the points of many processes
//! have the same times. No timestamp is used twice: two values of one series at one time make an
//! OpenTSDB row unreadable. Where the current time has been used, or lies between two that have:
//!
//! | wanted | the last timestamp | what happens |
//! |---|---|---|
//! | a flush, a shutdown | is now | the next second, for the series that changed |
//! | | is a second ahead | it waits until that second has come |
//! | a tick | was a full snapshot's | it is left out: that one was the tick |
//! | | was a flush's in a used second, and is now | the next second, all series, so that none falls silent |
//! | a tick | none, in the second of the start or the next | it is left out: a process that has just ended may have used both |
//! | any | is further ahead: the clock stepped back | the next second, at most every second and a half, so that the clock catches up |
//!
//! A clock that is set back to before the first timestamp was wrong until then, and is believed
//! from there on. A timestamp has ten digits (thirteen in milliseconds); while the clock shows a
//! time before 2001 or after 2286 there is no snapshot.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Instant;

/// The unit of a timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampPrecision {
    /// Ten digits, which every server takes. The default.
    #[default]
    Seconds,
    /// Thirteen digits. Not for InfluxDB 1.x, which stores them wrong, nor VictoriaMetrics before
    /// 1.88, which drops them.
    Milliseconds,
}

impl TimestampPrecision {
    /// The unit, in milliseconds.
    fn millis(self) -> u64 {
        match self {
            TimestampPrecision::Seconds => 1_000,
            TimestampPrecision::Milliseconds => 1,
        }
    }

    /// A time since the epoch in this unit.
    pub(crate) fn of(self, wall: Duration) -> u64 {
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) / self.millis()
    }

    /// When a timestamp begins, as the time since the epoch.
    fn begin(self, timestamp: u64) -> Duration {
        Duration::from_millis(timestamp.saturating_mul(self.millis()))
    }

    /// The least time between two snapshots that are ahead of the clock and take one unit each.
    /// More than a unit, so that the clock gains on them, and less than two, since no tick is quite
    /// on time.
    fn pause(self) -> Duration {
        self.begin(1) * 3 / 2
    }

    /// Whether a timestamp has the number of digits that servers know this unit by.
    pub(crate) fn fits(self, timestamp: u64) -> bool {
        let first = 1_000_000_000_000 / self.millis();
        (first..first * 10).contains(&timestamp)
    }
}

/// Why a snapshot is wanted; a later one outweighs those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Occasion {
    Tick,
    /// A flush that the application asked for.
    Manual,
    /// The shutdown.
    Last,
}

/// The timestamp of a snapshot, and which series it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) timestamp: u64,
    /// Whether series that did not change since they were last sent are left out.
    pub(crate) only_changed: bool,
}

/// The answer to who wants a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Now, with this stamp.
    Free(Stamp),
    /// After this time, if it is still wanted.
    After(Duration),
    /// The clock shows no time that a server takes.
    ClockUnset,
}

/// A difference between the two clocks beyond this is a step of the wall clock.
const STEP: Duration = Duration::from_secs(1);
/// Spans of used timestamps that are told apart. Each but the first is a clock that was set back to
/// before all others.
const MOST_SPANS: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    precision: TimestampPrecision,
    /// The timestamp of the time at which the exporter was started.
    started: u64,
    /// The wall time of the next tick.
    next: Duration,
    /// Spans of timestamps that are used or lie between used ones, the current one last; each lies
    /// below those before it.
    used: Vec<RangeInclusive<u64>>,
    /// Before it, a new series may have values of the process before or of a series that was
    /// evicted.
    births_from: u64,
    /// Whether the last snapshot held the series that did not change.
    was_full: bool,
    /// When it was taken, by the clock that does not step.
    stamped: Instant,
    /// Both clocks when they were last compared.
    compared: (Instant, Duration),
}

impl Schedule {
    pub(crate) fn new(
        interval: Duration,
        precision: TimestampPrecision,
        now: Instant,
        wall: Duration,
    ) -> Self {
        Schedule {
            interval,
            precision,
            started: precision.of(wall),
            next: next_multiple(interval, wall),
            used: Vec::new(),
            births_from: precision.of(wall) + 2,
            was_full: false,
            stamped: now,
            compared: (now, wall),
        }
    }

    /// How long it is until the next tick.
    pub(crate) fn until_tick(&self, wall: Duration) -> Duration {
        // After a step back the old tick may be hours away.
        self.next.saturating_sub(wall).min(self.interval)
    }

    /// Whether a tick is due; says so once.
    pub(crate) fn is_tick_due(&mut self, wall: Duration) -> bool {
        let is_due = wall >= self.next || self.next - wall > self.interval;
        if is_due {
            self.next = next_multiple(self.interval, wall);
        }
        is_due
    }

    /// Compares the two clocks; returns how many seconds the wall clock has stepped forward since
    /// they were last compared, if it has stepped: below 0 for a step back.
    pub(crate) fn step(&mut self, now: Instant, wall: Duration) -> Option<f64> {
        let expected = self.compared.1 + now.saturating_duration_since(self.compared.0);
        self.compared = (now, wall);
        let is_step = wall.abs_diff(expected) > STEP;
        if is_step && wall > expected {
            // Another process may have used times before it.
            self.births_from = self.births_from.max(self.precision.of(wall) + 2);
        }
        is_step.then_some(wall.as_secs_f64() - expected.as_secs_f64())
    }

    /// Whether a snapshot may be taken now. [`Schedule::take`] says that it was.
    pub(crate) fn slot(&self, occasion: Occasion, now: Instant, wall: Duration) -> Slot {
        let time = self.precision.of(wall);
        if !self.precision.fits(time) {
            return Slot::ClockUnset;
        }
        let (free, is_tick) = (self.first_free(time), occasion == Occasion::Tick);
        let wait = match free - time {
            0 if is_tick && (self.started..=self.started + 1).contains(&time) => self.interval,
            0 => Duration::ZERO,
            1 if is_tick && self.was_full => self.interval,
            1 => Duration::ZERO,
            2 => self.precision.begin(time + 1).saturating_sub(wall),
            // The last snapshot does not wait for a clock that is hours behind.
            _ if occasion == Occasion::Last => Duration::ZERO,
            _ => self.precision.pause().saturating_sub(now.saturating_duration_since(self.stamped)),
        };
        if !wait.is_zero() {
            return Slot::After(wait);
        }
        let only_changed = matches!(free - time, 1 | 2) && !is_tick;
        Slot::Free(Stamp { timestamp: free, only_changed })
    }

    /// A snapshot with this stamp has lines: its timestamp is used.
    pub(crate) fn take(&mut self, stamp: Stamp, now: Instant) {
        let Stamp { timestamp, only_changed } = stamp;
        (self.was_full, self.stamped) = (!only_changed, now);
        // The spans that the clock has gone through since become one.
        let passed = self.used.iter().position(|span| *span.start() <= timestamp);
        let oldest = self.used.last().filter(|_| passed.is_some());
        let first = oldest.map_or(timestamp, |span| *span.start());
        self.used.truncate(passed.unwrap_or(self.used.len()));
        if self.used.len() == MOST_SPANS {
            let highest = self.used.remove(0);
            self.used[0] = *self.used[0].start()..=*highest.end();
        }
        self.used.push(first..=timestamp);
    }

    /// When a counter that is new in the snapshot of this stamp was zero: an interval before, if it
    /// surely has no value there.
    pub(crate) fn birth(&self, stamp: Stamp) -> Option<u64> {
        let time = stamp.timestamp.checked_sub(self.precision.of(self.interval).max(1))?;
        let (current, others) = self.used.split_last()?;
        let is_free = time >= self.births_from.max(*current.start())
            && others.iter().all(|span| !span.contains(&time));
        is_free.then_some(time)
    }

    /// The first timestamp behind the last one that was used.
    pub(crate) fn unused_from(&self) -> u64 {
        self.used.last().map_or(0, |span| span.end() + 1)
    }

    /// A series was evicted, and may come back; it has no value from this time on.
    pub(crate) fn evicted(&mut self, unused_from: u64) {
        self.births_from = self.births_from.max(unused_from);
    }

    /// The first timestamp from this one on that is in no span.
    fn first_free(&self, mut time: u64) -> u64 {
        while let Some(span) = self.used.iter().find(|span| span.contains(&time)) {
            time = span.end() + 1;
        }
        time
    }
}

fn next_multiple(interval: Duration, wall: Duration) -> Duration {
    let into = wall.as_nanos() % interval.as_nanos().max(1);
    wall + interval - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Mock};
    use proptest::prelude::*;
    use std::collections::HashSet;

    const T: u64 = 1_700_000_000;
    const DECADE: u64 = 10 * 365 * 86_400;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A schedule on a clock that the test moves.
    struct Fixture {
        schedule: Schedule,
        clock: Clock,
        mock: Mock,
    }

    impl Fixture {
        fn new(interval: Duration, wall: Duration) -> Self {
            let (clock, mock) = Clock::mock(wall);
            let precision = TimestampPrecision::Seconds;
            let schedule = Schedule::new(interval, precision, clock.now(), clock.wall());
            // Long ago, as far as a process before this one is concerned.
            Fixture { schedule: Schedule { started: 0, ..schedule }, clock, mock }
        }

        fn slot(&self, occasion: Occasion) -> Slot {
            self.schedule.slot(occasion, self.clock.now(), self.clock.wall())
        }

        /// The stamp of a snapshot that has lines.
        fn take(&mut self, occasion: Occasion) -> Option<Stamp> {
            let Slot::Free(stamp) = self.slot(occasion) else { return None };
            self.schedule.take(stamp, self.clock.now());
            Some(stamp)
        }

        /// Lets the time pass and takes the tick, if it is due.
        fn tick(&mut self, by: Duration) -> Option<Stamp> {
            self.mock.advance(by);
            let wall = self.clock.wall();
            self.schedule.step(self.clock.now(), wall);
            self.schedule.is_tick_due(wall).then(|| self.take(Occasion::Tick)).flatten()
        }
    }

    fn all(timestamp: u64) -> Option<Stamp> {
        Some(Stamp { timestamp, only_changed: false })
    }

    fn changed(timestamp: u64) -> Option<Stamp> {
        Some(Stamp { timestamp, only_changed: true })
    }

    #[test]
    fn ticks_fall_on_multiples_of_the_interval() {
        let mut fixture = Fixture::new(seconds(10), seconds(T + 3));
        let Fixture { schedule, clock, mock } = &mut fixture;
        assert_eq!(schedule.until_tick(clock.wall()), seconds(7));
        assert!(!schedule.is_tick_due(clock.wall()));
        mock.advance(Duration::from_millis(7_050));
        assert!(schedule.is_tick_due(clock.wall()));
        assert!(!schedule.is_tick_due(clock.wall()));
        assert_eq!(schedule.until_tick(clock.wall()), Duration::from_millis(9_950));
        mock.advance(Duration::from_millis(9_950));
        assert!(schedule.is_tick_due(clock.wall()));
        assert!(!schedule.is_tick_due(clock.wall()), "the next is a whole interval away");
    }

    /// It has the same series, and its last snapshot may be a second ahead of the clock.
    #[test]
    fn ticks_leave_two_seconds_to_a_process_that_has_just_ended() {
        let mut fixture = Fixture::new(seconds(1), seconds(T));
        fixture.schedule.started = T;
        assert_eq!(fixture.take(Occasion::Tick), None);
        assert_eq!(fixture.tick(seconds(1)), None);
        assert_eq!(fixture.tick(seconds(1)), all(T + 2));
        fixture.schedule.started = T + 3;
        fixture.mock.advance(seconds(1));
        assert_eq!(fixture.take(Occasion::Manual), all(T + 3), "who asks has it at once");
    }

    #[test]
    fn a_flush_in_a_used_second_takes_the_next_one_and_the_one_after_waits_for_it() {
        let mut fixture = Fixture::new(seconds(10), seconds(T));
        assert_eq!(fixture.take(Occasion::Tick), all(T));
        assert_eq!(fixture.take(Occasion::Manual), changed(T + 1));
        fixture.mock.advance(Duration::from_millis(300));
        let wait = Slot::After(Duration::from_millis(700));
        assert_eq!((fixture.slot(Occasion::Manual), fixture.slot(Occasion::Last)), (wait, wait));
        fixture.mock.advance(Duration::from_millis(700));
        assert_eq!(fixture.take(Occasion::Last), changed(T + 2));
        fixture.mock.advance(seconds(2));
        assert_eq!(fixture.take(Occasion::Manual), all(T + 3));
    }

    #[test]
    fn a_snapshot_without_lines_takes_no_second() {
        let fixture = Fixture::new(seconds(10), seconds(T));
        for _ in 0..3_600 {
            assert_eq!(fixture.slot(Occasion::Manual), Slot::Free(all(T).unwrap()));
        }
    }

    #[test]
    fn a_tick_in_a_used_second_is_left_out_unless_series_would_fall_silent() {
        let mut fixture = Fixture::new(seconds(1), seconds(T));
        assert_eq!(fixture.take(Occasion::Manual), all(T));
        assert_eq!(fixture.take(Occasion::Tick), None, "the flush was the tick");
        // With a flush in each second, every other tick holds all series.
        assert_eq!(fixture.take(Occasion::Manual), changed(T + 1));
        for n in (1..100).step_by(2) {
            assert_eq!(fixture.tick(seconds(1)), all(T + n + 1), "{n}");
            assert_eq!(fixture.take(Occasion::Manual), None, "its second has not come");
            assert_eq!(fixture.tick(seconds(1)), None, "the last one was the tick");
            assert_eq!(fixture.take(Occasion::Manual), changed(T + n + 2));
        }
    }

    #[test]
    fn no_flush_or_tick_is_more_than_a_second_ahead_of_the_clock() {
        for interval in [20, 100, 1_000, 2_000, 10_000].map(Duration::from_millis) {
            let mut fixture = Fixture::new(interval, seconds(T));
            let (mut silence, mut longest) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..1_000 {
                let flush = fixture.take(Occasion::Manual);
                let tick = fixture.tick(interval);
                let now = fixture.clock.wall().as_secs();
                for stamp in [flush, tick].into_iter().flatten() {
                    assert!(stamp.timestamp <= now + 1, "{interval:?} {stamp:?} {now}");
                }
                let is_full = [flush, tick].into_iter().flatten().any(|stamp| !stamp.only_changed);
                silence = if is_full { Duration::ZERO } else { silence + interval };
                longest = longest.max(silence);
            }
            assert!(longest <= interval.max(seconds(2)), "{interval:?} {longest:?}");
        }
    }

    /// However short the interval: at one second for each of many ticks in a second the timestamps
    /// would run away.
    #[test]
    fn after_a_step_back_the_clock_catches_up_with_the_timestamps() {
        for interval in [20, 100, 1_000, 2_000, 10_000].map(Duration::from_millis) {
            let mut fixture = Fixture::new(interval, seconds(T));
            fixture.take(Occasion::Tick).unwrap();
            fixture.mock.advance(seconds(100));
            let mut last = fixture.take(Occasion::Tick).unwrap().timestamp;
            fixture.mock.step_to(seconds(T + 40));
            let (mut silence, mut longest) = (Duration::ZERO, Duration::ZERO);
            while last > fixture.clock.wall().as_secs() {
                assert!(fixture.clock.wall() < seconds(T + 300), "{interval:?}");
                // A flush with each tick does not hold it up.
                let flush = fixture.take(Occasion::Manual);
                let tick = fixture.tick(interval);
                for stamp in [flush, tick].into_iter().flatten() {
                    assert!(stamp.timestamp > last && !stamp.only_changed);
                    last = stamp.timestamp;
                }
                let is_taken = flush.or(tick).is_some();
                silence = if is_taken { Duration::ZERO } else { silence + interval };
                longest = longest.max(silence);
            }
            assert!(longest <= interval.max(seconds(3)), "{interval:?} {longest:?}");
        }
    }

    #[test]
    fn the_last_snapshot_does_not_wait_for_a_clock_that_is_hours_behind() {
        let mut fixture = Fixture::new(seconds(10), seconds(T));
        fixture.take(Occasion::Tick).unwrap();
        fixture.mock.advance(seconds(7_200));
        assert_eq!(fixture.take(Occasion::Tick), all(T + 7_200));
        fixture.mock.step_to(seconds(T + 3_600));
        assert_eq!(fixture.slot(Occasion::Manual), Slot::After(Duration::from_millis(1_500)));
        assert_eq!(fixture.take(Occasion::Last), all(T + 7_201));
    }

    #[test]
    fn a_birth_has_its_zero_an_interval_before_unless_a_value_may_be_there() {
        let mut fixture = Fixture::new(seconds(10), seconds(T));
        let birth_at = |fixture: &mut Fixture, wall| {
            let by = seconds(wall).saturating_sub(fixture.clock.wall());
            fixture.mock.advance(by);
            fixture.schedule.step(fixture.clock.now(), seconds(wall));
            let Slot::Free(stamp) = fixture.slot(Occasion::Tick) else { panic!("{wall}") };
            let birth = fixture.schedule.birth(stamp);
            fixture.schedule.take(stamp, fixture.clock.now());
            birth
        };
        assert_eq!(fixture.schedule.unused_from(), 0);
        assert_eq!(birth_at(&mut fixture, T), None, "the process before may have used it");
        assert_eq!(birth_at(&mut fixture, T + 11), None, "of its last second");
        assert_eq!(birth_at(&mut fixture, T + 12), Some(T + 2));
        // A clock that is only set right tells of no other process.
        fixture.mock.step_to(seconds(T + 12) + Duration::from_millis(500));
        assert_eq!(birth_at(&mut fixture, T + 22), Some(T + 12));
        // What is silent from the next snapshot on may come back.
        assert_eq!(fixture.schedule.unused_from(), T + 23);
        fixture.schedule.evicted(T + 23);
        assert_eq!(birth_at(&mut fixture, T + 32), None, "it is that of a series that was evicted");
        assert_eq!(birth_at(&mut fixture, T + 33), Some(T + 23));
        // A process that ran before the clock was right may have used the times before.
        let after = T + 5_000;
        fixture.mock.step_to(seconds(after));
        assert_eq!(birth_at(&mut fixture, after), None);
        assert_eq!(birth_at(&mut fixture, after + 11), None);
        assert_eq!(birth_at(&mut fixture, after + 12), Some(after + 2));
    }

    #[test]
    fn no_birth_has_its_zero_in_a_span_that_the_clock_went_through_before() {
        let mut fixture = Fixture::new(seconds(10), seconds(T));
        fixture.take(Occasion::Tick).unwrap();
        fixture.mock.advance(seconds(100));
        fixture.take(Occasion::Tick).unwrap();
        fixture.mock.step_to(seconds(T - 10));
        assert_eq!(fixture.take(Occasion::Manual), all(T - 10));
        fixture.mock.advance(seconds(20));
        let Slot::Free(stamp) = fixture.slot(Occasion::Tick) else { panic!() };
        assert_eq!(stamp.timestamp, T + 101);
        assert_eq!(fixture.schedule.birth(stamp), None);
    }

    #[test]
    fn a_step_has_a_direction_and_a_length() {
        let mut fixture = Fixture::new(seconds(10), seconds(T));
        let mut step_to = |wall| {
            fixture.mock.step_to(wall);
            fixture.schedule.step(fixture.clock.now(), wall)
        };
        assert_eq!(step_to(seconds(T + 1)), None);
        assert_eq!(step_to(seconds(T + 3_601)), Some(3_600.0));
        assert_eq!(step_to(seconds(T + 3_601)), None);
        assert_eq!(step_to(seconds(T + 1)), Some(-3_600.0));
        fixture.mock.advance(seconds(100));
        assert_eq!(fixture.schedule.step(fixture.clock.now(), seconds(T + 101)), None);
    }

    #[test]
    fn a_clock_that_was_years_ahead_is_believed_once_it_is_right() {
        let mut fixture = Fixture::new(seconds(10), seconds(T + DECADE));
        assert_eq!(fixture.take(Occasion::Tick), all(T + DECADE));
        assert_eq!(fixture.tick(seconds(10)), all(T + DECADE + 10));
        fixture.mock.step_to(seconds(T));
        assert_eq!(fixture.tick(Duration::ZERO), all(T));
        assert_eq!(fixture.tick(seconds(10)), all(T + 10));
        // Set ahead again, it does not use a timestamp twice.
        fixture.mock.step_to(seconds(T + DECADE));
        assert_eq!(fixture.tick(seconds(10)), None);
        fixture.mock.advance(seconds(1));
        assert_eq!(fixture.take(Occasion::Manual), all(T + DECADE + 11));
    }

    #[test]
    fn a_clock_without_ten_digits_takes_no_snapshot() {
        for wall in [0, 22, 999_999_999, 10_000_000_000] {
            let fixture = Fixture::new(seconds(10), seconds(wall));
            for occasion in [Occasion::Tick, Occasion::Manual, Occasion::Last] {
                assert_eq!(fixture.slot(occasion), Slot::ClockUnset, "{wall}");
            }
        }
    }

    #[test]
    fn timestamps_have_ten_or_thirteen_digits() {
        let cases = [
            (T, true, false),
            (T * 1_000, false, true),
            (0, false, false),
            (999_999_999, false, false),
            (u64::MAX, false, false),
        ];
        for (timestamp, seconds, milliseconds) in cases {
            assert_eq!(TimestampPrecision::Seconds.fits(timestamp), seconds, "{timestamp}");
            assert_eq!(
                TimestampPrecision::Milliseconds.fits(timestamp),
                milliseconds,
                "{timestamp}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_timestamp_is_used_twice_whatever_the_clock_does(
            steps in proptest::collection::vec((-7_200i64..7_200, any::<bool>(), 0usize..3), 1..200),
        ) {
            let mut fixture = Fixture::new(seconds(10), seconds(T));
            let mut used = HashSet::new();
            for (step, jumps, occasion) in steps {
                if jumps {
                    fixture.mock.step_to(Duration::from_secs((T as i64 + step) as u64));
                } else {
                    fixture.mock.advance(Duration::from_secs(step.unsigned_abs() % 30));
                }
                let occasions = [Occasion::Tick, Occasion::Manual, Occasion::Last];
                if let Some(stamp) = fixture.take(occasions[occasion]) {
                    prop_assert!(used.insert(stamp.timestamp), "{stamp:?}");
                    prop_assert!(fixture.schedule.used.len() <= MOST_SPANS);
                }
            }
        }
    }
}
