//! One identity with its cell.

use std::sync::{Arc, Weak};

use super::fingerprint::Fingerprint;
use super::lines::{Location, LocationCell};
use super::locals::Locals;

/// One of the three kinds of metrics.
pub(crate) trait Kind: Sized + 'static {
    /// Where updates through shared handles go, and what is left of locals that ended.
    type Cell: Send + Sync;
    /// What one thread updates.
    type Local: Send + Sync;

    /// A local for the calling thread, whose number is `owner`.
    fn local(series: &Arc<Series<Self>>, owner: u64) -> Self::Local;

    /// Adds the value of a local that has ended to the cell, if locals have values of their own.
    fn fold(_cell: &Self::Cell, _local: &mut Self::Local) {}
}

/// A series of one kind. In this order, so that what a look-up touches lies beside the reference
/// count.
#[repr(C)]
pub(crate) struct Series<K: Kind> {
    pub(crate) cell: K::Cell,
    /// Of the name and the labels in its line.
    pub(crate) fingerprint: Fingerprint,
    /// Where its table has it.
    pub(crate) position: u64,
    /// Where its line is.
    pub(crate) location: LocationCell,
    pub(crate) locals: Locals<K::Local>,
}

impl<K: Kind> Series<K> {
    pub(crate) fn new(
        fingerprint: Fingerprint,
        position: u64,
        location: Location,
        cell: K::Cell,
    ) -> Self {
        let location = LocationCell::new(location);
        Series { cell, fingerprint, position, location, locals: Locals::default() }
    }

    /// A new local for the thread `owner`, for its cache to keep; `None` while the series is being
    /// evicted.
    pub(crate) fn adopt(self: &Arc<Self>, owner: u64) -> Option<Weak<K::Local>> {
        self.locals.adopt(K::local(self, owner), |local| K::fold(&self.cell, local))
    }

    /// Folds the locals that have ended.
    pub(crate) fn sweep(&self) {
        self.locals.sweep(|local| K::fold(&self.cell, local));
    }

    /// Whether anybody holds it besides the registry's table and the caller. It may be late.
    pub(super) fn is_held(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 2 || self.locals.is_held()
    }

    /// Ends the series if nobody but the caller holds it or a local of it; else gives it back as it
    /// was, but for the locals that only caches knew.
    pub(super) fn end(self: Arc<Self>) -> Result<Self, Arc<Self>> {
        if !self.locals.close(|local| K::fold(&self.cell, local)) {
            return Err(self);
        }
        // Whoever found it before the list was closed may try to add a local here. The model does so
        // only between two looks at what the other changes too.
        #[cfg(loom)]
        let _ = self.locals.touched.see(super::locals::Take::Peek);
        Arc::try_unwrap(self).inspect_err(|series| series.locals.open())
    }
}
