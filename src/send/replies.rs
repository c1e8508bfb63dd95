//! What a server's replies say: counted by kind, and logged once a minute and kind with advice.
//!
//! A subscriber is a user's code: it may be slow or panic. So nothing is logged with a lock held or
//! a change half made.

use crate::clock::Instant;
use crate::log_limiter::LogLimiter;
use crate::stats::Counters;
use crate::wire::reply::Reply;

/// The replies of one turn of reading.
#[derive(Debug, Default)]
pub(super) struct ReplyTally {
    /// An answer to `version`.
    pub(super) is_answered: bool,
    /// Points that the server refused.
    pub(super) rejections: u64,
    /// Whether the server asked for fewer points.
    pub(super) is_complaint: bool,
    /// Replies to be logged, with their advice.
    to_log: Vec<(&'static str, String)>,
}

impl ReplyTally {
    pub(super) fn take(
        &mut self,
        reply: Reply,
        text: &str,
        counters: &Counters,
        log: &mut LogLimiter,
        now: Instant,
    ) {
        self.is_answered |= reply == Reply::Version;
        self.is_complaint |= reply == Reply::Throttled;
        let rejected = &counters.points_rejected;
        let (count, advice) = match reply {
            Reply::Version | Reply::Nothing => return,
            Reply::IllegalArgument => (&rejected.illegal_argument, ADVICE_ARGUMENT),
            Reply::InvalidValue => (&rejected.invalid_value, ADVICE_VALUE),
            Reply::UnknownMetric => (&rejected.unknown_metric, ADVICE_METRIC),
            Reply::Storage => (&rejected.storage, ADVICE_STORAGE),
            Reply::Throttled => (&rejected.throttled, ADVICE_THROTTLED),
            Reply::UnknownCommand => (&rejected.unknown_command, ADVICE_COMMAND),
            Reply::Other => (&rejected.other, ADVICE_OTHER),
        };
        count.add(1);
        self.rejections += 1;
        if log.should_log(advice, now) {
            self.to_log.push((advice, text.escape_debug().collect()));
        }
    }

    /// Logs what no line of the last minute said.
    pub(super) fn log(self, endpoint: &dyn std::fmt::Display) {
        for (advice, reply) in self.to_log {
            tracing::warn!(%endpoint, reply, "the server refuses a point; {advice}");
        }
    }
}

const ADVICE_ARGUMENT: &str = "if its line follows the protocol, the server is set to a narrower \
     form of it (tsd.storage.max_tags, tsd.core.tag.allow_specialchars)";
const ADVICE_VALUE: &str = "its value does not follow the protocol, or is out of its range";
const ADVICE_METRIC: &str = "it creates no metrics by itself: set tsd.core.auto_create_metrics = \
     true there, or create the metric with `tsdb mkmetric`";
const ADVICE_STORAGE: &str = "it could not store it: look at its HBase";
const ADVICE_THROTTLED: &str = "sending slows down by half and recovers within a minute; if this \
     goes on, lengthen the flush interval or add servers";
const ADVICE_COMMAND: &str = "it takes none: is it a read-only TSD (tsd.mode = ro)?";
const ADVICE_OTHER: &str = "no TSD replies so: is this its telnet port?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_kind_and_answers_are_none() {
        let (counters, mut log, mut tally) =
            (Counters::default(), LogLimiter::default(), ReplyTally::default());
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
            tally.take(reply, "text", &counters, &mut log, Instant::now());
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
        assert_eq!((tally.rejections, tally.to_log.len()), (7, 7));
        assert!(tally.is_answered && tally.is_complaint);
    }
}
