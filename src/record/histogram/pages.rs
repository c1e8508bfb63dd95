//! Counters by bucket, allocated where values are.
//!
//! **Problem.** The whole range of floats has 268,544 buckets, and a histogram of durations uses
//! some hundred, all within a few octaves. Who looks for a counter may be several threads, and none
//! of them may move it.
//!
//! **Idea.** Counters come in pages of one octave, made on first use and never moved or freed
//! before the histogram is. A small hash table of pages finds them.
//!
//! **Mechanism.** The lowest bits of a page's number choose one of [`HEADS`] chains, so that up to
//! that many octaves in a row have a chain each. A page is added at the end of its chain through a
//! [`OnceLock`]: finding and adding need no lock. The counters are plain numbers under the gate of
//! their [`Stripe`](super::cell); atomic, because that is how safe Rust shares a number, and
//! loaded and stored one by one.
//!
//! A value seen for the first time in its octave costs an allocation of 280 bytes; a histogram of
//! values from the whole range of floats, both signs, would have 1.2 MB of pages, and could never
//! have more.

use super::buckets::Bucket;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counters of a page, as a power of two: an octave of log buckets. A model checker looks at each
/// of them, so it gets fewer.
const PAGE_BITS: u32 = if cfg!(loom) { 1 } else { 6 };
/// Counters of a page.
pub(crate) const PAGE: usize = 1 << PAGE_BITS;
/// Chains: more than the ten or eleven octaves of three decades.
const HEADS: usize = if cfg!(loom) { 1 } else { 16 };

/// The counters of neighbouring buckets.
pub(crate) struct Page {
    /// The page's place among all: the bucket of its first counter over [`PAGE`].
    number: i32,
    counts: [AtomicU32; PAGE],
    /// The next page of the chain.
    next: OnceLock<Box<Page>>,
}

/// Counters for any bucket.
#[derive(Default)]
pub(crate) struct Pages {
    heads: [OnceLock<Box<Page>>; HEADS],
}

impl Page {
    fn new(number: i32) -> Self {
        Page { number, counts: std::array::from_fn(|_| AtomicU32::new(0)), next: OnceLock::new() }
    }

    /// The page's place among all.
    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// The counter of a bucket that is on this page.
    #[inline]
    pub(crate) fn count(&self, bucket: Bucket) -> &AtomicU32 {
        &self.counts[bucket.0 as usize % PAGE]
    }

    /// The counters, in the order of their buckets.
    pub(crate) fn counts(&self) -> &[AtomicU32; PAGE] {
        &self.counts
    }
}

impl Pages {
    /// The page that counts a bucket.
    #[inline]
    pub(crate) fn page(&self, bucket: Bucket) -> &Page {
        let number = bucket.0 >> PAGE_BITS;
        let mut link = &self.heads[number as usize % HEADS];
        loop {
            match link.get() {
                Some(page) if page.number == number => return page,
                Some(page) => link = &page.next,
                None => add(link, number),
            }
        }
    }

    /// All pages, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Page> {
        self.heads.iter().flat_map(|head| {
            std::iter::successors(head.get(), |page| page.next.get()).map(Box::as_ref)
        })
    }

    /// Adds `n` to a bucket's counter, which stays at the greatest number that it can hold.
    pub(crate) fn add(&self, bucket: Bucket, n: u32) {
        let count = self.page(bucket).count(bucket);
        count.store(count.load(Relaxed).saturating_add(n), Relaxed);
    }
}

/// The bucket of a counter.
pub(crate) fn bucket(page: i32, counter: usize) -> Bucket {
    Bucket((page << PAGE_BITS) | counter as i32)
}

#[cold]
fn add(link: &OnceLock<Box<Page>>, number: i32) {
    // When another thread was first, its page is what the search goes on with; ours is dropped.
    let _ = link.set(Box::new(Page::new(number)));
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn any_bucket_has_a_counter_of_its_own() {
        let (pages, mut naive) = (Pages::default(), BTreeMap::new());
        let buckets = (-3000..3000).step_by(7).chain([i32::MIN, i32::MAX, 134_335, -134_336]);
        for (n, index) in buckets.enumerate() {
            pages.add(Bucket(index), n as u32 + 1);
            naive.insert(index, n as u32 + 1);
        }
        let mut found = BTreeMap::new();
        for page in pages.all() {
            for (counter, count) in page.counts().iter().enumerate() {
                if count.load(Relaxed) > 0 {
                    found.insert(bucket(page.number(), counter).0, count.load(Relaxed));
                }
            }
        }
        assert_eq!(found, naive);
    }

    #[test]
    fn a_page_stays_where_it_is() {
        let pages = Pages::default();
        let first: *const Page = pages.page(Bucket(64));
        for bucket in 0..5000 {
            pages.add(Bucket(bucket * 64), 1);
        }
        assert!(std::ptr::eq(first, pages.page(Bucket(127))));
    }

    #[test]
    fn a_counter_does_not_wrap() {
        let pages = Pages::default();
        pages.add(Bucket(1), u32::MAX);
        pages.add(Bucket(1), 5);
        assert_eq!(pages.page(Bucket(1)).count(Bucket(1)).load(Relaxed), u32::MAX);
    }
}
