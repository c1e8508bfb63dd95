//! An exporter, as the flusher and the handles share it.

use std::sync::Arc;

use super::reading::Options;
use super::schedule::TimestampPrecision;
use crate::clock::Clock;
use crate::queue::Queue;
use crate::record::registry::Registry;
use crate::stats::Counters;
use crate::wire::series::Rules;

/// See the module.
pub(crate) struct Exporter {
    pub(crate) options: Options,
    pub(crate) rules: Rules,
    /// The most bytes of a line, its line feed included.
    pub(crate) max_line: usize,
    pub(crate) precision: TimestampPrecision,
    /// Held by the recorder too, and by nobody else: so its count says whether there is one.
    pub(crate) registry: Arc<Registry>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
}

#[cfg(test)]
impl Exporter {
    /// For tests that have other things in mind.
    pub(super) fn of_a_test(options: Options, clock: Clock) -> Arc<Self> {
        let rules = Rules::of_a_test();
        let (registry, counters) = Registry::of_a_test(rules.clone(), 100_000);
        Arc::new(Exporter {
            options,
            rules,
            max_line: crate::wire::line::TSD_LINE,
            precision: TimestampPrecision::Seconds,
            registry: Arc::new(registry),
            queue: Arc::new(Queue::new(1_000, Arc::clone(&counters))),
            counters,
            clock,
        })
    }
}
