//! The series of one kind, found by key or by line.
//!
//! Two tables, in shards: of series, which keep no key; and of the few keys that do not say what their line says, kept whole.
//!
//! A key is compared with a series by two hashes of its words: the facade's, and a *print* of 64 bits under secrets of this process.
//! Equal hashes can be aimed at, since anybody can compute them; equal prints cannot without the secrets, which never leave the
//! process. By chance both are equal for no two of a million series but once in some 10^26 processes. This is no proof: the hash
//! behind the print is a fast one and not a cryptographic one. To compare the words themselves would cost two more misses of the
//! cache at each look-up: at random over a million series it took some 40 % longer.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use metrics::Key;
use metrics_util::KeyHasher;
use rapidhash::fast::SeedableState;

use super::conflict::WireName;
use super::series::{Kind, Series};
use crate::wire::series::Line;

/// Shards of a table; one that grows stalls only its own keys.
const SHARDS: usize = 64;

/// The series of one kind.
pub(crate) struct Table<K: Kind> {
    shards: Box<[RwLock<Shard<K>>]>,
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
        Table { shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
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
    pub(super) fn find_line(&self, hash: u64, line: &Line) -> Option<Arc<Series<K>>> {
        self.read(hash).series.find(hash, |series| series.line.is_same_series(line)).cloned()
    }

    /// Appends all series, by line.
    pub(super) fn all(&self, to: &mut Vec<Arc<Series<K>>>) {
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            to.extend(shard.series.iter().cloned());
        }
        to.sort_by(|a, b| a.line.cmp(&b.line));
    }

    /// Whether a series is called so.
    pub(super) fn has(&self, name: &WireName<'_>) -> bool {
        let is_called_so = |series: &Arc<Series<K>>| name.is_of(&series.line);
        self.read(name.hash()).series.find(name.hash(), is_called_so).is_some()
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print(NonZeroU64);

/// What the prints of a process are made with.
pub(super) struct Secrets {
    /// Of names, and of labels.
    seeds: [u64; 2],
    secrets: [u64; 7],
}

impl Secrets {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Secrets {
            seeds: [0, 1].map(|n| random.hash_one(n)),
            secrets: [2, 3, 4, 5, 6, 7, 8].map(|n| random.hash_one(n)),
        }
    }

    /// The print of these words.
    #[inline]
    pub(super) fn print<'a>(
        &self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Print {
        let [name_seed, label_seed] = self.seeds;
        let label = |(key, value)| self.hash(label_seed, [key, value]);
        let sum = labels.map(label).fold(self.hash(name_seed, [name]), u64::wrapping_add);
        Print(NonZeroU64::new(sum).unwrap_or(NonZeroU64::MIN))
    }

    #[inline]
    fn hash<const N: usize>(&self, seed: u64, words: [&str; N]) -> u64 {
        let mut hasher = SeedableState::custom(seed, &self.secrets).build_hasher();
        words.iter().for_each(|word| hasher.write(word.as_bytes()));
        hasher.finish()
    }
}

/// The key's labels as words.
pub(super) fn words(key: &Key) -> impl ExactSizeIterator<Item = (&str, &str)> {
    key.labels().map(|label| (label.key(), label.value()))
}
