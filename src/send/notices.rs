//! What is said in the log, and how often.
//!
//! A server may give a million replies and a network may flap for a day. Each cause is said at most once a minute, the first time
//! at once. A subscriber is a user's code: it may be slow or panic, so nothing is logged with a lock held or a change half made.

use std::time::Duration;

use crate::clock::Instant;
use crate::stats::Counters;
use crate::wire::reply::Reply;

/// How long a cause stays unsaid after it was said.
const SILENCE: Duration = Duration::from_secs(60);

/// When each cause was last said.
#[derive(Debug, Default)]
pub(super) struct Notices {
    said: Vec<(&'static str, Instant)>,
}

impl Notices {
    /// Whether to say it; if so, that counts as said.
    pub(super) fn is_due(&mut self, cause: &'static str, now: Instant) -> bool {
        match self.said.iter_mut().find(|(said, _)| *said == cause) {
            None => self.said.push((cause, now)),
            Some((_, at)) if now.saturating_duration_since(*at) >= SILENCE => *at = now,
            Some(_) => return false,
        }
        true
    }
}

/// What a turn of reading told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// An answer to `version`.
    pub(super) is_answered: bool,
    /// Points refused.
    pub(super) rejections: u64,
    /// Whether it is too much for the server.
    pub(super) is_complaint: bool,
    /// Replies to be logged, with their advice.
    notices: Vec<(&'static str, String)>,
}

impl Heard {
    pub(super) fn take(
        &mut self,
        reply: Reply,
        text: &str,
        counters: &Counters,
        notices: &mut Notices,
        now: Instant,
    ) {
        let (count, cause, advice) = match reply {
            Reply::Version => {
                self.is_answered = true;
                return;
            }
            Reply::Nothing => return,
            Reply::IllegalArgument => {
                (&counters.rejected_illegal_argument, "illegal argument", ADVICE_ARGUMENT)
            }
            Reply::InvalidValue => {
                (&counters.rejected_invalid_value, "invalid value", ADVICE_ARGUMENT)
            }
            Reply::UnknownMetric => {
                (&counters.rejected_unknown_metric, "unknown metric", ADVICE_METRIC)
            }
            Reply::Storage => (&counters.rejected_storage, "storage", ADVICE_STORAGE),
            Reply::Throttled => {
                self.is_complaint = true;
                (&counters.rejected_throttled, "throttled", ADVICE_THROTTLED)
            }
            Reply::UnknownCommand => {
                (&counters.rejected_unknown_command, "unknown command", ADVICE_COMMAND)
            }
            Reply::Other => (&counters.rejected_other, "other reply", ADVICE_OTHER),
        };
        count.add(1);
        self.rejections += 1;
        if notices.is_due(cause, now) {
            self.notices.push((advice, text.escape_debug().collect()));
        }
    }

    /// Logs what is due.
    pub(super) fn log(self, endpoint: &dyn std::fmt::Display) {
        for (advice, text) in self.notices {
            tracing::warn!("{endpoint} replied \"{text}\"; {advice}");
        }
    }
}

const ADVICE_ARGUMENT: &str = "the point is refused; if its line follows the protocol, the server is set to a narrower form of it \
     (tsd.storage.max_tags, tsd.core.tag.allow_specialchars)";
const ADVICE_METRIC: &str = "the server creates no metrics by itself; set tsd.core.auto_create_metrics = true there, or create it with \
     `tsdb mkmetric`";
const ADVICE_STORAGE: &str = "the server could not store the point; look at its HBase";
const ADVICE_THROTTLED: &str = "sending slows down by half and recovers within a minute; if this goes on, lengthen the flush interval or \
     add servers";
const ADVICE_COMMAND: &str = "the server takes no points; is it a read-only TSD (tsd.mode = ro)?";
const ADVICE_OTHER: &str = "that is no reply of a TSD to a point; is this its telnet port?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_at_once_and_then_once_a_minute() {
        let start = Instant::now();
        let mut notices = Notices::default();
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
            let is_due = notices.is_due(cause, start + Duration::from_secs(seconds));
            assert_eq!(is_due, expected, "{cause} after {seconds} s");
        }
    }

    #[test]
    fn replies_are_counted_by_kind_and_answers_are_none() {
        let (counters, mut notices, mut heard) =
            (Counters::default(), Notices::default(), Heard::default());
        for reply in [
            Reply::IllegalArgument,
            Reply::InvalidValue,
            Reply::UnknownMetric,
            Reply::Storage,
            Reply::Throttled,
            Reply::UnknownCommand,
            Reply::Other,
            Reply::Version,
            Reply::Nothing,
        ] {
            heard.take(reply, "text", &counters, &mut notices, Instant::now());
        }
        let rejected = counters.stats().points_rejected;
        let each = [
            rejected.illegal_argument,
            rejected.invalid_value,
            rejected.unknown_metric,
            rejected.storage,
            rejected.throttled,
            rejected.unknown_command,
            rejected.other,
        ];
        assert_eq!(each, [1; 7]);
        assert_eq!((heard.rejections, heard.notices.len()), (7, 7));
        assert!(heard.is_answered && heard.is_complaint);
    }
}
