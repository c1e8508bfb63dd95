//! How fast points may go.
//!
//! **Problem.** A snapshot sent in one go is a storm for a TSD that has a thousand such clients, and after an outage each of them
//! has a backlog as well.
//!
//! **Idea.** A token bucket counted in points, which holds no more than a tenth of a second's worth, and is asked in small steps: a
//! snapshot leaves in some dozen small writes a second, evenly over its time.
//!
//! **Mechanism.**
//!
//! | limit | points a second | when a flush or the shutdown waits |
//! |---|---|---|
//! | `Auto` | 100, or what sends the last or the present snapshot within 80 % of the interval if that is more; twice as many while there is a backlog | unlimited |
//! | `PerSecond(n)` | `n`, resent points included: in any second at most `n` and a tenth of `n` more | the same |
//! | `Unlimited` | unlimited | unlimited |
//!
//! When the server says that it is too much, a *brake* comes on top of all of these: half of the present rate (where there is none,
//! half of what was sent within the last second), halved again at most once a second while the server goes on complaining, and
//! let go evenly over the minute after its last complaint.

use crate::clock::Instant;
use std::num::NonZeroU32;
use std::time::Duration;

/// The least rate of [`RateLimit::Auto`] in points a second, which is potsdb's default.
const AUTO_FLOOR: f64 = 100.0;
/// How much of the interval a snapshot may take to be sent, so that it is gone before the next one.
const SHARE_OF_INTERVAL: f64 = 0.8;
/// How much faster a backlog may go.
const BACKLOG_FACTOR: f64 = 2.0;
/// How much of a second the bucket holds.
const BUCKET: f64 = 0.1;
/// How much of a second a step sends, if there is that much to send.
const STEP: f64 = 0.05;
/// The least rate that complaints can bring about, in points a second.
const BRAKE_FLOOR: f64 = 1.0;
/// The brake is not halved twice within this time: what was sent before the first time is still being complained about.
const BRAKE_PAUSE: Duration = Duration::from_secs(1);
/// How long the brake takes to be let go.
const RECOVERY: Duration = Duration::from_secs(60);

/// How fast points may be sent; set by [`with_rate_limit`](crate::OpenTsdbBuilder::with_rate_limit).
///
/// A server that answers `put: Please throttle writes` slows down each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimit {
    /// 100 points a second, or as many as it takes to send a snapshot within 80 % of the flush interval; twice that while a
    /// backlog is caught up. A flush by hand and the shutdown do not wait for this. The default.
    #[default]
    Auto,
    /// At most this many points a second, also for catching up, for sending again and at shutdown. The interval between two
    /// snapshots stretches when that is too few.
    #[doc(alias = "mps")]
    PerSecond(NonZeroU32),
    /// As fast as the server reads.
    Unlimited,
}

/// What there is to send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// Points that wait, in all.
    pub(super) unsent: usize,
    /// Points that wait and are no backlog.
    pub(super) fresh: usize,
    /// Whether there are others: from before a connection was lost, or to be sent again.
    pub(super) has_backlog: bool,
    /// Whether a flush or the shutdown waits.
    pub(super) is_hurried: bool,
}

#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    interval: Duration,
    /// Points that may be sent at `filled`; at most the bucket's size.
    tokens: f64,
    /// When `tokens` was right.
    filled: Instant,
    /// The size of the snapshot that is being sent: the most fresh points seen since there were none.
    present: usize,
    /// The size of the one before.
    last: usize,
    meter: Meter,
    brake: Option<Brake>,
}

/// What slows down after a complaint.
#[derive(Clone, Copy, Debug)]
struct Brake {
    /// The rate right after the last halving.
    low: f64,
    /// The rate before the first.
    high: f64,
    halved: Instant,
    /// The last complaint.
    complained: Instant,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit, interval: Duration, now: Instant) -> Self {
        let mut limiter = Limiter {
            limit,
            interval,
            tokens: 0.0,
            filled: now,
            present: 0,
            last: 0,
            meter: Meter::new(now),
            brake: None,
        };
        limiter.tokens = limiter.rate(Demand::default(), now).map_or(0.0, bucket);
        limiter
    }

    /// How many points may be sent now, or when to ask again.
    pub(super) fn allow(&mut self, demand: Demand, now: Instant) -> Result<usize, Instant> {
        self.present = self.present.max(demand.fresh);
        let Some(rate) = self.rate(demand, now) else { return Ok(usize::MAX) };
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

    /// So many points are being sent.
    pub(super) fn spend(&mut self, points: usize, now: Instant) {
        self.tokens = (self.tokens - points as f64).max(0.0);
        self.meter.add(points, now);
    }

    /// A write that was spent for has been held up and is done only now: the time in between earned nothing, or two
    /// allowances would leave together.
    pub(super) fn held_up(&mut self, now: Instant) {
        self.tokens = 0.0;
        self.filled = now;
    }

    /// Nothing waits any more.
    pub(super) fn drained(&mut self) {
        if self.present > 0 {
            self.last = std::mem::take(&mut self.present);
        }
    }

    /// The server complained about the rate.
    pub(super) fn complained(&mut self, demand: Demand, now: Instant) {
        let rate = self.rate(demand, now).unwrap_or_else(|| self.meter.rate(now));
        let brake = self.brake.get_or_insert(Brake {
            low: f64::MAX,
            high: rate.max(BRAKE_FLOOR),
            halved: now,
            complained: now,
        });
        let is_first = brake.low == f64::MAX;
        if is_first || now.saturating_duration_since(brake.halved) >= BRAKE_PAUSE {
            brake.low = (rate / 2.0).max(BRAKE_FLOOR);
            brake.halved = now;
        }
        brake.complained = now;
    }

    /// Points a second, if there is a limit.
    fn rate(&mut self, demand: Demand, now: Instant) -> Option<f64> {
        let own = match self.limit {
            RateLimit::PerSecond(cap) => Some(f64::from(cap.get())),
            RateLimit::Auto if !demand.is_hurried => Some(self.auto_rate(demand)),
            RateLimit::Auto | RateLimit::Unlimited => None,
        };
        let braked = self.braked(now);
        match (own, braked) {
            (Some(own), Some(braked)) => Some(own.min(braked)),
            (own, braked) => own.or(braked),
        }
    }

    fn auto_rate(&self, demand: Demand) -> f64 {
        let snapshot = self.present.max(self.last).max(demand.fresh) as f64;
        let needed = snapshot / (self.interval.as_secs_f64() * SHARE_OF_INTERVAL).max(1e-3);
        let factor = if demand.has_backlog { BACKLOG_FACTOR } else { 1.0 };
        needed.max(AUTO_FLOOR) * factor
    }

    fn braked(&mut self, now: Instant) -> Option<f64> {
        let brake = self.brake?;
        let quiet = now.saturating_duration_since(brake.complained);
        if quiet >= RECOVERY {
            self.brake = None;
            return None;
        }
        let recovered = quiet.as_secs_f64() / RECOVERY.as_secs_f64();
        Some(brake.low + (brake.high - brake.low).max(0.0) * recovered)
    }
}

/// How many points a bucket holds.
fn bucket(rate: f64) -> f64 {
    (rate * BUCKET).max(1.0)
}

/// Counts what was sent within about a second.
#[derive(Debug)]
struct Meter {
    /// When the present second began.
    since: Instant,
    present: usize,
    /// The second before.
    last: usize,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Meter { since: now, present: 0, last: 0 }
    }

    fn add(&mut self, points: usize, now: Instant) {
        self.advance(now);
        self.present = self.present.saturating_add(points);
    }

    fn rate(&mut self, now: Instant) -> f64 {
        self.advance(now);
        self.present.max(self.last) as f64
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= Duration::from_secs(1) {
            let just_over = passed < Duration::from_secs(2);
            self.last = if just_over { self.present } else { 0 };
            self.present = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn per_second(n: u32) -> RateLimit {
        RateLimit::PerSecond(NonZeroU32::new(n).unwrap())
    }

    fn fresh(fresh: usize) -> Demand {
        Demand { fresh, unsent: fresh, ..Demand::default() }
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
            match limiter.allow(demand(points), now) {
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
        limiter.drained();
        sent
    }

    fn most_in_any_second(sent: &[(Duration, usize)]) -> usize {
        let within = |from: Duration| {
            sent.iter()
                .filter(|(at, _)| *at >= from && *at < from + Duration::from_secs(1))
                .map(|&(_, n)| n)
                .sum()
        };
        sent.iter().map(|&(from, _)| within(from)).max().unwrap_or(0)
    }

    #[test]
    fn a_cap_holds_in_any_second_whoever_waits() {
        for n in [1, 2, 7, 10, 99, 1000, 50_000] {
            for is_hurried in [false, true] {
                let start = Instant::now();
                let mut limiter = Limiter::new(per_second(n), INTERVAL, start);
                let demand =
                    |unsent| Demand { is_hurried, has_backlog: true, fresh: 1_000_000, unsent };
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
        let start = Instant::now();
        let mut limiter = Limiter::new(per_second(1000), INTERVAL, start);
        let first = limiter.allow(fresh(9000), start).unwrap();
        limiter.spend(first, start);
        let later = start + Duration::from_secs(20);
        limiter.held_up(later);
        let mut sent = send(&mut limiter, 3000, later, fresh);
        sent.insert(0, (Duration::ZERO, first));
        assert!(most_in_any_second(&sent) <= 1150);
    }

    #[test]
    fn auto_sends_a_snapshot_in_small_steps_within_80_percent_of_the_interval() {
        for (points, seconds) in [(100, 1.0), (800, 8.0), (5_000, 8.0), (1_000_000, 8.0)] {
            let start = Instant::now();
            let mut limiter = Limiter::new(RateLimit::Auto, INTERVAL, start);
            let sent = send(&mut limiter, points, start, fresh);
            let took = sent.last().unwrap().0.as_secs_f64();
            assert!(took <= seconds && took >= seconds * 0.8, "{points}: {took}");
            let largest = sent.iter().map(|&(_, n)| n).max().unwrap();
            assert!(largest <= points / 10 + 10, "{largest} of {points} at once");
        }
    }

    #[test]
    fn auto_goes_twice_as_fast_while_there_is_a_backlog() {
        let start = Instant::now();
        let mut limiter = Limiter::new(RateLimit::Auto, INTERVAL, start);
        let demand = |unsent| Demand { fresh: 8_000, has_backlog: true, is_hurried: false, unsent };
        let sent = send(&mut limiter, 8_000, start, demand);
        let took = sent.last().unwrap().0.as_secs_f64();
        assert!(took > 3.5 && took < 4.0, "{took}");
    }

    #[test]
    fn auto_remembers_the_size_of_the_last_snapshot() {
        let start = Instant::now();
        let mut limiter = Limiter::new(RateLimit::Auto, INTERVAL, start);
        send(&mut limiter, 80_000, start, fresh);
        assert_eq!(limiter.rate(Demand::default(), start), Some(10_000.0));
        send(&mut limiter, 1_600, start, fresh);
        assert_eq!(limiter.rate(Demand::default(), start), Some(200.0));
    }

    #[test]
    fn a_waiting_flush_is_not_spread_unless_there_is_a_cap() {
        let start = Instant::now();
        let hurried = Demand { is_hurried: true, ..fresh(5_000) };
        for limit in [RateLimit::Auto, RateLimit::Unlimited] {
            let mut limiter = Limiter::new(limit, INTERVAL, start);
            assert_eq!(limiter.allow(hurried, start), Ok(usize::MAX));
        }
        let mut limiter = Limiter::new(per_second(1000), INTERVAL, start);
        assert_eq!(limiter.allow(hurried, start), Ok(100));
    }

    #[test]
    fn a_complaint_halves_the_rate_at_most_once_a_second_and_down_to_one() {
        let start = Instant::now();
        let mut limiter = Limiter::new(per_second(1000), INTERVAL, start);
        let mut now = start;
        for expected in [500.0, 250.0, 125.0, 62.5, 31.25] {
            for _ in 0..100 {
                limiter.complained(fresh(9000), now);
            }
            assert_eq!(limiter.rate(fresh(9000), now), Some(expected));
            now += BRAKE_PAUSE;
            limiter.brake.as_mut().unwrap().complained = now;
        }
        for _ in 0..2000 {
            limiter.complained(fresh(9000), now);
            now += BRAKE_PAUSE / 100;
        }
        assert!(limiter.rate(fresh(9000), now).unwrap() < 2.0);
        assert!(limiter.brake.unwrap().low >= BRAKE_FLOOR);
    }

    #[test]
    fn a_brake_is_let_go_evenly_over_a_minute() {
        let start = Instant::now();
        for (limit, free) in [(per_second(1000), Some(1000.0)), (RateLimit::Unlimited, None)] {
            let mut limiter = Limiter::new(limit, INTERVAL, start);
            limiter.spend(1000, start);
            limiter.complained(fresh(9000), start);
            let cases = [
                (0, Some(500.0)),
                (30, Some(750.0)),
                (59, Some(500.0 + 500.0 * 59.0 / 60.0)),
                (60, free),
            ];
            for (seconds, expected) in cases {
                let now = start + Duration::from_secs(seconds);
                let rate = limiter.rate(fresh(9000), now);
                assert!(
                    rate == expected || (rate.unwrap() - expected.unwrap()).abs() < 1e-6,
                    "{limit:?} after {seconds} s: {rate:?}"
                );
            }
        }
    }

    #[test]
    fn a_complaint_slows_a_waiting_flush_too() {
        let start = Instant::now();
        let hurried = Demand { is_hurried: true, ..fresh(5_000) };
        let mut limiter = Limiter::new(RateLimit::Auto, INTERVAL, start);
        limiter.spend(5_000, start);
        limiter.complained(hurried, start);
        assert_eq!(limiter.rate(hurried, start), Some(2_500.0));
    }
}
