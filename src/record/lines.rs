//! The lines of the series of one kind, one behind the other.
//!
//! **Problem.** A flush reads the line of each series, and a million of them do not stay in any
//! cache. In boxes of their own, lines lie scattered over memory, and the processor waits for each.
//!
//! **Idea.** Lines are packed in blocks of [`BLOCK`] bytes in order of registration, which is the
//! order of a flush: so it reads memory from front to back. A series says in 8 bytes where its line
//! is.
//!
//! **Mechanism.**
//! 1. A block is an [`Arc`]. A flush holds the blocks that it knows and waits for nobody. A line
//!    that is added to a block that somebody holds is added to a copy, or to the next block if more
//!    than half of it would have to be copied.
//! 2. The lines of evicted series stay where they are. Once a block is full, the flusher, which
//!    alone evicts, replaces it by one without them when what is left needs at most half of it
//!    ([`LineStore::repack`]), and removes it when nothing is left. So lines take at most twice
//!    what they need, and a block.
//! 3. A number is given to one block only, and a line stays where it is in its block: who follows a
//!    series to its line needs the lock only to get the block.

use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wire::series::Line;

/// The bytes that a block is filled to; a longer line has one to itself. With a sixteenth of it, a
/// flush of a million series took nearly twice as long.
const BLOCK: usize = 256 * 1024;

/// Where a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// The number of its block.
    pub(crate) block: u32,
    /// Where in the block it begins.
    pub(crate) start: u32,
}

/// A [`Location`] that a series keeps.
#[derive(Debug)]
pub(crate) struct LocationCell(AtomicU64);

impl LocationCell {
    pub(crate) fn new(location: Location) -> Self {
        let cell = LocationCell(AtomicU64::new(0));
        cell.set(location);
        cell
    }

    /// Relaxed: it changes under the lock of the blocks, together with them. Who sees the new
    /// location and then takes that lock finds the block.
    pub(crate) fn get(&self) -> Location {
        let bits = self.0.load(Ordering::Relaxed);
        Location { block: (bits >> 32) as u32, start: bits as u32 }
    }

    fn set(&self, Location { block, start }: Location) {
        self.0.store(u64::from(block) << 32 | u64::from(start), Ordering::Relaxed);
    }
}

/// Lines behind one another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LineBlock(Vec<u8>);

impl LineBlock {
    /// The line that begins at `start`.
    #[inline]
    pub(crate) fn line(&self, start: u32) -> Option<Line<'_>> {
        Line::at(self.0.get(start as usize..)?)
    }
}

/// A block as a reader holds it.
pub(crate) type Block = Arc<LineBlock>;

/// The blocks of one kind; see the module.
#[derive(Default)]
pub(crate) struct LineStore {
    blocks: RwLock<Blocks>,
}

#[derive(Default)]
struct Blocks {
    by_number: HashMap<u32, Block, FixedState>,
    /// The number of the block that lines are added to.
    open: u32,
    /// The last number that was given.
    last: u32,
}

impl Blocks {
    /// The block that lines are added to.
    fn open(&mut self) -> &mut Block {
        self.by_number.entry(self.open).or_default()
    }

    /// Adds a block; returns its number.
    fn insert(&mut self, block: LineBlock) -> u32 {
        self.last += 1;
        self.by_number.insert(self.last, Arc::new(block));
        self.last
    }
}

impl LineStore {
    /// Adds a line of `size` bytes, which `render` adds, behind all others.
    pub(crate) fn append(&self, size: usize, render: impl FnOnce(&mut Vec<u8>)) -> Location {
        let mut blocks = self.write();
        let length = blocks.open().0.len();
        let is_full = length + size > BLOCK && length > 0;
        if is_full || (length > BLOCK / 2 && Arc::get_mut(blocks.open()).is_none()) {
            // Where there is a second block there will be many lines: this one need not grow.
            blocks.open = blocks.insert(LineBlock(Vec::with_capacity(BLOCK)));
        }
        let number = blocks.open;
        let block = blocks.open();
        let start = block.0.len();
        if Arc::get_mut(block).is_none() || start + size > block.0.capacity() {
            // Twice as much, but no more than a block.
            let mut copy = Vec::with_capacity((start + size).max(BLOCK.min(2 * start)));
            copy.extend_from_slice(&block.0);
            *block = Arc::new(LineBlock(copy));
        }
        render(&mut Arc::make_mut(block).0);
        Location { block: number, start: start as u32 }
    }

    /// The block as it is now.
    pub(crate) fn block(&self, number: u32) -> Block {
        self.read().by_number.get(&number).cloned().unwrap_or_default()
    }

    /// The block that a line is in now, and where in it.
    pub(crate) fn find(&self, location: &LocationCell) -> Option<(Block, u32)> {
        // First, or the line might move in between.
        let blocks = self.read();
        let Location { block, start } = location.get();
        Some((Arc::clone(blocks.by_number.get(&block)?), start))
    }

    /// Moves the only lines of a full block that are still needed to a new block, if that is at
    /// most half as large; returns the number of the block that they are in then.
    pub(crate) fn repack<'a>(
        &self,
        number: u32,
        locations: impl Iterator<Item = &'a LocationCell>,
    ) -> u32 {
        // Copied before the lock is taken: who registers waits for it.
        let block = self.block(number);
        let half = block.0.capacity() / 2;
        let mut packed = LineBlock(Vec::with_capacity(half));
        let mut moved = Vec::new();
        for location in locations {
            let Some(line) = block.line(location.get().start) else { continue };
            moved.push((location, packed.0.len() as u32));
            packed.0.extend_from_slice(line.bytes());
            if packed.0.len() > half {
                return number;
            }
        }
        packed.0.shrink_to_fit();
        let mut blocks = self.write();
        blocks.by_number.remove(&number);
        if moved.is_empty() {
            return number;
        }
        let number = blocks.insert(packed);
        for (location, start) in moved {
            location.set(Location { block: number, start });
        }
        number
    }

    fn read(&self) -> RwLockReadGuard<'_, Blocks> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blocks> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl LineStore {
    /// How many blocks there are, and how many bytes their lines have.
    pub(crate) fn size(&self) -> (usize, usize) {
        let blocks = self.read();
        (blocks.by_number.len(), blocks.by_number.values().map(|block| block.0.len()).sum())
    }

    pub(crate) fn text(&self, location: &LocationCell) -> String {
        let at = location.get();
        self.block(at.block).line(at.start).unwrap().text()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::wire::series::{LineBuf, Rules};

    fn line(name: &str, shard: usize) -> LineBuf {
        let shard = shard.to_string();
        Rules::of_a_test().identify(name, [("shard", &*shard)].into_iter(), None).line()
    }

    fn append(store: &LineStore, line: &LineBuf) -> LocationCell {
        let bytes = line.line().bytes();
        LocationCell::new(store.append(bytes.len(), |block| block.extend_from_slice(bytes)))
    }

    fn is_at(store: &LineStore, location: &LocationCell, line: &LineBuf) -> bool {
        store.text(location) == line.line().text()
    }

    /// Lines of many lengths, some of them the longest that there are.
    fn lines() -> Vec<LineBuf> {
        let length = |n: usize| if n % 1_000 == 999 { 60_000 } else { n % 300 };
        (0..12_000).map(|n| line(&format!("{n}.{}", "m".repeat(length(n))), n)).collect()
    }

    #[test]
    fn every_series_finds_its_line() {
        let (store, lines) = (LineStore::default(), lines());
        let all: Vec<_> = lines.iter().map(|line| append(&store, line)).collect();
        assert!(lines.iter().zip(&all).all(|(line, location)| is_at(&store, location, line)));
        let places: Vec<_> = all.iter().map(LocationCell::get).collect();
        assert!(places.is_sorted_by_key(|at| (at.block, at.start)));
        let (blocks, bytes) = store.size();
        assert!(bytes > (blocks - 1) * (BLOCK - 61_000), "{blocks} blocks of {bytes} bytes");
    }

    #[test]
    fn a_line_takes_eight_bytes_besides_its_own() {
        let (store, line) = (LineStore::default(), line("m", 1));
        (0..1_000).for_each(|_| _ = append(&store, &line));
        assert_eq!(store.size(), (1, 1_000 * (8 + line.line().text().len())));
    }

    #[test]
    fn who_holds_a_block_sees_no_change_of_it() {
        let store = LineStore::default();
        let lines = [0, 1].map(|n| line("m", n));
        append(&store, &lines[0]);
        let held = store.block(0);
        let before = LineBlock::clone(&held);
        let second = append(&store, &lines[1]);
        assert_eq!(*held, before);
        assert!(is_at(&store, &second, &lines[1]));
        assert!(held.line(second.get().start).is_none());
    }

    #[test]
    fn a_block_is_packed_anew_when_half_of_it_is_of_no_use() {
        let store = LineStore::default();
        let lines: Vec<_> = (0..1_000).map(|n| line(&format!("m.{}", n % 3), n)).collect();
        let all: Vec<_> = lines.iter().map(|line| append(&store, line)).collect();
        let (length, mut number) = (store.block(0).0.len(), 0);
        for (kept, is_shorter) in [(1_000, false), (400, true), (150, true), (1, true)] {
            number = store.repack(number, all[..kept].iter());
            assert_eq!(store.block(number).0.len() < length, is_shorter, "{kept}");
            for (line, location) in lines.iter().zip(&all[..kept]) {
                assert!(is_at(&store, location, line));
            }
        }
        store.repack(number, all[..0].iter());
        assert_eq!(store.size().0, 0);
    }
}
