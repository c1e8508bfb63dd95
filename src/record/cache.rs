//! The handles that this thread used last, so that a macro call touches no shared cache line.
//!
//! **Problem.** Each call of `counter!` looks its key up. A shared table costs a lock's cache line, contended by every thread.
//!
//! **Idea.** Each thread has a direct-mapped table per kind, indexed by the key's hash, which a literal key has from the compiler.
//!
//! **Mechanism.**
//! 1. A slot holds a key, the registry it belongs to, and a `Weak` to this thread's local of the series. A hit upgrades it: the one
//!    locked instruction on a line that no other thread touches. The upgrade fails once the series was evicted.
//! 2. A key is known again by hash, then by the addresses of its name and labels, which say enough for every literal call site, and
//!    only then by their contents.
//! 3. A slot gives way to a key that came [`SIGHTINGS`] times in a row, or to any after [`PATIENCE`] misses in a row; until then the
//!    newcomer goes the uncached way. So a key in use is soon cached, and access at random over many series, of which hardly one
//!    comes twice in a row, does not make and throw away locals, each of which costs as much as ten uncached calls.
//! 4. A thread that missed [`RUN`] times in a row is taken to go through more keys than there are slots: after each further miss its
//!    next [`SAMPLE`] calls do not look here. So access at random costs the registry's table alone.
//! 5. A thread that is being torn down, or that is here already (an allocator that records, say), goes the uncached way.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

use metrics::{Key, Label};

use super::counter::Counter;
use super::gauge::Gauge;
use super::samples::Histogram;
use super::series::{Kind, Series};

/// Slots of each kind; a power of two. 4 KiB a kind and thread, at the thread's first use of that kind.
const SLOTS: usize = 512;
/// How often in a row a key must miss to get a slot.
const SIGHTINGS: u8 = 8;
/// How many misses in a row a slot bears, whatever the keys.
const PATIENCE: u16 = 1_000;

/// After how many misses in a row most calls go past the table.
const RUN: u32 = 256;
/// How many calls do then between two that do not; one less than a prime, for a loop that makes so many calls at each turn would have
/// the same one of them looked for each time.
const SAMPLE: u32 = 66;

/// Threads are numbered from 1 in the order of their first use of a cache; 0 owns nothing.
static NEXT_THREAD: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

thread_local! {
    /// Without a destructor, so that it can be read while the thread is torn down.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// How many of the next calls for each kind go past its table. Apart from the tables, so that these calls cost least.
    static PASSES: Passes = const { Passes::new() };
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache::new()) };
}

/// The number of this thread, 0 if it never used a cache.
#[inline]
pub(crate) fn thread_number() -> u64 {
    THREAD.with(Cell::get)
}

pub(super) fn numbered() -> u64 {
    if thread_number() == 0 {
        THREAD.with(|thread| {
            thread.set(NEXT_THREAD.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        });
    }
    thread_number()
}

/// A kind whose handles are cached.
pub(crate) trait Cached: Kind {
    fn passes(passes: &Passes) -> &Cell<u32>;
    fn slots(cache: &mut Cache) -> &mut Slots<Self>;
}

/// See [`PASSES`].
pub(crate) struct Passes {
    counters: Cell<u32>,
    gauges: Cell<u32>,
    histograms: Cell<u32>,
}

impl Passes {
    const fn new() -> Self {
        Passes { counters: Cell::new(0), gauges: Cell::new(0), histograms: Cell::new(0) }
    }
}

/// The tables of one thread.
pub(crate) struct Cache {
    counters: Slots<Counter>,
    gauges: Slots<Gauge>,
    histograms: Slots<Histogram>,
}

impl Cache {
    const fn new() -> Self {
        Cache { counters: Slots::new(), gauges: Slots::new(), histograms: Slots::new() }
    }
}

impl Cached for Counter {
    fn passes(passes: &Passes) -> &Cell<u32> {
        &passes.counters
    }

    fn slots(cache: &mut Cache) -> &mut Slots<Self> {
        &mut cache.counters
    }
}

impl Cached for Gauge {
    fn passes(passes: &Passes) -> &Cell<u32> {
        &passes.gauges
    }

    fn slots(cache: &mut Cache) -> &mut Slots<Self> {
        &mut cache.gauges
    }
}

impl Cached for Histogram {
    fn passes(passes: &Passes) -> &Cell<u32> {
        &passes.histograms
    }

    fn slots(cache: &mut Cache) -> &mut Slots<Self> {
        &mut cache.histograms
    }
}

/// What a look-up found.
pub(crate) enum Found<K: Kind> {
    /// This thread's own local.
    Local(Arc<K::Local>),
    /// The series itself.
    Shared(Arc<Series<K>>),
    /// There is no series for this key.
    Nothing,
}

/// Finds the handle for a key of the registry numbered `registry`; `find` is its uncached way.
#[inline]
pub(crate) fn get<K: Cached>(
    registry: u64,
    key: &Key,
    find: impl Fn() -> Option<Arc<Series<K>>>,
) -> Found<K> {
    let look = |slots: &mut Slots<K>| slots.hit(registry, key);
    match if is_passed::<K>() { None } else { with_slots(look) } {
        Some(Some(local)) => Found::Local(local),
        Some(None) => miss(registry, key, find),
        None => find().map_or(Found::Nothing, Found::Shared),
    }
}

/// Whether this call goes past the table.
#[inline]
fn is_passed<K: Cached>() -> bool {
    PASSES.with(|passes| {
        let passes = K::passes(passes);
        let left = passes.get();
        if left > 0 {
            passes.set(left - 1);
        }
        left > 0
    })
}

/// Apart, so that a hit has no more registers to save than it needs.
#[cold]
#[inline(never)]
fn miss<K: Cached>(
    registry: u64,
    key: &Key,
    find: impl Fn() -> Option<Arc<Series<K>>>,
) -> Found<K> {
    with_slots(|slots: &mut Slots<K>| slots.miss(registry, key, find)).unwrap_or(Found::Nothing)
}

/// `None` when this thread is being torn down or is here already.
#[inline]
fn with_slots<K: Cached, T>(then: impl FnOnce(&mut Slots<K>) -> T) -> Option<T> {
    let in_slots =
        |cache: &RefCell<Cache>| Some(then(K::slots(&mut *cache.try_borrow_mut().ok()?)));
    CACHE.try_with(in_slots).ok().flatten()
}

/// The table of one kind.
pub(crate) struct Slots<K: Kind> {
    /// Empty until the first use.
    slots: Vec<Option<Box<Slot<K>>>>,
    /// Misses since the last hit, up to [`RUN`].
    run: u32,
}

struct Slot<K: Kind> {
    key: Key,
    /// Where the words of `key` are. Kept, since a key tells it only by two calls into another crate.
    place: Place,
    registry: u64,
    local: Weak<K::Local>,
    series: Weak<Series<K>>,
    /// Misses since the last hit.
    misses: u16,
    /// The hash of the key that missed last, and how many of those misses were its own in a row.
    candidate: u64,
    sightings: u8,
}

impl<K: Kind> Slot<K> {
    /// Whether it is for this key. The kept key never changes and keeps its words alive, so words at the same address are the same.
    #[inline]
    fn is_of(&self, key: &Key) -> bool {
        if self.key.get_hash() != key.get_hash() {
            return false;
        }
        let place = Place::of(key);
        let same_place = std::ptr::eq(self.place.name, place.name)
            && std::ptr::eq(self.place.labels, place.labels);
        same_place || self.key == *key
    }

    /// Whether it keeps its key although another one came. A slot whose local was revoked belongs to nobody.
    fn holds_against(&mut self, key: &Key) -> bool {
        // No misses yet: the last call was a hit, and nothing is in a row.
        if self.misses == 0 || self.candidate != key.get_hash() {
            (self.candidate, self.sightings) = (key.get_hash(), 0);
        }
        self.sightings += 1;
        self.misses += 1;
        self.misses < PATIENCE && self.sightings < SIGHTINGS && self.local.strong_count() > 0
    }
}

impl<K: Cached> Slots<K> {
    const fn new() -> Self {
        Slots { slots: Vec::new(), run: 0 }
    }

    #[inline]
    fn hit(&mut self, registry: u64, key: &Key) -> Option<Arc<K::Local>> {
        let slot = self.slots.get_mut(index(key))?.as_mut()?;
        if slot.registry != registry || !slot.is_of(key) {
            return None;
        }
        (slot.misses, self.run) = (0, 0);
        slot.local.upgrade()
    }

    #[cold]
    fn miss(
        &mut self,
        registry: u64,
        key: &Key,
        find: impl Fn() -> Option<Arc<Series<K>>>,
    ) -> Found<K> {
        self.run = (self.run + 1).min(RUN);
        if self.run == RUN {
            PASSES.with(|passes| K::passes(passes).set(SAMPLE));
        }
        let Some(series) = find() else { return Found::Nothing };
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let slot = &mut self.slots[index(key)];
        if slot.as_mut().is_some_and(|slot| slot.holds_against(key)) {
            return Found::Shared(series);
        }
        let ended = slot.take().map(|slot| slot.series.clone());
        let local = series.adopt(numbered());
        let found =
            local.upgrade().map_or_else(|| Found::Shared(Arc::clone(&series)), Found::Local);
        let key = key.to_retained();
        *slot = Some(Box::new(Slot {
            place: Place::of(&key),
            key,
            registry,
            local,
            series: Arc::downgrade(&series),
            misses: 0,
            candidate: 0,
            sightings: 0,
        }));
        // Not left to the next snapshot: a thread that goes through many series would pile locals up until then.
        if let Some(series) = ended.and_then(|series| series.upgrade()) {
            series.sweep();
        }
        found
    }
}

#[inline]
fn index(key: &Key) -> usize {
    key.get_hash() as usize % SLOTS
}

/// The addresses and lengths of a key's name and labels.
struct Place {
    name: *const str,
    labels: *const [Label],
}

impl Place {
    #[inline]
    fn of(key: &Key) -> Self {
        Place { name: key.name(), labels: key.labels().as_slice() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buckets::Scheme;
    use super::super::registry::{Options, Registry};
    use super::super::samples::Shape;
    use super::*;
    use crate::stats::Counters;
    use crate::wire::series::Rules;
    use metrics::CounterFn;

    fn registry() -> Registry {
        let rules = Rules::of_a_test();
        let shapes =
            Box::new(|_: &str| Shape { scheme: Scheme::Log, own_tag: None, names: Arc::new(()) });
        Registry::new(
            Options {
                rules,
                shapes,
                limit: 10_000,
                has_unit_suffixes: false,
                line_limit: 1024,
                reserved: Vec::new(),
            },
            Arc::new(Counters::default()),
        )
    }

    fn increment(registry: &Registry, key: &Key) -> bool {
        match get::<Counter>(registry.number(), key, || registry.get(key)) {
            Found::Local(local) => {
                local.increment(1);
                true
            }
            Found::Shared(series) => {
                series.increment(1);
                false
            }
            Found::Nothing => panic!("{key:?} has no series"),
        }
    }

    fn value(registry: &Registry, key: &Key) -> u64 {
        registry.get::<Counter>(key).unwrap().value()
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
    fn a_slot_gives_way_only_after_its_patience_and_loses_nothing() {
        let registry = registry();
        let keys: Vec<_> = (0..4 * SLOTS).map(|n| Key::from_name(format!("m{n}"))).collect();
        let mut shared = 0;
        for _ in 0..100 {
            shared += keys.iter().filter(|key| !increment(&registry, key)).count();
        }
        assert!(shared > 100 * SLOTS, "access at random goes the uncached way, {shared} times");
        assert!(keys.iter().all(|key| value(&registry, key) == 100));
    }

    #[test]
    fn after_access_at_random_a_key_in_use_is_cached_again() {
        let registry = registry();
        for n in 0..10 * RUN {
            increment(&registry, &Key::from_name(format!("m{}", n % (4 * SLOTS as u32))));
        }
        let key = Key::from_name("hot");
        let calls = u32::from(SIGHTINGS) * (SAMPLE + 1);
        let uncached = (0..2 * calls).filter(|_| !increment(&registry, &key)).count();
        assert!(uncached <= calls as usize, "{uncached} calls before it was cached");
        assert_eq!(value(&registry, &key), u64::from(2 * calls));
    }

    #[test]
    fn after_a_run_of_misses_even_a_cached_key_is_passed_over_for_some_calls() {
        let registry = registry();
        let key = Key::from_name("hot");
        assert!(increment(&registry, &key));
        // The first one was a miss too.
        for n in 1..RUN {
            increment(&registry, &Key::from_name(format!("m{n}")));
        }
        let cached: Vec<bool> = (0..2 * SAMPLE).map(|_| increment(&registry, &key)).collect();
        assert!(cached.iter().enumerate().all(|(n, cached)| *cached == (n >= SAMPLE as usize)));
        assert_eq!(value(&registry, &key), u64::from(2 * SAMPLE) + 1);
    }

    #[test]
    fn a_local_ends_with_its_slot_or_its_thread() {
        let registry = Arc::new(registry());
        let key = Key::from_name("m");
        std::thread::scope(|scope| scope.spawn(|| increment(&registry, &key)).join().unwrap());
        let series = registry.get::<Counter>(&key).unwrap();
        series.sweep();
        assert_eq!(series.cell.load(crate::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn an_evicted_key_is_registered_anew() {
        let registry = registry();
        let key = Key::from_name("m");
        increment(&registry, &key);
        let mut fresh = registry.take_fresh();
        assert!(registry.evict(fresh.counters.pop().unwrap(), |_| true).is_ok());
        assert!(increment(&registry, &key));
        assert_eq!(value(&registry, &key), 1);
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
