//! When a snapshot is taken, and what time it bears.
//!
//! Ticks fall on multiples of the interval on the wall clock, so that the points of many processes share their times. A time is
//! used once: two values of one series at one time make an OpenTSDB row unreadable. So when there is none to use:
//!
//! | what | why there is none | time | what is sent |
//! |---|---|---|---|
//! | a flush by hand | this second has been used | the next one | the series that changed |
//! | a tick | flushes by hand ran ahead of the clock | – | nothing: they were the tick |
//! | a tick | they ran ahead by an interval and more | one after the last | all series, so there is no silence |
//! | a tick | the wall clock stepped back | one after the last | all series, so there is no silence |
//!
//! One after the last is used up in one unit of time, so the clock would never catch up with ticks that come as often: of these only
//! every second or so is taken.

use crate::clock::Instant;
use std::time::Duration;

/// The unit of a timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampPrecision {
    /// Ten digits, which every server takes. The default.
    #[default]
    Seconds,
    /// Thirteen digits. Not for InfluxDB 1.x, which stores them wrong, nor VictoriaMetrics before 1.88, which drops them.
    Milliseconds,
}

impl TimestampPrecision {
    /// A time since the epoch in this unit.
    pub(crate) fn of(self, wall: Duration) -> u64 {
        match self {
            TimestampPrecision::Seconds => wall.as_secs(),
            TimestampPrecision::Milliseconds => u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The least time between two ticks that take one unit each, so that the clock gains on them: more than one, and less than two,
    /// for no tick is quite on time.
    fn pause(self) -> Duration {
        match self {
            TimestampPrecision::Seconds => Duration::from_millis(1_500),
            TimestampPrecision::Milliseconds => Duration::from_micros(1_500),
        }
    }

    /// Whether a timestamp has the number of digits that servers know this unit by.
    pub(crate) fn fits(self, timestamp: u64) -> bool {
        let first = match self {
            TimestampPrecision::Seconds => 1_000_000_000,
            TimestampPrecision::Milliseconds => 1_000_000_000_000,
        };
        (first..first * 10).contains(&timestamp)
    }
}

/// Why a snapshot is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    Tick,
    ByHand,
}

/// What a snapshot bears and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) timestamp: u64,
    /// Whether series that did not change since they were last sent are left out.
    pub(crate) only_changed: bool,
}

/// A difference between the two clocks beyond this is a step of the wall clock.
const STEP: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    precision: TimestampPrecision,
    /// The wall time of the next tick.
    next: Duration,
    /// The last timestamp that was used.
    last: Option<u64>,
    /// When that was, by the clock that does not step.
    stamped: Instant,
    /// Both clocks when they were last compared.
    compared: (Instant, Duration),
    /// Whether the wall clock has stepped back behind `last`.
    is_behind: bool,
}

impl Schedule {
    pub(crate) fn new(
        interval: Duration,
        precision: TimestampPrecision,
        now: Instant,
        wall: Duration,
    ) -> Self {
        let next = next_multiple(interval, wall);
        Schedule {
            interval,
            precision,
            next,
            last: None,
            stamped: now,
            compared: (now, wall),
            is_behind: false,
        }
    }

    /// How long it is until the next tick.
    pub(crate) fn until_tick(&self, wall: Duration) -> Duration {
        // After a step back the old tick may be hours away.
        self.next.saturating_sub(wall).min(self.interval)
    }

    /// Whether a tick is due, which it is once. Compares the clocks; answers too whether the wall clock has stepped.
    pub(crate) fn turn(&mut self, now: Instant, wall: Duration) -> (bool, bool) {
        let expected = self.compared.1 + now.saturating_duration_since(self.compared.0);
        let stepped = wall.abs_diff(expected) > STEP;
        self.compared = (now, wall);
        self.is_behind |= stepped && wall < expected;
        let is_due = wall >= self.next || self.next - wall > self.interval;
        if is_due {
            self.next = next_multiple(self.interval, wall);
        }
        (is_due, stepped)
    }

    /// The stamp for a snapshot now, or `None` if there is to be none.
    pub(crate) fn stamp(&mut self, occasion: Occasion, wall: Duration) -> Option<Stamp> {
        let (time, interval) = (self.precision.of(wall), self.precision.of(self.interval));
        let now = self.compared.0;
        let stamp = match self.last {
            Some(last) if time <= last => {
                let were_tick = !self.is_behind && last - time < interval.max(1);
                let is_soon = now.saturating_duration_since(self.stamped) < self.precision.pause();
                match occasion {
                    Occasion::Tick if were_tick || is_soon => return None,
                    Occasion::Tick => Stamp { timestamp: last + 1, only_changed: false },
                    Occasion::ByHand => Stamp { timestamp: last + 1, only_changed: true },
                }
            }
            _ => {
                self.is_behind = false;
                Stamp { timestamp: time, only_changed: false }
            }
        };
        (self.last, self.stamped) = (Some(stamp.timestamp), now);
        Some(stamp)
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

    const T: u64 = 1_700_000_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn start(interval: u64, wall: Duration) -> (Schedule, Mock, Clock) {
        let (clock, mock) = Clock::mock(wall);
        (
            Schedule::new(
                seconds(interval),
                TimestampPrecision::Seconds,
                clock.now(),
                clock.wall(),
            ),
            mock,
            clock,
        )
    }

    #[test]
    fn ticks_fall_on_multiples_of_the_interval() {
        let (mut schedule, mock, clock) = start(10, seconds(T + 3));
        assert_eq!(schedule.until_tick(clock.wall()), seconds(7));
        assert_eq!(schedule.turn(clock.now(), clock.wall()), (false, false));
        mock.advance(Duration::from_millis(7_050));
        assert_eq!(schedule.turn(clock.now(), clock.wall()), (true, false));
        assert_eq!(schedule.turn(clock.now(), clock.wall()), (false, false));
        assert_eq!(schedule.until_tick(clock.wall()), Duration::from_millis(9_950));
    }

    #[test]
    fn a_flush_by_hand_in_a_used_second_takes_the_next_one_for_what_changed() {
        let (mut schedule, ..) = start(10, seconds(T));
        let stamp = |timestamp, only_changed| Some(Stamp { timestamp, only_changed });
        assert_eq!(schedule.stamp(Occasion::Tick, seconds(T)), stamp(T, false));
        assert_eq!(schedule.stamp(Occasion::ByHand, seconds(T)), stamp(T + 1, true));
        assert_eq!(schedule.stamp(Occasion::ByHand, seconds(T + 1)), stamp(T + 2, true));
        assert_eq!(schedule.stamp(Occasion::Tick, seconds(T + 2)), None);
        assert_eq!(schedule.stamp(Occasion::Tick, seconds(T + 3)), stamp(T + 3, false));
    }

    #[test]
    fn ticks_go_on_however_far_flushes_by_hand_ran_ahead() {
        let (mut schedule, mock, clock) = start(10, seconds(T));
        for n in 0..=100 {
            let stamp = schedule.stamp(Occasion::ByHand, seconds(T)).unwrap();
            assert_eq!(stamp.timestamp, T + n);
        }
        let mut tick = || {
            mock.advance(seconds(10));
            assert_eq!(schedule.turn(clock.now(), clock.wall()), (true, false));
            schedule.stamp(Occasion::Tick, clock.wall())
        };
        let all = |timestamp| Some(Stamp { timestamp, only_changed: false });
        for n in 1..10 {
            assert_eq!(tick(), all(T + 100 + n));
        }
        assert_eq!((tick(), tick()), (None, all(T + 110)));
    }

    /// However short the interval: at one second for each of many ticks in a second they would run away.
    #[test]
    fn the_clock_catches_up_with_ticks_after_a_step_back_and_after_flushes_by_hand() {
        for interval in [20, 100, 1_000, 2_000, 10_000].map(Duration::from_millis) {
            for steps_back in [true, false] {
                let (_, mock, clock) = start(1, seconds(T));
                let precision = TimestampPrecision::Seconds;
                let mut schedule = Schedule::new(interval, precision, clock.now(), clock.wall());
                for _ in 0..=if steps_back { 0 } else { 60 } {
                    schedule.stamp(Occasion::ByHand, clock.wall()).unwrap();
                }
                if steps_back {
                    mock.step_to(seconds(T - 60));
                }
                let (mut silence, mut longest) = (Duration::ZERO, Duration::ZERO);
                while schedule.last.unwrap() > clock.wall().as_secs() {
                    mock.advance(interval);
                    assert!(clock.wall() < seconds(T + 180), "{interval:?} {steps_back}");
                    let (is_due, _) = schedule.turn(clock.now(), clock.wall());
                    let is_taken = is_due && schedule.stamp(Occasion::Tick, clock.wall()).is_some();
                    silence = if is_taken { Duration::ZERO } else { silence + interval };
                    longest = longest.max(silence);
                }
                assert!(longest <= interval.max(seconds(2)), "{interval:?} {longest:?}");
            }
        }
    }

    #[test]
    fn after_a_step_back_ticks_go_on_one_by_one_until_the_clock_has_caught_up() {
        let (mut schedule, mock, clock) = start(10, seconds(T));
        assert!(schedule.stamp(Occasion::Tick, clock.wall()).is_some());
        mock.advance(seconds(10));
        mock.step_to(seconds(T - 3_600));
        assert_eq!(schedule.turn(clock.now(), clock.wall()), (true, true));
        for n in 1..=3 {
            let stamp = schedule.stamp(Occasion::Tick, clock.wall());
            assert_eq!(stamp, Some(Stamp { timestamp: T + n, only_changed: false }));
            mock.advance(seconds(10));
            assert_eq!(schedule.turn(clock.now(), clock.wall()), (true, false));
        }
        mock.step_to(seconds(T + 7_200));
        assert_eq!(schedule.turn(clock.now(), clock.wall()), (true, true));
        assert_eq!(
            schedule.stamp(Occasion::Tick, clock.wall()),
            Some(Stamp { timestamp: T + 7_200, only_changed: false })
        );
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
        fn no_timestamp_is_used_twice_whatever_the_clock_does(steps in proptest::collection::vec((-7_200i64..7_200, any::<bool>(), any::<bool>()), 1..200)) {
            let (mut schedule, mock, clock) = start(10, seconds(T));
            let mut last = 0;
            for (step, jumps, by_hand) in steps {
                if jumps {
                    mock.step_to(Duration::from_secs((T as i64 + step) as u64));
                } else {
                    mock.advance(Duration::from_secs(step.unsigned_abs() % 30));
                }
                schedule.turn(clock.now(), clock.wall());
                let occasion = if by_hand { Occasion::ByHand } else { Occasion::Tick };
                if let Some(stamp) = schedule.stamp(occasion, clock.wall()) {
                    prop_assert!(stamp.timestamp > last);
                    last = stamp.timestamp;
                }
            }
        }
    }
}
