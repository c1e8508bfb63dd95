//! Every key's series.
//!
//! **Problem.** A million series, found by any thread at any time, registered while a flush walks
//! over them; one series for all keys that look the same on the wire; and few bytes for each.
//!
//! **Idea.** A table from the fingerprint of a key's words to the series, which keeps no key.
//!
//! **Mechanism.**
//! 1. [`Registry::get`]: a shard's read lock, the table of series, then that of aliases.
//! 2. Else the key is registered: it is cleaned into its [`Identity`], by whose words the series is
//!    found if another key has made it. If none has, it is made under the one lock of registration,
//!    unless its line would be too long, there are too many series, or another metric writes its
//!    lines.
//! 3. The flusher takes the list of fresh series before each snapshot
//!    ([`Table::take_fresh`](super::table::Table)) and keeps series in the order of registration.
//!    So it never walks the table, and holds no lock while it reads and encodes.
//! 4. Beyond the limit a key's series is that of its metric's name with the one tag
//!    `overflow=true`. Such a key is registered anew at each look-up, as one that is refused is; so
//!    it gets a series of its own as soon as there is room, and nothing is remembered of it.
//! 5. [`Registry::evict`] holds the lock of registration, removes the aliases, and holds the
//!    series' shard. So nobody finds the series while it goes, and who looks for it waits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Key, Label};
use metrics_util::MetricKind;

use super::conflict::Conflicts;
pub(crate) use super::conflict::RawClaim;
use super::descriptions::Descriptions;
use super::fingerprint::{Fingerprint, Secrets, SeriesId, labels};
use super::histogram::HistogramSpecs;
use super::notices::{Cause, Notices};
use super::series::Series;
use super::tables::{RegistryKind, Spec, Tables};
use crate::stats::Counters;
use crate::sync::unmodelled::AtomicU64;
use crate::sync::{Mutex, lock};
use crate::wire::series::{Identity, Line, LineBuf, OwnTag, Rules};

/// The only own tag of the series that keys share beyond the limit.
const OVERFLOW: (&str, &str) = ("overflow", "true");
/// How many such series there may be beyond the limit: metrics with new names have none to share.
const OVERFLOW_SERIES: usize = 1_000;

/// Registries are numbered, since several may be cached by one thread.
static NEXT_REGISTRY: AtomicU64 = AtomicU64::new(1);

/// What a registry is made of.
pub(crate) struct Options {
    pub(crate) rules: Rules,
    pub(crate) specs: HistogramSpecs,
    /// The most series, overflow series not counted.
    pub(crate) limit: usize,
    /// Whether a name gets the word of its unit.
    pub(crate) has_unit_suffixes: bool,
    /// The most bytes of a line that the server reads, its line feed included.
    pub(crate) line_limit: usize,
    /// Lines that the exporter itself writes.
    pub(crate) reserved: Vec<LineBuf>,
}

/// See the module.
pub(crate) struct Registry {
    /// Tells this registry from others of the process.
    pub(crate) number: u64,
    options: Options,
    secrets: Secrets,
    pub(crate) tables: Tables,
    registration: Mutex<Registration>,
    /// Series within the limit and beyond it. These change under the lock of registration; who
    /// reads them without it may be late, which moves the limit by a key.
    series: AtomicUsize,
    overflow: AtomicUsize,
    /// Keys that are kept as aliases, at most as many as series.
    aliases: AtomicUsize,
    /// Look-ups since the last snapshot whose values no line can hold.
    too_long: AtomicUsize,
    pub(crate) notices: Notices,
    pub(crate) descriptions: Descriptions,
    stats: Arc<Counters>,
}

/// What only registration, eviction and the flusher touch.
#[derive(Default)]
struct Registration {
    conflicts: Conflicts,
    /// The series beyond the limit, by which eviction tells them.
    overflow: HashSet<(MetricKind, Fingerprint)>,
    /// From this time on no series that is evicted has a value.
    unused_from: u64,
}

/// What a look-up found.
pub(crate) struct Lookup<K: RegistryKind> {
    pub(crate) series: Arc<Series<K>>,
    /// False for the series that a key only shares as long as there is no room for its own.
    pub(crate) is_own: bool,
}

/// What registration makes of an identity.
enum Entry<K: RegistryKind> {
    /// The series was there, or is now.
    Known(Arc<Series<K>>),
    New(Arc<Series<K>>),
    /// There are as many series as there may be.
    Full,
    Refused(Cause),
}

impl Registry {
    pub(crate) fn new(mut options: Options, stats: Arc<Counters>) -> Self {
        let (secrets, mut registration) = (Secrets::random(), Registration::default());
        for line in options.reserved.drain(..) {
            let name = options.rules.name(line.line());
            registration.conflicts.reserve(secrets.name(name));
        }
        Registry {
            number: NEXT_REGISTRY.fetch_add(1, Ordering::Relaxed),
            options,
            secrets,
            tables: Tables::default(),
            registration: Mutex::new(registration),
            series: AtomicUsize::new(0),
            overflow: AtomicUsize::new(0),
            aliases: AtomicUsize::new(0),
            too_long: AtomicUsize::new(0),
            notices: Notices::default(),
            descriptions: Descriptions::default(),
            stats,
        }
    }

    /// The series of a key, made if need be. `None` when there can be none.
    pub(crate) fn get<K: RegistryKind>(&self, key: &Key) -> Option<Lookup<K>> {
        let id = self.secrets.id(key);
        match K::table(&self.tables).find(id) {
            Some(series) => Some(Lookup { series, is_own: true }),
            None => self.register(key, id),
        }
    }

    /// Counts the values that no line can hold: they are points of this snapshot that are dropped.
    pub(crate) fn drop_too_long(&self) {
        let too_long = self.too_long.swap(0, Ordering::Relaxed) as u64;
        self.stats.points_taken.add(too_long);
        self.stats.points_dropped.too_long.add(too_long);
    }

    /// Claims the series of a raw point, so that no metric recorded later writes it; to be asked
    /// for each point.
    pub(crate) fn claim_raw(&self, metric: &str, tags: &[(String, String)]) -> RawClaim {
        let tags = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let identity = self.options.rules.identify(metric, tags, None);
        let id = self.id(&identity);
        lock(&self.registration).conflicts.claim_raw(&self.tables, id, self.options.limit)
    }

    /// A series that is evicted from now on has no value from this time on.
    pub(crate) fn set_unused_from(&self, time: u64) {
        let unused_from = &mut lock(&self.registration).unused_from;
        *unused_from = time.max(*unused_from);
    }

    /// The time from which on no series of this line's name that was evicted has a value.
    pub(crate) fn free_from(&self, line: Line<'_>) -> u64 {
        let name = self.secrets.name(self.options.rules.name(line));
        lock(&self.registration).conflicts.free_from(name)
    }

    /// Forgets a series if nobody but the caller holds it in any way, and if it is settled then: an
    /// update may have come and gone since it was last read. Else hands it back, not necessarily at
    /// the same address.
    pub(crate) fn evict<K: RegistryKind>(
        &self,
        series: Arc<Series<K>>,
        is_settled: impl FnOnce(&Series<K>) -> bool,
    ) -> Result<(), Arc<Series<K>>> {
        // The usual case of a series that stays idle: no lock of others is taken for it.
        if series.is_held() {
            return Err(series);
        }
        let (fingerprint, location) = (series.fingerprint, series.location.get());
        let table = K::table(&self.tables);
        let mut registration = lock(&self.registration);
        let aliases = table.remove_aliases(fingerprint);
        let removed = table.remove_if(series, |series| {
            let ended = series.end()?;
            if is_settled(&ended) { Ok(()) } else { Err(Arc::new(ended)) }
        });
        if let Err(series) = removed {
            aliases.into_iter().for_each(|alias| _ = table.insert_alias(alias, &series));
            return Err(series);
        }
        self.aliases.fetch_sub(aliases.len(), Ordering::Relaxed);
        if let Some(line) = table.lines.block(location.block).line(location.start) {
            let spec = self.spec::<K>(|| line.metric().into());
            let (name, unused_from) = (self.options.rules.name(line), registration.unused_from);
            registration.conflicts.release(&self.secrets, name, &spec, unused_from);
        }
        let is_overflow = registration.overflow.remove(&(K::KIND, fingerprint));
        let size = if is_overflow { &self.overflow } else { &self.series };
        size.fetch_sub(1, Ordering::Relaxed);
        self.publish_sizes();
        self.stats.series_evicted.add(1);
        Ok(())
    }

    #[cold]
    fn register<K: RegistryKind>(&self, key: &Key, id: SeriesId) -> Option<Lookup<K>> {
        let name = self.name_of::<K>(key);
        let spec = self.spec::<K>(|| self.options.rules.metric(&name));
        let identity = self.options.rules.identify(&name, labels(key), own_tag(&spec));
        let alias = id.fingerprint;
        let has_own_name = matches!(name, Cow::Borrowed(_));
        let is_verbatim = has_own_name && identity.is_verbatim(key.labels().len());
        let id = if is_verbatim { id } else { self.id(&identity) };
        // A key's own id was looked up already.
        let known = (id.fingerprint != alias).then(|| K::table(&self.tables).find(id)).flatten();
        let enter = || self.enter(&identity, id, &spec, (&self.series, self.options.limit));
        let series = match known.map_or_else(enter, Entry::Known) {
            Entry::Known(series) => {
                if self.add_alias(alias, &series) {
                    self.stats.series_merged.add(1);
                    self.notices.note(Cause::Merged, key, None);
                }
                series
            }
            Entry::New(series) => {
                self.add_alias(alias, &series);
                if let Some(label) = identity.dropped.first() {
                    self.stats.tags_dropped.add(identity.dropped.len() as u64);
                    self.notices.note(Cause::TooManyTags, key, Some(label));
                }
                series
            }
            Entry::Full => return self.overflow(&name, &spec),
            Entry::Refused(cause) => {
                self.stats.series_refused.add(1);
                self.too_long.fetch_add(usize::from(cause == Cause::TooLong), Ordering::Relaxed);
                self.notices.note(cause, key, None);
                return None;
            }
        };
        Some(Lookup { series, is_own: true })
    }

    /// The series that new keys of this metric share.
    fn overflow<K: RegistryKind>(&self, name: &str, spec: &Spec) -> Option<Lookup<K>> {
        self.stats.series_overflow.add(1);
        let identity = self.options.rules.identify(name, [OVERFLOW].into_iter(), own_tag(spec));
        let id = self.id(&identity);
        let enter = || self.enter(&identity, id, spec, (&self.overflow, OVERFLOW_SERIES));
        let series = match K::table(&self.tables).find(id).map_or_else(enter, Entry::Known) {
            Entry::Known(series) | Entry::New(series) => series,
            Entry::Full | Entry::Refused(_) => return None,
        };
        Some(Lookup { series, is_own: false })
    }

    /// Makes the series of an identity, which was not found, if there are fewer than `limit` of
    /// them.
    fn enter<K: RegistryKind>(
        &self,
        identity: &Identity<'_>,
        id: SeriesId,
        spec: &Spec,
        (size, limit): (&AtomicUsize, usize),
    ) -> Entry<K> {
        let table = K::table(&self.tables);
        let is_full = || (size.load(Ordering::Relaxed) >= limit).then_some(Entry::Full);
        if identity.shortest_line() > self.options.line_limit {
            return Entry::Refused(Cause::TooLong);
        }
        if let Some(entry) = is_full() {
            return entry;
        }
        let mut registration = lock(&self.registration);
        // Checked again under the lock.
        if let Some(entry) = table.find(id).map(Entry::Known).or_else(is_full) {
            return entry;
        }
        let shared = (&self.tables, &self.secrets);
        if !registration.conflicts.claim::<K>(shared, (&identity.name, id), spec) {
            return Entry::Refused(Cause::Taken);
        }
        let location = table.lines.append(identity.size(), |lines| identity.render(lines));
        let make = |position| Series::new(id.fingerprint, position, location, K::cell(spec));
        let series = table.insert(id, make);
        if std::ptr::eq(size, &self.overflow) {
            registration.overflow.insert((K::KIND, id.fingerprint));
        }
        size.fetch_add(1, Ordering::Relaxed);
        self.publish_sizes();
        Entry::New(series)
    }

    /// Lets a key lead to a series by its own words; returns whether it did not before.
    fn add_alias<K: RegistryKind>(&self, alias: Fingerprint, series: &Arc<Series<K>>) -> bool {
        if alias == series.fingerprint || self.aliases.load(Ordering::Relaxed) >= self.options.limit
        {
            return false;
        }
        // An alias that came while its series is evicted would lead to it still.
        let _registration = lock(&self.registration);
        let is_new = K::table(&self.tables).insert_alias(alias, series);
        self.aliases.fetch_add(usize::from(is_new), Ordering::Relaxed);
        is_new
    }

    /// Called under the lock of registration.
    fn publish_sizes(&self) {
        let all = self.series.load(Ordering::Relaxed) + self.overflow.load(Ordering::Relaxed);
        self.stats.series.set(all as u64);
    }

    /// What a series is made by, by its metric's name as it is sent.
    fn spec<'a, K: RegistryKind>(&self, metric: impl FnOnce() -> Cow<'a, str>) -> Spec {
        (K::KIND == MetricKind::Histogram).then(|| (self.options.specs)(&metric()))
    }

    /// The name that a key is sent by, not yet cleaned.
    fn name_of<'a, K: RegistryKind>(&self, key: &'a Key) -> Cow<'a, str> {
        if self.options.has_unit_suffixes {
            self.descriptions.with_unit(K::KIND, key.name())
        } else {
            Cow::Borrowed(key.name())
        }
    }

    /// What the own words of an identity are looked up by.
    fn id(&self, identity: &Identity<'_>) -> SeriesId {
        let label = |(key, value): (&str, &str)| Label::new(key.to_owned(), value.to_owned());
        let labels: Vec<_> = identity.labels().map(label).collect();
        self.secrets.id(&Key::from_parts(identity.name.to_string(), labels))
    }
}

/// The tag that some lines have besides those of the series.
fn own_tag(spec: &Spec) -> OwnTag {
    spec.as_ref().and_then(|spec| spec.own_tag)
}

#[cfg(test)]
impl Options {
    /// For tests that have other things in mind.
    pub(crate) fn of_a_test(rules: Rules, limit: usize) -> Self {
        let spec = |_: &str| super::histogram::HistogramSpec {
            scheme: super::histogram::buckets::Scheme::Log,
            own_tag: None,
            suffixes: vec![".count".into(), ".sum".into()],
        };
        let (specs, reserved) = (Box::new(spec), Vec::new());
        Options { rules, specs, limit, has_unit_suffixes: false, line_limit: 1024, reserved }
    }
}

#[cfg(test)]
impl Registry {
    pub(crate) fn of_a_test(rules: Rules, limit: usize) -> (Self, Arc<Counters>) {
        let stats = Arc::new(Counters::default());
        (Registry::new(Options::of_a_test(rules, limit), Arc::clone(&stats)), stats)
    }

    /// The line of a raw point.
    pub(crate) fn line_of(&self, name: &str, tags: &[(String, String)]) -> String {
        let tags = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.options.rules.identify(name, tags, None).line().line().text()
    }
}

#[cfg(test)]
mod tests {
    use super::super::counter::Counter;
    use super::super::gauge::Gauge;
    use super::super::histogram::Histogram;
    use super::super::table::COMPARISONS;
    use super::*;
    use crate::wire::charset::Charset;
    use metrics::CounterFn;
    use proptest::prelude::*;

    fn registry(limit: usize) -> (Registry, Arc<Counters>) {
        let rules = Rules {
            charset: Charset::Tsd,
            max_tags: 4,
            prefix: "app.".into(),
            globals: vec![("dc".into(), "fra".into())],
            host: Some(("host".into(), "a".into())),
            instance: None,
        };
        let stats = Arc::new(Counters::default());
        let options = Options { has_unit_suffixes: true, ..Options::of_a_test(rules, limit) };
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
        registry.get(&key(name, labels)).unwrap().series
    }

    /// The line of a counter.
    fn text(registry: &Registry, series: &Series<Counter>) -> String {
        registry.tables.counters.lines.text(&series.location)
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
                    // The facade takes keys for equal whose labels differ in order alone. If one
                    // label is there twice, of which the later wins, the first of such keys decides
                    // for all.
                    labels.sort();
                    labels.dedup_by(|one, other| one.0 == other.0);
                    let label = |(key, value): (String, String)| Label::new(key, value);
                    Key::from_parts(name, labels.into_iter().map(label).collect::<Vec<_>>())
                })
                .collect();
            let series: Vec<Arc<Series<Counter>>> = keys.iter().map(|key| registry.get(key).unwrap().series).collect();
            for (key, series) in keys.iter().zip(&series) {
                let identity = registry.options.rules.identify(key.name(), labels(key), None);
                let line = identity.line().line().text();
                prop_assert_eq!(line, text(&registry, series), "{}", key);
                prop_assert!(Arc::ptr_eq(series, &registry.get(key).unwrap().series), "{} again", key);
            }
            for (one, other) in series.iter().flat_map(|one| series.iter().map(move |other| (one, other))) {
                prop_assert_eq!(Arc::ptr_eq(one, other), text(&registry, one) == text(&registry, other));
            }
        }
    }

    #[test]
    fn a_key_whose_unit_was_told_has_it_in_its_name() {
        let (registry, stats) = registry(100);
        registry.descriptions.note(
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
        assert!(Arc::ptr_eq(&known, &counter(&registry, "m", &[("user", "1"), ("dc", "fra")])));
        assert_eq!((stats.series.get(), stats.series_overflow.get()), (3, 2));
    }

    #[test]
    fn an_overflow_series_is_evicted_as_any_other_and_leaves_no_gap() {
        let (registry, stats) = registry(2);
        for round in 0..3 {
            for user in ["1", "2", "3", "4"] {
                let label = Label::new("user", format!("{user} {round}"));
                let key = Key::from_parts("m", vec![label]);
                registry.get::<Counter>(&key).unwrap().series.increment(1);
            }
            assert_eq!((stats.series.get(), stats.series_overflow.get()), (3, 2 * (round + 1)));
            let mut fresh = registry.tables.counters.take_fresh();
            assert_eq!(fresh.len(), 3);
            // Both ways round, for the one is the last within the limit and the other the first
            // beyond it.
            if round % 2 == 0 {
                fresh.reverse();
            }
            assert!(fresh.drain(..).all(|series| registry.evict(series, |_| true).is_ok()));
            assert_eq!(stats.series.get(), 0);
        }
    }

    /// As long as the two were taken for one, the second counted as a series within the limit, and
    /// there were fewer than none of these in the end: no key got a series of its own any more.
    #[test]
    fn a_counter_and_a_histogram_of_one_name_beyond_the_limit_are_two() {
        let (registry, stats) = registry(1);
        counter(&registry, "m", &[("user", "1")]);
        let second = key("m", &[("user", "2")]);
        assert!(!registry.get::<Counter>(&second).unwrap().is_own);
        assert!(!registry.get::<Histogram>(&second).unwrap().is_own);
        assert_eq!(stats.series.get(), 3);
        for series in registry.tables.counters.take_fresh() {
            assert!(registry.evict(series, |_| true).is_ok());
        }
        for series in registry.tables.histograms.take_fresh() {
            assert!(registry.evict(series, |_| true).is_ok());
        }
        assert_eq!(stats.series.get(), 0);
        assert!(registry.get::<Counter>(&second).unwrap().is_own);
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
        let registration = lock(&registry.registration);
        // With the lock held here, each of these would hang if it asked for it.
        assert!(Arc::ptr_eq(&shared[0], &counter(&registry, "m", &[("user", "3")])));
        assert!(Arc::ptr_eq(&shared[1], &counter(&registry, "a b", &[("user", "3")])));
        drop(registration);
        assert_eq!(stats.series_overflow.get(), 4);
    }

    #[test]
    fn what_the_limit_does_not_let_in_is_not_remembered_either() {
        let (registry, _) = registry(1);
        counter(&registry, "m", &[("user", "0")]);
        for user in 0..1_000 {
            let key = Key::from_parts("m", vec![Label::new("user", format!("new {user}"))]);
            assert!(registry.get::<Counter>(&key).is_some());
        }
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_a_series_that_nobody_holds_is_evicted() {
        let (registry, stats) = registry(100);
        let held = counter(&registry, "held", &[]);
        let local = counter(&registry, "local", &[]).adopt(1);
        drop(counter(&registry, "free b", &[]));
        let mut evicted: Vec<bool> = registry
            .tables
            .counters
            .take_fresh()
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
        evicted = registry
            .tables
            .counters
            .take_fresh()
            .into_iter()
            .map(|series| registry.evict(series, |_| true).is_ok())
            .collect();
        assert_eq!(evicted, [true]);
    }

    #[test]
    fn keys_of_equal_hash_are_found_as_fast_as_others() {
        const LABELS: usize = 13;
        // The facade's hash has no secret, and is a sum over the labels: with two values of equal
        // hash there are as many keys of equal hash as there are ways to choose between them.
        let hash = |value: &str| Key::from_parts("m", &[("k", value.to_owned())]).get_hash();
        let mut known = std::collections::HashMap::new();
        let pair = (0..300_000).find_map(|n: u32| {
            let value = n.to_string();
            known.insert(hash(&value), value.clone()).map(|other| [other, value])
        });
        let Some(values) = pair else { return };
        let keys: Vec<Key> = (0..1 << LABELS)
            .map(|bits: usize| {
                let value = |n: usize| values[bits >> n & 1].clone();
                let labels = (0..LABELS).map(|n| Label::new(format!("k{n}"), value(n)));
                Key::from_parts("m", labels.collect::<Vec<_>>())
            })
            .collect();
        assert!(keys.iter().all(|key| key.get_hash() == keys[0].get_hash()));

        let (registry, stats) =
            Registry::of_a_test(Rules { max_tags: 20, ..Rules::of_a_test() }, keys.len());
        let compared = |keys: &[Key]| {
            let before = COMPARISONS.get();
            keys.iter().for_each(|key| drop(registry.get::<Counter>(key)));
            (COMPARISONS.get() - before) / keys.len()
        };
        // A table indexed by the facade's hash alone compares half of them for each. How few it
        // takes here depends on the secret of the registry.
        assert!(compared(&keys) <= 64, "to register them");
        assert!(compared(&keys) <= 32, "to find them");
        assert_eq!(stats.series.get(), keys.len() as u64);
    }

    #[test]
    fn a_series_whose_line_cannot_fit_is_refused_and_named() {
        let (registry, stats) = Registry::of_a_test(Rules::of_a_test(), 100);
        let around = "put m 1700000000 0 host=a k=\n".len();
        let key = |length: usize| Key::from_parts("m", &[("k", "x".repeat(length - around))]);
        assert!(registry.get::<Counter>(&key(1024)).is_some());
        for _ in 0..3 {
            assert!(registry.get::<Counter>(&key(1025)).is_none());
            assert!(registry.get::<Histogram>(&key(8 * 1024)).is_none());
        }
        assert_eq!((stats.series.get(), stats.series_refused.get()), (1, 6));
        let long = Key::from_name("n".repeat(10_000));
        assert!(registry.get::<Counter>(&long).is_none());
        // The first one is named, cut if it is long, and after that the next.
        assert_eq!(registry.notices.take_if(Cause::TooLong, || true).unwrap().metric, "m");
        assert_eq!(registry.notices.take_if(Cause::TooLong, || true), None);
        assert!(registry.get::<Counter>(&long).is_none());
        assert_eq!(
            registry.notices.take_if(Cause::TooLong, || true).unwrap().metric,
            "n".repeat(100)
        );
        registry.drop_too_long();
        assert_eq!((stats.points_taken.get(), stats.points_dropped.too_long.get()), (8, 8));
    }

    #[test]
    fn what_is_merged_refused_or_cut_is_named_once_until_it_is_logged() {
        let (registry, stats) = registry(100);
        let noticed = |cause| {
            let found = registry.notices.take_if(cause, || true);
            found.map(|found| (found.metric, found.label))
        };
        for (name, twin) in [("a b", "a_b"), ("c d", "c_d")] {
            counter(&registry, twin, &[]);
            counter(&registry, name, &[]);
            counter(&registry, name, &[]);
            assert!(registry.get::<Gauge>(&key(twin, &[])).is_none());
            counter(&registry, twin, &[("k", "1"), ("l", "2"), ("m", "3")]);
            assert_eq!(noticed(Cause::Merged), Some((name.into(), None)));
            assert_eq!(noticed(Cause::Taken), Some((twin.into(), None)));
            assert_eq!(noticed(Cause::TooManyTags), Some((twin.into(), Some("m".into()))));
        }
        assert!(Cause::ALL.into_iter().all(|cause| noticed(cause).is_none()));
        assert_eq!((stats.series_merged.get(), stats.series_refused.get()), (2, 2));
        assert_eq!(stats.tags_dropped.get(), 2);
    }

    #[test]
    fn aliases_go_with_their_series_and_stay_with_one_that_is_held() {
        let (registry, _) = registry(1_000);
        let names: Vec<_> = (0..250).flat_map(|n| [format!("m {n}"), format!("m,{n}")]).collect();
        for name in &names {
            registry.get::<Counter>(&Key::from_name(name.clone())).unwrap();
        }
        let unclean = Key::from_name("m 0");
        assert!(registry.get::<Histogram>(&unclean).is_some());
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 501);
        let held = registry.get::<Counter>(&unclean).unwrap().series;
        for series in registry.tables.counters.take_fresh() {
            let is_held = Arc::ptr_eq(&series, &held);
            assert_eq!(registry.evict(series, |_| true).is_err(), is_held);
        }
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 3);
        let histogram = registry.tables.histograms.take_fresh().remove(0);
        assert!(registry.evict(histogram, |_| true).is_ok());
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 2);
        // One that changes while it is evicted keeps them too, wherever it is then.
        let unsettled = registry.evict(held, |_| false).unwrap_err();
        for name in ["m_0", "m 0", "m,0"] {
            let found = registry.get::<Counter>(&Key::from_name(name)).unwrap().series;
            assert!(Arc::ptr_eq(&unsettled, &found), "{name}");
        }
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 2);
    }
}
