//! Histograms, as a [`Kind`]: a [`HistogramCell`] for all threads.
//!
//! [`cell`] counts by [`buckets`] on [`pages`] and is read into a [`readout`].

pub(crate) mod buckets;
pub(crate) mod cell;
pub(crate) mod pages;
pub(crate) mod readout;

use std::sync::Arc;

use metrics::HistogramFn;

use self::buckets::Scheme;
use self::cell::HistogramCell;
use super::locals::Shared;
use super::series::{Kind, Series};
use crate::wire::series::OwnTag;

/// Histograms, as a [`Kind`].
pub(crate) struct Histogram;

/// What registration needs to know of a histogram.
#[derive(Clone, Debug)]
pub(crate) struct HistogramSpec {
    /// How it divides the values.
    pub(crate) scheme: Scheme,
    /// The tag that some of its lines have besides its own.
    pub(crate) own_tag: OwnTag,
    /// What its lines are called behind its name, in an order that is always the same.
    pub(crate) suffixes: Vec<String>,
}

/// The [`HistogramSpec`] for a metric, by its name as it is sent.
pub(crate) type HistogramSpecs = Box<dyn Fn(&str) -> HistogramSpec + Send + Sync>;

impl Kind for Histogram {
    type Cell = Arc<HistogramCell>;
    type Local = Shared<HistogramCell>;

    fn local(series: &Arc<Series<Self>>, _owner: u64) -> Shared<HistogramCell> {
        Shared { cell: Arc::clone(&series.cell) }
    }
}

// `HistogramCell` itself is no `HistogramFn`: the facade has one for `Arc<F>` that records in a
// loop, and it would be called here in place of the cell's own `record_many`.
macro_rules! pass_on {
    ($handle:ty) => {
        impl HistogramFn for $handle {
            #[inline]
            fn record(&self, value: f64) {
                self.cell.record_many(value, 1);
            }

            fn record_many(&self, value: f64, count: usize) {
                self.cell.record_many(value, count as u64);
            }
        }
    };
}

pass_on!(Shared<HistogramCell>);
// Without a cache.
pass_on!(Series<Histogram>);

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::registry::Registry;
    use super::readout::Readout;
    use super::*;
    use crate::record::locals::Take;
    use crate::wire::series::Rules;
    use metrics::Key;

    /// In a loop this would take 200 years.
    #[test]
    fn recording_many_takes_as_long_as_one_through_any_handle() {
        let (registry, _) = Registry::of_a_test(Rules::of_a_test(), 10);
        let series = registry.get::<Histogram>(&Key::from_name("h")).unwrap().series;
        let local = series.adopt(1);
        let many = usize::MAX / 4;
        metrics::Histogram::from_arc(local).record_many(1.0, many);
        metrics::Histogram::from_arc(Arc::clone(&series)).record_many(1.0, many);
        let mut readout = Readout::default();
        series.cell.collect(Take::Drain, &mut readout);
        assert_eq!(readout.count, 2 * many as u64);
    }
}
