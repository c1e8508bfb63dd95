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
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use metrics::Key;
use metrics_util::KeyHasher;

use super::conflict::WireName;
use super::packed::{Block, Held, Packed};
use super::series::{Kind, Series};
use crate::wire::kept::Line;

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
        self.block.line(self.start)
    }

    /// Head and tail, in whose order lines are.
    fn parts(&self) -> Option<(&[u8], &[u8])> {
        self.line().map(Line::parts)
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
        // At random over a million series the processor waits for memory, here for the key's words and for the series side by side. How
        // far ahead it looks meanwhile is a number of instructions: with a fifth fewer of them a look-up took a fifth less time.
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

/// What the prints of a process are made with, of names and of labels.
pub(super) struct Secrets {
    shared: SharedSeed,
    names: u64,
    labels: u64,
}

impl Secrets {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Secrets {
            shared: SharedSeed::from_u64(random.hash_one(0u8)),
            names: random.hash_one(1u8),
            labels: random.hash_one(2u8),
        }
    }

    /// The print of these words: a sum over the labels, whose order does not count.
    // Always, as the next: see `find`.
    #[inline(always)]
    pub(super) fn print<'a>(
        &self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Print {
        let mut sum = self.hash(self.names, [name]);
        for (key, value) in labels {
            sum = sum.wrapping_add(self.hash(self.labels, [key, value]));
        }
        Print(NonZeroU64::new(sum).unwrap_or(NonZeroU64::MIN))
    }

    /// The hash of words that follow one another. It tells their lengths too, as the facade's does not.
    #[inline(always)]
    fn hash<const N: usize>(&self, seed: u64, words: [&str; N]) -> u64 {
        let mut hasher = FoldHasher::with_seed(seed, &self.shared);
        for word in words {
            hasher.write(word.as_bytes());
        }
        hasher.finish()
    }
}

/// The key's labels as words.
pub(super) fn words(key: &Key) -> impl ExactSizeIterator<Item = (&str, &str)> {
    key.labels().map(|label| (label.key(), label.value()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Counts the pairs of equal numbers.
    fn equal(numbers: impl Iterator<Item = u64>) -> usize {
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        numbers.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    #[test]
    fn prints_are_equal_no_more_often_than_by_chance() {
        const N: usize = 1 << 18;
        type Words = (String, Vec<[String; 2]>);
        let key = |name: &str, labels: &[[String; 2]]| (name.into(), labels.to_vec());
        let number = |n: usize| n.to_string();
        let pair = |n: usize| [number(n % 512), number(n / 512)];
        let long = |n: usize| format!("{:08x}-0000-4000-8000-{:012x}", n % 512, n / 512);
        let k = || String::from("k");
        let keys: [(&str, &dyn Fn(usize) -> Words); 6] = [
            ("names", &|n| key(&number(n), &[[k(), k()]])),
            ("keys", &|n| key("m", &[[number(n), k()]])),
            ("values", &|n| key("m", &[[k(), number(n)]])),
            ("long values", &|n| key("m", &[[k(), long(n)]])),
            ("keys and values", &|n| key("m", &[pair(n)])),
            ("two labels", &|n| key("m", &[[k(), number(n % 512)], ["l".into(), number(n / 512)]])),
        ];
        let secrets = Secrets::random();
        for (name, key) in keys {
            let print = |n: usize| {
                let (name, labels) = key(n);
                secrets.print(&name, labels.iter().map(|[key, value]| (&**key, &**value))).0.get()
            };
            let prints: Vec<u64> = (0..N).map(print).collect();
            assert_eq!(equal(prints.iter().copied()), 0, "{name}");
            // Of each half 8 are to be expected; 40 come in one of some 10^14 runs.
            for shift in [0, 32] {
                let halves = prints.iter().map(|print| u64::from((print >> shift) as u32));
                assert!(equal(halves) < 40, "{name}");
            }
        }
    }

    #[test]
    fn a_print_depends_on_every_word_and_on_which_word_it_is() {
        let secrets = Secrets::random();
        let print = |name, labels: &[(&str, &str)]| secrets.print(name, labels.iter().copied());
        let keys: [(&str, &[(&str, &str)]); 9] = [
            ("m", &[]),
            ("m", &[("", "")]),
            ("m", &[("a", "b")]),
            ("m", &[("b", "a")]),
            ("m", &[("ab", "")]),
            ("a", &[("m", "b")]),
            ("m", &[("a", "1"), ("b", "2")]),
            ("m", &[("a", "2"), ("b", "1")]),
            ("m", &[("a", "1"), ("a", "1")]),
        ];
        let prints: HashSet<Print> =
            keys.iter().map(|(name, labels)| print(name, labels)).collect();
        assert_eq!(prints.len(), keys.len());
        assert_eq!(print("m", &[("a", "1"), ("b", "2")]), print("m", &[("b", "2"), ("a", "1")]));
    }
}
