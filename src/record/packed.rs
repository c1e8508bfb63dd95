//! The lines of the series of one kind, one behind the other.
//!
//! **Problem.** A flush reads the line of each series, and a million of them do not stay in any cache. Each in a box of its own, lines
//! lie scattered, and a processor that cannot guess what comes next waits for each.
//!
//! **Idea.** Lines are packed in blocks of [`BLOCK`] bytes in order of registration, which is the order of a flush: so it reads memory
//! from front to back. A series says in 8 bytes where its line is, and a box's costs are saved too.
//!
//! **Mechanism.**
//! 1. A block is an [`Arc`]. A flush holds those that it knows and waits for nobody; so does a look at all series. A line that is added
//!    to a block that somebody holds is added to a copy, or to the next block if more than half of it would have to be copied.
//! 2. The lines of evicted series stay where they are. Of a block that no line is added to any more the flusher, who alone evicts,
//!    makes one without them when what is left needs no more than half of it ([`Packed::repack`]), and removes it once none is left.
//!    So there is never more than twice what is needed, and a block.
//! 3. A number is given to one block only, and what a block has in one place stays: so who follows a series to its line needs the lock
//!    no longer than to get hold of the block, and who looks at all series does not keep others from registering.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::FixedState;

use super::series::{Kind, Series};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wire::kept::{Kept, Line};

/// The bytes that a block is filled to; a longer line has one to itself. With a sixteenth of it, a flush of a million series took nearly
/// twice as long.
const BLOCK: usize = 256 * 1024;

/// How many heads are remembered for the lines to come, 1 KiB a kind.
const RECENT: usize = 256;

/// Lines, as they are kept.
pub(crate) type Block = Arc<Kept>;

/// Where a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// The number of its block.
    pub(crate) block: u32,
    /// Where in the block it begins.
    pub(crate) start: u32,
}

/// The same, where a series keeps it.
#[derive(Debug)]
pub(crate) struct Location(AtomicU64);

impl Location {
    pub(crate) fn new(at: At) -> Self {
        Location(AtomicU64::new(at.bits()))
    }

    /// Relaxed: it changes under the lock of the blocks, together with them; so who sees a new place and then takes that lock finds
    /// the block, and who sees an old one finds the block that it has, or looks again.
    pub(crate) fn get(&self) -> At {
        let bits = self.0.load(Ordering::Relaxed);
        At { block: (bits >> 32) as u32, start: bits as u32 }
    }

    fn set(&self, at: At) {
        self.0.store(at.bits(), Ordering::Relaxed);
    }
}

impl At {
    fn bits(self) -> u64 {
        u64::from(self.block) << 32 | u64::from(self.start)
    }
}

/// Adds a line; answers where it begins.
fn append(block: &mut Block, line: Line<'_>, heads: &mut Heads) -> u32 {
    let (length, most) = (block.len(), block.len() + line.size());
    if Arc::get_mut(block).is_none() || most > block.capacity() {
        // Twice as much as before, but not more than will be used.
        *block = Arc::new(block.copy_with_room(most.max(BLOCK.min(2 * length))));
    }
    Arc::get_mut(block).map_or(length as u32, |own| heads.add(own, line))
}

/// Where the heads of the last lines are, by a hash of them: so lines of one name share one also when others come between, unless these
/// have the same place. It may be of another block or of another name, which is seen when it is looked at.
struct Heads([u32; RECENT]);

impl Default for Heads {
    fn default() -> Self {
        Heads([0; RECENT])
    }
}

impl Heads {
    /// Adds a line; answers where it begins.
    fn add(&mut self, block: &mut Kept, line: Line<'_>) -> u32 {
        let place = &mut self.0[FixedState::default().hash_one(line.head()) as usize % RECENT];
        let (head, start) = block.add(line, Some(*place));
        *place = head;
        start
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Packed {
    blocks: RwLock<Blocks>,
}

#[derive(Default)]
pub(crate) struct Blocks {
    by_number: HashMap<u32, Block>,
    /// The number of the block that lines are added to.
    open: u32,
    /// The last number that was given.
    last: u32,
    heads: Heads,
}

impl Blocks {
    /// The line of a series.
    pub(crate) fn line<K: Kind>(&self, series: &Series<K>) -> Option<Line<'_>> {
        let at = series.location.get();
        self.by_number.get(&at.block)?.line(at.start)
    }

    /// Adds a block; answers its number.
    fn insert(&mut self, block: Block) -> u32 {
        self.last += 1;
        self.by_number.insert(self.last, block);
        self.last
    }
}

/// The blocks that somebody who looks at many series has got hold of.
#[derive(Default)]
pub(crate) struct Held(HashMap<u32, Block>);

impl Held {
    /// The block that the line of a series is in, and where in it.
    pub(crate) fn place_of<K: Kind>(
        &mut self,
        series: &Series<K>,
        packed: &Packed,
    ) -> Option<(Block, u32)> {
        let mut at = series.location.get();
        loop {
            let held = self.0.entry(at.block).or_default();
            if held.len() <= at.start as usize {
                *held = packed.block(at.block);
            }
            if held.len() > at.start as usize {
                return Some((Arc::clone(held), at.start));
            }
            // The block went: the line had gone to another before.
            let before = std::mem::replace(&mut at, series.location.get());
            if before == at {
                return None;
            }
        }
    }
}

impl Packed {
    /// For looking at lines.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Blocks> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line behind all others.
    pub(crate) fn append(&self, line: Line<'_>) -> At {
        let mut blocks = self.write();
        let is_closed = |block: &Block| {
            let is_full = block.len() + line.size() > BLOCK && !block.is_empty();
            is_full || (block.len() > BLOCK / 2 && Arc::strong_count(block) > 1)
        };
        if blocks.by_number.get(&blocks.open).is_some_and(is_closed) {
            // Where there is a second one, there will be many lines: it need not grow.
            blocks.open = blocks.insert(Arc::new(Kept::with_capacity(BLOCK)));
        }
        let Blocks { by_number, open, heads, .. } = &mut *blocks;
        At { block: *open, start: append(by_number.entry(*open).or_default(), line, heads) }
    }

    /// The block as it is now.
    pub(crate) fn block(&self, number: u32) -> Block {
        self.read().by_number.get(&number).cloned().unwrap_or_default()
    }

    /// Moves the lines of these series, the only ones left in a block that no line is added to any more, to a new block, if that is
    /// half as large or less; answers the number of the block that they are in then.
    pub(crate) fn repack<'a, K: Kind>(
        &self,
        number: u32,
        series: impl Iterator<Item = &'a Series<K>>,
    ) -> u32 {
        let block = self.block(number);
        let line = |series: &'a Series<K>| Some((series, block.line(series.location.get().start)?));
        let lines: Vec<_> = series.filter_map(line).collect();
        // Copied before the lock is taken: who registers waits for it.
        let half = block.capacity() / 2;
        let (mut packed, mut heads) = (Kept::with_capacity(half), Heads::default());
        let mut starts = Vec::with_capacity(lines.len());
        for (_, line) in &lines {
            starts.push(heads.add(&mut packed, *line));
            if packed.len() > half {
                return number;
            }
        }
        packed.shrink_to_fit();
        let mut blocks = self.write();
        blocks.by_number.remove(&number);
        if packed.is_empty() {
            return number;
        }
        let number = blocks.insert(Arc::new(packed));
        for ((series, _), start) in lines.into_iter().zip(starts) {
            series.location.set(At { block: number, start });
        }
        number
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blocks> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Packed {
    /// How many blocks there are, and how many bytes their lines have.
    pub(crate) fn size(&self) -> (usize, usize) {
        let blocks = self.read();
        (blocks.by_number.len(), blocks.by_number.values().map(|block| block.len()).sum())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::counter::Counter;
    use super::*;
    use crate::wire::kept::LineBuf;
    use crate::wire::series::Rules;

    fn line(name: &str, shard: usize) -> LineBuf {
        let shard = shard.to_string();
        Rules::of_a_test().identify(name, [("shard", &*shard)].into_iter(), None).line
    }

    fn series(packed: &Packed, line: &LineBuf) -> Series<Counter> {
        Series::new(0, None, packed.append(line.line()), AtomicU64::new(0))
    }

    fn is_of(packed: &Packed, series: &Series<Counter>, line: &LineBuf) -> bool {
        packed.read().line(series).unwrap().is_same_series(line.line())
    }

    /// Lines of many lengths, some of them longer than a block, and others of one name between them.
    fn lines() -> Vec<LineBuf> {
        let length = |n: usize| if n % 3_000 == 2_999 { 300_000 } else { n % 300 };
        let name = |n: usize| match n % 4 {
            0 => "m".to_owned(),
            _ => format!("{n}.{}", "m".repeat(length(n))),
        };
        (0..12_000).map(|n| line(&name(n), n)).collect()
    }

    #[test]
    fn every_series_finds_its_line() {
        let (packed, lines) = (Packed::default(), lines());
        let all: Vec<_> = lines.iter().map(|line| series(&packed, line)).collect();
        assert!(lines.iter().zip(&all).all(|(line, series)| is_of(&packed, series, line)));
        let places: Vec<_> = all.iter().map(|series| series.location.get()).collect();
        assert!(places.is_sorted_by_key(|at| (at.block, at.start)));
        let blocks = packed.read();
        let is_full = |block: &&Block| block.len() > BLOCK - 1024;
        assert!(blocks.by_number.values().filter(is_full).count() + 6 >= blocks.by_number.len());
    }

    #[test]
    fn a_name_is_kept_once_also_when_others_come_between() {
        let packed = Packed::default();
        let lines: Vec<_> = (0..1_000).map(|n| line(&format!("m.{}", n % 2), n)).collect();
        assert!(lines.iter().all(|line| is_of(&packed, &series(&packed, line), line)));
        let tails: usize = lines.iter().map(|line| 8 + line.line().tail().len()).sum();
        assert_eq!(packed.size(), (1, tails + 2 * (4 + "put m.0".len())));
    }

    #[test]
    fn who_holds_a_block_sees_no_change_of_it() {
        let packed = Packed::default();
        let lines = [0, 1].map(|n| line("m", n));
        series(&packed, &lines[0]);
        let held = packed.block(0);
        let before = Kept::clone(&held);
        let second = series(&packed, &lines[1]);
        assert_eq!(*held, before);
        assert!(is_of(&packed, &second, &lines[1]));
        assert!(held.line(second.location.get().start).is_none());
    }

    #[test]
    fn a_block_is_packed_anew_when_half_of_it_is_of_no_use() {
        let packed = Packed::default();
        let lines: Vec<_> = (0..1_000).map(|n| line(&format!("m.{}", n % 3), n)).collect();
        let all: Vec<_> = lines.iter().map(|line| series(&packed, line)).collect();
        let (length, mut number) = (packed.block(0).len(), 0);
        for (kept, is_shorter) in [(1_000, false), (400, true), (300, true), (1, true)] {
            number = packed.repack(number, all[..kept].iter());
            let block = packed.block(number);
            assert_eq!(block.len() < length, is_shorter, "{kept}");
            for (line, series) in lines.iter().zip(&all[..kept]) {
                assert!(is_of(&packed, series, line));
                let packed = block.line(series.location.get().start);
                assert!(packed.unwrap().is_same_series(line.line()));
            }
        }
        packed.repack(number, all[..0].iter());
        assert!(packed.read().by_number.is_empty());
    }
}
