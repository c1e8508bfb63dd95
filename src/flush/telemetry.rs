//! The exporter's own series, `opentsdb.client.*` behind the global prefix. They are part of each
//! snapshot and do not pass through the global recorder.
//!
//! What was never anything but zero makes no line, so in good days there are five to seven. Only
//! what somebody looks at, or is woken for, is here; [`Stats`] has more.

use super::reading::Sink;
use super::schedule::Stamp;
use crate::stats::Stats;
use crate::wire::line::Variant;
use crate::wire::series::{LineBuf, Rules};
use crate::wire::value::Value;

/// The part of a name that all of them share, behind the global prefix.
const PREFIX: &str = "opentsdb.client.";

/// Reads the value of one.
type Read = fn(&Stats) -> Value;

/// The name of each, and its value.
const SERIES: &[(&str, Read)] = &[
    ("points.taken", |stats| stats.points_taken.into()),
    ("points.confirmed", |stats| stats.points_confirmed.into()),
    ("points.pending", |stats| (stats.points_pending as f64).into()),
    ("points.resent", |stats| stats.points_resent.into()),
    ("points.spooled", |stats| stats.points_spooled.into()),
    ("pending.age", |stats| stats.oldest_pending.unwrap_or_default().as_secs_f64().into()),
    ("spool.bytes", |stats| (stats.spool_bytes as f64).into()),
    ("spool.age", |stats| stats.oldest_spooled.unwrap_or_default().as_secs_f64().into()),
    ("spool.errors", |stats| stats.spool_errors.into()),
    ("ticks.skipped", |stats| stats.ticks_skipped.into()),
    ("connects", |stats| stats.connects.into()),
    ("connect.failures", |stats| stats.connect_failures.into()),
    ("disconnects", |stats| stats.disconnects.into()),
    ("connected", |stats| f64::from(u8::from(stats.connected)).into()),
    ("series", |stats| (stats.series as f64).into()),
    ("series.overflow", |stats| stats.series_overflow.into()),
    ("series.refused", |stats| stats.series_refused.into()),
    ("tags.dropped", |stats| stats.tags_dropped.into()),
    ("clock.steps", |stats| stats.clock_steps.into()),
    ("restarts", |stats| stats.restarts.into()),
];
/// The name and the tag's key of those that there are one of for each cause.
const BY_CAUSE: [(&str, &str); 2] = [("points.dropped", "reason"), ("points.rejected", "class")];

/// The name of each series, its tag if it has one, and its value; always in the same order.
fn values(
    stats: &Stats,
) -> impl Iterator<Item = (&'static str, Option<(&'static str, &'static str)>, Value)> {
    let [(dropped, reason), (rejected, class)] = BY_CAUSE;
    let plain = SERIES.iter().map(|(name, read)| (*name, None, read(stats)));
    let drops = stats.points_dropped.by_cause();
    let rejections = stats.points_rejected.by_cause();
    plain
        .chain(drops.map(move |(cause, n)| (dropped, Some((reason, cause)), n.into())))
        .chain(rejections.map(move |(cause, n)| (rejected, Some((class, cause)), n.into())))
}

/// The rendered line of each series, and the value that was last sent.
pub(crate) struct Telemetry {
    series: Vec<(LineBuf, Option<Value>)>,
}

impl Telemetry {
    /// No series at all.
    pub(crate) fn off() -> Self {
        Telemetry { series: Vec::new() }
    }

    /// All of them, with the global labels and the host tag.
    pub(crate) fn new(rules: &Rules) -> Self {
        let rules = Rules { prefix: [&rules.prefix, PREFIX].concat(), ..rules.clone() };
        let line = |(name, tag, _): (&'static str, Option<_>, _)| {
            (rules.identify(name, tag.into_iter(), None).line(), None)
        };
        Telemetry { series: values(&Stats::default()).map(line).collect() }
    }

    /// What each series is called, so that nothing else is.
    pub(crate) fn into_lines(self) -> Vec<LineBuf> {
        self.series.into_iter().map(|(line, _)| line).collect()
    }

    /// Gives the lines of a snapshot to `sink`.
    pub(crate) fn take(&mut self, stamp: Stamp, stats: &Stats, sink: &mut impl Sink) {
        for ((line, last_sent), (.., value)) in self.series.iter_mut().zip(values(stats)) {
            let has_line = last_sent.is_some() || !is_zero(value);
            if has_line && !(stamp.only_changed && *last_sent == Some(value)) {
                sink.point(line.line(), Variant::default(), value);
                *last_sent = Some(value);
            }
        }
    }

    /// Gives all lines that are not zero to `sink` and changes nothing.
    pub(crate) fn peek(&self, stats: &Stats, sink: &mut impl Sink) {
        for ((line, _), (.., value)) in self.series.iter().zip(values(stats)) {
            if !is_zero(value) {
                sink.point(line.line(), Variant::default(), value);
            }
        }
    }
}

fn is_zero(value: Value) -> bool {
    value == Value::Integer(0) || value == Value::Float(0.0)
}
