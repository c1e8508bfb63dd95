//! The counter's cell.
//!
//! Its value is the cell plus what each thread's [`CounterLocal`] has added. A local is written with plain loads and stores by the
//! one thread that owns it. Whoever else holds that handle is its guest, and adds to one of a few stripes, each on a cache line of its
//! own: a handle in a `static` is used by all threads at once. They cost 512 bytes, from a handle's first guest on. All additions
//! saturate: a counter never wraps, so it never seems to have been reset.

use std::sync::{Arc, Weak};

use metrics::CounterFn;

use super::cache::{numbered, thread_number};
use super::series::{Kind, Series};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Stripes of a local that has guests: threads in a row, as those of a pool, share none until there are more.
const STRIPES: usize = if cfg!(loom) { 2 } else { 8 };

/// Counters, as a [`Kind`].
pub(crate) struct Counter;

impl Kind for Counter {
    type Cell = AtomicU64;
    type Local = CounterLocal;

    fn local(series: &Arc<Series<Self>>, owner: u64) -> CounterLocal {
        CounterLocal {
            owner,
            own: AtomicU64::new(0),
            guests: OnceLock::new(),
            has_guests: AtomicBool::new(false),
            meanwhile: AtomicU64::new(0),
            series: Arc::downgrade(series),
        }
    }

    fn fold(cell: &AtomicU64, local: &mut CounterLocal) {
        add(cell, local.value());
    }
}

impl Series<Counter> {
    /// The count so far.
    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.locals
            .sum(CounterLocal::value, |sum| sum.saturating_add(self.cell.load(Ordering::Relaxed)))
    }

    /// The same, and folds the locals that have ended.
    #[inline]
    pub(crate) fn swept_value(&self) -> u64 {
        self.locals.sweep_and_sum(
            |ended| Counter::fold(&self.cell, ended),
            CounterLocal::value,
            |sum| sum.saturating_add(self.cell.load(Ordering::Relaxed)),
        )
    }
}

/// Without a cache: straight to the cell.
impl CounterFn for Series<Counter> {
    fn increment(&self, value: u64) {
        add(&self.cell, value);
    }

    fn absolute(&self, value: u64) {
        // Within the lock, so that nothing is folded between the sum and the cell.
        self.locals.sum_locked(CounterLocal::value, |sum| {
            self.cell.fetch_max(value.saturating_sub(sum), Ordering::Relaxed);
        });
        self.locals.touched.touch();
    }
}

/// What one thread adds to a counter. On a cache line of its own, so that two threads' locals never share one.
#[repr(align(64))]
pub(crate) struct CounterLocal {
    /// The number of the thread that may write `own`.
    owner: u64,
    /// Written by the owner alone, by load and store.
    own: AtomicU64,
    /// Added to by other threads that hold this handle; made for the first of them.
    guests: OnceLock<Box<Stripes>>,
    /// Whether the first of them came, who makes the stripes.
    has_guests: AtomicBool,
    /// Added to by the others until there are stripes; and by the first while it makes them, if the allocator counts its own calls.
    meanwhile: AtomicU64,
    /// For `absolute`, which concerns the whole counter. Weak, or series and local would keep each other.
    series: Weak<Series<Counter>>,
}

/// What some of the guests add.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

type Stripes = [Stripe; STRIPES];

impl CounterLocal {
    fn value(&self) -> u64 {
        // Relaxed: the owner's next store is simply part of the next snapshot. That an update which happened before a flush was
        // asked for is seen follows from the request's channel.
        let own = self.own.load(Ordering::Relaxed);
        let guests = self.guests.get().into_iter().flat_map(|stripes| stripes.iter());
        let others = guests.map(|stripe| &stripe.0).chain([&self.meanwhile]);
        others.fold(own, |sum, other| sum.saturating_add(other.load(Ordering::Relaxed)))
    }

    fn increment_from(&self, thread: u64, value: u64) {
        if thread == self.owner {
            let sum = self.own.load(Ordering::Relaxed).saturating_add(value);
            self.own.store(sum, Ordering::Relaxed);
        } else {
            self.increment_as_guest(thread, value);
        }
    }

    #[inline(never)]
    fn increment_as_guest(&self, thread: u64, value: u64) {
        let thread = if thread == 0 { numbered() } else { thread };
        match self.guests.get().map(Box::as_ref).or_else(|| self.begin_guests()) {
            Some(stripes) => add(&stripes[thread as usize % STRIPES].0, value),
            None => add(&self.meanwhile, value),
        }
    }

    /// The stripes; `None` while they are made by another call.
    #[cold]
    fn begin_guests(&self) -> Option<&Stripes> {
        // Not `get_or_init`, nor made by each who comes: an allocator that counts its own calls would wait for itself, or call itself
        // without end.
        if self.has_guests.swap(true, Ordering::Relaxed) {
            return None;
        }
        let _ = self.guests.set(Box::default());
        self.guests.get().map(Box::as_ref)
    }
}

impl CounterFn for CounterLocal {
    #[inline]
    fn increment(&self, value: u64) {
        self.increment_from(thread_number(), value);
    }

    fn absolute(&self, value: u64) {
        if let Some(series) = self.series.upgrade() {
            series.absolute(value);
        }
    }
}

/// Adds without wrapping.
fn add(cell: &AtomicU64, value: u64) {
    let before = cell.fetch_add(value, Ordering::Relaxed);
    if before.checked_add(value).is_none() {
        // Whoever reads between the two sees a small number once; it takes 2^64 counts to get here.
        cell.store(u64::MAX, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::packed::At;
    use super::*;

    fn series() -> Arc<Series<Counter>> {
        Arc::new(Series::new(0, None, At::default(), AtomicU64::new(0)))
    }

    #[test]
    fn the_value_is_the_cell_and_every_local() {
        let series = series();
        let locals: Vec<_> = [1, 2].map(|owner| series.adopt(owner).upgrade().unwrap()).into();
        series.increment(1);
        locals[0].increment_from(1, 10);
        locals[0].increment_from(7, 100);
        locals[1].increment_from(2, 1_000);
        assert_eq!(series.value(), 1_111);
        series.sweep();
        assert_eq!(series.value(), 1_111);
        drop(locals);
        series.sweep();
        assert_eq!(series.cell.load(Ordering::Relaxed), 1_111);
        assert_eq!(series.value(), 1_111);
    }

    #[test]
    fn absolute_never_goes_down_and_never_counts_twice() {
        let series = series();
        let local = series.adopt(1).upgrade().unwrap();
        local.increment_from(1, 5);
        local.absolute(3);
        assert_eq!(series.value(), 5);
        local.absolute(8);
        assert_eq!(series.value(), 8);
        local.increment_from(1, 1);
        local.absolute(8);
        assert_eq!(series.value(), 9);
        series.absolute(20);
        series.absolute(19);
        assert_eq!(series.value(), 20);
    }

    #[test]
    fn a_counter_stays_at_the_top() {
        let series = series();
        let local = series.adopt(1).upgrade().unwrap();
        local.absolute(u64::MAX);
        for increment in [
            |local: &CounterLocal| local.increment_from(1, 2),
            |local: &CounterLocal| local.increment_from(2, u64::MAX),
        ] {
            increment(&local);
            increment(&local);
            assert_eq!(series.value(), u64::MAX);
        }
        series.increment(1);
        assert_eq!(series.value(), u64::MAX);
    }

    #[test]
    fn no_increment_is_lost_over_threads_that_come_and_go() {
        const THREADS: u64 = 80;
        const INCREMENTS: u64 = 20_000;
        let series = series();
        let moved = series.adopt(0).upgrade().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let owner = numbered();
                    let local = series.adopt(owner).upgrade().unwrap();
                    for n in 0..INCREMENTS {
                        if n % 2 == 0 { local.increment(1) } else { moved.increment(1) }
                    }
                });
            }
            let mut last = 0;
            for _ in 0..1_000 {
                series.sweep();
                let value = series.value();
                assert!(value >= last);
                last = value;
            }
        });
        series.sweep();
        assert_eq!(series.value(), THREADS * INCREMENTS);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::super::packed::At;
    use super::*;
    use loom::thread;

    fn series() -> Arc<Series<Counter>> {
        Arc::new(Series::new(0, None, At::default(), AtomicU64::new(0)))
    }

    /// The owner is the first thread: loom finds the orders that matter from a reader that comes after the stores, not before.
    #[test]
    fn owner_and_guest_add_while_a_snapshot_reads() {
        let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let seen = Arc::new(seen);
        let all = Arc::clone(&seen);
        loom::model(move || {
            let series = series();
            let local = series.adopt(1).upgrade().unwrap();
            let guest = thread::spawn({
                let local = Arc::clone(&local);
                move || local.increment_from(2, 10)
            });
            let reader = thread::spawn({
                let series = Arc::clone(&series);
                move || series.value()
            });
            local.increment_from(1, 1);
            local.increment_from(1, 1);
            all.lock().unwrap().insert(reader.join().unwrap());
            guest.join().unwrap();
            assert_eq!(series.value(), 12);
            drop(local);
            series.sweep();
            assert_eq!(series.value(), 12);
        });
        assert_eq!(Vec::from_iter(seen.lock().unwrap().iter().copied()), [0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn two_guests_come_at_once() {
        loom::model(|| {
            let series = series();
            let local = series.adopt(1).upgrade().unwrap();
            let other = thread::spawn({
                let local = Arc::clone(&local);
                move || local.increment_from(3, 10)
            });
            local.increment_from(2, 1);
            other.join().unwrap();
            assert_eq!(series.value(), 11);
        });
    }

    #[test]
    fn a_value_is_in_its_local_or_in_the_cell_while_it_is_folded() {
        loom::model(|| {
            let series = series();
            series.adopt(1).upgrade().unwrap().increment_from(1, 3);
            let sweeper = thread::spawn({
                let series = Arc::clone(&series);
                move || series.sweep()
            });
            assert_eq!(series.value(), 3);
            sweeper.join().unwrap();
            assert_eq!(series.value(), 3);
        });
    }

    #[test]
    fn absolute_beside_an_increment_counts_each_once() {
        loom::model(|| {
            let series = series();
            let local = series.adopt(1).upgrade().unwrap();
            let raiser = thread::spawn({
                let series = Arc::clone(&series);
                move || series.absolute(5)
            });
            local.increment_from(1, 1);
            raiser.join().unwrap();
            assert!([5, 6].contains(&series.value()));
        });
    }
}
