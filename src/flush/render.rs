//! The lines of a snapshot, to look at.
//!
//! Made by whoever asks, beside the flusher and without it: the flusher may be waiting for room in
//! the queue, for as long as the server takes nothing. All that the two share is the registry and
//! its cells, which can be read without being changed.

use super::exporter::Exporter;
use super::reading::Sink;
use super::snapshot;
use super::telemetry::Telemetry;
use crate::stats::Stats;
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// The lines of all series now, by name, and the exporter's own.
pub(crate) fn render(exporter: &Exporter, telemetry: &Telemetry, stats: &Stats) -> String {
    let mut out = Rendering(Lines::new(Vec::new(), exporter.max_line));
    out.0.set_time(exporter.precision.of(exporter.clock.wall()));
    snapshot::peek(&exporter.registry, &exporter.options, &mut out);
    telemetry.peek(stats, &mut out);
    String::from_utf8_lossy(out.0.bytes()).into_owned()
}

/// The lines so far.
struct Rendering(Lines);

impl Sink for Rendering {
    fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value) {
        // What would not be sent is not shown.
        let _ = self.0.push(line, variant, value);
    }

    fn histogram(&mut self, line: Line<'_>, value: &[u8]) {
        let _ = self.0.push_histogram(line, value);
    }

    fn refuse(&mut self, _line: Line<'_>, _why: Unsendable, _points: u64) {}
}
