//! How long to stay away after a failure.
//!
//! Full jitter: uniform between nothing and a ceiling that doubles with each failure. A hundred
//! clients that lose one server at one moment come back spread over the whole time, not in step.
//! Only a confirmation brings the ceiling down again: a server that accepts a connection and drops
//! it has proved nothing. So does the shutdown, which has no time for long waits.

use std::time::Duration;

/// Doublings after which the ceiling is at its maximum whatever the minimum is.
const MAX_DOUBLINGS: u32 = 31;

#[derive(Debug)]
pub(super) struct Backoff {
    /// The ceiling after the first failure.
    min: Duration,
    /// The highest ceiling.
    max: Duration,
    /// Failures since the last confirmation.
    failures: u32,
    random: fastrand::Rng,
}

/// What a failure means for the next attempt to reach the endpoint that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Anything up to the ceiling: the connection is gone on both sides, or never was.
    Jittered,
    /// Not before the minimum: the server may still work on the connection that we gave up. A
    /// TSD whose worker is blocked sees our end only later, and the next connection would block its
    /// next worker.
    AtLeastMin,
    /// Not before the server asks for it.
    AtLeast(Duration),
    /// The upper half of the highest ceiling: nothing will change until a person changes it.
    Slowest,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Backoff { min, max: max.max(min), failures: 0, random: fastrand::Rng::new() }
    }

    /// How long to wait before the next attempt, whichever endpoint it begins with.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(1.0 - self.random.f64())
    }

    /// How long at least to stay away from the endpoint that failed.
    pub(super) fn least(&mut self, wait: Wait) -> Duration {
        match wait {
            Wait::Jittered => Duration::ZERO,
            Wait::AtLeastMin => self.min,
            Wait::AtLeast(time) => time,
            Wait::Slowest => self.max.mul_f64(1.0 - self.random.f64() / 2.0),
        }
    }

    /// The server has confirmed something, or the shutdown begins.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS));
        doubled.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn the_ceiling_doubles_to_the_maximum_and_a_confirmation_brings_it_down() {
        let mut backoff = Backoff::new(MIN, MAX);
        for round in 0..2 {
            for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
                assert_eq!(backoff.ceiling(), Duration::from_secs(expected), "round {round}");
                backoff.next();
            }
            backoff.reset();
        }
    }

    #[test]
    fn waits_fill_the_whole_envelope_and_never_leave_it() {
        let mut seen = [0usize; 10];
        for seed in 0..1000 {
            let mut backoff = Backoff::new(MIN, MAX);
            backoff.random = fastrand::Rng::with_seed(seed);
            for ceiling in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
                let wait = backoff.next().as_secs_f64();
                assert!(wait > 0.0 && wait <= ceiling, "{wait} of {ceiling}");
                seen[((wait / ceiling * 10.0) as usize).min(9)] += 1;
            }
        }
        assert!(seen.iter().all(|&tenth| tenth > 500), "{seen:?}");
    }

    #[test]
    fn only_a_connection_that_was_given_up_has_a_least_wait() {
        let mut backoff = Backoff::new(MIN, MAX);
        let least = [Wait::Jittered, Wait::AtLeastMin].map(|wait| backoff.least(wait));
        assert_eq!(least, [Duration::ZERO, MIN]);
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_server_s_wait_is_kept_and_a_mistake_is_tried_seldom() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..100 {
            backoff.reset();
            assert!(backoff.least(Wait::AtLeast(2 * MAX)) == 2 * MAX);
            assert!((MAX / 2..=MAX).contains(&backoff.least(Wait::Slowest)));
        }
    }

    #[test]
    fn a_failure_without_end_overflows_nothing() {
        let mut backoff = Backoff::new(Duration::from_secs(u64::MAX), Duration::MAX);
        backoff.failures = u32::MAX;
        assert!(backoff.next() <= Duration::MAX);
        let mut zero = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(zero.least(Wait::AtLeastMin), Duration::ZERO);
    }
}
