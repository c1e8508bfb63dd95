//! One identity with its cell.

use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::lines::{Location, LocationCell};
use super::locals::Locals;
use crate::sync::atomic::{Ordering, fence};

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

    /// A new local for the thread `owner`.
    // Cold: at random over many series, one look-up in 256 comes here.
    #[cold]
    pub(crate) fn adopt(self: &Arc<Self>, owner: u64) -> Arc<K::Local> {
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

    /// Ends the series, which nobody finds any more, if nobody but the caller holds it or a local
    /// of it; else gives it back as it was, but for the locals that only caches knew.
    pub(super) fn end(self: Arc<Self>) -> Result<Self, Arc<Self>> {
        if Arc::strong_count(&self) > 1 {
            return Err(self);
        }
        // Pairs with the release of whoever held it last, who may have added a local.
        fence(Ordering::Acquire);
        if !self.locals.end(|local| K::fold(&self.cell, local)) {
            return Err(self);
        }
        // A cache that gives up a local may hold it for a moment.
        Arc::try_unwrap(self)
    }
}
