//! Every key's series.
//!
//! **Problem.** A million series, found by any thread at any time, registered while a flush walks over them; one series for all keys
//! that look the same on the wire; and few bytes for each.
//!
//! **Idea.** A table from the facade's hash of the key to the series, which keeps no key: a plain key is recognised by that hash and
//! another one of its words. That saves the key's labels, more than half of the memory of a series with two of them.
//!
//! **Mechanism.**
//! 1. [`Table::find`]: a shard's read lock, the table of series, then the few aliases: keys that are not plain, kept whole.
//! 2. [`Registry::register`], once per key: under the one lock of registration the key is cleaned into its [`Identity`], whose
//!    canonical hash finds the series again if another key has made it; else it is made and put on the list of fresh series.
//! 3. The flusher takes that list before each snapshot ([`Registry::take_fresh`]) and keeps series in the order of registration, so
//!    it never walks the table and holds no lock while it reads and encodes.
//! 4. Past the limit a key's series is that of its metric's name with the one tag `overflow=true`. Such keys come to
//!    [`Registry::register`] at each look-up, and so do those that are refused: they are answered without the lock of registration.
//! 5. [`Registry::evict`] holds the lock of registration and the shard's, so nobody can find the series while it goes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Key, Label};

use super::conflict::{Suspects, WireName};
use super::counter::Counter;
use super::descriptions::Descriptions;
use super::gauge::Gauge;
pub(crate) use super::registered::Registered;
use super::samples::{Histogram, Shape};
use super::series::{Kind, Series};
use super::table::{Print, Secrets, Table, words};
use crate::stats::Counters;
use crate::wire::kept::{Line, LineBuf};
use crate::wire::series::{Identity, OwnTag, Rules};

/// The only own tag of the series that keys share beyond the limit.
const OVERFLOW: (&str, &str) = ("overflow", "true");
/// How many such series there may be beyond the limit: metrics with new names have none to share.
const OVERFLOW_SERIES: usize = 1_000;

/// The least that stands between a line's name and its tags: a time in seconds, a digit, and the spaces before them.
const SHORTEST_TIME_AND_VALUE: usize = " 1700000000 0".len();

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
    /// The most bytes of a line that the server reads, its line feed included.
    pub(crate) line_limit: usize,
    /// Lines that the exporter itself writes.
    pub(crate) reserved: Vec<LineBuf>,
}

/// Whether a raw point may be sent; see [`Registry::claim_raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawClaim {
    /// No recorded metric is this series, and none will be.
    Granted,
    /// A recorded metric or the exporter itself writes this series.
    Recorded,
    /// There are as many raw series as there may be, and this would be another one.
    Full,
}

/// See the module.
pub(crate) struct Registry {
    number: u64,
    rules: Rules,
    secrets: Secrets,
    shapes: Shapes,
    /// The most series, overflow series not counted.
    limit: usize,
    pub(super) counters: Table<Counter>,
    pub(super) gauges: Table<Gauge>,
    pub(super) histograms: Table<Histogram>,
    registration: Mutex<Registration>,
    sizes: Sizes,
    pub(super) suspects: Suspects,
    /// Lines that the exporter itself writes.
    pub(super) reserved: Vec<LineBuf>,
    /// Whether the first merge and the first refusal were told.
    told_merge: AtomicBool,
    told_refusal: AtomicBool,
    descriptions: Descriptions,
    /// Whether a name gets the word of its unit.
    has_unit_suffixes: bool,
    /// The most bytes of a line.
    line_limit: usize,
    stats: Arc<Counters>,
}

/// What only registration, eviction and the flusher touch.
#[derive(Default)]
struct Registration {
    fresh: Fresh,
    /// The addresses of the series beyond the limit, by which eviction tells them.
    overflow: HashSet<usize>,
    /// The series that raw points were sent for, by canonical words; at most as many as the limit.
    raw: HashSet<Print>,
}

/// How much there is. Changed under the lock of registration; who reads it without may be late, which moves the limit by a key.
#[derive(Default)]
struct Sizes {
    /// Series within the limit.
    series: AtomicUsize,
    /// Series beyond it.
    overflow: AtomicUsize,
    /// Keys kept as aliases; bounded like the series, for each is kept whole.
    aliases: AtomicUsize,
    /// Look-ups since the last snapshot whose values no line can hold.
    too_long: AtomicUsize,
}

/// Series that the flusher does not know yet, in order of registration.
#[derive(Default)]
pub(crate) struct Fresh {
    pub(crate) counters: Vec<Arc<Series<Counter>>>,
    pub(crate) gauges: Vec<Arc<Series<Gauge>>>,
    pub(crate) histograms: Vec<Arc<Series<Histogram>>>,
}

/// What becomes of a key.
enum Place<K: Kind> {
    /// There is its series.
    Known(Arc<Series<K>>),
    /// There are as many series as there may be.
    Beyond,
    /// Another series writes its line.
    Taken,
    /// It gets a series.
    Free,
}

impl Registry {
    pub(crate) fn new(options: Options, stats: Arc<Counters>) -> Self {
        let Options { rules, shapes, limit, has_unit_suffixes, line_limit, reserved } = options;
        Registry {
            number: NEXT_REGISTRY.fetch_add(1, Ordering::Relaxed),
            rules,
            secrets: Secrets::random(),
            shapes,
            limit,
            counters: Table::new(),
            gauges: Table::new(),
            histograms: Table::new(),
            registration: Mutex::default(),
            sizes: Sizes::default(),
            suspects: Suspects::default(),
            reserved,
            told_merge: AtomicBool::new(false),
            told_refusal: AtomicBool::new(false),
            descriptions: Descriptions::default(),
            has_unit_suffixes,
            line_limit,
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
        K::table(self).find(key, &self.secrets).or_else(|| self.register(key))
    }

    /// The series that were registered since the last time.
    pub(crate) fn take_fresh(&self) -> Fresh {
        // They are points of this snapshot that are dropped.
        let too_long = self.sizes.too_long.swap(0, Ordering::Relaxed) as u64;
        self.stats.points_taken.add(too_long);
        self.stats.dropped_too_long.add(too_long);
        std::mem::take(&mut self.registration().fresh)
    }

    /// Forgets a series if nobody but the caller holds it in any way, and if it is settled then: an update may have come and gone
    /// since it was last read. Else hands it back, not necessarily at the same address.
    pub(crate) fn evict<K: Registered>(
        &self,
        series: Arc<Series<K>>,
        is_settled: impl FnOnce(&Series<K>) -> bool,
    ) -> Result<(), Arc<Series<K>>> {
        let address = Arc::as_ptr(&series) as usize;
        let mut registration = self.registration();
        let evicted = K::table(self).remove_if(series, |series| {
            // From here on only an alias leads to it. Each of the two steps takes it from all others at once, or fails.
            let ended =
                if series.revoke() { Arc::try_unwrap(series)? } else { return Err(series) };
            if is_settled(&ended) { Ok(()) } else { Err(Arc::new(ended)) }
        });
        let is_overflow = registration.overflow.remove(&address);
        evicted.inspect_err(|kept| {
            is_overflow.then(|| registration.overflow.insert(Arc::as_ptr(kept) as usize));
        })?;
        let size = if is_overflow { &self.sizes.overflow } else { &self.sizes.series };
        size.fetch_sub(1, Ordering::Relaxed);
        self.publish_sizes();
        self.stats.series_evicted.add(1);
        Ok(())
    }

    /// Forgets the aliases of evicted series.
    pub(crate) fn purge_aliases(&self) {
        let _registration = self.registration();
        if self.sizes.aliases.load(Ordering::Relaxed) > 0 {
            let left = self.counters.purge() + self.gauges.purge() + self.histograms.purge();
            self.sizes.aliases.store(left, Ordering::Relaxed);
        }
    }

    /// Claims the series of a raw point, so that no metric recorded later writes it; to be asked for each point.
    pub(crate) fn claim_raw(&self, metric: &str, tags: &[(String, String)]) -> RawClaim {
        let label = |(key, value): &(String, String)| Label::new(key.clone(), value.clone());
        let key = Key::from_parts(metric.to_owned(), tags.iter().map(label).collect::<Vec<_>>());
        let identity = self.identify(&key, None);
        let canonical = canonical(&key, &identity);
        let name = WireName::of(identity.line.line(), canonical.get_hash());
        let print = self.secrets.print(canonical.name(), words(&canonical));
        let mut registration = self.registration();
        if registration.raw.contains(&print) {
            return RawClaim::Granted;
        }
        if self.has_single(&name) || self.meets_histogram(&name) {
            return RawClaim::Recorded;
        }
        if registration.raw.len() >= self.limit {
            return RawClaim::Full;
        }
        registration.raw.insert(print);
        RawClaim::Granted
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What a histogram of this name, as it is sent, needs.
    pub(super) fn shape_of(&self, metric: &str) -> Shape {
        (self.shapes)(metric)
    }

    #[cold]
    fn register<K: Registered>(&self, key: &Key) -> Option<Arc<Series<K>>> {
        let named = self.named::<K>(key);
        let shape = K::shape(self, &named);
        let identity = self.identify(&named, K::own_tag(&shape));
        let canonical = canonical(&named, &identity);
        let (hash, line) = (canonical.get_hash(), identity.line.line());
        let (head, tail) = line.parts();
        if head.len() + SHORTEST_TIME_AND_VALUE + tail.len() > self.line_limit {
            self.sizes.too_long.fetch_add(1, Ordering::Relaxed);
            return self.refuse(key);
        }
        // A key whose name got a unit does not say what its line says either.
        let is_alias = identity.canonical.is_some() || matches!(named, Cow::Owned(_));
        let size = (&self.sizes.series, self.limit);
        // Where nothing was refused yet, one look at who else writes the line is enough: the one under the lock.
        let place = if self.told_refusal.load(Ordering::Relaxed) {
            self.place::<K>(hash, line, &shape, size)
        } else {
            self.glance::<K>(hash, line, size)
        };
        match place {
            Place::Known(series) if !is_alias || !self.has_room_for_alias() => return Some(series),
            Place::Known(_) | Place::Free => {}
            Place::Taken => return self.refuse(key),
            Place::Beyond => return self.overflow(&named, shape),
        }
        let mut registration = self.registration();
        // Once more, now that nobody else registers.
        let place = match self.place::<K>(hash, line, &shape, size) {
            Place::Free if registration.raw.contains(&self.print(&canonical)) => Place::Taken,
            place => place,
        };
        let is_merged = is_alias && matches!(place, Place::Known(_));
        let series = match place {
            Place::Known(series) => series,
            Place::Free => {
                self.sizes.series.fetch_add(1, Ordering::Relaxed);
                self.insert(&mut registration, &canonical, &identity, shape)
            }
            Place::Taken => {
                drop(registration);
                return self.refuse(key);
            }
            Place::Beyond => {
                drop(registration);
                return self.overflow(&named, shape);
            }
        };
        if is_alias && self.has_room_for_alias() {
            let is_new = K::table(self).insert_alias(key, &series);
            self.sizes.aliases.fetch_add(usize::from(is_new), Ordering::Relaxed);
        }
        drop(registration);
        if is_merged {
            self.note_merge(key);
        }
        Some(series)
    }

    /// What becomes of a key with this line, if there are so many series and may be so many.
    fn place<K: Registered>(
        &self,
        hash: u64,
        line: Line<'_>,
        shape: &K::Shape,
        (size, limit): (&AtomicUsize, usize),
    ) -> Place<K> {
        match self.glance(hash, line, (size, limit)) {
            Place::Free if K::is_taken(self, &WireName::of(line, hash), shape) => Place::Taken,
            place => place,
        }
    }

    /// The same, but for who else writes the line.
    fn glance<K: Registered>(
        &self,
        hash: u64,
        line: Line<'_>,
        (size, limit): (&AtomicUsize, usize),
    ) -> Place<K> {
        match K::table(self).find_line(hash, line) {
            Some(series) => Place::Known(series),
            None if size.load(Ordering::Relaxed) >= limit => Place::Beyond,
            None => Place::Free,
        }
    }

    fn print(&self, key: &Key) -> Print {
        self.secrets.print(key.name(), words(key))
    }

    fn has_room_for_alias(&self) -> bool {
        self.sizes.aliases.load(Ordering::Relaxed) < self.limit
    }

    fn insert<K: Registered>(
        &self,
        registration: &mut Registration,
        canonical: &Key,
        identity: &Identity,
        shape: K::Shape,
    ) -> Arc<Series<K>> {
        self.stats.tags_dropped.add(identity.dropped_tags as u64);
        let is_whole = identity.dropped_tags == 0;
        let print = is_whole.then(|| self.secrets.print(canonical.name(), words(canonical)));
        let table = K::table(self);
        let at = table.packed.append(identity.line.line());
        let series = Arc::new(Series::new(canonical.get_hash(), print, at, K::cell(shape)));
        table.insert(&series);
        K::fresh(&mut registration.fresh).push(Arc::clone(&series));
        self.publish_sizes();
        series
    }

    /// Called under the lock of registration.
    fn publish_sizes(&self) {
        let Sizes { series, overflow, .. } = &self.sizes;
        let all = series.load(Ordering::Relaxed) + overflow.load(Ordering::Relaxed);
        self.stats.series.set(all as u64);
    }

    /// The series that new keys of this metric share.
    fn overflow<K: Registered>(&self, key: &Key, shape: K::Shape) -> Option<Arc<Series<K>>> {
        self.stats.series_overflow.add(1);
        let shared = Label::from_static_parts(OVERFLOW.0, OVERFLOW.1);
        let key = Key::from_parts(key.name().to_owned(), vec![shared]);
        let identity = self.identify(&key, K::own_tag(&shape));
        let canonical = canonical(&key, &identity);
        let hash = canonical.get_hash();
        let place = || {
            let line = identity.line.line();
            self.place::<K>(hash, line, &shape, (&self.sizes.overflow, OVERFLOW_SERIES))
        };
        match place() {
            Place::Known(series) => return Some(series),
            Place::Beyond | Place::Taken => return None,
            Place::Free => {}
        }
        let mut registration = self.registration();
        match place() {
            Place::Known(series) => return Some(series),
            Place::Beyond | Place::Taken => return None,
            Place::Free => {}
        }
        self.sizes.overflow.fetch_add(1, Ordering::Relaxed);
        let series = self.insert(&mut registration, &canonical, &identity, shape);
        registration.overflow.insert(Arc::as_ptr(&series) as usize);
        Some(series)
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

    fn note_merge(&self, key: &Key) {
        self.stats.series_merged.add(1);
        if !self.told_merge.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                metric = key.name(),
                "keys that differ only in what cannot be sent are one series and share its value"
            );
        }
    }

    fn refuse<T>(&self, key: &Key) -> Option<T> {
        self.stats.series_refused.add(1);
        if !self.told_refusal.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                metric = key.name(),
                "another metric writes lines of this name and these tags; only the one that came first is sent"
            );
        }
        None
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key in the words that a series is kept under: those of any plain key of it.
fn canonical<'a>(key: &'a Key, identity: &Identity) -> Cow<'a, Key> {
    let Some((name, own)) = &identity.canonical else { return Cow::Borrowed(key) };
    let label = |(key, value): &(String, String)| Label::new(key.clone(), value.clone());
    Cow::Owned(Key::from_parts(name.clone(), own.iter().map(label).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::buckets::Scheme;
    use crate::wire::charset::Charset;
    use metrics::CounterFn;
    use metrics_util::MetricKind;
    use proptest::prelude::*;

    fn registry(limit: usize) -> (Registry, Arc<Counters>) {
        let rules = Rules {
            charset: Charset::Tsd,
            max_tags: 4,
            prefix: "app.".into(),
            globals: vec![("dc".into(), "fra".into())],
            host: Some(("host".into(), "a".into())),
        };
        let stats = Arc::new(Counters::default());
        let shapes =
            Box::new(|_: &str| Shape { scheme: Scheme::Log, own_tag: None, names: Arc::new(()) });
        let options = Options {
            rules,
            shapes,
            limit,
            has_unit_suffixes: true,
            line_limit: 1024,
            reserved: Vec::new(),
        };
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

    /// The line of a counter.
    fn text(registry: &Registry, series: &Series<Counter>) -> String {
        let blocks = registry.counters.packed.read();
        blocks.line(series).unwrap().text()
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

    proptest! {
        #[test]
        fn keys_are_one_series_if_and_only_if_their_lines_are_one(
            keys in proptest::collection::vec(
                ("[mn ]{1,2}", proptest::collection::vec(("[a-d ]|dc|host", "[x-z ]|fra|a"), 0..6)),
                2..20,
            ),
        ) {
            let (registry, _) = registry(1_000);
            let keys: Vec<_> = keys
                .into_iter()
                .map(|(name, mut labels)| {
                    // The facade takes keys for equal whose labels differ in order alone. If one label is there twice, of which
                    // the later wins, the first of such keys decides for all.
                    labels.sort();
                    labels.dedup_by(|one, other| one.0 == other.0);
                    let label = |(key, value): (String, String)| Label::new(key, value);
                    Key::from_parts(name, labels.into_iter().map(label).collect::<Vec<_>>())
                })
                .collect();
            let series: Vec<Arc<Series<Counter>>> = keys.iter().map(|key| registry.get(key).unwrap()).collect();
            for (key, series) in keys.iter().zip(&series) {
                let identity = registry.identify(key, None);
                let line = identity.line.line().text();
                prop_assert_eq!(line, text(&registry, series), "{}", key);
                prop_assert!(Arc::ptr_eq(series, &registry.get(key).unwrap()), "{} again", key);
            }
            for (one, other) in series.iter().flat_map(|one| series.iter().map(move |other| (one, other))) {
                prop_assert_eq!(Arc::ptr_eq(one, other), text(&registry, one) == text(&registry, other));
            }
        }
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
        assert_eq!(text(&registry, &first), "put app.sent_bytes dc=fra host=a to=x\n");
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
        assert_eq!(text(&registry, &third), "put app.m dc=fra host=a overflow=true\n");
        assert!(Arc::ptr_eq(&known, &counter(&registry, "m", &[("user", "1")])));
        assert_eq!((stats.series.get(), stats.series_overflow.get()), (3, 2));
    }

    #[test]
    fn an_overflow_series_is_evicted_as_any_other_and_leaves_no_gap() {
        let (registry, stats) = registry(2);
        for round in 0..3 {
            for user in ["1", "2", "3", "4"] {
                let label = Label::new("user", format!("{user} {round}"));
                let key = Key::from_parts("m", vec![label]);
                registry.get::<Counter>(&key).unwrap().increment(1);
            }
            assert_eq!((stats.series.get(), stats.series_overflow.get()), (3, 2 * (round + 1)));
            let mut fresh = registry.take_fresh();
            assert_eq!(fresh.counters.len(), 3);
            // Both ways round, for the one is the last within the limit and the other the first beyond it.
            if round % 2 == 0 {
                fresh.counters.reverse();
            }
            assert!(
                fresh.counters.drain(..).all(|series| registry.evict(series, |_| true).is_ok())
            );
            assert_eq!(stats.series.get(), 0);
            registry.purge_aliases();
        }
    }

    #[test]
    fn a_key_without_a_series_of_its_own_does_not_wait_for_those_that_register() {
        let (registry, stats) = registry(2);
        counter(&registry, "m", &[("user", "1")]);
        counter(&registry, "a b", &[("user", "1")]);
        let shared = [
            counter(&registry, "m", &[("user", "2")]),
            counter(&registry, "a b", &[("user", "2")]),
        ];
        let registration = registry.registration();
        // With the lock held here, each of these would hang if it asked for it.
        assert!(Arc::ptr_eq(&shared[0], &counter(&registry, "m", &[("user", "3")])));
        assert!(Arc::ptr_eq(&shared[1], &counter(&registry, "a b", &[("user", "3")])));
        assert!(registry.get::<Gauge>(&key("m", &[("user", "1")])).is_none());
        drop(registration);
        assert_eq!((stats.series_overflow.get(), stats.series_refused.get()), (5, 0));
    }

    #[test]
    fn what_the_limit_does_not_let_in_is_not_remembered_either() {
        let (registry, _) = registry(1);
        counter(&registry, "m", &[("user", "0")]);
        for user in 0..1_000 {
            let key = Key::from_parts("m", vec![Label::new("user", format!("new {user}"))]);
            assert!(registry.get::<Counter>(&key).is_some());
        }
        assert_eq!(registry.sizes.aliases.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_a_series_that_nobody_holds_is_evicted() {
        let (registry, stats) = registry(100);
        let held = counter(&registry, "held", &[]);
        let local = counter(&registry, "local", &[]).adopt(1).upgrade().unwrap();
        drop(counter(&registry, "free b", &[]));
        let mut evicted: Vec<bool> = registry
            .take_fresh()
            .counters
            .into_iter()
            .map(|series| registry.evict(series, |_| true).is_ok())
            .collect();
        assert_eq!(evicted, [false, false, true]);
        held.increment(3);
        local.increment(4);
        assert_eq!(counter(&registry, "held", &[]).value(), 3);
        assert_eq!(counter(&registry, "local", &[]).value(), 4);
        assert_eq!(counter(&registry, "free b", &[]).value(), 0);
        assert_eq!((stats.series.get(), stats.series_evicted.get()), (3, 1));
        registry.purge_aliases();
        evicted = registry
            .take_fresh()
            .counters
            .into_iter()
            .map(|series| registry.evict(series, |_| true).is_ok())
            .collect();
        assert_eq!(evicted, [true]);
    }
}
