//! Every key's series.
//!
//! **Problem.** A million series, found by any thread at any time, registered while a flush walks over them; one series for all keys
//! that look the same on the wire; and few bytes for each.
//!
//! **Idea.** A table from the facade's hash of the key to the series, which keeps no key: a plain key is compared with the rendered
//! line, word by word. That saves the key's labels, more than half of the memory of a series with two of them.
//!
//! **Mechanism.**
//! 1. [`Registry::find`]: a shard's read lock, the table of lines, then the few aliases: keys that are not plain, kept whole.
//! 2. [`Registry::register`], once per key: under the one lock of registration the key is cleaned into its [`Identity`], whose
//!    canonical hash finds the series again if another key has made it; else it is made and put on the list of fresh series.
//! 3. The flusher takes that list before each snapshot ([`Registry::take_fresh`]) and keeps series in the order of registration, so
//!    it never walks the table and holds no lock while it reads and encodes.
//! 4. Past the limit a key's series is that of its metric's name with the one tag `overflow=true`.
//! 5. [`Registry::evict`] holds the lock of registration and the shard's, so nobody can find the series while it goes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use metrics::{Key, Label};
use metrics_util::{KeyHasher, MetricKind};

use super::counter::Counter;
use super::descriptions::Descriptions;
use super::gauge::Gauge;
use super::histogram::HistogramCell;
use super::samples::{Histogram, Shape};
use super::series::{Kind, Series};
use crate::stats::Counters;
use crate::wire::series::{Identity, Line, OwnTag, Rules};

/// Shards of each kind's table; a growing table stalls only its own shard.
const SHARDS: usize = 64;
/// The only own tag of the series that keys share beyond the limit.
const OVERFLOW: (&str, &str) = ("overflow", "true");
/// How many such series there may be beyond the limit: metrics with new names have none to share.
const OVERFLOW_SERIES: usize = 1_000;

/// Registries are numbered, since several may be cached by one thread.
static NEXT_REGISTRY: AtomicU64 = AtomicU64::new(1);

/// What a histogram with this cleaned name needs.
pub(crate) type Shapes = Box<dyn Fn(&str) -> Shape + Send + Sync>;

/// What a registry is made of.
pub(crate) struct Options {
    pub(crate) rules: Rules,
    pub(crate) shapes: Shapes,
    /// The most series, overflow series not counted.
    pub(crate) limit: usize,
    /// Whether a name gets the word of its unit.
    pub(crate) has_unit_suffixes: bool,
}

/// See the module.
pub(crate) struct Registry {
    number: u64,
    rules: Rules,
    shapes: Shapes,
    /// The most series, overflow series not counted.
    limit: usize,
    counters: Table<Counter>,
    gauges: Table<Gauge>,
    histograms: Table<Histogram>,
    registration: Mutex<Registration>,
    descriptions: Descriptions,
    /// Whether a name gets the word of its unit.
    has_unit_suffixes: bool,
    stats: Arc<Counters>,
}

/// What only registration, eviction and the flusher touch.
#[derive(Default)]
struct Registration {
    fresh: Fresh,
    /// All series, and those of them that exist beyond the limit.
    series: usize,
    overflow_series: usize,
    /// Keys kept as aliases; bounded like the series, for each is kept whole.
    aliases: usize,
    /// Whether the first merge and the first refusal were told.
    told_merge: bool,
    told_refusal: bool,
}

/// Series that the flusher does not know yet, in order of registration.
#[derive(Default)]
pub(crate) struct Fresh {
    pub(crate) counters: Vec<Arc<Series<Counter>>>,
    pub(crate) gauges: Vec<Arc<Series<Gauge>>>,
    pub(crate) histograms: Vec<Arc<Series<Histogram>>>,
}

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

/// A kind that the registry has a table for.
pub(crate) trait Registered: Kind {
    const KIND: MetricKind;
    fn table(registry: &Registry) -> &Table<Self>;
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>>;
    /// What is to be known of it before it is registered.
    type Shape;
    fn shape(registry: &Registry, key: &Key) -> Self::Shape;
    /// The tag that its lines will have besides its own.
    fn own_tag(shape: &Self::Shape) -> OwnTag;
    fn cell(shape: Self::Shape) -> Self::Cell;
    /// Whether another kind writes the lines of this one already.
    fn is_taken(registry: &Registry, hash: u64, line: &Line) -> bool;
}

impl Registered for Counter {
    const KIND: MetricKind = MetricKind::Counter;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.counters
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.counters
    }
    type Shape = ();
    fn shape(_registry: &Registry, _key: &Key) {}
    fn own_tag((): &()) -> OwnTag {
        None
    }
    fn cell((): ()) -> Self::Cell {
        Self::Cell::default()
    }
    fn is_taken(registry: &Registry, hash: u64, line: &Line) -> bool {
        registry.gauges.find_line(hash, line).is_some()
    }
}

impl Registered for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.gauges
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.gauges
    }
    type Shape = ();
    fn shape(_registry: &Registry, _key: &Key) {}
    fn own_tag((): &()) -> OwnTag {
        None
    }
    fn cell((): ()) -> Self::Cell {
        Self::Cell::default()
    }
    fn is_taken(registry: &Registry, hash: u64, line: &Line) -> bool {
        registry.counters.find_line(hash, line).is_some()
    }
}

impl Registered for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    fn table(registry: &Registry) -> &Table<Self> {
        &registry.histograms
    }
    fn fresh(fresh: &mut Fresh) -> &mut Vec<Arc<Series<Self>>> {
        &mut fresh.histograms
    }
    type Shape = Shape;
    fn shape(registry: &Registry, key: &Key) -> Shape {
        (registry.shapes)(&format!(
            "{}{}",
            registry.rules.prefix,
            registry.rules.charset.clean(key.name())
        ))
    }
    fn own_tag(shape: &Shape) -> OwnTag {
        shape.own_tag
    }
    fn cell(shape: Shape) -> Self::Cell {
        Arc::new(HistogramCell::new(shape.scheme))
    }
    fn is_taken(_registry: &Registry, _hash: u64, _line: &Line) -> bool {
        // Its lines have suffixes: `latency` may well be a counter and a histogram.
        false
    }
}

impl Registry {
    pub(crate) fn new(options: Options, stats: Arc<Counters>) -> Self {
        let Options { rules, shapes, limit, has_unit_suffixes } = options;
        Registry {
            number: NEXT_REGISTRY.fetch_add(1, Ordering::Relaxed),
            rules,
            shapes,
            limit,
            counters: Table::new(),
            gauges: Table::new(),
            histograms: Table::new(),
            registration: Mutex::default(),
            descriptions: Descriptions::default(),
            has_unit_suffixes,
            stats,
        }
    }

    /// Tells this registry from others of the process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn descriptions(&self) -> &Descriptions {
        &self.descriptions
    }

    /// The series of a key, made if need be. `None` when there can be none.
    pub(crate) fn get<K: Registered>(&self, key: &Key) -> Option<Arc<Series<K>>> {
        K::table(self).find(self.rules.prefix.len(), key).or_else(|| self.register(key))
    }

    /// Appends the series that were registered since the last time.
    pub(crate) fn take_fresh(&self, to: &mut Fresh) {
        let mut registration = self.registration();
        to.counters.append(&mut registration.fresh.counters);
        to.gauges.append(&mut registration.fresh.gauges);
        to.histograms.append(&mut registration.fresh.histograms);
    }

    /// Forgets a series if nobody but the caller holds it in any way; else hands it back.
    pub(crate) fn evict<K: Registered>(
        &self,
        series: Arc<Series<K>>,
    ) -> Result<(), Arc<Series<K>>> {
        let mut registration = self.registration();
        let hash = series.hash;
        let mut shard = K::table(self).write(hash);
        let entry = shard.series.find_entry(hash, |known| Arc::ptr_eq(known, &series));
        drop(entry.map(OccupiedEntry::remove));
        // From here on only an alias leads to it. Each of the two steps takes it from all others at once, or fails.
        let taken = if series.revoke() { Arc::try_unwrap(series) } else { Err(series) };
        if let Err(held) = taken {
            shard.series.insert_unique(hash, Arc::clone(&held), |known| known.hash);
            return Err(held);
        }
        registration.series -= 1;
        self.stats.series.set(registration.series as u64);
        self.stats.series_evicted.add(1);
        Ok(())
    }

    /// Forgets the aliases of evicted series.
    pub(crate) fn purge_aliases(&self) {
        let mut registration = self.registration();
        if registration.aliases > 0 {
            registration.aliases =
                self.counters.purge() + self.gauges.purge() + self.histograms.purge();
        }
    }

    /// Whether a counter or a gauge has the line of this raw point.
    pub(crate) fn has(&self, metric: &str, labels: Vec<Label>) -> bool {
        let key = Key::from_parts(metric.to_owned(), labels);
        let identity = self.identify(&key, None);
        let hash = canonical_hash(&key, &identity);
        Gauge::is_taken(self, hash, &identity.line) || Counter::is_taken(self, hash, &identity.line)
    }

    #[cold]
    fn register<K: Registered>(&self, key: &Key) -> Option<Arc<Series<K>>> {
        let named = self.named::<K>(key);
        let shape = K::shape(self, &named);
        let identity = self.identify(&named, K::own_tag(&shape));
        let hash = canonical_hash(&named, &identity);
        // A key whose name got a unit does not say what its line says either.
        let is_alias = identity.canonical.is_some() || matches!(named, Cow::Owned(_));
        let mut registration = self.registration();
        let (series, told) = match K::table(self).find_line(hash, &identity.line) {
            Some(series) if is_alias => (series, self.note_merge(&mut registration)),
            Some(series) => (series, None),
            None if K::is_taken(self, hash, &identity.line) => {
                let told = self.note_refusal(&mut registration);
                drop(registration);
                tell(told, key.name());
                return None;
            }
            None if registration.series - registration.overflow_series >= self.limit => {
                return self.overflow(&mut registration, &named, shape);
            }
            None => (self.insert(&mut registration, hash, identity, shape), None),
        };
        if is_alias && registration.aliases < self.limit {
            let before = K::table(self)
                .write(key.get_hash())
                .aliases
                .insert(key.to_retained(), Arc::downgrade(&series));
            registration.aliases += usize::from(before.is_none());
        }
        drop(registration);
        tell(told, key.name());
        Some(series)
    }

    fn insert<K: Registered>(
        &self,
        registration: &mut Registration,
        hash: u64,
        identity: Identity,
        shape: K::Shape,
    ) -> Arc<Series<K>> {
        self.stats.tags_dropped.add(identity.dropped_tags as u64);
        let series = Arc::new(Series::new(hash, identity.line, K::cell(shape)));
        K::table(self)
            .write(hash)
            .series
            .insert_unique(hash, Arc::clone(&series), |known| known.hash);
        K::fresh(&mut registration.fresh).push(Arc::clone(&series));
        registration.series += 1;
        self.stats.series.set(registration.series as u64);
        series
    }

    /// The series that new keys of this metric share.
    fn overflow<K: Registered>(
        &self,
        registration: &mut Registration,
        key: &Key,
        shape: K::Shape,
    ) -> Option<Arc<Series<K>>> {
        self.stats.series_overflow.add(1);
        let key = Key::from_parts(
            key.name().to_owned(),
            vec![Label::from_static_parts(OVERFLOW.0, OVERFLOW.1)],
        );
        let identity = self.identify(&key, K::own_tag(&shape));
        let hash = canonical_hash(&key, &identity);
        if let Some(series) = K::table(self).find_line(hash, &identity.line) {
            return Some(series);
        }
        if registration.overflow_series >= OVERFLOW_SERIES
            || K::is_taken(self, hash, &identity.line)
        {
            return None;
        }
        registration.overflow_series += 1;
        Some(self.insert(registration, hash, identity, shape))
    }

    /// The key under the name that it is sent by.
    fn named<'a, K: Registered>(&self, key: &'a Key) -> Cow<'a, Key> {
        if !self.has_unit_suffixes {
            return Cow::Borrowed(key);
        }
        match self.descriptions.with_unit(K::KIND, key.name()) {
            Cow::Borrowed(_) => Cow::Borrowed(key),
            Cow::Owned(name) => Cow::Owned(Key::from_parts(name, key.labels())),
        }
    }

    fn identify(&self, key: &Key, own_tag: OwnTag) -> Identity {
        self.rules.identify(key.name(), words(key), own_tag)
    }

    fn note_merge(&self, registration: &mut Registration) -> Option<&'static str> {
        self.stats.series_merged.add(1);
        let first = !std::mem::replace(&mut registration.told_merge, true);
        first.then_some(
            "keys that differ only in what cannot be sent are one series and share its value",
        )
    }

    fn note_refusal(&self, registration: &mut Registration) -> Option<&'static str> {
        self.stats.series_refused.add(1);
        let first = !std::mem::replace(&mut registration.told_refusal, true);
        first.then_some("a counter and a gauge have the same name and tags; only the one that came first is sent")
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs, once no lock is held: a subscriber may well record a metric.
fn tell(what: Option<&'static str>, metric: &str) {
    if let Some(what) = what {
        tracing::warn!(metric, "{what}");
    }
}

/// The key's labels as words.
fn words(key: &Key) -> impl ExactSizeIterator<Item = (&str, &str)> {
    key.labels().map(|label| (label.key(), label.value()))
}

/// The hash under which a series is kept: that of any plain key of it.
fn canonical_hash(key: &Key, identity: &Identity) -> u64 {
    let Some((name, own)) = &identity.canonical else { return key.get_hash() };
    let labels: Vec<_> =
        own.iter().map(|(key, value)| Label::new(key.clone(), value.clone())).collect();
    Key::from_parts(name.clone(), labels).get_hash()
}

impl<K: Kind> Table<K> {
    fn new() -> Self {
        let shard = || RwLock::new(Shard { series: HashTable::new(), aliases: HashMap::default() });
        Table { shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
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

    fn find(&self, prefix: usize, key: &Key) -> Option<Arc<Series<K>>> {
        let shard = self.read(key.get_hash());
        let says = |series: &Arc<Series<K>>| {
            series.hash == key.get_hash() && series.line.says(prefix, key.name(), words(key))
        };
        let known = shard.series.find(key.get_hash(), says).cloned();
        known.or_else(|| shard.aliases.get(key)?.upgrade())
    }

    fn find_line(&self, hash: u64, line: &Line) -> Option<Arc<Series<K>>> {
        self.read(hash).series.find(hash, |series| series.line.is_same_series(line)).cloned()
    }

    /// Forgets the aliases of evicted series; answers how many are left.
    fn purge(&self) -> usize {
        let shards =
            self.shards.iter().map(|shard| shard.write().unwrap_or_else(PoisonError::into_inner));
        shards
            .map(|mut shard| {
                shard.aliases.retain(|_, series| series.strong_count() > 0);
                shard.aliases.len()
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::buckets::Scheme;
    use crate::wire::charset::Charset;
    use metrics::CounterFn;

    fn registry(limit: usize) -> (Registry, Arc<Counters>) {
        let rules = Rules {
            charset: Charset::Tsd,
            max_tags: 4,
            prefix: "app.".into(),
            globals: vec![("dc".into(), "fra".into())],
            host: Some(("host".into(), "a".into())),
        };
        let stats = Arc::new(Counters::default());
        let shapes = Box::new(|_: &str| Shape { scheme: Scheme::Log, own_tag: None });
        let options = Options { rules, shapes, limit, has_unit_suffixes: true };
        (Registry::new(options, Arc::clone(&stats)), stats)
    }

    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        Key::from_parts(name, labels)
    }

    fn counter(
        registry: &Registry,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Arc<Series<Counter>> {
        registry.get(&key(name, labels)).unwrap()
    }

    #[test]
    fn keys_that_look_the_same_on_the_wire_are_one_series() {
        let (registry, stats) = registry(100);
        let first = counter(&registry, "m", &[("a", "1"), ("b", "2")]);
        for (name, labels) in [
            ("m", &[("b", "2"), ("a", "1")][..]),
            ("m", &[("a", "1"), ("b", "2"), ("host", "a")]),
            ("m", &[("a", "1"), ("b", "0"), ("b", "2")]),
        ] {
            assert!(Arc::ptr_eq(&first, &counter(&registry, name, labels)), "{labels:?}");
            assert!(Arc::ptr_eq(&first, &counter(&registry, name, labels)), "{labels:?} again");
        }
        assert!(!Arc::ptr_eq(&first, &counter(&registry, "m", &[("a", "1"), ("b", "3")])));
        let unclean = counter(&registry, "a b", &[]);
        assert!(Arc::ptr_eq(&unclean, &counter(&registry, "a_b", &[])));
        assert!(Arc::ptr_eq(&unclean, &counter(&registry, "a\nb", &[])));
        assert_eq!((stats.series.get(), stats.series_merged.get()), (3, 3));
    }

    #[test]
    fn a_key_whose_unit_was_told_has_it_in_its_name() {
        let (registry, stats) = registry(100);
        registry.descriptions().note(
            MetricKind::Counter,
            &"sent".into(),
            Some(metrics::Unit::Bytes),
            "".into(),
        );
        let first = counter(&registry, "sent", &[("to", "x")]);
        assert_eq!(first.line.metric(), "app.sent_bytes");
        assert!(Arc::ptr_eq(&first, &counter(&registry, "sent", &[("to", "x")])));
        assert!(Arc::ptr_eq(&first, &counter(&registry, "sent_bytes", &[("to", "x")])));
        assert_eq!(stats.series.get(), 1);
    }

    #[test]
    fn a_gauge_cannot_take_the_line_of_a_counter() {
        let (registry, stats) = registry(100);
        counter(&registry, "m", &[]);
        assert!(registry.get::<Gauge>(&key("m", &[])).is_none());
        assert!(registry.get::<Histogram>(&key("m", &[])).is_some());
        assert!(registry.get::<Gauge>(&key("m", &[("k", "v")])).is_some());
        assert_eq!(stats.series_refused.get(), 1);
    }

    #[test]
    fn beyond_the_limit_new_keys_share_a_series_and_known_ones_go_on() {
        let (registry, stats) = registry(2);
        let known = counter(&registry, "m", &[("user", "1")]);
        counter(&registry, "m", &[("user", "2")]);
        let third = counter(&registry, "m", &[("user", "3")]);
        assert!(Arc::ptr_eq(&third, &counter(&registry, "m", &[("user", "4")])));
        assert_eq!(
            third.line.tags().collect::<Vec<_>>(),
            [("dc", "fra"), ("host", "a"), ("overflow", "true")]
        );
        assert!(Arc::ptr_eq(&known, &counter(&registry, "m", &[("user", "1")])));
        assert_eq!((stats.series.get(), stats.series_overflow.get()), (3, 2));
    }

    #[test]
    fn what_the_limit_does_not_let_in_is_not_remembered_either() {
        let (registry, _) = registry(1);
        counter(&registry, "m", &[("user", "0")]);
        for user in 0..1_000 {
            let key = Key::from_parts("m", vec![Label::new("user", format!("new {user}"))]);
            assert!(registry.get::<Counter>(&key).is_some());
        }
        assert_eq!(registry.registration().aliases, 0);
    }

    #[test]
    fn only_a_series_that_nobody_holds_is_evicted() {
        let (registry, stats) = registry(100);
        let mut fresh = Fresh::default();
        let held = counter(&registry, "held", &[]);
        let local = counter(&registry, "local", &[]).adopt(1).upgrade().unwrap();
        drop(counter(&registry, "free b", &[]));
        registry.take_fresh(&mut fresh);
        let mut evicted: Vec<bool> = std::mem::take(&mut fresh.counters)
            .into_iter()
            .map(|series| registry.evict(series).is_ok())
            .collect();
        assert_eq!(evicted, [false, false, true]);
        held.increment(3);
        local.increment(4);
        assert_eq!(counter(&registry, "held", &[]).value(), 3);
        assert_eq!(counter(&registry, "local", &[]).value(), 4);
        assert_eq!(counter(&registry, "free b", &[]).value(), 0);
        assert_eq!((stats.series.get(), stats.series_evicted.get()), (3, 1));
        registry.purge_aliases();
        registry.take_fresh(&mut fresh);
        evicted = fresh.counters.drain(..).map(|series| registry.evict(series).is_ok()).collect();
        assert_eq!(evicted, [true]);
    }
}
