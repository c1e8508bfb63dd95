//! The part of a series' cell that each thread owns.
//!
//! **Problem.** Two threads that add to one counter pass its cache line back and forth at ten times
//! the cost of the addition, and so do two that clone and drop one `Arc`, as each macro call does.
//!
//! **Idea.** A thread's cache hands out a *local*: a small object of that thread alone, with a
//! reference count of its own. The series adds up its locals when it is read.
//!
//! **Mechanism.**
//! 1. The series keeps its locals alive in a list, a cache keeps a `Weak`, and a handle that the
//!    application holds is an `Arc`.
//! 2. A local that no cache and no handle has any more is folded into the cell and freed. `Arc`'s
//!    counts prove that nobody can reach it again. A cache does this with each local that it gives
//!    up, and [`Locals::adopt`] before the list grows, for handles that were held longer.
//! 3. Eviction takes the locals that only caches know, once nobody finds the series any more and
//!    nobody who found it can still add a local. A handle that holds a local keeps the series.

use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Mutex, lock};

/// Whether a reading ends the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// The interval ends here and the next begins.
    Drain,
    /// Nothing changes.
    Peek,
}

/// Whether something was recorded that changed no number, which keeps a series from being idle.
#[derive(Debug, Default)]
pub(crate) struct Touched(AtomicBool);

impl Touched {
    #[inline]
    pub(super) fn touch(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was touched since the last drain.
    #[inline]
    pub(crate) fn see(&self, take: Take) -> bool {
        self.0.load(Ordering::Relaxed)
            && (take == Take::Peek || self.0.swap(false, Ordering::Relaxed))
    }
}

/// A local of a cell that all threads share: a reference of the thread's own, on a cache line of
/// its own. Avoids contention on the series' reference count.
#[repr(align(64))]
pub(crate) struct Shared<C> {
    pub(super) cell: Arc<C>,
}

/// The locals of a series.
pub(crate) struct Locals<L> {
    /// How many there are, so that a reading need not lock the many lists that are empty.
    count: AtomicU32,
    /// Belongs to the series; here it takes no byte.
    pub(crate) touched: Touched,
    list: Mutex<List<L>>,
}

/// Boxed twice, since most series have none: 8 bytes instead of 24.
type List<L> = Option<Box<Vec<Arc<L>>>>;

impl<L> Default for Locals<L> {
    fn default() -> Self {
        Locals { count: AtomicU32::new(0), touched: Touched::default(), list: Mutex::new(None) }
    }
}

impl<L> Locals<L> {
    /// Adds a local. `fold` takes the value of each local that has ended.
    pub(super) fn adopt(&self, local: L, fold: impl FnMut(&mut L)) -> Arc<L> {
        let mut list = lock(&self.list);
        let locals = list.get_or_insert_default();
        if locals.len() == locals.capacity() {
            free_ended(locals, fold);
        }
        let local = Arc::new(local);
        locals.push(Arc::clone(&local));
        self.publish(locals.len());
        local
    }

    /// Folds the locals that have ended.
    pub(super) fn sweep(&self, fold: impl FnMut(&mut L)) {
        let mut list = lock(&self.list);
        let Some(locals) = &mut *list else { return };
        free_ended(locals, fold);
        self.publish(locals.len());
        list.take_if(|locals| locals.is_empty());
    }

    /// Gives `then` the sum of the locals, under the lock that folding takes: a value is seen in
    /// its local or in the cell, never in both, never in neither. Without locals there is nothing
    /// to fold, and no lock is taken.
    #[inline]
    pub(super) fn sum<T>(&self, value: impl Fn(&L) -> u64, then: impl FnOnce(u64) -> T) -> T {
        // Acquire: pairs with `publish`, so that who reads 0 sees what was folded.
        if self.count.load(Ordering::Acquire) == 0 {
            return then(0);
        }
        let list = lock(&self.list);
        let locals = list.iter().flat_map(|list| list.iter());
        then(locals.fold(0, |sum: u64, local| sum.saturating_add(value(local))))
    }

    /// Whether a handle holds one of them.
    pub(super) fn is_held(&self) -> bool {
        let list = lock(&self.list);
        list.iter().flat_map(|list| list.iter()).any(|local| Arc::strong_count(local) > 1)
    }

    /// Takes all locals away from the caches, but for those that a handle holds; returns whether
    /// none is left.
    pub(super) fn end(&self, mut fold: impl FnMut(&mut L)) -> bool {
        let mut list = lock(&self.list);
        let locals = list.take().into_iter().flat_map(|locals| *locals);
        let end = |local| Arc::try_unwrap(local).map(|mut ended| fold(&mut ended)).err();
        let held: Vec<_> = locals.filter_map(end).collect();
        self.publish(held.len());
        let is_free = held.is_empty();
        *list = (!is_free).then(|| Box::new(held));
        is_free
    }

    /// Called under the lock, after a fold. Release: pairs with the loads of `count`.
    fn publish(&self, count: usize) {
        self.count.store(count as u32, Ordering::Release);
    }
}

fn free_ended<L>(locals: &mut Vec<Arc<L>>, mut fold: impl FnMut(&mut L)) {
    // The weak count first: a cache nearly always has one, and `get_mut` costs locked instructions.
    locals.retain_mut(|local| {
        Arc::weak_count(local) > 0 || Arc::get_mut(local).map(&mut fold).is_none()
    });
}

#[cfg(test)]
impl<L> Locals<L> {
    pub(crate) fn len(&self) -> usize {
        lock(&self.list).as_ref().map_or(0, |locals| locals.len())
    }
}
