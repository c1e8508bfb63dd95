//! What the facade calls.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::MetricKind;

use super::cache::{self, CachedKind, Handle};
use super::levels::Levels;
use super::registry::Registry;

/// The recorder that [`build`](crate::OpenTsdbBuilder::build) makes: install it with
/// `metrics::set_global_recorder`, put it under a layer of `metrics_util`, or use it in a test with
/// `metrics::with_local_recorder`.
///
/// It only counts; what it counts is sent by the exporter's threads, which the
/// [`OpenTsdbHandle`](crate::OpenTsdbHandle) made with it directs.
pub struct OpenTsdbRecorder {
    pub(crate) registry: Arc<Registry>,
    /// `None` when every call site records.
    pub(crate) levels: Option<Box<Levels>>,
}

/// A panic of the application leaves nothing behind that a metric could not go on with.
impl UnwindSafe for OpenTsdbRecorder {}
impl RefUnwindSafe for OpenTsdbRecorder {}

impl OpenTsdbRecorder {
    #[inline]
    fn find<K: CachedKind>(&self, key: &Key, metadata: &Metadata<'_>) -> Handle<K> {
        // Not left to the cache: call sites of one key may differ in level and target.
        if self.levels.as_ref().is_some_and(|levels| !levels.admits(metadata)) {
            return Handle::Nothing;
        }
        cache::get(self.registry.number, key, || self.registry.get(key))
    }
}

impl std::fmt::Debug for OpenTsdbRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenTsdbRecorder").finish_non_exhaustive()
    }
}

impl Recorder for OpenTsdbRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.registry.descriptions.note(MetricKind::Counter, &name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.registry.descriptions.note(MetricKind::Gauge, &name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.registry.descriptions.note(MetricKind::Histogram, &name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        match self.find::<super::counter::Counter>(key, metadata) {
            Handle::Local(local) => Counter::from_arc(local),
            Handle::Shared(series) => Counter::from_arc(series),
            Handle::Nothing => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        match self.find::<super::gauge::Gauge>(key, metadata) {
            Handle::Local(local) => Gauge::from_arc(local),
            Handle::Shared(series) => Gauge::from_arc(series),
            Handle::Nothing => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        match self.find::<super::histogram::Histogram>(key, metadata) {
            Handle::Local(local) => Histogram::from_arc(local),
            Handle::Shared(series) => Histogram::from_arc(series),
            Handle::Nothing => Histogram::noop(),
        }
    }
}
