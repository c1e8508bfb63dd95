//! How long a server is waited for.
//!
//! Progress prolongs a wait, but only up to [`MAX_TIMEOUTS`]: a server that does a little within
//! each timeout is left in the end.

use std::time::Duration;

use crate::clock::Instant;

/// How many timeouts a wait lasts at most, whatever progress is made.
const MAX_TIMEOUTS: u32 = 5;

#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// When the wait began.
    pub(super) began: Instant,
    /// When the server last showed that it works on what it got.
    progressed: Instant,
}

impl Deadline {
    pub(super) fn new(now: Instant) -> Self {
        Deadline { began: now, progressed: now }
    }

    /// The server has made progress.
    pub(super) fn prolong(&mut self, now: Instant) {
        self.progressed = now;
    }

    /// When the wait is over.
    pub(super) fn at(&self, timeout: Duration) -> Instant {
        (self.progressed + timeout).min(self.began + timeout.saturating_mul(MAX_TIMEOUTS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_prolongs_a_wait_up_to_a_bound() {
        let timeout = Duration::from_secs(30);
        let start = Instant::now();
        let mut deadline = Deadline::new(start);
        assert_eq!(deadline.at(timeout), start + timeout);
        deadline.prolong(start + Duration::from_secs(20));
        assert_eq!(deadline.at(timeout), start + Duration::from_secs(50));
        deadline.prolong(start + Duration::from_secs(140));
        assert_eq!(deadline.at(timeout), start + Duration::from_secs(150));
    }
}
