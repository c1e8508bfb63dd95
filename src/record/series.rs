//! One identity with its cell and the parts of it that threads own.
//!
//! **Problem.** Two threads that add to one counter pass its cache line back and forth at ten times the cost of the addition, and so
//! do two that clone and drop the same `Arc`, as every call of a macro does.
//!
//! **Idea.** What a thread's cache hands out is a [`Kind::Local`]: a small object of that thread's own, with a reference count of
//! its own, which the series reads at each snapshot. No update is lost on any way that it can end.
//!
//! **Mechanism.**
//! 1. The series keeps the locals alive ([`Locals`]); a cache keeps a `Weak`; a handle that the application holds is an `Arc`.
//! 2. A local whose cache forgot it and that nobody holds is found by `Arc::get_mut`, which proves that it can never be reached
//!    again; its value is folded into the series' cell and it is freed. The snapshot does that, for threads that have ended too.
//! 3. Eviction takes each local with `Arc::try_unwrap`: from then on the cache's `Weak` cannot be upgraded, and the thread looks
//!    the series up anew. If one is held, the series stays.

use super::packed::{At, Location};
use super::readout::Take;
use super::table::Print;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};
use std::sync::{Arc, Weak};

/// One of the three kinds of metrics.
pub(crate) trait Kind: Sized + 'static {
    /// Where updates through shared handles go, and what is left of locals that ended.
    type Cell: Send + Sync;
    /// What one thread updates.
    type Local: Send + Sync;

    /// A local for the calling thread, whose number is `owner`.
    fn local(series: &Arc<Series<Self>>, owner: u64) -> Self::Local;

    /// Adds what a local that has ended still holds to the cell.
    fn fold(cell: &Self::Cell, local: &mut Self::Local);
}

/// A series of one kind. In this order, so that what a look-up touches lies beside the reference count.
#[repr(C)]
pub(crate) struct Series<K: Kind> {
    pub(crate) cell: K::Cell,
    /// The hash of its canonical key, under which the registry finds it.
    pub(crate) hash: u64,
    /// The print of the same words; `None` when tags were left out of the line, for then no key is it by its own words.
    pub(crate) print: Option<Print>,
    /// Where its line is.
    pub(crate) location: Location,
    pub(crate) locals: Locals<K::Local>,
}

impl<K: Kind> Series<K> {
    pub(crate) fn new(hash: u64, print: Option<Print>, at: At, cell: K::Cell) -> Self {
        Series { cell, hash, print, location: Location::new(at), locals: Locals::default() }
    }

    /// A new local for the thread `owner`, for its cache to keep.
    pub(crate) fn adopt(self: &Arc<Self>, owner: u64) -> Weak<K::Local> {
        self.locals.adopt(K::local(self, owner))
    }

    /// Folds the locals that have ended.
    pub(crate) fn sweep(&self) {
        self.locals.sweep(|local| K::fold(&self.cell, local));
    }

    /// Takes the locals away from the caches. Answers whether no handle holds one; if one does, it stays.
    pub(crate) fn revoke(&self) -> bool {
        self.locals.revoke(|local| K::fold(&self.cell, local))
    }
}

/// Whether something was recorded that changed no number: a sign of life, by which a series is not idle.
#[derive(Debug, Default)]
pub(crate) struct Touched(AtomicBool);

impl Touched {
    #[inline]
    pub(super) fn touch(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was; told once, but for who only peeks.
    #[inline]
    pub(crate) fn see(&self, take: Take) -> bool {
        self.0.load(Ordering::Relaxed)
            && (take == Take::Peek || self.0.swap(false, Ordering::Relaxed))
    }
}

/// The locals of a series.
pub(crate) struct Locals<L> {
    /// How many there are, so that a snapshot can pass over the lock of the many series that have none.
    count: AtomicU32,
    /// Of the series. Here it costs no byte.
    pub(crate) touched: Touched,
    list: Mutex<List<L>>,
}

/// Boxed twice since most series have none: 8 bytes instead of 24.
type List<L> = Option<Box<Vec<Arc<L>>>>;

impl<L> Default for Locals<L> {
    fn default() -> Self {
        Locals { count: AtomicU32::new(0), touched: Touched::default(), list: Mutex::new(None) }
    }
}

impl<L> Locals<L> {
    fn adopt(&self, local: L) -> Weak<L> {
        let local = Arc::new(local);
        let weak = Arc::downgrade(&local);
        let mut list = lock(&self.list);
        let list = list.get_or_insert_default();
        list.push(local);
        self.publish(list.len());
        weak
    }

    /// Gives `then` the sum of the locals, within the lock that folding takes: a value is seen in its local or in the cell, never in
    /// both and never in neither. Without locals there is nothing to fold, and no lock.
    #[inline]
    pub(crate) fn sum<T>(&self, value: impl Fn(&L) -> u64, then: impl FnOnce(u64) -> T) -> T {
        // Acquire: pairs with `publish`, so who reads 0 sees what was folded.
        if self.count.load(Ordering::Acquire) == 0 { then(0) } else { self.sum_locked(value, then) }
    }

    /// The same, within the lock in any case.
    #[inline(never)]
    pub(crate) fn sum_locked<T>(
        &self,
        value: impl Fn(&L) -> u64,
        then: impl FnOnce(u64) -> T,
    ) -> T {
        let list = lock(&self.list);
        then(Self::sum_of(&list, value))
    }

    fn sum_of(list: &List<L>, value: impl Fn(&L) -> u64) -> u64 {
        let locals = list.iter().flat_map(|list| list.iter());
        locals.fold(0, |sum: u64, local| sum.saturating_add(value(local)))
    }

    #[inline]
    fn sweep(&self, fold: impl FnMut(&mut L)) {
        if self.count.load(Ordering::Acquire) != 0 {
            drop(self.sweep_locked(fold));
        }
    }

    /// Both in one: folds those that have ended, and answers the sum of the others.
    #[inline]
    pub(crate) fn sweep_and_sum(
        &self,
        fold: impl FnMut(&mut L),
        value: impl Fn(&L) -> u64,
        then: impl FnOnce(u64) -> u64,
    ) -> u64 {
        if self.count.load(Ordering::Acquire) == 0 {
            then(0)
        } else {
            let list = self.sweep_locked(fold);
            then(Self::sum_of(&list, value))
        }
    }

    // Apart, so that a snapshot's look at a series without locals costs no call.
    #[inline(never)]
    fn sweep_locked(&self, mut fold: impl FnMut(&mut L)) -> MutexGuard<'_, List<L>> {
        let mut list = lock(&self.list);
        if let Some(locals) = &mut *list {
            // The count first: a cache's `Weak` is there nearly always, and to get hold of the local costs locked instructions.
            locals.retain_mut(|local| {
                Arc::weak_count(local) > 0 || Arc::get_mut(local).map(&mut fold).is_none()
            });
            self.publish(locals.len());
        }
        list.take_if(|locals| locals.is_empty());
        list
    }

    fn revoke(&self, mut fold: impl FnMut(&mut L)) -> bool {
        let mut list = lock(&self.list);
        let Some(locals) = list.take() else { return true };
        let held: Vec<_> = locals
            .into_iter()
            .filter_map(|local| match Arc::try_unwrap(local) {
                Ok(mut ended) => {
                    fold(&mut ended);
                    None
                }
                Err(held) => Some(held),
            })
            .collect();
        self.publish(held.len());
        let nobody = held.is_empty();
        *list = (!nobody).then(|| Box::new(held));
        nobody
    }

    /// Called within the lock, after a fold; Release: pairs with the looks at it.
    fn publish(&self, count: usize) {
        self.count.store(count as u32, Ordering::Release);
    }
}
