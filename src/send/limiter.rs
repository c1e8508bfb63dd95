//! How fast points may be sent.
//!
//! **Problem.** A snapshot sent at once is a storm for a TSD that has a thousand such clients, and
//! after an outage each of them has a backlog as well.
//!
//! **Idea.** A token bucket counted in points. It holds at most a tenth of a second's worth and is
//! emptied in small steps, so a snapshot leaves in a dozen or so writes a second, evenly over its
//! time.
//!
//! **Mechanism.**
//!
//! | limit | points a second | while a flush or the shutdown waits, or the queue fills up |
//! |---|---|---|
//! | `Auto` | what sends the last snapshot, or all that waits, within 80 % of the interval, at least 100; twice that while there is a backlog | unlimited |
//! | `PerSecond(n)` | `n`, resent points included: at most `1.1 n` in any second | the same |
//! | `Unlimited` | unlimited | unlimited |
//!
//! A complaint of the server halves the rate of its endpoint, once a round trip: a second complaint
//! counts when everything written before the last halving is confirmed and more has been written,
//! and not within a second. The rate never falls below a tenth of what sends a snapshot in time,
//! and recovers over the minute after the last complaint. Where there is no limit, a hundred
//! times the rate of `Auto` is what is halved.

use std::num::NonZeroU32;
use std::time::Duration;

use super::window::Place;
use crate::clock::Instant;
use crate::queue::Demand;

/// The least rate of [`RateLimit::Auto`] in points a second: the one in the example of potsdb's
/// README.
const AUTO_FLOOR: f64 = 100.0;
/// The part of the interval within which a snapshot is sent, so that it is gone before the next.
const SHARE_OF_INTERVAL: f64 = 0.8;
/// How much faster points are sent while there is a backlog.
const BACKLOG_FACTOR: f64 = 2.0;
/// What the bucket holds, in seconds.
const BUCKET: f64 = 0.1;
/// What a step sends where there is that much to send, in seconds.
const STEP: f64 = 0.05;
/// The rate that a complaint halves where there is no limit, as a multiple of the rate of `Auto`.
const UNLIMITED_FACTOR: f64 = 100.0;
/// The least part of the rate of `Auto` that complaints leave.
const BRAKE_FLOOR: f64 = 0.1;
/// The least time between two halvings. With [`Confirmation::Written`](crate::Confirmation) every
/// write is confirmed at once, and says nothing of a round trip.
const BRAKE_PAUSE: Duration = Duration::from_secs(1);
/// The time after the last complaint within which the rate recovers.
const RECOVERY: Duration = Duration::from_secs(60);

/// How fast points may be sent; set by
/// [`with_rate_limit`](crate::OpenTsdbBuilder::with_rate_limit).
///
/// A server that answers `put: Please throttle writes` slows down each of them: its rate is halved
/// and recovers over a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimit {
    /// 100 points a second, or more where it takes more to send what waits within 80 % of the flush
    /// interval; twice that while a backlog is sent. A flush by hand, the shutdown and a queue that
    /// is more than half full are not held back. The default.
    #[default]
    Auto,
    /// At most this many points a second, also for a backlog, for points sent again and at
    /// shutdown. Where that is less than the snapshots need, ticks are skipped.
    #[doc(alias = "mps")]
    PerSecond(NonZeroU32),
    /// As fast as the server reads.
    Unlimited,
}

#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    interval: Duration,
    /// Points that may be sent at `filled`; at most the bucket's size.
    tokens: f64,
    /// The time at which `tokens` was right.
    filled: Instant,
}

/// How far the complaints of an endpoint slow down the sending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brake(Option<Complaints>);

#[derive(Clone, Copy, Debug)]
struct Complaints {
    /// What the rate was multiplied by right after the last halving.
    factor: f64,
    /// The time of the last halving.
    halved: Instant,
    /// How far had been written at the last halving.
    halved_behind: Place,
    /// The time of the last complaint.
    last: Instant,
}

impl Brake {
    /// What the rate is multiplied by. It grows by the same part of itself each second, so that
    /// one second of recovery never outweighs a halving.
    fn factor(&self, now: Instant) -> f64 {
        let Some(complaints) = self.0 else { return 1.0 };
        let quiet = now.saturating_duration_since(complaints.last);
        let left = 1.0 - quiet.as_secs_f64() / RECOVERY.as_secs_f64();
        complaints.factor.powf(left.max(0.0))
    }

    /// The server complained about the rate, when lines up to `written` had been written and those
    /// up to `confirmed` were confirmed.
    pub(super) fn complained(&mut self, confirmed: Place, written: Place, now: Instant) {
        let factor = self.factor(now);
        let is_next_round = self.0.is_some_and(|last| {
            confirmed >= last.halved_behind
                && written > last.halved_behind
                && now.saturating_duration_since(last.halved) >= BRAKE_PAUSE
        });
        match &mut self.0 {
            Some(complaints) if factor < 1.0 && !is_next_round => complaints.last = now,
            _ => {
                let factor = (factor / 2.0).max(BRAKE_FLOOR / UNLIMITED_FACTOR);
                let (halved, halved_behind) = (now, written);
                self.0 = Some(Complaints { factor, halved, halved_behind, last: now });
            }
        }
    }
}

impl Limiter {
    pub(super) fn new(limit: RateLimit, interval: Duration, now: Instant) -> Self {
        // As many as the bucket holds, which `allow` sees to.
        Limiter { limit, interval, tokens: f64::MAX, filled: now }
    }

    /// How many points may be sent now, or when to ask again.
    pub(super) fn allow(
        &mut self,
        demand: Demand,
        brake: Brake,
        now: Instant,
    ) -> Result<usize, Instant> {
        let Some(rate) = self.rate(demand, brake, now) else { return Ok(usize::MAX) };
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + rate * passed).min(bucket(rate));
        self.filled = now;
        let step = (rate * STEP).min(demand.unsent as f64).clamp(1.0, bucket(rate));
        let missing = step - self.tokens;
        // A wait is rounded to nanoseconds; what that leaves missing must not cost another one.
        if missing <= 1e-6 * rate.max(1.0) {
            return Ok((self.tokens + 1e-6 * rate.max(1.0)) as usize);
        }
        Err(now + Duration::from_secs_f64(missing / rate).max(Duration::from_millis(1)))
    }

    /// So many points were written. A write may be held up for long after it was allowed: the time
    /// in between earns nothing, or two allowances would leave together.
    pub(super) fn spend(&mut self, points: usize, now: Instant) {
        self.tokens = (self.tokens - points as f64).max(0.0);
        self.filled = now;
    }

    /// Points a second, if there is a limit.
    fn rate(&self, demand: Demand, brake: Brake, now: Instant) -> Option<f64> {
        let auto = self.auto_rate(demand);
        let limit = match self.limit {
            RateLimit::PerSecond(cap) => Some(f64::from(cap.get())),
            RateLimit::Auto if !demand.is_expedited && !demand.is_filling => Some(auto),
            RateLimit::Auto | RateLimit::Unlimited => None,
        };
        let factor = brake.factor(now);
        if factor >= 1.0 {
            return limit;
        }
        let rate = limit.unwrap_or(auto * UNLIMITED_FACTOR);
        Some((rate * factor).max(auto * BRAKE_FLOOR).min(rate))
    }

    fn auto_rate(&self, demand: Demand) -> f64 {
        let time = (self.interval.as_secs_f64() * SHARE_OF_INTERVAL).max(1e-3);
        let needed = demand.snapshot_points.max(demand.fresh) as f64 / time;
        let factor = if demand.has_backlog { BACKLOG_FACTOR } else { 1.0 };
        needed.max(AUTO_FLOOR) * factor
    }
}

/// How many points a bucket holds.
fn bucket(rate: f64) -> f64 {
    (rate * BUCKET).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn per_second(n: u32) -> RateLimit {
        RateLimit::PerSecond(NonZeroU32::new(n).unwrap())
    }

    fn limiter(limit: RateLimit) -> (Limiter, Instant) {
        let start = Instant::now();
        (Limiter::new(limit, INTERVAL, start), start)
    }

    /// The last snapshot had so many lines, and so many points are to be sent.
    fn snapshot_of(snapshot_points: usize, unsent: usize) -> Demand {
        Demand { snapshot_points, unsent, ..Demand::default() }
    }

    fn expedited(demand: Demand) -> Demand {
        Demand { is_expedited: true, ..demand }
    }

    fn filling(demand: Demand) -> Demand {
        Demand { is_filling: true, ..demand }
    }

    /// Sends `points` and answers when and how many each time.
    fn send(
        limiter: &mut Limiter,
        mut points: usize,
        start: Instant,
        demand: impl Fn(usize) -> Demand,
    ) -> Vec<(Duration, usize)> {
        let mut now = start;
        let mut sent = Vec::new();
        while points > 0 {
            match limiter.allow(demand(points), Brake::default(), now) {
                Ok(allowed) => {
                    let n = allowed.min(points);
                    assert!(n > 0);
                    limiter.spend(n, now);
                    points -= n;
                    sent.push((now - start, n));
                }
                Err(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        sent
    }

    fn most_in_any_second(sent: &[(Duration, usize)]) -> usize {
        let within = |from: Duration| {
            sent.iter().filter(|(at, _)| *at >= from && *at < from + SECOND).map(|&(_, n)| n).sum()
        };
        sent.iter().map(|&(from, _)| within(from)).max().unwrap_or(0)
    }

    #[test]
    fn a_cap_holds_in_any_second_whoever_waits() {
        for n in [1, 2, 7, 10, 99, 1000, 50_000] {
            for is_expedited in [false, true] {
                let (mut limiter, start) = limiter(per_second(n));
                let demand = |unsent| Demand {
                    is_expedited,
                    is_filling: true,
                    has_backlog: true,
                    ..snapshot_of(1_000_000, unsent)
                };
                let points = n as usize * 5 + 3;
                let sent = send(&mut limiter, points, start, demand);
                let most = most_in_any_second(&sent);
                let allowed = f64::from(n) * 1.05 + f64::from(n / 10).max(1.0);
                assert!(most as f64 <= allowed, "{most} of {n}");
                let took = sent.last().unwrap().0;
                let ideal = (points as f64 - bucket(f64::from(n))) / f64::from(n);
                assert!(
                    (took.as_secs_f64() - ideal).abs() < 0.11,
                    "{n}: {took:?}, ideally {ideal}"
                );
            }
        }
    }

    #[test]
    fn a_cap_holds_also_when_a_write_was_held_up() {
        let (mut limiter, start) = limiter(per_second(1000));
        let demand = |unsent| snapshot_of(9000, unsent);
        let first = limiter.allow(demand(9000), Brake::default(), start).unwrap();
        let later = start + 20 * SECOND;
        limiter.spend(first, later);
        let mut sent = send(&mut limiter, 3000, later, demand);
        sent.insert(0, (Duration::ZERO, first));
        assert!(most_in_any_second(&sent) <= 1150);
    }

    #[test]
    fn auto_sends_a_snapshot_in_small_steps_within_80_percent_of_the_interval() {
        for (points, seconds) in [(100, 1.0), (800, 8.0), (5_000, 8.0), (1_000_000, 8.0)] {
            let (mut limiter, start) = limiter(RateLimit::Auto);
            // However few of them are in the queue at a time.
            let sent =
                send(&mut limiter, points, start, |unsent| snapshot_of(points, unsent.min(1000)));
            let took = sent.last().unwrap().0.as_secs_f64();
            assert!(took <= seconds && took >= seconds * 0.8, "{points}: {took}");
            let largest = sent.iter().map(|&(_, n)| n).max().unwrap();
            assert!(largest <= points / 10 + 10, "{largest} of {points} at once");
        }
    }

    #[test]
    fn raw_points_wait_no_longer_than_80_percent_of_the_interval() {
        let (limiter, start) = limiter(RateLimit::Auto);
        let demand = Demand { fresh: 8_000, unsent: 8_000, ..Demand::default() };
        assert_eq!(limiter.rate(demand, Brake::default(), start), Some(1000.0));
    }

    #[test]
    fn auto_goes_twice_as_fast_while_there_is_a_backlog() {
        let (mut limiter, start) = limiter(RateLimit::Auto);
        let demand = |unsent| Demand { has_backlog: true, ..snapshot_of(8_000, unsent) };
        let sent = send(&mut limiter, 8_000, start, demand);
        let took = sent.last().unwrap().0.as_secs_f64();
        assert!(took > 3.5 && took < 4.0, "{took}");
    }

    #[test]
    fn a_waiting_flush_and_a_filling_queue_are_not_spread_unless_there_is_a_cap() {
        for demand in [expedited(snapshot_of(50, 5_000)), filling(snapshot_of(50, 5_000))] {
            for limit in [RateLimit::Auto, RateLimit::Unlimited] {
                let (mut limiter, start) = limiter(limit);
                assert_eq!(limiter.allow(demand, Brake::default(), start), Ok(usize::MAX));
            }
            let (mut limiter, start) = limiter(per_second(1000));
            assert_eq!(limiter.allow(demand, Brake::default(), start), Ok(100));
        }
    }

    /// A server that complains of the first line of each round trip, and of every line of it.
    #[test]
    fn complaints_halve_the_rate_once_a_round_trip() {
        let mut brake = Brake::default();
        let (limiter, mut now) = limiter(per_second(1000));
        let (demand, mut confirmed) = (snapshot_of(80, 9000), Place::default());
        for expected in [500.0, 250.0, 125.0] {
            for line in 1..=100 {
                brake.complained(confirmed, confirmed.plus(line), now);
                assert_eq!(limiter.rate(demand, brake, now), Some(expected), "line {line}");
                now += SECOND / 1000;
            }
            confirmed = confirmed.plus(100);
            // Late, and of lines that were written before the last halving or not answered yet.
            for _ in 0..10 {
                brake.complained(Place::default(), confirmed, now + SECOND);
            }
            assert_eq!(limiter.rate(demand, brake, now + SECOND), Some(expected));
            now += SECOND;
        }
    }

    #[test]
    fn late_complaints_of_one_burst_halve_the_rate_once() {
        let mut brake = Brake::default();
        let (limiter, start) = limiter(RateLimit::Auto);
        let written = Place::default().plus(500);
        for seconds in 0..20 {
            brake.complained(written, written, start + seconds * SECOND);
        }
        let rate = limiter.rate(snapshot_of(500, 500), brake, start + 19 * SECOND);
        assert_eq!(rate, Some(50.0));
    }

    #[test]
    fn complaints_leave_a_tenth_of_what_the_snapshot_needs() {
        for limit in [per_second(30_000), RateLimit::Auto, RateLimit::Unlimited] {
            let mut brake = Brake::default();
            let (limiter, mut now) = limiter(limit);
            let mut confirmed = Place::default();
            for _ in 0..20 {
                brake.complained(confirmed, confirmed.plus(1), now);
                confirmed = confirmed.plus(1);
                now += SECOND;
            }
            let (small, large) = (snapshot_of(0, 1), snapshot_of(80_000, 1));
            assert_eq!(limiter.rate(large, brake, now - SECOND), Some(1000.0), "{limit:?}");
            assert_eq!(
                limiter.rate(expedited(large), brake, now - SECOND),
                Some(1000.0),
                "{limit:?}"
            );
            assert!(limiter.rate(small, brake, now - SECOND) <= Some(30.0), "{limit:?}");
        }
    }

    #[test]
    fn the_rate_recovers_over_a_minute() {
        for (limit, free, before) in [
            (per_second(1000), Some(1000.0), 1000.0),
            (RateLimit::Auto, Some(100.0), 100.0),
            (RateLimit::Unlimited, None, 10_000.0),
        ] {
            let mut brake = Brake::default();
            let (limiter, start) = limiter(limit);
            brake.complained(Place::default(), Place::default(), start);
            let demand = snapshot_of(0, 9000);
            for (seconds, factor) in [(0, 0.5), (30, 0.707), (45, 0.841)] {
                let rate = limiter.rate(demand, brake, start + seconds * SECOND).unwrap();
                let is_so = (rate / before - factor).abs() < 1e-3;
                assert!(is_so, "{limit:?} after {seconds} s: {rate}");
            }
            assert_eq!(limiter.rate(demand, brake, start + RECOVERY), free, "{limit:?}");
        }
    }

    #[test]
    fn a_complaint_slows_down_a_waiting_flush_too() {
        let mut brake = Brake::default();
        let (limiter, start) = limiter(RateLimit::Auto);
        brake.complained(Place::default(), Place::default(), start);
        assert_eq!(limiter.rate(expedited(snapshot_of(0, 5_000)), brake, start), Some(5_000.0));
    }
}
