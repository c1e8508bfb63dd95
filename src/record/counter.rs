//! The counter's cell.
//!
//! Its value is the cell plus what each thread's [`CounterLocal`] has added. A local is written
//! with plain loads and stores by the one thread that owns it. Other threads that hold the same
//! handle, as one in a `static`, add to one of a few stripes, each on a cache line of its own;
//! these take 512 bytes from the first such addition on. All additions saturate: a counter never
//! wraps, so it never seems to have been reset.

use std::sync::{Arc, Weak};

use metrics::CounterFn;

use super::series::{Kind, Series};
use super::thread::{ensure_thread_number, thread_number};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Stripes of a local that other threads use too: threads in a row, as those of a pool, share none
/// until there are more.
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
            first: AtomicU64::new(0),
            stripes: OnceLock::new(),
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
        self.with_sum(|sum| sum.saturating_add(self.cell.load(Ordering::Relaxed)))
    }

    #[inline]
    fn with_sum<T>(&self, then: impl FnOnce(u64) -> T) -> T {
        self.locals.sum(CounterLocal::value, then)
    }
}

/// Without a cache: straight to the cell.
impl CounterFn for Series<Counter> {
    fn increment(&self, value: u64) {
        add(&self.cell, value);
    }

    fn absolute(&self, value: u64) {
        // Under the lock, so that nothing is folded between the sum and the cell.
        self.with_sum(|sum| {
            self.cell.fetch_max(value.saturating_sub(sum), Ordering::Relaxed);
        });
        self.locals.touched.touch();
    }
}

/// What one thread adds to a counter. On a cache line of its own, so that two threads' locals never
/// share one.
#[repr(align(64))]
pub(crate) struct CounterLocal {
    /// The number of the thread that may write `own`.
    owner: u64,
    /// Written by the owner alone, by load and store.
    own: AtomicU64,
    /// What other threads that hold this handle add until there are stripes; 0 if none ever did.
    first: AtomicU64,
    /// What other threads add, made by the first of them.
    stripes: OnceLock<Box<[Stripe; STRIPES]>>,
    /// For `absolute`, which concerns the whole counter. Weak, or the two would keep each other.
    series: Weak<Series<Counter>>,
}

/// What some of the other threads add.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl CounterLocal {
    fn value(&self) -> u64 {
        // Relaxed: the owner's next store is simply part of the next snapshot. That an update which
        // happened before a flush was asked for is seen follows from the request's channel.
        let own = self.own.load(Ordering::Relaxed);
        let first = self.first.load(Ordering::Relaxed);
        if first == 0 { own } else { self.add_stripes(own.saturating_add(first)) }
    }

    #[cold]
    fn add_stripes(&self, sum: u64) -> u64 {
        let stripes = self.stripes.get().into_iter().flat_map(|stripes| stripes.iter());
        stripes.fold(sum, |sum, stripe| sum.saturating_add(stripe.0.load(Ordering::Relaxed)))
    }

    fn increment_from(&self, thread: u64, value: u64) {
        if thread == self.owner {
            let sum = self.own.load(Ordering::Relaxed).saturating_add(value);
            self.own.store(sum, Ordering::Relaxed);
        } else {
            self.increment_as_non_owner(thread, value);
        }
    }

    #[inline(never)]
    fn increment_as_non_owner(&self, thread: u64, value: u64) {
        let thread = if thread == 0 { ensure_thread_number() } else { thread };
        if let Some(stripes) = self.stripes.get() {
            add(&stripes[thread as usize % STRIPES].0, value);
        } else if add(&self.first, value) == 0 && value > 0 {
            // Neither `get_or_init` nor an attempt by each thread: an allocator that counts its own
            // calls would wait for itself, or call itself without end.
            let _ = self.stripes.set(Box::default());
        }
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

/// Adds without wrapping; returns what there was before.
fn add(cell: &AtomicU64, value: u64) -> u64 {
    let before = cell.fetch_add(value, Ordering::Relaxed);
    if before.checked_add(value).is_none() {
        // Whoever reads between the two sees a small number once; it takes 2^64 counts to get here.
        cell.store(u64::MAX, Ordering::Relaxed);
    }
    before
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::fingerprint::Fingerprint;
    use super::super::lines::Location;
    use super::*;

    fn series() -> Arc<Series<Counter>> {
        Arc::new(Series::new(Fingerprint(0), 0, Location::default(), AtomicU64::new(0)))
    }

    fn adopt(series: &Arc<Series<Counter>>, owner: u64) -> Arc<CounterLocal> {
        series.adopt(owner)
    }

    #[test]
    fn the_value_is_the_cell_and_every_local() {
        let series = series();
        let locals: Vec<_> = [1, 2].map(|owner| adopt(&series, owner)).into();
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
        let local = adopt(&series, 1);
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
        let local = adopt(&series, 1);
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
    fn what_threads_left_is_freed_before_the_list_grows() {
        let series = series();
        let running = [1, 2].map(|owner| adopt(&series, owner));
        for owner in 3..1_000 {
            adopt(&series, owner).increment_from(owner, 1);
            assert!(series.locals.len() <= 8, "{owner}");
        }
        running[0].increment_from(1, 10);
        assert_eq!(series.value(), 997 + 10);
        series.sweep();
        assert_eq!(series.locals.len(), 2);
    }

    #[test]
    fn a_series_ends_with_what_its_locals_counted_and_goes_on_while_it_is_held() {
        let mut series = series();
        let held = adopt(&series, 1);
        let cached = Arc::downgrade(&held);
        held.increment_from(1, 1);
        series = series.end().err().unwrap();
        held.increment_from(1, 2);
        assert_eq!((series.value(), series.locals.len()), (3, 1));
        drop(held);
        let found = Arc::clone(&series);
        series = series.end().err().unwrap();
        adopt(&found, 1).increment_from(1, 4);
        drop(found);
        let ended = series.end().ok().unwrap();
        assert!(cached.upgrade().is_none());
        assert_eq!(ended.cell.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn no_increment_is_lost_over_threads_that_come_and_go() {
        const THREADS: u64 = 80;
        const INCREMENTS: u64 = 20_000;
        let series = series();
        let moved = adopt(&series, 0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let owner = ensure_thread_number();
                    let local = adopt(&series, owner);
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
    use super::super::fingerprint::Fingerprint;
    use super::super::lines::Location;
    use super::*;
    use crate::sync::atomic::AtomicBool;
    use crate::sync::{Mutex, lock};
    use loom::thread;

    fn series() -> Arc<Series<Counter>> {
        Arc::new(Series::new(Fingerprint(0), 0, Location::default(), AtomicU64::new(0)))
    }

    fn adopt(series: &Arc<Series<Counter>>, owner: u64) -> Arc<CounterLocal> {
        series.adopt(owner)
    }

    /// The owner is the first thread: loom finds the orders that matter from a reader that comes
    /// after the stores, not before.
    #[test]
    fn owner_and_non_owner_add_while_a_snapshot_reads() {
        let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let seen = Arc::new(seen);
        let all = Arc::clone(&seen);
        loom::model(move || {
            let series = series();
            let local = adopt(&series, 1);
            let other = thread::spawn({
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
            other.join().unwrap();
            assert_eq!(series.value(), 12);
            drop(local);
            series.sweep();
            assert_eq!(series.value(), 12);
        });
        assert_eq!(Vec::from_iter(seen.lock().unwrap().iter().copied()), [0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn two_non_owners_come_at_once() {
        loom::model(|| {
            let series = series();
            let local = adopt(&series, 1);
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
            adopt(&series, 1).increment_from(1, 3);
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
            let local = adopt(&series, 1);
            let raiser = thread::spawn({
                let series = Arc::clone(&series);
                move || series.absolute(5)
            });
            local.increment_from(1, 1);
            raiser.join().unwrap();
            assert!([5, 6].contains(&series.value()));
        });
    }

    /// The flusher ends a series while a thread looks for it, adds a local, and counts; with a
    /// handle that it keeps, or lets go of.
    #[test]
    fn a_handle_taken_while_its_series_ends_is_never_orphaned() {
        let outcomes = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        for is_kept in [true, false] {
            let all = Arc::clone(&outcomes);
            loom::model(move || {
                let table = Arc::new(Mutex::new(Some(series())));
                let thread = thread::spawn({
                    let table = Arc::clone(&table);
                    move || {
                        let found = lock(&table).clone();
                        found.map(|series| {
                            let local = adopt(&series, 2);
                            local.increment_from(2, 1);
                            local.absolute(5);
                            is_kept.then_some(local)
                        })
                    }
                });
                let series = lock(&table).take().unwrap();
                let ended = series.end();
                let found = thread.join().unwrap();
                let counted = if found.is_some() { 5 } else { 0 };
                let local = found.flatten();
                all.lock().unwrap().insert((is_kept, ended.is_ok(), local.is_some()));
                match ended {
                    // It was not found, or counted in before by one who holds it no more.
                    Ok(ended) => {
                        assert!(local.is_none());
                        assert_eq!(ended.cell.load(Ordering::Relaxed), counted);
                    }
                    Err(series) => {
                        assert_eq!(series.value(), 5);
                        local.iter().for_each(|local| local.absolute(6));
                        assert_eq!(series.value(), if is_kept { 6 } else { 5 });
                        // It goes on as if nothing had been.
                        adopt(&series, 3).increment_from(3, 1);
                        assert_eq!(series.value(), if is_kept { 7 } else { 6 });
                    }
                }
            });
        }
        let outcomes = outcomes.lock().unwrap();
        assert_eq!(
            Vec::from_iter(outcomes.iter().copied()),
            [(false, false, false), (false, true, false), (true, false, true), (true, true, false)]
        );
    }

    /// A thread asks for a flush after its last increment, while another goes on.
    #[test]
    fn the_last_increment_is_in_the_snapshot_that_is_asked_for_after_it() {
        let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        let all = Arc::clone(&seen);
        loom::model(move || {
            let series = series();
            let (requests, flusher) = loom::sync::mpsc::channel();
            let asking = thread::spawn({
                // Its thread has ended by the time of the snapshot, or has not.
                let local = adopt(&series, 1);
                move || {
                    local.increment_from(1, 10);
                    drop(local);
                    requests.send(()).unwrap();
                }
            });
            let going_on = thread::spawn({
                let local = adopt(&series, 2);
                move || local.increment_from(2, 1)
            });
            flusher.recv().unwrap();
            all.lock().unwrap().insert(series.value());
            asking.join().unwrap();
            going_on.join().unwrap();
            assert_eq!(series.value(), 11);
        });
        assert_eq!(Vec::from_iter(seen.lock().unwrap().iter().copied()), [10, 11]);
    }

    /// A thread's cache knows a local of a series that the flusher is about to end.
    #[test]
    fn a_cached_local_is_upgraded_in_time_or_not_at_all() {
        let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        let all = Arc::clone(&seen);
        loom::model(move || {
            let series = series();
            let cached = Arc::downgrade(&adopt(&series, 2));
            // `Arc` is std's, whose steps loom does not see: here it sees which is first.
            let order = Arc::new(AtomicBool::new(false));
            let thread = thread::spawn({
                let order = Arc::clone(&order);
                move || {
                    order.store(true, Ordering::Relaxed);
                    let local = cached.upgrade();
                    local.iter().for_each(|local| local.increment_from(2, 1));
                    local
                }
            });
            order.load(Ordering::Relaxed);
            let kept = series.end();
            let local = thread.join().unwrap();
            all.lock().unwrap().insert((kept.is_ok(), local.is_some()));
            match kept {
                // The thread came too late for it, and counts elsewhere.
                Ok(ended) => assert!(local.is_none() && ended.cell.load(Ordering::Relaxed) == 0),
                Err(series) => assert_eq!((series.value(), local.is_some()), (1, true)),
            }
        });
        let seen = Vec::from_iter(seen.lock().unwrap().iter().copied());
        assert_eq!(seen, [(false, true), (true, false)]);
    }
}
