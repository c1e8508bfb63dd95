//! The lines of the series of one kind, one behind the other.
//!
//! **Problem.** A flush reads the line of each series, and a million of them do not stay in any cache. Each in a box of its own, lines
//! lie scattered, and a processor that cannot guess what comes next waits for each.
//!
//! **Idea.** Lines are packed in pages of [`PAGE`] bytes in order of registration, which is the order of a flush: so it reads memory
//! from front to back. A series says in 8 bytes where its line is, and a box's costs are saved too.
//!
//! **Mechanism.**
//! 1. A page is an [`Arc`]. A flush holds those that it knows and waits for nobody; a line that is added to a page that it holds is
//!    added to a copy, at most once a flush, or to the next page if more than half of it would have to be copied.
//! 2. The lines of evicted series stay where they are until more than half of a page are such. Then the flusher, who alone evicts,
//!    replaces it by one without them ([`Packed::repack`]), and once none is left removes it. So there is never more than twice what
//!    is needed, and a page.
//! 3. Where a line is changes under the lock for writing alone, so who holds it for reading can follow any series to its line.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::series::{Kind, Series};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wire::series::Line;

/// The bytes that a page is filled to; a longer line has one to itself. With a sixteenth of it, a flush of a million series took nearly
/// twice as long.
const PAGE: usize = 256 * 1024;

/// Lines, as they are kept.
pub(crate) type Page = Arc<Vec<u8>>;

/// Where a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// The number of its page.
    pub(crate) page: u32,
    /// Where in the page it begins.
    pub(crate) start: u32,
}

/// The same, where a series keeps it.
#[derive(Debug)]
pub(crate) struct Location(AtomicU64);

impl Location {
    pub(crate) fn new(at: At) -> Self {
        Location(AtomicU64::new(at.bits()))
    }

    /// Relaxed: it changes under the lock of the pages alone, and the flusher changes it itself.
    pub(crate) fn get(&self) -> At {
        let bits = self.0.load(Ordering::Relaxed);
        At { page: (bits >> 32) as u32, start: bits as u32 }
    }

    fn set(&self, at: At) {
        self.0.store(at.bits(), Ordering::Relaxed);
    }
}

impl At {
    fn bits(self) -> u64 {
        u64::from(self.page) << 32 | u64::from(self.start)
    }
}

/// Adds a line; answers where it begins.
fn append(page: &mut Vec<u8>, line: Line<'_>) -> u32 {
    let start = page.len() as u32;
    let end = page.len() + line.kept().len();
    if end > page.capacity() {
        // Twice as much as before, but not more than will be used.
        page.reserve_exact(end.max(PAGE.min(2 * page.len())) - page.len());
    }
    page.extend_from_slice(line.kept());
    start
}

/// See the module.
#[derive(Default)]
pub(crate) struct Packed {
    pages: RwLock<Pages>,
}

#[derive(Default)]
pub(crate) struct Pages {
    by_number: HashMap<u32, Page>,
    /// The number of the page that lines are added to.
    last: u32,
}

impl Pages {
    /// The line of a series.
    pub(crate) fn line<K: Kind>(&self, series: &Series<K>) -> Option<Line<'_>> {
        let (page, start) = self.place_of(series)?;
        Line::at(page, start)
    }

    /// The page that the line of a series is on, and where in it.
    pub(crate) fn place_of<K: Kind>(&self, series: &Series<K>) -> Option<(&Page, u32)> {
        let at = series.location.get();
        Some((self.by_number.get(&at.page)?, at.start))
    }
}

impl Packed {
    /// For looking at lines.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line behind all others.
    pub(crate) fn append(&self, line: Line<'_>) -> At {
        let mut pages = self.write();
        let Pages { by_number, last } = &mut *pages;
        let is_closed = |page: &Page| {
            let is_full = page.len() + line.kept().len() > PAGE && !page.is_empty();
            is_full || (page.len() > PAGE / 2 && Arc::strong_count(page) > 1)
        };
        if by_number.get(last).is_some_and(is_closed) {
            *last += 1;
        }
        let page = Arc::make_mut(by_number.entry(*last).or_default());
        At { page: *last, start: append(page, line) }
    }

    /// The page as it is now.
    pub(crate) fn page(&self, number: u32) -> Page {
        self.read().by_number.get(&number).cloned().unwrap_or_default()
    }

    /// Leaves the lines of these series alone on a page that no line is added to any more, if that makes it half as long or less;
    /// answers the page as it is then.
    pub(crate) fn repack<'a, K: Kind>(
        &self,
        number: u32,
        series: impl Iterator<Item = &'a Series<K>>,
    ) -> Page {
        let page = self.page(number);
        let line =
            |series: &'a Series<K>| Some((series, Line::at(&page, series.location.get().start)?));
        let lines: Vec<_> = series.filter_map(line).collect();
        let length: usize = lines.iter().map(|(_, line)| line.kept().len()).sum();
        if 2 * length > page.len() {
            return page;
        }
        let mut packed = Vec::with_capacity(length);
        let mut pages = self.write();
        for (series, line) in lines {
            series.location.set(At { page: number, start: append(&mut packed, line) });
        }
        let packed = Arc::new(packed);
        if length > 0 {
            pages.by_number.insert(number, Arc::clone(&packed));
        } else {
            pages.by_number.remove(&number);
        }
        packed
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::counter::Counter;
    use super::*;
    use crate::wire::series::{LineBuf, Rules};

    fn line(name: &str) -> LineBuf {
        Rules::of_a_test().identify(name, std::iter::empty(), None).line
    }

    fn series(packed: &Packed, name: &str) -> Series<Counter> {
        Series::new(0, None, packed.append(line(name).line()), AtomicU64::new(0))
    }

    fn metric(packed: &Packed, series: &Series<Counter>) -> String {
        packed.read().line(series).unwrap().metric().to_owned()
    }

    /// Names of many lengths, some of them longer than a page.
    fn names() -> Vec<String> {
        let length = |n: usize| if n % 3_000 == 2_999 { 300_000 } else { n % 300 };
        (0..9_000).map(|n| format!("{n}.{}", "m".repeat(length(n)))).collect()
    }

    #[test]
    fn every_series_finds_its_line() {
        let (packed, names) = (Packed::default(), names());
        let all: Vec<_> = names.iter().map(|name| series(&packed, name)).collect();
        for (name, series) in names.iter().zip(&all) {
            assert_eq!(metric(&packed, series), *name);
        }
        let places: Vec<_> = all.iter().map(|series| series.location.get()).collect();
        assert!(places.is_sorted_by_key(|at| (at.page, at.start)));
        let pages = packed.read();
        let is_full = |page: &&Page| page.len() > PAGE - 1024;
        assert!(pages.by_number.values().filter(is_full).count() + 6 >= pages.by_number.len());
    }

    #[test]
    fn who_holds_a_page_sees_no_change_of_it() {
        let packed = Packed::default();
        series(&packed, "first");
        let held = packed.page(0);
        let before = held.to_vec();
        let second = series(&packed, "second");
        assert_eq!(*held, before);
        assert_eq!(metric(&packed, &second), "second");
        assert_eq!(Line::at(&held, second.location.get().start).unwrap().metric(), "");
        assert!(Line::at(&held, u32::MAX).is_none());
    }

    #[test]
    fn a_page_is_packed_anew_when_half_of_it_is_of_no_use() {
        let packed = Packed::default();
        let all: Vec<_> = (0..1_000).map(|n| series(&packed, &format!("m.{n}"))).collect();
        let length = packed.page(0).len();
        for (kept, is_shorter) in [(1_000, false), (600, false), (400, true), (1, true)] {
            let page = packed.repack(0, all[..kept].iter());
            assert_eq!(page.len() < length, is_shorter, "{kept}");
            for (n, series) in all[..kept].iter().enumerate() {
                assert_eq!(metric(&packed, series), format!("m.{n}"));
                let line = Line::at(&page, series.location.get().start);
                assert_eq!(line.unwrap().metric(), format!("m.{n}"));
            }
        }
        packed.repack(0, all[..0].iter());
        assert!(packed.read().by_number.is_empty());
    }
}
