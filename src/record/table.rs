//! The series of one kind, found by what a key says.
//!
//! Two tables, in shards: of series, by the words that their lines say, and of *aliases*, the keys
//! whose words differ from those. Neither keeps a key: that would take more than half of the memory
//! of a series with two labels, or any amount where a label is cut from the line.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use hashbrown::HashTable;
use hashbrown::hash_table::{Entry, OccupiedEntry};

use super::fingerprint::{Fingerprint, SeriesId};
use super::lines::{Block, LineStore};
use super::series::{Kind, Series};
use crate::sync::{Mutex, lock};
use crate::wire::series::Line;

/// Shards of a table; one that grows stalls only its own keys.
const SHARDS: usize = 64;

/// How many series may have one index: more keys of equal hash than that are no accident.
const MOST_OF_ONE_INDEX: usize = 4;

/// The series of one kind.
pub(crate) struct Table<K: Kind> {
    shards: Box<[RwLock<Shard<K>>]>,
    pub(crate) lines: LineStore,
    /// Series that the flusher does not know yet, in the order of their lines.
    fresh: Mutex<Vec<Arc<Series<K>>>>,
}

/// A series, and its line as it was found.
pub(crate) struct Found<K: Kind> {
    pub(crate) series: Arc<Series<K>>,
    block: Block,
    start: u32,
}

impl<K: Kind> Found<K> {
    pub(crate) fn line(&self) -> Option<Line<'_>> {
        self.block.line(self.start)
    }
}

struct Shard<K: Kind> {
    /// By their positions.
    series: HashTable<Arc<Series<K>>>,
    /// Weak, so that they keep no series from being evicted.
    aliases: HashTable<(Fingerprint, Weak<Series<K>>)>,
    /// The fingerprints of a series and of an alias of it.
    aliases_of: HashTable<(Fingerprint, Fingerprint)>,
}

impl<K: Kind> Default for Table<K> {
    fn default() -> Self {
        let shard = || RwLock::new(Shard::default());
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Table { shards, lines: LineStore::default(), fresh: Mutex::default() }
    }
}

impl<K: Kind> Table<K> {
    /// The series of a key.
    #[inline]
    pub(crate) fn find(&self, id: SeriesId) -> Option<Arc<Series<K>>> {
        let is_it = |series: &Arc<Series<K>>| is_equal(series.fingerprint, id.fingerprint);
        let series = self.read(id.index).series.find(id.index, is_it).cloned();
        series.or_else(|| self.find_by_fingerprint(id.fingerprint))
    }

    #[cold]
    fn find_by_fingerprint(&self, fingerprint: Fingerprint) -> Option<Arc<Series<K>>> {
        let shard = self.read(fingerprint.0);
        let is_it = |series: &Arc<Series<K>>| is_equal(series.fingerprint, fingerprint);
        let series = shard.series.find(fingerprint.0, is_it).cloned();
        series.or_else(|| {
            let is_it = |alias: &(Fingerprint, _)| is_equal(alias.0, fingerprint);
            shard.aliases.find(fingerprint.0, is_it)?.1.upgrade()
        })
    }

    /// All series, in the order of their lines.
    pub(crate) fn all(&self) -> Vec<Found<K>> {
        let mut series = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            series.extend(shard.series.iter().cloned());
        }
        let find = |series: Arc<Series<K>>| {
            let (block, start) = self.lines.find(&series.location)?;
            Some(Found { series, block, start })
        };
        let mut all: Vec<Found<K>> = series.into_iter().filter_map(find).collect();
        all.sort_by(|a, b| a.line().map(Line::parts).cmp(&b.line().map(Line::parts)));
        all
    }

    /// Adds a series that is not there, made for its position: its index, if there are few of the
    /// same, else its fingerprint.
    pub(super) fn insert(
        &self,
        id: SeriesId,
        make: impl FnOnce(u64) -> Series<K>,
    ) -> Arc<Series<K>> {
        let mut shard = self.write(id.index);
        let same = shard.series.iter_hash(id.index).filter(|series| series.position == id.index);
        let is_crowded = same.count() >= MOST_OF_ONE_INDEX;
        let position = if is_crowded { id.fingerprint.0 } else { id.index };
        if is_crowded {
            drop(shard);
            shard = self.write(position);
        }
        let series = Arc::new(make(position));
        shard.insert(&series);
        drop(shard);
        lock(&self.fresh).push(Arc::clone(&series));
        series
    }

    /// The series that were added since the last time.
    pub(crate) fn take_fresh(&self) -> Vec<Arc<Series<K>>> {
        std::mem::take(&mut *lock(&self.fresh))
    }

    /// Lets a key with this fingerprint lead to a series whose line says other words; answers
    /// whether it is a new one.
    pub(super) fn insert_alias(&self, alias: Fingerprint, series: &Arc<Series<K>>) -> bool {
        let mut shard = self.write(alias.0);
        let is_it = |known: &(Fingerprint, _)| known.0 == alias;
        let Entry::Vacant(place) = shard.aliases.entry(alias.0, is_it, |known| known.0.0) else {
            return false;
        };
        place.insert((alias, Arc::downgrade(series)));
        drop(shard);
        let entry = (series.fingerprint, alias);
        self.write(entry.0.0).aliases_of.insert_unique(entry.0.0, entry, |known| known.0.0);
        true
    }

    /// Removes the aliases of a series; returns them. Under the lock of registration, as
    /// [`insert_alias`](Self::insert_alias) is: each touches two shards, one after the other.
    pub(super) fn remove_aliases(&self, series: Fingerprint) -> Vec<Fingerprint> {
        let mut aliases = Vec::new();
        let mut shard = self.write(series.0);
        while let Ok(known) = shard.aliases_of.find_entry(series.0, |known| known.0 == series) {
            aliases.push(known.remove().0.1);
        }
        drop(shard);
        for alias in &aliases {
            let mut shard = self.write(alias.0);
            let known = shard.aliases.find_entry(alias.0, |known| known.0 == *alias);
            drop(known.map(OccupiedEntry::remove));
        }
        aliases
    }

    /// Removes a series, whose aliases are removed already, if `take` can take it. While it tries, no
    /// key leads to it, and who looks for it waits.
    pub(super) fn remove_if(
        &self,
        series: Arc<Series<K>>,
        take: impl FnOnce(Arc<Series<K>>) -> Result<(), Arc<Series<K>>>,
    ) -> Result<(), Arc<Series<K>>> {
        let mut shard = self.write(series.position);
        let is_it = |known: &Arc<Series<K>>| Arc::ptr_eq(known, &series);
        let entry = shard.series.find_entry(series.position, is_it);
        drop(entry.map(OccupiedEntry::remove));
        take(series).inspect_err(|held| shard.insert(held))
    }

    /// The shard of a position, by bits that the tables within do not use.
    fn shard(&self, position: u64) -> &RwLock<Shard<K>> {
        &self.shards[(position >> 48) as usize % SHARDS]
    }

    fn read(&self, position: u64) -> RwLockReadGuard<'_, Shard<K>> {
        self.shard(position).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, position: u64) -> RwLockWriteGuard<'_, Shard<K>> {
        self.shard(position).write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Kind> Default for Shard<K> {
    fn default() -> Self {
        let (series, aliases) = (HashTable::new(), HashTable::new());
        Shard { series, aliases, aliases_of: HashTable::new() }
    }
}

impl<K: Kind> Shard<K> {
    fn insert(&mut self, series: &Arc<Series<K>>) {
        self.series.insert_unique(series.position, Arc::clone(series), |known| known.position);
    }
}

/// Compares what a look-up came across.
#[inline(always)]
fn is_equal(known: Fingerprint, fingerprint: Fingerprint) -> bool {
    #[cfg(test)]
    COMPARISONS.set(COMPARISONS.get() + 1);
    known == fingerprint
}

#[cfg(test)]
thread_local! {
    /// How many fingerprints this thread's look-ups have compared.
    pub(super) static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
