//! The tables of the three kinds, and what the registry needs to know of each kind.

use std::sync::Arc;

use metrics_util::MetricKind;

use super::counter::Counter;
use super::gauge::Gauge;
use super::histogram::buckets::Scheme;
use super::histogram::cell::HistogramCell;
use super::histogram::{Histogram, HistogramSpec};
use super::series::Kind;
use super::table::Table;

/// The series of all kinds.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) counters: Table<Counter>,
    pub(crate) gauges: Table<Gauge>,
    pub(crate) histograms: Table<Histogram>,
}

/// What a histogram is made by; none for the other kinds.
pub(crate) type Spec = Option<HistogramSpec>;

/// A kind that the registry has a table for.
pub(crate) trait RegistryKind: Kind {
    const KIND: MetricKind;

    fn table(tables: &Tables) -> &Table<Self>;
    fn cell(spec: &Spec) -> Self::Cell;
}

macro_rules! single_line_kind {
    ($kind:ident, $table:ident) => {
        impl RegistryKind for $kind {
            const KIND: MetricKind = MetricKind::$kind;

            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$table
            }

            fn cell(_spec: &Spec) -> Self::Cell {
                Self::Cell::default()
            }
        }
    };
}

single_line_kind!(Counter, counters);
single_line_kind!(Gauge, gauges);

impl RegistryKind for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;

    fn table(tables: &Tables) -> &Table<Self> {
        &tables.histograms
    }

    fn cell(spec: &Spec) -> Self::Cell {
        let scheme = spec.as_ref().map_or(Scheme::Log, |spec| spec.scheme.clone());
        Arc::new(HistogramCell::new(scheme))
    }
}
