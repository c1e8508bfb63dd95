//! What the registry has to know of each kind: its table, what a series of it needs, and whose lines it must not write.

use std::sync::Arc;

use metrics::Key;
use metrics_util::MetricKind;

use super::conflict::WireName;
use super::counter::Counter;
use super::gauge::Gauge;
use super::histogram::HistogramCell;
use super::registry::{Fresh, Registry};
use super::samples::{Histogram, Shape};
use super::series::{Kind, Series};
use super::table::Table;
use crate::wire::series::OwnTag;

/// A kind that the registry has a table for.
pub(crate) trait Registered: Kind {
    const KIND: MetricKind;
    fn table(registry: &Registry) -> &Table<Self>;
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>>;
    /// What is to be known of it before it is registered.
    type Shape;
    fn shape(registry: &Registry, key: &Key) -> Self::Shape;
    /// The tag that its lines will have besides its own.
    fn own_tag(shape: &Self::Shape) -> OwnTag;
    fn cell(shape: Self::Shape) -> Self::Cell;
    /// Whether anything else writes a line of this one already.
    fn is_taken(registry: &Registry, name: &WireName<'_>, shape: &Self::Shape) -> bool;
}

impl Registered for Counter {
    const KIND: MetricKind = MetricKind::Counter;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.counters
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.counters
    }
    type Shape = ();
    fn shape(_registry: &Registry, _key: &Key) {}
    fn own_tag((): &()) -> OwnTag {
        None
    }
    fn cell((): ()) -> Self::Cell {
        Self::Cell::default()
    }
    fn is_taken(registry: &Registry, name: &WireName<'_>, (): &()) -> bool {
        registry.gauges.has(name) || registry.meets_histogram(name)
    }
}

impl Registered for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.gauges
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.gauges
    }
    type Shape = ();
    fn shape(_registry: &Registry, _key: &Key) {}
    fn own_tag((): &()) -> OwnTag {
        None
    }
    fn cell((): ()) -> Self::Cell {
        Self::Cell::default()
    }
    fn is_taken(registry: &Registry, name: &WireName<'_>, (): &()) -> bool {
        registry.counters.has(name) || registry.meets_histogram(name)
    }
}

impl Registered for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.histograms
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.histograms
    }
    type Shape = Shape;
    fn shape(registry: &Registry, key: &Key) -> Shape {
        let rules = registry.rules();
        registry.shape_of(&format!("{}{}", rules.prefix, rules.charset.clean(key.name())))
    }
    fn own_tag(shape: &Shape) -> OwnTag {
        shape.own_tag
    }
    fn cell(shape: Shape) -> Self::Cell {
        Arc::new(HistogramCell::new(shape.scheme))
    }
    fn is_taken(registry: &Registry, name: &WireName<'_>, shape: &Shape) -> bool {
        // Its lines have suffixes: `latency` may well be a counter and a histogram.
        registry.meets_single(name, shape)
    }
}
