//! The series of one kind, found by what a key says.
//!
//! Two tables, in shards: of series, by the words that their lines say, and of *aliases*, the keys
//! whose words differ from those. Neither keeps a key: that would take more than half of the memory
//! of a series with two labels, or any amount where a label is cut from the line.

use std::mem;
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
    /// By their fingerprints.
    aliases: HashTable<Alias<K>>,
    /// The fingerprints of a series and of its alias that came last. One for each, since a table
    /// with many of one hash is slow.
    last_aliases: HashTable<(Fingerprint, Fingerprint)>,
}

/// A key that leads to a series.
struct Alias<K: Kind> {
    fingerprint: Fingerprint,
    /// Weak, so that it keeps no series from being evicted.
    series: Weak<Series<K>>,
    /// The alias of the series that came before, or the series itself.
    before: Fingerprint,
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
            let is_it = |alias: &Alias<K>| is_equal(alias.fingerprint, fingerprint);
            shard.aliases.find(fingerprint.0, is_it)?.series.upgrade()
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
        mem::take(&mut *lock(&self.fresh))
    }

    /// Lets a key with this fingerprint lead to a series whose line says other words; answers
    /// whether it is a new one. Under the lock of registration, as
    /// [`remove_aliases`](Self::remove_aliases) is: each touches several shards, one after the
    /// other.
    pub(super) fn insert_alias(&self, fingerprint: Fingerprint, series: &Arc<Series<K>>) -> bool {
        let is_it = |alias: &Alias<K>| alias.fingerprint == fingerprint;
        if self.read(fingerprint.0).aliases.find(fingerprint.0, is_it).is_some() {
            return false;
        }
        let of = series.fingerprint;
        let before = match self.write(of.0).last_aliases.entry(of.0, |it| it.0 == of, |it| it.0.0) {
            Entry::Occupied(mut last) => mem::replace(&mut last.get_mut().1, fingerprint),
            Entry::Vacant(place) => place.insert((of, fingerprint)).get().0,
        };
        let alias = Alias { fingerprint, series: Arc::downgrade(series), before };
        let mut shard = self.write(fingerprint.0);
        shard.aliases.insert_unique(fingerprint.0, alias, |alias| alias.fingerprint.0);
        true
    }

    /// Removes the aliases of a series; returns them.
    pub(super) fn remove_aliases(&self, series: Fingerprint) -> Vec<Fingerprint> {
        let mut aliases = Vec::new();
        let mut shard = self.write(series.0);
        let last = shard.last_aliases.find_entry(series.0, |it| it.0 == series);
        let mut next = last.map_or(series, |last| last.remove().0.1);
        drop(shard);
        while next != series {
            aliases.push(next);
            let mut shard = self.write(next.0);
            let alias = shard.aliases.find_entry(next.0, |alias| alias.fingerprint == next);
            next = alias.map_or(series, |alias| alias.remove().0.before);
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
        Shard { series, aliases, last_aliases: HashTable::new() }
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
