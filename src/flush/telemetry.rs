//! The exporter's own series, `opentsdb.client.*` behind the global prefix. They are part of each
//! snapshot and do not pass through the global recorder.
//!
//! A counter, whose value is an integer, makes no line before it has left zero.

use super::reading::Sink;
use super::schedule::Stamp;
use crate::stats::Stats;
use crate::wire::line::Variant;
use crate::wire::series::LineBuf;
use crate::wire::series::Rules;
use crate::wire::value::Value;

/// The part of a name that all of them share, behind the global prefix.
const PREFIX: &str = "opentsdb.client.";

/// Reads the value of one.
type Read = fn(&Stats) -> Value;

/// The name of one, its tag if it has one, and its value.
type Reading = (&'static str, Option<(&'static str, &'static str)>, Read);

const SERIES: &[Reading] = &[
    ("points.taken", None, |stats| stats.points_taken.into()),
    ("points.sent", None, |stats| stats.points_sent.into()),
    ("points.confirmed", None, |stats| stats.points_confirmed.into()),
    ("points.pending", None, |stats| (stats.points_pending as f64).into()),
    ("points.resent", None, |stats| stats.points_resent.into()),
    ("points.dropped", Some(("reason", "queue_full")), |stats| {
        stats.points_dropped.queue_full.into()
    }),
    ("points.dropped", Some(("reason", "too_long")), |stats| stats.points_dropped.too_long.into()),
    ("points.dropped", Some(("reason", "not_finite")), |stats| {
        stats.points_dropped.not_finite.into()
    }),
    ("points.dropped", Some(("reason", "duplicate")), |stats| {
        stats.points_dropped.duplicate.into()
    }),
    ("points.dropped", Some(("reason", "shutdown")), |stats| stats.points_dropped.shutdown.into()),
    ("points.rejected", Some(("class", "illegal_argument")), |stats| {
        stats.points_rejected.illegal_argument.into()
    }),
    ("points.rejected", Some(("class", "invalid_value")), |stats| {
        stats.points_rejected.invalid_value.into()
    }),
    ("points.rejected", Some(("class", "unknown_metric")), |stats| {
        stats.points_rejected.unknown_metric.into()
    }),
    ("points.rejected", Some(("class", "storage")), |stats| stats.points_rejected.storage.into()),
    ("points.rejected", Some(("class", "throttled")), |stats| {
        stats.points_rejected.throttled.into()
    }),
    ("points.rejected", Some(("class", "unknown_command")), |stats| {
        stats.points_rejected.unknown_command.into()
    }),
    ("points.rejected", Some(("class", "other")), |stats| stats.points_rejected.other.into()),
    ("pending.age", None, |stats| stats.oldest_pending.map_or(0.0, |age| age.as_secs_f64()).into()),
    ("bytes.sent", None, |stats| stats.bytes_sent.into()),
    ("ticks.skipped", None, |stats| stats.ticks_skipped.into()),
    ("connects", None, |stats| stats.connects.into()),
    ("connect.failures", None, |stats| stats.connect_failures.into()),
    ("disconnects", None, |stats| stats.disconnects.into()),
    ("connected", None, |stats| f64::from(u8::from(stats.connected)).into()),
    ("series", None, |stats| (stats.series as f64).into()),
    ("series.merged", None, |stats| stats.series_merged.into()),
    ("series.dormant", None, |stats| (stats.series_dormant as f64).into()),
    ("series.evicted", None, |stats| stats.series_evicted.into()),
    ("series.overflow", None, |stats| stats.series_overflow.into()),
    ("series.refused", None, |stats| stats.series_refused.into()),
    ("tags.dropped", None, |stats| stats.tags_dropped.into()),
    ("clock.steps", None, |stats| stats.clock_steps.into()),
    ("restarts", None, |stats| stats.restarts.into()),
];

/// The series, each with its rendered line and the value that was last sent.
pub(crate) struct Telemetry {
    series: Vec<(LineBuf, Read, Option<Value>)>,
}

impl Telemetry {
    /// No series at all.
    pub(crate) fn off() -> Self {
        Telemetry { series: Vec::new() }
    }

    /// All of them, with the global labels and the host tag.
    pub(crate) fn new(rules: &Rules) -> Self {
        let rules = Rules { prefix: [&rules.prefix, PREFIX].concat(), ..rules.clone() };
        let line = |name: &str, tag: &Option<(&'static str, &'static str)>| {
            rules.identify(name, tag.iter().copied(), None).line()
        };
        Telemetry {
            series: SERIES.iter().map(|(name, tag, read)| (line(name, tag), *read, None)).collect(),
        }
    }

    /// What each series is called, so that nothing else is.
    pub(crate) fn into_lines(self) -> Vec<LineBuf> {
        self.series.into_iter().map(|(line, ..)| line).collect()
    }

    /// Gives the lines of a snapshot to `sink`.
    pub(crate) fn take(&mut self, stamp: Stamp, stats: &Stats, sink: &mut impl Sink) {
        for (line, read, last_sent) in &mut self.series {
            let value = read(stats);
            if has_line(value) && !(stamp.only_changed && *last_sent == Some(value)) {
                sink.point(line.line(), Variant::default(), value);
                *last_sent = Some(value);
            }
        }
    }

    /// Gives all lines to `sink` and changes nothing.
    pub(crate) fn peek(&self, stats: &Stats, sink: &mut impl Sink) {
        for (line, read, _) in &self.series {
            let value = Some(read(stats)).filter(|value| has_line(*value));
            value.into_iter().for_each(|value| sink.point(line.line(), Variant::default(), value));
        }
    }
}

fn has_line(value: Value) -> bool {
    value != Value::Integer(0)
}
