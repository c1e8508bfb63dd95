//! The lines of a snapshot, to look at.
//!
//! Made by whoever asks, beside the flusher and without it: the flusher may be waiting for room in
//! the queue, for as long as the server takes nothing. All that the two share is the registry and
//! its cells, which can be read without being changed.

use std::sync::Arc;

use super::reading::{Options, Sink};
use super::schedule::TimestampPrecision;
use super::snapshot;
use super::telemetry::Telemetry;
use crate::clock::Clock;
use crate::record::registry::Registry;
use crate::stats::Stats;
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// See the module.
pub(crate) struct Renderer {
    pub(crate) registry: Arc<Registry>,
    pub(crate) options: Options,
    pub(crate) telemetry: Telemetry,
    pub(crate) max_line: usize,
    pub(crate) precision: TimestampPrecision,
    pub(crate) clock: Clock,
}

impl Renderer {
    /// The lines of all series now, by name, and the exporter's own.
    pub(crate) fn render(&self, stats: &Stats) -> String {
        let mut out = Rendering { lines: Lines::new(Vec::new(), self.max_line) };
        out.lines.set_time(self.precision.of(self.clock.wall()));
        snapshot::peek(&self.registry, &self.options, &mut out);
        self.telemetry.peek(stats, &mut out);
        String::from_utf8_lossy(out.lines.bytes()).into_owned()
    }
}

/// The lines so far.
struct Rendering {
    lines: Lines,
}

impl Sink for Rendering {
    fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value) {
        // What would not be sent is not shown.
        let _ = self.lines.push(line, variant, value);
    }

    fn histogram(&mut self, line: Line<'_>, value: &[u8]) {
        let _ = self.lines.push_histogram(line, value);
    }

    fn refuse(&mut self, _line: Line<'_>, _why: Unsendable, _points: u64) {}
}
