//! The handles that a thread used last, so that a macro call touches no shared cache line.
//!
//! **Problem.** Each call of `counter!` looks its key up. A shared table costs a lock's cache line,
//! contended by every thread.
//!
//! **Idea.** Each thread has a set-associative cache per kind, indexed by the facade's hash of the
//! key, which a literal key has from the compiler.
//!
//! **Mechanism.**
//! 1. A slot holds a key, the registry it belongs to, and a `Weak` to this thread's local of the
//!    series. A hit upgrades it: the one locked instruction, on a line that no other thread
//!    touches. The upgrade fails once the series was evicted, and the key's slot is filled anew.
//! 2. A key is recognized by 32 bits of its hash, then by the addresses of its name and labels,
//!    which suffice for every literal call site, and only then by their contents.
//! 3. A key that misses gets a free slot of its set. Every [`MISSES_PER_REPLACEMENT`]th miss in a
//!    full set takes a slot, each in turn: so keys in use are soon cached, whichever were there
//!    before, while access at random over many series hardly ever makes and drops a local, at the
//!    cost of ten look-ups.
//! 4. Not cached are keys of more than [`LONGEST_KEY`] bytes, and those that have no series of
//!    their own: they get one as soon as there is room.
//! 5. A thread that is being torn down, or that is here already (an allocator that records, say),
//!    uses the series itself.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::thread::LocalKey;

use metrics::{Key, Label};

use super::counter::Counter;
use super::fingerprint::labels;
use super::gauge::Gauge;
use super::histogram::Histogram;
use super::registry::Lookup;
use super::series::{Kind, Series};
use super::tables::RegistryKind;
use super::thread::ensure_thread_number;

/// Sets of each kind, made at the thread's first use of it; a power of two. A set takes 56 bytes,
/// so they are 14 KiB.
const SETS: usize = 256;
/// Slots of a set.
const WAYS: usize = 4;
/// Every so many misses in a full set, a key takes the slot of another.
const MISSES_PER_REPLACEMENT: u16 = 256;
/// The most bytes of a key that is kept.
const LONGEST_KEY: usize = 4096;

/// A kind whose handles are cached.
pub(crate) trait CachedKind: RegistryKind {
    /// The slots of this thread.
    fn slots() -> &'static LocalKey<RefCell<Slots<Self>>>;
}

macro_rules! cached {
    ($($kind:ty),*) => {$(
        impl CachedKind for $kind {
            #[inline]
            fn slots() -> &'static LocalKey<RefCell<Slots<Self>>> {
                thread_local! {
                    static SLOTS: RefCell<Slots<$kind>> = const { RefCell::new(Slots::new()) };
                }
                &SLOTS
            }
        }
    )*};
}

cached!(Counter, Gauge, Histogram);

/// What a look-up found.
pub(crate) enum Handle<K: Kind> {
    /// This thread's own local.
    Local(Arc<K::Local>),
    /// The series itself.
    Shared(Arc<Series<K>>),
    /// There is no series for this key.
    Nothing,
}

/// Finds the handle for a key of the registry numbered `registry`; `find` looks it up there.
#[inline]
pub(crate) fn get<K: CachedKind>(
    registry: u64,
    key: &Key,
    find: impl Fn() -> Option<Lookup<K>>,
) -> Handle<K> {
    match with_slots(|slots: &mut Slots<K>| slots.hit(registry, key)) {
        Some(Some(local)) => Handle::Local(local),
        Some(None) => miss(registry, key, find),
        None => find().map_or(Handle::Nothing, |found| Handle::Shared(found.series)),
    }
}

/// Apart, so that a hit has no more registers to save than it needs.
#[cold]
#[inline(never)]
fn miss<K: CachedKind>(
    registry: u64,
    key: &Key,
    find: impl Fn() -> Option<Lookup<K>>,
) -> Handle<K> {
    let Some(Lookup { series, is_own }) = find() else { return Handle::Nothing };
    let cache = |slots: &mut Slots<K>| slots.fill(registry, key, &series);
    let local = if is_own { with_slots(cache).flatten() } else { None };
    local.map_or(Handle::Shared(series), Handle::Local)
}

/// `None` when this thread is being torn down or is here already.
#[inline]
fn with_slots<K: CachedKind, T>(then: impl FnOnce(&mut Slots<K>) -> T) -> Option<T> {
    let in_slots = |slots: &RefCell<Slots<K>>| Some(then(&mut *slots.try_borrow_mut().ok()?));
    K::slots().try_with(in_slots).ok().flatten()
}

/// The slots of one kind.
pub(crate) struct Slots<K: Kind> {
    /// Empty until the first use.
    sets: Vec<Set<K>>,
}

/// Slots for the keys of one remainder of the hash.
struct Set<K: Kind> {
    /// The upper bits of the hashes of the keys, so that a look-up reads no other slot than its
    /// own.
    tags: [u32; WAYS],
    /// The last miss in this set that found it full, modulo 2^16.
    misses: u16,
    slots: [Option<Box<Slot<K>>>; WAYS],
}

struct Slot<K: Kind> {
    key: Key,
    /// Where the words of `key` are. Kept, since the key itself tells it by calls into another
    /// crate.
    words: Words,
    registry: u64,
    local: Weak<K::Local>,
    series: Weak<Series<K>>,
}

impl<K: Kind> Slot<K> {
    /// Whether it is for this key. The kept key never changes and keeps its words alive, so words
    /// at the same address are the same.
    #[inline]
    fn is_of(&self, registry: u64, key: &Key) -> bool {
        let words = Words::of(key);
        let is_same = std::ptr::eq(self.words.name, words.name)
            && std::ptr::eq(self.words.labels, words.labels);
        self.registry == registry && (is_same || self.key == *key)
    }
}

/// Whether the slot gets another key or the thread ends.
impl<K: Kind> Drop for Slot<K> {
    fn drop(&mut self) {
        // Nothing ends while this `Weak` is left.
        self.local = Weak::new();
        if let Some(series) = self.series.upgrade() {
            series.sweep();
        }
    }
}

impl<K: Kind> Set<K> {
    fn new() -> Self {
        Set { tags: [0; WAYS], misses: 0, slots: [const { None }; WAYS] }
    }

    #[inline]
    fn find(&self, registry: u64, key: &Key) -> Option<&Slot<K>> {
        let tags = self.tags.iter().zip(&self.slots).filter(|(known, _)| **known == tag(key));
        let mut slots = tags.filter_map(|(_, slot)| slot.as_deref());
        slots.find(|slot| slot.is_of(registry, key))
    }

    /// The slot that a key may take, if any.
    fn place_for(&mut self, registry: u64, key: &Key) -> Option<usize> {
        let tag = tag(key);
        // The tag first: a look at the slots themselves is a cache miss each.
        let is_free = |way: &usize| match &self.slots[*way] {
            Some(slot) => self.tags[*way] == tag && slot.is_of(registry, key),
            None => true,
        };
        if let Some(way) = (0..WAYS).find(is_free) {
            return Some(way);
        }
        self.misses = self.misses.wrapping_add(1);
        let is_turn = self.misses % MISSES_PER_REPLACEMENT == 0;
        is_turn.then(|| usize::from(self.misses / MISSES_PER_REPLACEMENT) % WAYS)
    }
}

impl<K: CachedKind> Slots<K> {
    const fn new() -> Self {
        Slots { sets: Vec::new() }
    }

    /// The set of a key; beyond all while there are none.
    #[inline]
    fn index(&self, key: &Key) -> usize {
        key.get_hash() as usize & self.sets.len().wrapping_sub(1)
    }

    #[inline]
    fn hit(&self, registry: u64, key: &Key) -> Option<Arc<K::Local>> {
        self.sets.get(self.index(key))?.find(registry, key)?.local.upgrade()
    }

    /// Gives a series a local here, if the key gets a slot.
    fn fill(&mut self, registry: u64, key: &Key, series: &Arc<Series<K>>) -> Option<Arc<K::Local>> {
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Set::new);
        }
        let set = self.index(key);
        let set = &mut self.sets[set];
        let way = set.place_for(registry, key)?;
        let words: usize = labels(key).map(|(key, value)| key.len() + value.len()).sum();
        if key.name().len() + words > LONGEST_KEY {
            return None;
        }
        let found = series.adopt(ensure_thread_number());
        let key = key.to_retained();
        set.tags[way] = tag(&key);
        let (words, local, series) =
            (Words::of(&key), Arc::downgrade(&found), Arc::downgrade(series));
        set.slots[way] = Some(Box::new(Slot { words, key, registry, local, series }));
        Some(found)
    }
}

#[inline]
fn tag(key: &Key) -> u32 {
    (key.get_hash() >> 32) as u32
}

/// The addresses and lengths of a key's name and labels.
struct Words {
    name: *const str,
    labels: *const [Label],
}

impl Words {
    #[inline]
    fn of(key: &Key) -> Self {
        Words { name: key.name(), labels: key.labels().as_slice() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;
    use crate::wire::series::Rules;
    use metrics::CounterFn;

    fn registry() -> Registry {
        Registry::of_a_test(Rules::of_a_test(), 10_000).0
    }

    fn increment(registry: &Registry, key: &Key) -> bool {
        match get::<Counter>(registry.number, key, || registry.get(key)) {
            Handle::Local(local) => {
                local.increment(1);
                true
            }
            Handle::Shared(series) => {
                series.increment(1);
                false
            }
            Handle::Nothing => panic!("{key:?} has no series"),
        }
    }

    fn value(registry: &Registry, key: &Key) -> u64 {
        registry.get::<Counter>(key).unwrap().series.value()
    }

    #[test]
    fn a_key_is_served_by_this_threads_local_and_counted_once() {
        let registry = registry();
        let key = Key::from_parts("m", &[("a", "1"), ("b", "2")]);
        let turned = Key::from_parts("m", &[("b", "2"), ("a", "1")]);
        assert!((0..10).all(|_| increment(&registry, &key) && increment(&registry, &turned)));
        assert_eq!(value(&registry, &key), 20);
    }

    #[test]
    fn recorders_of_one_process_are_kept_apart() {
        let (one, other) = (registry(), registry());
        let key = Key::from_name("m");
        for _ in 0..100 {
            increment(&one, &key);
            increment(&other, &key);
            increment(&other, &key);
        }
        assert_eq!((value(&one, &key), value(&other, &key)), (100, 200));
    }

    #[test]
    fn access_at_random_seldom_makes_a_local_and_loses_nothing() {
        let registry = registry();
        let keys: Vec<_> = (0..4 * SETS * WAYS).map(|n| Key::from_name(format!("m{n}"))).collect();
        (0..4).for_each(|_| keys.iter().for_each(|key| _ = increment(&registry, key)));
        let cached = keys.iter().filter(|key| increment(&registry, key)).count();
        assert!((SETS * WAYS / 2..2 * SETS * WAYS).contains(&cached), "{cached}");
        assert!(keys.iter().all(|key| value(&registry, key) == 5));
    }

    #[test]
    fn keys_in_use_displace_those_that_were_there_before() {
        let registry = registry();
        let keys = |name: &str| -> Vec<Key> {
            (0..SETS * WAYS).map(|n| Key::from_name(format!("{name}{n}"))).collect()
        };
        keys("before").iter().for_each(|key| _ = increment(&registry, key));
        let hot = &keys("hot")[..SETS];
        let cached = || hot.iter().filter(|key| increment(&registry, key)).count();
        (0..WAYS * usize::from(MISSES_PER_REPLACEMENT)).for_each(|_| _ = cached());
        // Some hundredth has more than three others in its set.
        assert!(cached() > SETS * 9 / 10, "{}", cached());
    }

    #[test]
    fn no_key_is_kept_out_for_ever() {
        let registry = registry();
        // One more than a set has slots for.
        let mut keys = Vec::new();
        for n in 0.. {
            let key = Key::from_name(format!("m{n}"));
            if key.get_hash() as usize % SETS == 0 {
                keys.push(key);
            }
            if keys.len() > WAYS {
                break;
            }
        }
        let mut uncached = vec![0; keys.len()];
        for _ in 0..100 * u32::from(MISSES_PER_REPLACEMENT) {
            for (key, uncached) in keys.iter().zip(&mut uncached) {
                *uncached += u32::from(!increment(&registry, key));
            }
        }
        assert!(
            uncached.iter().all(|&n| n < 50 * u32::from(MISSES_PER_REPLACEMENT)),
            "{uncached:?}"
        );
    }

    #[test]
    fn long_keys_are_not_kept() {
        for (length, is_kept) in [(LONGEST_KEY, true), (LONGEST_KEY + 1, false)] {
            let registry = registry();
            // All but the last of the labels is left out of the line, or beaten by it.
            let beaten = "x".repeat(length - "mkky".len());
            let labels = [beaten, "y".into()].map(|value| Label::new("k", value));
            let key = Key::from_parts("m", labels.to_vec());
            assert!((0..10).all(|_| increment(&registry, &key) == is_kept), "{length}");
            assert_eq!(value(&registry, &key), 10);
        }
    }

    #[test]
    fn a_key_gets_its_own_series_as_soon_as_there_is_room() {
        let (registry, stats) = Registry::of_a_test(Rules::of_a_test(), 1);
        let [first, second] = ["first", "second"].map(Key::from_name);
        registry.get::<Counter>(&first).unwrap();
        assert!((0..3).all(|_| !increment(&registry, &second)));
        assert_eq!(stats.series_overflow.get(), 3);
        let series = registry.tables.counters.take_fresh().remove(0);
        assert!(registry.evict(series, |_| true).is_ok());
        assert!(increment(&registry, &second));
        assert_eq!(value(&registry, &second), 1);
    }

    #[test]
    fn a_local_ends_with_its_slot_or_its_thread() {
        let registry = Arc::new(registry());
        let key = Key::from_name("m");
        std::thread::scope(|scope| scope.spawn(|| increment(&registry, &key)).join().unwrap());
        let series = registry.get::<Counter>(&key).unwrap().series;
        assert_eq!(series.cell.load(crate::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn an_evicted_key_is_registered_anew() {
        let registry = registry();
        let key = Key::from_name("m");
        increment(&registry, &key);
        let mut fresh = registry.tables.counters.take_fresh();
        assert!(registry.evict(fresh.pop().unwrap(), |_| true).is_ok());
        assert!((0..=WAYS).all(|_| increment(&registry, &key)), "it takes no second slot");
        assert_eq!(value(&registry, &key), WAYS as u64 + 1);
    }

    #[test]
    fn a_thread_that_is_torn_down_still_counts() {
        struct Last(Arc<Registry>);
        impl Drop for Last {
            fn drop(&mut self) {
                increment(&self.0, &Key::from_name("m"));
            }
        }
        thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
        let registry = Arc::new(registry());
        let recording = Arc::clone(&registry);
        let thread = std::thread::spawn(move || {
            // Registered before and after the cache's own destructor, one of them runs behind it.
            LAST.with(|last| *last.borrow_mut() = Some(Last(Arc::clone(&recording))));
            increment(&recording, &Key::from_name("m"));
        });
        thread.join().unwrap();
        assert_eq!(value(&registry, &Key::from_name("m")), 2);
    }
}
