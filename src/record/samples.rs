//! Histograms, as a [`Kind`]: a [`HistogramCell`], and a thread's own way to it.

use std::sync::Arc;

use metrics::HistogramFn;

use super::buckets::Scheme;
use super::histogram::HistogramCell;
use super::series::{Kind, Series};
use crate::wire::series::OwnTag;

/// Histograms, as a [`Kind`].
pub(crate) struct Histogram;

/// What the lines of a histogram are called, behind its name. `()` for none.
pub(crate) trait Names: std::fmt::Debug + Send + Sync {
    /// The suffixes of the lines with the tags of the series.
    fn suffixes(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The suffix of the lines that have a tag more, and these tags.
    fn tagged(&self) -> Option<(&str, &[String])> {
        None
    }
}

impl Names for () {}

/// What a histogram's registration has to know of what will be made of it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// How it divides the values.
    pub(crate) scheme: Scheme,
    /// The tag that its lines will have besides its own.
    pub(crate) own_tag: OwnTag,
    /// What its lines will be called.
    pub(crate) names: Arc<dyn Names>,
}

impl Kind for Histogram {
    type Cell = Arc<HistogramCell>;
    type Local = HistogramLocal;

    fn local(series: &Arc<Series<Self>>, _owner: u64) -> HistogramLocal {
        HistogramLocal { cell: Arc::clone(&series.cell) }
    }

    fn fold(_cell: &Arc<HistogramCell>, _local: &mut HistogramLocal) {}
}

/// A thread's own way to the shared cell: it saves passing the series' reference count between threads. Its
/// own count is on a cache line of its own, as a counter's.
#[repr(align(64))]
pub(crate) struct HistogramLocal {
    cell: Arc<HistogramCell>,
}

impl HistogramFn for HistogramLocal {
    #[inline]
    fn record(&self, value: f64) {
        self.cell.record(value);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.cell.record_many(value, count);
    }
}

/// Without a cache.
impl HistogramFn for Series<Histogram> {
    fn record(&self, value: f64) {
        self.cell.record(value);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.cell.record_many(value, count);
    }
}
