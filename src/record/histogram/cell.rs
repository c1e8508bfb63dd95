//! A histogram in fixed memory, with one locked instruction per sample.
//!
//! **Problem.** A sample changes five numbers: a bucket, the sum, the minimum, the maximum, and the
//! count. One atomic read-modify-write each is five locked instructions, and with two threads five
//! contended cache lines. A mutex is two locked instructions and makes the second thread wait. And
//! a drain must not come between the five, or a sum would hold a sample that the buckets do not.
//!
//! **Idea.** A *stripe* holds all five behind a *gate*, a lock that is tried and never waited for:
//! taking it is one compare-and-exchange, and behind it everything is plain loads and stores. A
//! thread that finds the gate closed takes the next stripe. A histogram begins with one stripe and
//! gets more only when threads collide.
//!
//! **Mechanism.** Recording a value:
//! 1. Its bucket is computed, and the page of the bucket found or made, before any gate is taken:
//!    nothing is allocated behind one (but once in 2^32 samples of one bucket).
//! 2. With one stripe in use the thread tries that one, else the stripe of its own number.
//! 3. `FREE → RECORDING` by a compare-and-exchange (acquire). Bucket, sum, minimum and maximum are
//!    loaded and stored (relaxed); the count is the sum of the buckets. `FREE` is stored (release).
//! 4. If the gate is closed, the thread tries the other stripes in use, one after the other, until
//!    one is free, whose number becomes its own: so threads drift apart. After [`COLLISIONS`]
//!    collisions, or [`MAX_SPINS`] failed attempts (the holder was preempted), twice as many
//!    stripes are in use, up to [`STRIPES`].
//!
//! Reading:
//! 1. Readers exclude one another by the mutex of the totals, which no recording thread ever takes.
//! 2. Stripe by stripe: `FREE → COLLECTING` (acquire), counters copied and, in a drain, set to
//!    zero, `FREE` (release). A recording thread that finds this state goes to another stripe; it
//!    does not count as a collision.
//! 3. Each stripe is read whole, so in every readout sum, minimum, maximum and buckets are of the
//!    same samples. A sample that was recorded before the reading is in it, since its gate was
//!    released before the reader took it; one that is recorded meanwhile is in this readout or in
//!    the next.
//!
//! A counter is a `u32`; what overflows it is carried to a second set of pages, so counts are exact
//! up to 2^64, and stay there. The sum is by plain addition in `f64` and stays within its range:
//! beyond `f64::MAX` it is that.
//!
//! Measured on two cores, as ratios to the time of one thread here (7.6 ns a sample):
//!
//! | | one thread | two threads on one histogram |
//! |---|---|---|
//! | this | 1 | 1.1 to 1.3 |
//! | `Mutex<Vec<f64>>` that is never full | 1.5 | 8 to 14 |
//! | `metrics_util::storage::AtomicBucket` | 3 | 6 to 12 |

use std::cell::Cell;

use super::buckets::{Bucket, Scheme};
use super::pages::{Page, Pages};
use super::readout::Readout;
use crate::record::locals::Take;
use crate::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{Mutex, OnceLock, lock, spin_loop, yield_now};

/// The most stripes of a histogram; a power of two.
const STRIPES: usize = if cfg!(loom) { 2 } else { 4 };
/// Collisions of two recording threads after which the stripes in use are doubled: a single one is
/// no reason to double the memory.
const COLLISIONS: u32 = if cfg!(loom) { 1 } else { 64 };
/// Attempts in vain after which the holder of a gate is taken to be preempted: longer than a stripe
/// is held for reading.
const MAX_SPINS: u32 = if cfg!(loom) { 1 } else { 128 };

/// Nobody is behind the gate.
const FREE: u32 = 0;
/// A thread records.
const RECORDING: u32 = 1;
/// The stripe is read.
const COLLECTING: u32 = 2;

#[cfg(not(loom))]
std::thread_local! {
    /// Which stripe the thread tries first, modulo those in use; moves on when that one is taken.
    /// Without a destructor, so it can be used while a thread is torn down.
    static OWN_STRIPE: Cell<usize> = const { Cell::new(0) };
}
#[cfg(loom)]
loom::thread_local! {
    static OWN_STRIPE: Cell<usize> = Cell::new(0);
}

/// A histogram.
pub(crate) struct HistogramCell {
    scheme: Scheme,
    /// How many stripes are in use, a power of two: 1, 2, 4. Only a hint: who does not see a stripe
    /// yet takes the first.
    in_use: AtomicU32,
    /// Collisions since `in_use` was raised.
    collisions: AtomicU32,
    /// Values that were not recorded.
    not_finite: AtomicU64,
    /// Held while the cell is read.
    totals: Mutex<Totals>,
    first: Stripe,
    others: [OnceLock<Box<Stripe>>; STRIPES - 1],
}

/// What was drained so far.
#[derive(Default)]
struct Totals {
    count: u64,
    sum: f64,
}

/// A part of the samples; on cache lines of its own.
#[repr(align(64))]
struct Stripe {
    /// `FREE`, `RECORDING` or `COLLECTING`; whoever took it from `FREE` may change the rest.
    gate: AtomicU32,
    /// Bits of the sum of the samples since the last drain.
    sum: AtomicU64,
    /// Bits of the least of them; infinity without any.
    min: AtomicU64,
    /// Bits of the greatest of them; negative infinity without any.
    max: AtomicU64,
    /// How many samples a bucket has.
    pages: Pages,
    /// How many times 2^32 more it has.
    carried: OnceLock<Box<Pages>>,
}

impl HistogramCell {
    /// An empty histogram.
    pub(crate) fn new(scheme: Scheme) -> Self {
        HistogramCell {
            scheme,
            in_use: AtomicU32::new(1),
            collisions: AtomicU32::new(0),
            not_finite: AtomicU64::new(0),
            totals: Mutex::new(Totals::default()),
            first: Stripe::new(),
            others: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Records a value `n` times, at the cost of once; one that is NaN or infinite is only counted.
    #[inline]
    pub(crate) fn record_many(&self, value: f64, n: u64) {
        let Some(bucket) = self.scheme.bucket(value) else {
            self.not_finite.fetch_add(n, Relaxed);
            return;
        };
        if n == 0 {
            return;
        }
        let in_use = self.in_use.load(Relaxed) as usize;
        let stripe = if in_use == 1 { 0 } else { OWN_STRIPE.with(Cell::get) };
        if let Err(state) = self.stripe(stripe, in_use).try_record(bucket, value, n) {
            self.record_elsewhere(stripe, state, bucket, value, n);
        }
    }

    /// Reads it. `into` holds nothing else afterwards.
    pub(crate) fn collect(&self, take: Take, into: &mut Readout) {
        into.clear();
        let mut totals = lock(&self.totals);
        into.not_finite = self.not_finite.load(Relaxed);
        let keeps_counts = matches!(self.scheme, Scheme::Bounds(_));
        for stripe in self.stripes() {
            stripe.collect(take, keeps_counts, into);
        }
        let samples = into.list();
        (into.count, into.total_count) = if keeps_counts {
            (samples.saturating_sub(totals.count), samples)
        } else {
            (samples, totals.count.saturating_add(samples))
        };
        into.total_sum = saturated(totals.sum + into.sum);
        if take == Take::Drain {
            *totals = Totals { count: into.total_count, sum: into.total_sum };
        }
    }

    /// The stripe for a thread's number, with so many in use.
    #[inline]
    fn stripe(&self, number: usize, in_use: usize) -> &Stripe {
        match self.others.get((number & (in_use - 1)).wrapping_sub(1)) {
            Some(other) => other.get().map_or(&self.first, Box::as_ref),
            None => &self.first,
        }
    }

    /// All stripes that anything was recorded in.
    fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        let others = self.others.iter().filter_map(OnceLock::get).map(Box::as_ref);
        std::iter::once(&self.first).chain(others)
    }

    /// Records on the first stripe that is free, beginning behind the thread's own, which was found
    /// in `state`.
    #[cold]
    fn record_elsewhere(&self, own: usize, mut state: u32, bucket: Bucket, value: f64, n: u64) {
        let (mut number, mut attempts) = (own, 0u32);
        loop {
            attempts = attempts.wrapping_add(1);
            if self.is_crowded(state) || attempts % MAX_SPINS == 0 {
                self.widen();
            }
            number = number.wrapping_add(1);
            let in_use = self.in_use.load(Relaxed) as usize;
            match self.stripe(number, in_use).try_record(bucket, value, n) {
                Ok(()) => break,
                Err(found) => state = found,
            }
            pause(attempts);
        }
        OWN_STRIPE.with(|own| own.set(number));
    }

    /// Counts a collision, if another thread was recording, and answers whether there were too
    /// many.
    fn is_crowded(&self, state: u32) -> bool {
        // With all stripes in use the counter is left alone: its cache line is what every recording
        // thread reads.
        state == RECORDING
            && (self.in_use.load(Relaxed) as usize) < STRIPES
            && self.collisions.fetch_add(1, Relaxed) >= COLLISIONS
    }

    /// Doubles the stripes in use, unless they are all.
    fn widen(&self) {
        let in_use = self.in_use.load(Relaxed) as usize;
        if in_use == STRIPES {
            return;
        }
        for other in &self.others[in_use - 1..2 * in_use - 1] {
            // Not `get_or_init`: an allocator that records its own sizes would wait here for
            // itself.
            if other.get().is_none() {
                let _ = other.set(Box::new(Stripe::new()));
            }
        }
        self.collisions.store(0, Relaxed);
        self.in_use.fetch_max(2 * in_use as u32, Relaxed);
    }
}

impl Stripe {
    fn new() -> Self {
        Stripe {
            gate: AtomicU32::new(FREE),
            sum: AtomicU64::new(0f64.to_bits()),
            min: AtomicU64::new(f64::INFINITY.to_bits()),
            max: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            pages: Pages::default(),
            carried: OnceLock::new(),
        }
    }

    /// Records, or says who is behind the gate.
    #[inline]
    fn try_record(&self, bucket: Bucket, value: f64, n: u64) -> Result<(), u32> {
        let page = self.pages.page(bucket);
        self.enter(RECORDING)?;
        self.add(page, bucket, n);
        store(&self.sum, load(&self.sum) + value * n as f64);
        if value < load(&self.min) {
            store(&self.min, value);
        }
        if value > load(&self.max) {
            store(&self.max, value);
        }
        self.leave();
        Ok(())
    }

    #[inline]
    fn add(&self, page: &Page, bucket: Bucket, n: u64) {
        let count = page.count(bucket);
        let sum = u64::from(count.load(Relaxed)).saturating_add(n);
        count.store(sum as u32, Relaxed);
        if sum > u64::from(u32::MAX) {
            self.carry(bucket, (sum >> u32::BITS) as u32);
        }
    }

    #[cold]
    fn carry(&self, bucket: Bucket, n: u32) {
        loop {
            match self.carried.get() {
                Some(pages) => return pages.add(bucket, n),
                None => drop(self.carried.set(Box::default())),
            }
        }
    }

    /// Adds it to what was read of the others.
    fn collect(&self, take: Take, keeps_counts: bool, into: &mut Readout) {
        // No gate is taken for nothing: what happened before the reading is seen without it.
        let is_empty = load(&self.min) > load(&self.max);
        if is_empty && !keeps_counts {
            return;
        }
        let mut attempts = 0u32;
        while self.enter(COLLECTING).is_err() {
            attempts = attempts.saturating_add(1);
            pause(attempts);
        }
        let counts = if keeps_counts { Take::Peek } else { take };
        self.pages.all().for_each(|page| into.add(page, 1, counts));
        let carried = self.carried.get().into_iter().flat_map(|pages| pages.all());
        carried.for_each(|page| into.add(page, 1 << u32::BITS, counts));
        into.sum = saturated(into.sum + saturated(load(&self.sum)));
        into.min = into.min.min(load(&self.min));
        into.max = into.max.max(load(&self.max));
        if take == Take::Drain {
            store(&self.sum, 0.0);
            store(&self.min, f64::INFINITY);
            store(&self.max, f64::NEG_INFINITY);
        }
        self.leave();
    }

    /// Takes the gate, or says who has it.
    #[inline]
    fn enter(&self, state: u32) -> Result<(), u32> {
        // Acquire: pairs with the release in `leave` of whoever was here before.
        self.gate.compare_exchange(FREE, state, Acquire, Relaxed).map(drop)
    }

    #[inline]
    fn leave(&self) {
        // Release: pairs with the acquire in `enter` of whoever comes next.
        self.gate.store(FREE, Release);
    }
}

/// Waits a moment for a gate that was found closed so many times in a row.
fn pause(attempts: u32) {
    if attempts < MAX_SPINS { spin_loop() } else { yield_now() }
}

#[inline]
fn load(float: &AtomicU64) -> f64 {
    f64::from_bits(float.load(Relaxed))
}

#[inline]
fn store(float: &AtomicU64, value: f64) {
    float.store(value.to_bits(), Relaxed);
}

/// A sum within the range of `f64`. One that overflowed both ways is not known at all, and counts
/// as nothing.
fn saturated(sum: f64) -> f64 {
    if sum.is_nan() { 0.0 } else { sum.clamp(f64::MIN, f64::MAX) }
}

#[cfg(test)]
impl Default for HistogramCell {
    fn default() -> Self {
        HistogramCell::new(Scheme::Log)
    }
}

#[cfg(test)]
impl HistogramCell {
    pub(crate) fn record(&self, value: f64) {
        self.record_many(value, 1);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn drain(cell: &HistogramCell) -> Readout {
        let mut readout = Readout::default();
        cell.collect(Take::Drain, &mut readout);
        readout
    }

    #[test]
    fn a_sum_beyond_the_range_of_f64_stays_within_it_and_goes_on() {
        let cell = HistogramCell::default();
        let sum_after = |samples: &[(f64, u64)]| {
            samples.iter().for_each(|&(value, n)| cell.record_many(value, n));
            drain(&cell).total_sum
        };
        assert_eq!(sum_after(&[(f64::MAX, 1), (f64::MAX, 1)]), f64::MAX);
        assert_eq!(sum_after(&[(1.0, 1)]), f64::MAX);
        assert_eq!(sum_after(&[(-f64::MAX, 1)]), 0.0);
        assert_eq!(sum_after(&[(f64::MIN, 1 << 40)]), f64::MIN);
        assert_eq!(sum_after(&[(f64::MAX, 1 << 40), (f64::MIN, 1 << 40)]), f64::MIN, "unknown");
    }

    /// The quantiles that the accuracy is proved for: a thousandth to 0.9999.
    fn quantiles() -> impl Iterator<Item = f64> {
        (1..1000).map(|k| f64::from(k) / 1000.0).chain([0.0, 0.9995, 0.9999, 1.0])
    }

    /// The oracle: all samples, sorted; the rank as the module of the readout defines it.
    fn naive_quantile(sorted: &[f64], q: f64) -> f64 {
        let ten_thousandths = (q * 10_000.0).round() as usize;
        let rank = (ten_thousandths * sorted.len()).div_ceil(10_000);
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    /// The greatest relative error of any quantile; asserts that count, sum, minimum and maximum
    /// are exact.
    fn worst_error(samples: &[f64]) -> f64 {
        let cell = HistogramCell::default();
        samples.iter().for_each(|&sample| cell.record(sample));
        let readout = drain(&cell);
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(readout.count, samples.len() as u64);
        let sum = samples.iter().fold(0.0, |sum, sample| sum + sample);
        assert_eq!(readout.sum, sum.clamp(f64::MIN, f64::MAX));
        assert_eq!(readout.min, sorted[0]);
        assert_eq!(readout.max, sorted[sorted.len() - 1]);
        let errors = quantiles().map(|q| {
            let expected = naive_quantile(&sorted, q);
            let error = (readout.quantile(q) - expected).abs();
            if error == 0.0 { 0.0 } else { error / expected.abs() }
        });
        errors.fold(0.0, f64::max)
    }

    /// Samples of a distribution: its inverse at many even steps, in a shuffled order.
    fn samples(inverse: impl Fn(f64) -> f64) -> Vec<f64> {
        const N: usize = 20_011;
        // 7919 and N are prime: each step comes once.
        (0..N).map(|k| inverse(((k * 7919 % N) as f64 + 0.5) / N as f64)).collect()
    }

    /// A normal variate, near enough (Tukey's lambda of 0.1349).
    fn normal(p: f64) -> f64 {
        5.06 * (p.powf(0.1349) - (1.0 - p).powf(0.1349))
    }

    #[test]
    fn every_quantile_is_within_0_8_percent() {
        let bimodal = |p: f64| if p < 0.4 { 1e-4 * (1.0 + p) } else { 150.0 * (0.5 + p) };
        let cases: &[(&str, Vec<f64>)] = &[
            ("lognormal", samples(|p| (2.0 * normal(p)).exp())),
            ("bimodal over six decades", samples(bimodal)),
            ("uniform", samples(|p| 1000.0 * p)),
            ("three decades", samples(|p| 10f64.powf(3.0 * p))),
            ("Pareto, index 0.8", samples(|p| (1.0 - p).powf(-1.0 / 0.8))),
            ("negative", samples(|p| -(normal(p).exp()))),
            ("mixed sign", samples(|p| 10.0 * normal(p))),
            ("with zeros", samples(|p| (p - 0.5).max(0.0))),
            ("constant", samples(|_| 0.1)),
            ("subnormal", samples(|p| 2e-308 * p.powi(8))),
            ("smallest subnormal", samples(|p| f64::from_bits((p * 900.0) as u64))),
            ("whole range", samples(|p| f64::from_bits(((p * 2046.9) as u64) << 52 | 12_345_678))),
        ];
        for (name, samples) in cases {
            let error = worst_error(samples);
            assert!(error <= 1.0 / 128.0, "{name}: {error}");
        }
    }

    #[test]
    fn an_interval_ends_with_a_drain_and_totals_go_on() {
        let (cell, mut readout) = (HistogramCell::default(), Readout::default());
        for (value, take, expected) in [
            (2.0, Take::Peek, (1, 2.0, 2.0, 2.0, 1, 2.0)),
            (-1.0, Take::Drain, (2, 1.0, -1.0, 2.0, 2, 1.0)),
            (5.0, Take::Peek, (1, 5.0, 5.0, 5.0, 3, 6.0)),
            (4.0, Take::Drain, (2, 9.0, 4.0, 5.0, 4, 10.0)),
        ] {
            cell.record(value);
            cell.collect(take, &mut readout);
            let Readout { count, sum, min, max, total_count, total_sum, .. } = readout;
            assert_eq!((count, sum, min, max, total_count, total_sum), expected);
        }
        let empty = drain(&cell);
        assert_eq!((empty.count, empty.total_count, empty.total_sum), (0, 4, 10.0));
        assert!(empty.buckets.is_empty() && empty.min > empty.max);
    }

    #[test]
    fn what_is_not_finite_is_only_counted() {
        let cell = HistogramCell::default();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0] {
            cell.record(value);
        }
        cell.record_many(f64::NAN, 10);
        let readout = drain(&cell);
        assert_eq!((readout.not_finite, readout.count, readout.sum), (13, 1, 1.0));
    }

    #[test]
    fn more_samples_than_a_counter_holds_are_all_counted() {
        let cell = HistogramCell::default();
        let huge = u64::from(u32::MAX);
        for n in [huge, 1, huge, 3 * huge, 0, 7] {
            cell.record_many(1.0, n);
        }
        cell.record_many(2.0, 5);
        let readout = drain(&cell);
        assert_eq!(readout.buckets.iter().map(|&(_, n)| n).collect::<Vec<_>>(), [5 * huge + 8, 5]);
        assert_eq!((readout.count, readout.sum), (5 * huge + 13, (5 * huge + 18) as f64));
        assert_eq!(readout.quantile(0.5), 1.007_812_5);
        assert_eq!(drain(&cell).count, 0);
        cell.record_many(1.0, u64::MAX);
        cell.record_many(1.0, u64::MAX);
        assert_eq!(drain(&cell).count, u64::MAX);
    }

    #[test]
    fn buckets_by_bounds_count_from_the_beginning() {
        let cell = HistogramCell::new(Scheme::Bounds([1.0, 2.0].into()));
        [0.5, 1.0, 1.5, 9.0].iter().for_each(|&value| cell.record(value));
        let first = drain(&cell);
        assert_eq!(first.buckets, [(Bucket(0), 2), (Bucket(1), 1), (Bucket(2), 1)]);
        assert_eq!((first.count, first.total_count, first.total_sum), (4, 4, 12.0));
        cell.record(2.0);
        let second = drain(&cell);
        assert_eq!(second.buckets, [(Bucket(0), 2), (Bucket(1), 2), (Bucket(2), 1)]);
        assert_eq!((second.count, second.sum, second.max), (1, 2.0, 2.0));
        assert_eq!((second.total_count, second.total_sum), (5, 14.0));
    }

    #[test]
    fn a_closed_gate_is_gone_round_and_then_widened() {
        let cell = HistogramCell::default();
        cell.record(1.0);
        cell.first.enter(COLLECTING).unwrap();
        cell.record(2.0);
        assert_eq!(cell.in_use.load(Relaxed), 2);
        // Whatever stripe is this thread's own now, it ends up on the one that is open.
        cell.record(3.0);
        cell.first.leave();
        let readout = drain(&cell);
        assert_eq!((readout.count, readout.sum, readout.min, readout.max), (3, 6.0, 1.0, 3.0));
        assert_eq!(cell.in_use.load(Relaxed), 2);
    }

    #[test]
    fn three_decades_fit_in_3_5_kib() {
        let cell = HistogramCell::default();
        samples(|p| 10f64.powf(3.0 * p)).iter().for_each(|&sample| cell.record(sample));
        let pages = cell.first.pages.all().count();
        assert_eq!((pages, cell.in_use.load(Relaxed)), (10, 1));
        assert!(size_of::<HistogramCell>() + pages * size_of::<Page>() <= 3584);
    }

    #[test]
    fn a_drain_while_four_threads_record_loses_nothing() {
        const EACH: u64 = 50_000;
        let cell = &HistogramCell::default();
        let (mut count, mut sum, mut readout) = (0, 0.0, Readout::default());
        thread::scope(|scope| {
            let threads: Vec<_> = (1..=4u32)
                .map(|value| {
                    let record = move || (0..EACH).for_each(|_| cell.record(f64::from(value)));
                    scope.spawn(record)
                })
                .collect();
            while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                cell.collect(Take::Drain, &mut readout);
                // Whole numbers: the sum of a readout is exact, and its samples are those in its
                // buckets.
                let of_buckets =
                    readout.buckets.iter().map(|&(bucket, n)| bucket.middle().floor() * n as f64);
                assert_eq!(readout.sum, of_buckets.sum::<f64>());
                count += readout.count;
                sum += readout.sum;
                assert_eq!((readout.total_count, readout.total_sum), (count, sum));
            }
        });
        let last = drain(cell);
        assert_eq!((count + last.count, sum + last.sum), (4 * EACH, (EACH * 10) as f64));
    }

    proptest! {
        #[test]
        fn any_samples_and_drains_agree_with_the_oracle(
            intervals in proptest::collection::vec(
                proptest::collection::vec((proptest::num::f64::ANY, 0u64..4), 0..40), 1..6),
        ) {
            let cell = HistogramCell::default();
            let (mut total, mut not_finite) = (0, 0);
            for interval in &intervals {
                let mut naive = Vec::new();
                for &(value, n) in interval {
                    cell.record_many(value, n);
                    if value.is_finite() {
                        naive.extend(std::iter::repeat_n(value, n as usize));
                    } else {
                        not_finite += n;
                    }
                }
                naive.sort_by(f64::total_cmp);
                total += naive.len() as u64;
                let readout = drain(&cell);
                prop_assert_eq!(readout.count, naive.len() as u64);
                prop_assert_eq!((readout.total_count, readout.not_finite), (total, not_finite));
                prop_assert!(readout.buckets.is_sorted_by(|a, b| a.0 < b.0));
                if naive.is_empty() { continue }
                prop_assert_eq!((readout.min, readout.max), (naive[0], naive[naive.len() - 1]));
                for q in [0.0, 0.001, 0.25, 0.5, 0.95, 0.9999, 1.0] {
                    let (found, expected) = (readout.quantile(q), naive_quantile(&naive, q));
                    prop_assert!((found - expected).abs() <= expected.abs() / 128.0, "{} {} {}", q, found, expected);
                }
            }
        }
    }
}

/// Every interleaving of two recording threads and a reader, on a histogram of at most two stripes.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn is_whole(readout: &Readout) -> bool {
        let sum = readout.buckets.iter().map(|&(bucket, n)| bucket.middle().floor() * n as f64);
        readout.sum == sum.sum::<f64>()
    }

    #[test]
    fn two_threads_and_a_drain_lose_nothing() {
        loom::model(|| {
            let cell = Arc::new(HistogramCell::default());
            // Both count in one bucket.
            let threads = [&[1.0][..], &[1.0, 2.0]].map(|values| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || values.iter().for_each(|&value| cell.record(value)))
            });
            let mut readout = Readout::default();
            cell.collect(Take::Drain, &mut readout);
            assert!(is_whole(&readout));
            let (count, sum) = (readout.count, readout.sum);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            cell.collect(Take::Drain, &mut readout);
            assert!(is_whole(&readout));
            assert_eq!((count + readout.count, sum + readout.sum), (3, 4.0));
            assert_eq!((readout.total_count, readout.total_sum), (3, 4.0));
        });
    }

    #[test]
    fn two_readers_give_each_sample_to_one_of_them() {
        loom::model(|| {
            let cell = Arc::new(HistogramCell::default());
            cell.record(1.0);
            let other = Arc::clone(&cell);
            let reader = thread::spawn(move || {
                let mut readout = Readout::default();
                other.collect(Take::Drain, &mut readout);
                (readout.count, readout.total_count)
            });
            cell.record(2.0);
            let mut readout = Readout::default();
            cell.collect(Take::Drain, &mut readout);
            let (theirs, their_total) = reader.join().unwrap();
            assert_eq!(theirs + readout.count, 2);
            assert_eq!(readout.total_count.max(their_total), 2);
        });
    }
}
