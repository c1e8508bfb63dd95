//! The tables of the three kinds, and what the registry needs to know of each kind.

use std::borrow::Cow;
use std::sync::Arc;

use metrics_util::MetricKind;

use super::counter::Counter;
use super::fingerprint::SeriesId;
use super::gauge::Gauge;
use super::histogram::cell::HistogramCell;
use super::histogram::{Histogram, HistogramSpec, HistogramSpecs};
use super::series::{Kind, Series};
use super::table::Table;
use crate::wire::series::OwnTag;

/// The series of all kinds.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) counters: Table<Counter>,
    pub(crate) gauges: Table<Gauge>,
    pub(crate) histograms: Table<Histogram>,
}

/// Series that the flusher does not know yet, in order of registration.
#[derive(Default)]
pub(crate) struct Fresh {
    pub(crate) counters: Vec<Arc<Series<Counter>>>,
    pub(crate) gauges: Vec<Arc<Series<Gauge>>>,
    pub(crate) histograms: Vec<Arc<Series<Histogram>>>,
}

/// A kind that the registry has a table for.
pub(crate) trait RegistryKind: Kind {
    const KIND: MetricKind;
    /// What a series of this kind is made by.
    type Spec;

    fn table(tables: &Tables) -> &Table<Self>;
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>>;
    /// The spec for a metric, by its name as it is sent.
    fn spec<'a>(specs: &HistogramSpecs, metric: impl FnOnce() -> Cow<'a, str>) -> Self::Spec;
    fn cell(spec: &Self::Spec) -> Self::Cell;

    /// The tag that some lines have besides those of the series.
    fn own_tag(_spec: &Self::Spec) -> OwnTag {
        None
    }

    /// What the lines of a histogram are called behind its name; `None` for a kind whose one line
    /// has the name itself.
    fn suffixes(_spec: &Self::Spec) -> Option<&[String]> {
        None
    }

    /// Whether a series of another kind has the same name and tags, and a line of just that name.
    fn is_elsewhere(_tables: &Tables, _id: SeriesId) -> bool {
        false
    }
}

macro_rules! single_line_kind {
    ($kind:ident, $table:ident, $other:ident) => {
        impl RegistryKind for $kind {
            const KIND: MetricKind = MetricKind::$kind;
            type Spec = ();

            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$table
            }

            fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
                &mut fresh.$table
            }

            fn spec<'a>(_specs: &HistogramSpecs, _metric: impl FnOnce() -> Cow<'a, str>) {}

            fn cell((): &()) -> Self::Cell {
                Self::Cell::default()
            }

            fn is_elsewhere(tables: &Tables, id: SeriesId) -> bool {
                tables.$other.find(id).is_some()
            }
        }
    };
}

single_line_kind!(Counter, counters, gauges);
single_line_kind!(Gauge, gauges, counters);

impl RegistryKind for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    type Spec = HistogramSpec;

    fn table(tables: &Tables) -> &Table<Self> {
        &tables.histograms
    }

    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.histograms
    }

    fn spec<'a>(specs: &HistogramSpecs, metric: impl FnOnce() -> Cow<'a, str>) -> HistogramSpec {
        specs(&metric())
    }

    fn cell(spec: &HistogramSpec) -> Self::Cell {
        Arc::new(HistogramCell::new(spec.scheme.clone()))
    }

    fn own_tag(spec: &HistogramSpec) -> OwnTag {
        spec.own_tag
    }

    fn suffixes(spec: &HistogramSpec) -> Option<&[String]> {
        Some(&spec.suffixes)
    }
}
