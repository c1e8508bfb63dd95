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
    type Local = HistogramLocal;

    fn local(series: &Arc<Series<Self>>, _owner: u64) -> HistogramLocal {
        HistogramLocal { cell: Arc::clone(&series.cell) }
    }

    fn fold(_cell: &Arc<HistogramCell>, _local: &mut HistogramLocal) {}
}

/// A thread's own reference to the shared cell, on a cache line of its own: avoids contention on the
/// series' reference count.
#[repr(align(64))]
pub(crate) struct HistogramLocal {
    cell: Arc<HistogramCell>,
}

// `HistogramCell` itself is no `HistogramFn`: the facade has one for `Arc<F>` that records in a loop,
// and it would be called here in place of the cell's own `record_many`.
impl HistogramFn for HistogramLocal {
    #[inline]
    fn record(&self, value: f64) {
        self.cell.record(value);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.cell.record_many(value, count as u64);
    }
}

/// Without a cache.
impl HistogramFn for Series<Histogram> {
    fn record(&self, value: f64) {
        self.cell.record(value);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.cell.record_many(value, count as u64);
    }
}
