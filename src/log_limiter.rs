//! How often the log says the same: once a minute for each cause, the first time at once.
//!
//! A server may send a million replies and a network may flap for a day.

use std::time::Duration;

use crate::clock::Instant;

/// The least time between two log lines of one cause.
const INTERVAL: Duration = Duration::from_secs(60);

/// When each cause was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter(Vec<(&'static str, Instant)>);

impl LogLimiter {
    /// Whether to log this cause now; if so, it counts as logged.
    pub(crate) fn should_log(&mut self, cause: &'static str, now: Instant) -> bool {
        match self.0.iter_mut().find(|(logged, _)| *logged == cause) {
            None => self.0.push((cause, now)),
            Some((_, at)) if now.saturating_duration_since(*at) >= INTERVAL => *at = now,
            Some(_) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_at_once_and_then_once_a_minute() {
        let start = Instant::now();
        let mut log = LogLimiter::default();
        let cases = [
            ("a", 0, true),
            ("a", 59, false),
            ("b", 59, true),
            ("a", 60, true),
            ("b", 61, false),
            ("a", 119, false),
            ("b", 119, true),
        ];
        for (cause, seconds, expected) in cases {
            let should_log = log.should_log(cause, start + Duration::from_secs(seconds));
            assert_eq!(should_log, expected, "{cause} after {seconds} s");
        }
    }
}
