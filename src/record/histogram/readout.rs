//! What a histogram held when it was read.
//!
//! One readout serves all histograms of a snapshot, one after the other: its buffers grow to the
//! widest of them and stay, so a steady flush allocates nothing. Several stripes are added up page
//! by page before the buckets are listed, so that nothing is sorted but the few page numbers.
//!
//! # Quantiles
//! The `q` quantile of `n` samples is the sample of rank `⌈q·n⌉` (at least 1) in ascending order:
//! the smallest sample such that at least the share `q` of all is not above it. Rank 1 is answered
//! by the exact minimum and rank `n` by the exact maximum, any other by the middle of the bucket
//! that the sample lies in, which is at most 1/128 = 0.78 % off.

use super::buckets::Bucket;
use super::pages::{self, PAGE, Page};
use crate::record::locals::Take;
use crate::sync::atomic::Ordering::Relaxed;

/// What a histogram held; reused.
#[derive(Default)]
pub(crate) struct Readout {
    /// Samples of the interval.
    pub(crate) count: u64,
    /// Their sum.
    pub(crate) sum: f64,
    /// The least and the greatest of them; without samples infinity and its negative.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Samples since the histogram was made.
    pub(crate) total_count: u64,
    /// Their sum.
    pub(crate) total_sum: f64,
    /// Values since the histogram was made that were not recorded because they are NaN or infinite.
    pub(crate) not_finite: u64,
    /// The buckets that are not empty, ascending: of the interval under
    /// [`Scheme::Log`](super::buckets::Scheme), of all time under `Scheme::Bounds`.
    pub(crate) buckets: Vec<(Bucket, u64)>,
    /// The pages seen, ascending by number, each with its place in `counts`.
    pages: Vec<(i32, usize)>,
    /// The counters of the pages, added up over the stripes; those from `pages.len()` on are left
    /// from another readout.
    counts: Vec<[u64; PAGE]>,
}

impl Readout {
    /// Forgets everything but the buffers.
    pub(super) fn clear(&mut self) {
        (self.count, self.sum, self.total_count, self.total_sum) = (0, 0.0, 0, 0.0);
        (self.min, self.max) = (f64::INFINITY, f64::NEG_INFINITY);
        self.not_finite = 0;
        self.buckets.clear();
        self.pages.clear();
    }

    /// Adds a page's counters, each times `unit`, and takes them away there if told to.
    pub(super) fn add(&mut self, page: &Page, unit: u64, take: Take) {
        let counts = self.counts_of(page.number());
        for (sum, count) in counts.iter_mut().zip(page.counts()) {
            let n = count.load(Relaxed);
            if n > 0 {
                *sum = sum.saturating_add(u64::from(n).saturating_mul(unit));
                if take == Take::Drain {
                    count.store(0, Relaxed);
                }
            }
        }
    }

    fn counts_of(&mut self, page: i32) -> &mut [u64; PAGE] {
        let at = match self.pages.binary_search_by_key(&page, |&(number, _)| number) {
            Ok(found) => self.pages[found].1,
            Err(between) => {
                let at = self.pages.len();
                self.pages.insert(between, (page, at));
                match self.counts.get_mut(at) {
                    Some(left) => *left = [0; PAGE],
                    None => self.counts.push([0; PAGE]),
                }
                at
            }
        };
        &mut self.counts[at]
    }

    /// Lists the buckets of the pages added; returns how many samples are in them.
    pub(super) fn list(&mut self) -> u64 {
        let mut samples = 0u64;
        for &(page, at) in &self.pages {
            for (counter, &n) in self.counts[at].iter().enumerate() {
                if n > 0 {
                    self.buckets.push((pages::bucket(page, counter), n));
                    samples = samples.saturating_add(n);
                }
            }
        }
        samples
    }

    /// A quantile of the interval, which must have samples, from log buckets.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let rank = rank(q, self.count).clamp(1, self.count.max(1));
        if rank == 1 {
            return self.min;
        }
        let mut below = 0u64;
        for &(bucket, n) in &self.buckets {
            below = below.saturating_add(n);
            if below >= rank && rank < self.count {
                return bucket.middle().max(self.min).min(self.max);
            }
        }
        self.max
    }
}

/// The least rank whose share of `n` is at least `q`. Division rounds that share as `q` was rounded
/// when it was read, so 7 of 100 is 0.07, though `0.07 * 100.0` is above 7.
fn rank(q: f64, n: u64) -> u64 {
    let nearest = (q * n as f64).round();
    nearest as u64 + u64::from(nearest / (n as f64) < q)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::rank;

    #[test]
    fn a_rank_is_exact_for_every_quantile_that_is_a_decimal() {
        for (denominator, text) in [(100u64, "0.00"), (1_000, "0.000")] {
            for numerator in 0..=denominator {
                let digits = text.len() - 2;
                let q: f64 = format!("{numerator}e-{digits}").parse().unwrap();
                for n in (1..=300).chain([12_345_678, 10_000_000_000]) {
                    let exact =
                        (u128::from(numerator) * u128::from(n)).div_ceil(denominator.into());
                    assert_eq!(u128::from(rank(q, n)), exact, "{q} of {n}");
                }
            }
        }
        assert_eq!(rank(0.07, 100), 7);
    }
}
