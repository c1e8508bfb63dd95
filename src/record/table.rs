//! The series of one kind, found by key or by line.
//!
//! Two tables, in shards: of series, which keep no key; and of the few keys that do not say what their line says, kept whole.
//!
//! A key is compared with a series by two hashes of its words: the facade's, which finds it, and a *print* of 64 bits under secrets of
//! this process, which tells it apart. The facade's hash alone does not: it is made for speed, and metrics 0.24.6 has 1,012 of a
//! million keys share theirs that differ in a number only. Equal hashes can also be aimed at, since anybody can compute them; equal
//! prints cannot without the secrets, which never leave the process. By chance both are equal for no two of a million such keys but in
//! one of some 10^16 processes, and the prints of any two of a million in one of 10^7. This is no proof: the hash behind the print is
//! a fast one and not a cryptographic one, though it mixes its result once more where the facade's does not. To compare the words
//! themselves would cost two more misses of the cache at each look-up: at random over a million series it took some 40 % longer.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use metrics::Key;
use metrics_util::KeyHasher;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

use super::conflict::WireName;
use super::packed::{Block, Held, Packed};
use super::series::{Kind, Series};
use crate::wire::series::Line;

/// Shards of a table; one that grows stalls only its own keys.
const SHARDS: usize = 64;

/// The series of one kind.
pub(crate) struct Table<K: Kind> {
    shards: Box<[RwLock<Shard<K>>]>,
    pub(crate) packed: Packed,
}

/// A series, and its line as it was found.
pub(crate) struct Known<K: Kind> {
    pub(crate) series: Arc<Series<K>>,
    block: Block,
    start: u32,
}

impl<K: Kind> Known<K> {
    pub(crate) fn line(&self) -> Option<Line<'_>> {
        Line::at(&self.block, self.start)
    }

    /// Head and tail, in whose order lines are.
    fn parts(&self) -> Option<(&[u8], &[u8])> {
        self.line().map(|line| (line.head(), line.tail()))
    }
}

struct Shard<K: Kind> {
    /// By canonical hash.
    series: HashTable<Arc<Series<K>>>,
    /// Keys that do not say what their line says. Weak, so that they keep no series from being evicted.
    aliases: HashMap<Key, Weak<Series<K>>, BuildHasherDefault<KeyHasher>>,
}

impl<K: Kind> Table<K> {
    pub(super) fn new() -> Self {
        let shard = || RwLock::new(Shard { series: HashTable::new(), aliases: HashMap::default() });
        Table {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            packed: Packed::default(),
        }
    }

    /// The series that a key is known by.
    pub(super) fn find(&self, key: &Key, secrets: &Secrets) -> Option<Arc<Series<K>>> {
        let shard = self.read(key.get_hash());
        // Behind the lock, which keeps the processor from looking ahead: so it fetches the key's words and the series together.
        let print = Some(secrets.print(key.name(), words(key)));
        let is_known =
            |series: &Arc<Series<K>>| series.hash == key.get_hash() && series.print == print;
        let known = shard.series.find(key.get_hash(), is_known).cloned();
        known.or_else(|| shard.aliases.get(key)?.upgrade())
    }

    /// The series with this line, whose canonical hash is `hash`.
    pub(super) fn find_line(&self, hash: u64, line: Line<'_>) -> Option<Arc<Series<K>>> {
        self.find_by_line(hash, |known| known.is_same_series(line))
    }

    /// All series, in the order of their lines.
    pub(crate) fn all(&self) -> Vec<Known<K>> {
        let mut series = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            series.extend(shard.series.iter().cloned());
        }
        let mut held = Held::default();
        let know = |series: Arc<Series<K>>| {
            let (block, start) = held.place_of(&series, &self.packed)?;
            Some(Known { series, block, start })
        };
        let mut all: Vec<Known<K>> = series.into_iter().filter_map(know).collect();
        all.sort_by(|a, b| a.parts().cmp(&b.parts()));
        all
    }

    /// Whether a series is called so.
    pub(super) fn has(&self, name: &WireName<'_>) -> bool {
        self.find_by_line(name.hash(), |line| name.is_of(line)).is_some()
    }

    fn find_by_line(&self, hash: u64, is_it: impl Fn(Line<'_>) -> bool) -> Option<Arc<Series<K>>> {
        let shard = self.read(hash);
        let candidates = shard.series.iter_hash(hash).filter(|series| series.hash == hash);
        let candidates: Vec<_> = candidates.cloned().collect();
        drop(shard);
        if candidates.is_empty() {
            return None;
        }
        let blocks = self.packed.read();
        candidates.into_iter().find(|series| blocks.line(series).is_some_and(&is_it))
    }

    /// Adds a series that is not there.
    pub(super) fn insert(&self, series: &Arc<Series<K>>) {
        self.write(series.hash).insert(series);
    }

    /// Lets a key lead to a series whose line it does not say; answers whether it is a new one.
    pub(super) fn insert_alias(&self, key: &Key, series: &Arc<Series<K>>) -> bool {
        let mut shard = self.write(key.get_hash());
        shard.aliases.insert(key.to_retained(), Arc::downgrade(series)).is_none()
    }

    /// Removes a series if `take` can take it. While it tries, no key leads to the series but an alias.
    pub(super) fn remove_if(
        &self,
        series: Arc<Series<K>>,
        take: impl FnOnce(Arc<Series<K>>) -> Result<(), Arc<Series<K>>>,
    ) -> Result<(), Arc<Series<K>>> {
        let mut shard = self.write(series.hash);
        let entry = shard.series.find_entry(series.hash, |known| Arc::ptr_eq(known, &series));
        drop(entry.map(OccupiedEntry::remove));
        take(series).inspect_err(|held| shard.insert(held))
    }

    /// Forgets the aliases of series that are gone; answers how many are left.
    pub(super) fn purge(&self) -> usize {
        let shards =
            self.shards.iter().map(|shard| shard.write().unwrap_or_else(PoisonError::into_inner));
        let purged = shards.map(|mut shard| {
            shard.aliases.retain(|_, series| series.strong_count() > 0);
            shard.aliases.len()
        });
        purged.sum()
    }

    /// The shard of a hash, by bits that the table within does not use.
    fn shard(&self, hash: u64) -> &RwLock<Shard<K>> {
        &self.shards[(hash >> 48) as usize % SHARDS]
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard<K>> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard<K>> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Kind> Shard<K> {
    fn insert(&mut self, series: &Arc<Series<K>>) {
        self.series.insert_unique(series.hash, Arc::clone(series), |known| known.hash);
    }
}

/// What a key's words are recognised by, besides the facade's hash of them; whatever the order of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Print(NonZeroU64);

/// What the prints of a process are made with, of names, of labels' keys and of their values.
pub(super) struct Secrets([RapidSecrets; 3]);

impl Secrets {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Secrets([0u8, 1, 2].map(|n| RapidSecrets::seed(random.hash_one(n))))
    }

    /// The print of these words.
    #[inline]
    pub(super) fn print<'a>(
        &self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Print {
        let [names, keys, values] = &self.0;
        let label =
            |(key, value): (&str, &str)| hash(key, keys) ^ hash(value, values).rotate_left(32);
        let sum = labels.map(label).fold(hash(name, names), u64::wrapping_add);
        Print(NonZeroU64::new(sum).unwrap_or(NonZeroU64::MIN))
    }
}

#[inline]
fn hash(word: &str, secrets: &RapidSecrets) -> u64 {
    rapidhash_v3_nano_inline::<true, false>(word.as_bytes(), secrets)
}

/// The key's labels as words.
pub(super) fn words(key: &Key) -> impl ExactSizeIterator<Item = (&str, &str)> {
    key.labels().map(|label| (label.key(), label.value()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::Label;
    use std::collections::HashSet;

    #[test]
    fn prints_tell_apart_what_the_facades_hash_does_not() {
        let numbers: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let labels = |n: usize| [("low", &numbers[n % 10]), ("high", &numbers[n / 10])];
        let keys: Vec<Key> = (0..100_000)
            .map(|n| {
                Key::from_parts("m", labels(n).map(|(key, n)| Label::new(key, n.clone())).to_vec())
            })
            .collect();
        for _ in 0..3 {
            let secrets = Secrets::random();
            let prints: HashSet<Print> =
                keys.iter().map(|key| secrets.print(key.name(), words(key))).collect();
            assert_eq!(prints.len(), keys.len());
        }
    }
}
