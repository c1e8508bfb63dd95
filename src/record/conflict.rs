//! Which metric names are taken, so that no line is written by two.
//!
//! **Problem.** A histogram `latency` writes lines named `latency.count`, `latency.p99`, …, and a
//! counter may be called so as well, or a raw point sent. Two values for one name and tags at one
//! time make an OpenTSDB row unreadable.
//!
//! **Idea.** Names are few. A map from name to who writes lines of it is asked, under the lock of
//! registration, before a series is made: who comes second is refused.
//!
//! **Mechanism.**
//! 1. A name belongs to single series (counters, gauges, raw points), to one histogram's lines, or
//!    to the exporter itself. Whatever their tags, these do not share a name.
//! 2. Among single series names are shared. Where counters, gauges and raw points share one, the
//!    fingerprint of name and tags decides, which their tables and the set of raw series are asked
//!    for.
//! 3. The names of a histogram's lines are all its own or none is, so the first one tells.
//! 4. No two snapshots have one time, but a raw point may have any. So it is remembered until when
//!    evicted series wrote lines of a name: a new raw series of that name begins behind it.
//!
//! Names are those without the prefix, which all share. They are kept by fingerprint, 16 bytes each
//! whatever they are.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use metrics_util::{KeyHasher, MetricKind};

use super::fingerprint::{Fingerprint, Secrets, SeriesId};
use super::tables::{RegistryKind, Spec, Tables};

/// How many names of evicted series are told apart.
const MOST_EVICTED: usize = 10_000;

/// Passes fingerprints on as they are.
type Hasher = BuildHasherDefault<KeyHasher>;

/// Who writes the lines of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Counter,
    Gauge,
    Raw,
    /// Several of these.
    Singles,
    Histogram,
    Exporter,
}

impl Writer {
    fn of(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Writer::Counter,
            MetricKind::Gauge => Writer::Gauge,
            MetricKind::Histogram => Writer::Histogram,
        }
    }

    fn is_single(self) -> bool {
        !matches!(self, Writer::Histogram | Writer::Exporter)
    }
}

/// Whether a raw point may be sent; see [`Registry::claim_raw`](super::registry::Registry).
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
#[derive(Default)]
pub(crate) struct Conflicts {
    /// Who writes the lines of each name, and by how many series.
    names: HashMap<Fingerprint, (Writer, u32), Hasher>,
    /// The series that raw points were sent for.
    raw: HashSet<Fingerprint, Hasher>,
    /// The names of evicted series, and the time from which on none of these has a value.
    evicted: HashMap<Fingerprint, u64, Hasher>,
    /// The latest such time of a name that is not told apart any more.
    evicted_others: u64,
}

impl Conflicts {
    /// Claims the lines of a new series; returns whether no other series writes one of them.
    pub(super) fn claim<K: RegistryKind>(
        &mut self,
        (tables, secrets): (&Tables, &Secrets),
        (name, id): (&str, SeriesId),
        spec: &Spec,
    ) -> bool {
        let writer = Writer::of(K::KIND);
        let mut names = names(secrets, (name, id.name), spec);
        let Some(first) = names.next() else { return true };
        let is_free = if self.names.contains_key(&first) {
            self.admits(tables, first, writer, id)
        } else {
            !names.clone().any(|name| self.names.contains_key(&name))
        };
        if is_free {
            self.add(first, writer);
            names.for_each(|name| self.add(name, writer));
        }
        is_free
    }

    /// Gives back what an evicted series had claimed, which has no value from `free_from` on.
    pub(super) fn release(&mut self, secrets: &Secrets, name: &str, spec: &Spec, free_from: u64) {
        for name in names(secrets, (name, secrets.name(name)), spec) {
            if self.evicted.len() >= MOST_EVICTED && !self.evicted.contains_key(&name) {
                let times = self.evicted.drain().map(|(_, time)| time);
                self.evicted_others = times.fold(self.evicted_others, u64::max);
            }
            self.evicted.insert(name, free_from);
            if let Entry::Occupied(mut known) = self.names.entry(name) {
                known.get_mut().1 -= 1;
                if known.get().1 == 0 {
                    known.remove();
                }
            }
        }
    }

    /// Claims the series of a raw point.
    pub(super) fn claim_raw(&mut self, tables: &Tables, id: SeriesId, limit: usize) -> RawClaim {
        if self.raw.contains(&id.fingerprint) {
            return RawClaim::Granted;
        }
        if !self.admits(tables, id.name, Writer::Raw, id) {
            return RawClaim::Recorded;
        }
        if self.raw.len() >= limit {
            return RawClaim::Full;
        }
        self.raw.insert(id.fingerprint);
        self.add(id.name, Writer::Raw);
        RawClaim::Granted
    }

    /// The time from which on no series of this name that was evicted has a value.
    pub(super) fn free_from(&self, name: Fingerprint) -> u64 {
        self.evicted.get(&name).copied().unwrap_or(self.evicted_others)
    }

    /// Claims a name for the exporter itself.
    pub(super) fn reserve(&mut self, name: Fingerprint) {
        self.add(name, Writer::Exporter);
    }

    /// Whether this writer may have one more series, which is new, with lines of this name.
    fn admits(&self, tables: &Tables, name: Fingerprint, writer: Writer, id: SeriesId) -> bool {
        let Some(&(known, _)) = self.names.get(&name) else { return true };
        let is_taken = || {
            tables.counters.find(id).is_some()
                || tables.gauges.find(id).is_some()
                || self.raw.contains(&id.fingerprint)
        };
        known == writer || (known.is_single() && writer.is_single() && !is_taken())
    }

    /// Adds a series of this writer with lines of this name.
    fn add(&mut self, name: Fingerprint, writer: Writer) {
        let (known, series) = self.names.entry(name).or_insert((writer, 0));
        if *known != writer {
            *known = Writer::Singles;
        }
        *series += 1;
    }
}

/// The names of the lines of a series, by the fingerprints of them: of a name that has that of its
/// own already.
fn names(
    secrets: &Secrets,
    (name, own): (&str, Fingerprint),
    spec: &Spec,
) -> impl Iterator<Item = Fingerprint> + Clone {
    let suffixes = spec.as_ref().map_or(&[][..], |spec| &spec.suffixes);
    let single = spec.is_none().then_some(own);
    let suffixed = move |suffix: &String| secrets.name(&format!("{name}{suffix}"));
    single.into_iter().chain(suffixes.iter().map(suffixed))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::counter::Counter;
    use super::super::gauge::Gauge;
    use super::super::histogram::buckets::Scheme;
    use super::super::histogram::{Histogram, HistogramSpec};
    use super::super::registry::{Options, Registry};
    use super::super::table::Found;
    use super::*;
    use crate::stats::Counters;
    use crate::wire::charset::Charset;
    use crate::wire::series::Rules;
    use metrics::{Key, Label};
    use proptest::prelude::*;
    use std::sync::Arc;

    type Labels = &'static [(&'static str, &'static str)];

    /// By the first letter of the name, as far as it matters here.
    fn spec(metric: &str) -> HistogramSpec {
        let (own_tag, suffixes): (_, &[&str]) = match metric.as_bytes()[4] {
            b'b' => (Some("le"), &[".count", ".sum", ".bucket"]),
            b'v' => (Some("vmrange"), &["_count", "_sum", "_bucket"]),
            b'n' => (None, &[]),
            _ => (None, &[".count", ".sum", ".p99"]),
        };
        let suffixes = suffixes.iter().map(|&suffix| suffix.into()).collect();
        HistogramSpec { scheme: Scheme::Log, own_tag, suffixes }
    }

    fn registry() -> (Registry, Arc<Counters>) {
        let rules = Rules {
            charset: Charset::Unicode,
            max_tags: 4,
            prefix: "app.".into(),
            globals: vec![("dc".into(), "fra".into())],
            host: Some(("host".into(), "a".into())),
            instance: None,
        };
        let reserved = vec![rules.identify("exporter", std::iter::empty(), None).line()];
        let stats = Arc::new(Counters::default());
        let options =
            Options { specs: Box::new(spec), reserved, ..Options::of_a_test(rules, 1_000) };
        (Registry::new(options, Arc::clone(&stats)), stats)
    }

    fn is_taken<K: RegistryKind>(registry: &Registry, name: &'static str, labels: Labels) -> bool {
        registry.get::<K>(&Key::from_parts(name, labels)).is_none()
    }

    fn claim_raw(registry: &Registry, name: &str, labels: Labels) -> RawClaim {
        let tags: Vec<_> = labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        registry.claim_raw(name, &tags)
    }

    /// Histogram, other, and whether they share the name of a line.
    const NAMES: &[(&str, &str, bool)] = &[
        ("summary", "summary", false),
        ("summary", "summary.count", true),
        ("summary", "summary.sum", true),
        ("summary", "summary.p99", true),
        ("summary", "summary.p50", false),
        ("summary", "summary_count", false),
        ("summary", "summary.count.count", false),
        ("summary", "other.count", false),
        ("sum mary", "sum_mary.count", true),
        ("summary.count", "summary.count.count", true),
        ("native", "native.count", false),
        ("buckets", "buckets.bucket", true),
        ("vm", "vm_sum", true),
        ("vm", "vm_bucket", true),
        ("vm", "vm.sum", false),
    ];

    #[test]
    fn of_two_that_share_a_name_the_first_is_served() {
        const LABELS: Labels = &[("k", "v")];
        for &(histogram, other, clash) in NAMES {
            for labels in [LABELS, &[]] {
                let (registry, stats) = registry();
                assert!(!is_taken::<Histogram>(&registry, histogram, LABELS));
                let found = is_taken::<Counter>(&registry, other, labels);
                assert_eq!(found, clash, "{histogram} before the counter {other}");
                let claim = claim_raw(&registry, other, labels);
                assert_eq!(claim, RawClaim::Recorded, "{histogram}, {other}, then a raw point");
                assert_eq!(stats.series_refused.get(), u64::from(clash));

                let (registry, _) = self::registry();
                assert!(!is_taken::<Gauge>(&registry, other, labels));
                let found = is_taken::<Histogram>(&registry, histogram, LABELS);
                assert_eq!(found, clash, "{histogram} after the gauge {other}");

                let (registry, _) = self::registry();
                assert_eq!(claim_raw(&registry, other, labels), RawClaim::Granted);
                let found = is_taken::<Histogram>(&registry, histogram, LABELS);
                assert_eq!(found, clash, "{histogram} after the raw point {other}");
            }
        }
    }

    #[test]
    fn a_raw_point_and_a_recorded_metric_never_write_one_series() {
        let (registry, _) = registry();
        assert!(!is_taken::<Counter>(&registry, "recorded", &[("k", "v")]));
        assert_eq!(claim_raw(&registry, "recorded", &[("k", "v")]), RawClaim::Recorded);
        // The tags that every series has are the same with and without a word.
        const SAME: Labels = &[("host", "a"), ("k", "v")];
        assert_eq!(claim_raw(&registry, "recorded", SAME), RawClaim::Recorded);
        assert_eq!(claim_raw(&registry, "recorded", &[("k", "w")]), RawClaim::Granted);
        assert!(is_taken::<Counter>(&registry, "recorded", &[("k", "w")]));
        assert!(is_taken::<Gauge>(&registry, "recorded", &[("k", "w")]));
        assert_eq!(claim_raw(&registry, "recorded", &[("k", "w")]), RawClaim::Granted);
        assert_eq!(claim_raw(&registry, "exporter", &[]), RawClaim::Recorded);
        assert!(is_taken::<Counter>(&registry, "exporter", &[]));
    }

    #[test]
    fn raw_series_are_bounded() {
        let (registry, _) = Registry::of_a_test(Rules::of_a_test(), 2);
        for name in ["a", "b", "a"] {
            assert_eq!(claim_raw(&registry, name, &[]), RawClaim::Granted);
        }
        assert_eq!(claim_raw(&registry, "c", &[]), RawClaim::Full);
        assert!(!is_taken::<Counter>(&registry, "c", &[]));
    }

    #[test]
    fn a_name_is_free_again_once_its_last_series_is_evicted() {
        let (registry, _) = registry();
        assert!(!is_taken::<Histogram>(&registry, "summary", &[]));
        assert!(!is_taken::<Histogram>(&registry, "summary", &[("k", "v")]));
        for _ in 0..2 {
            assert!(is_taken::<Counter>(&registry, "summary.count", &[]));
            let series = registry.tables.histograms.take_fresh();
            for series in series {
                assert!(registry.evict(series, |_| true).is_ok());
            }
            if !is_taken::<Counter>(&registry, "summary.count", &[]) {
                break;
            }
        }
        assert!(is_taken::<Histogram>(&registry, "summary", &[]));
        let counter = registry.tables.counters.take_fresh().remove(0);
        assert!(registry.evict(counter, |_| true).is_ok());
        assert!(!is_taken::<Histogram>(&registry, "summary", &[]));
    }

    #[test]
    fn each_name_is_free_from_the_time_of_its_last_evicted_series_on() {
        let (mut conflicts, secrets) = (Conflicts::default(), Secrets::random());
        let free_from = |conflicts: &Conflicts, name| conflicts.free_from(secrets.name(name));
        conflicts.release(&secrets, "a", &None, 7);
        conflicts.release(&secrets, "b", &Some(spec("app.summary")), 9);
        let times = ["a", "b", "b.count", "c"].map(|name| free_from(&conflicts, name));
        assert_eq!(times, [7, 0, 9, 0]);
        // Where there are too many names, all are as late as the latest that was forgotten.
        for n in 0..MOST_EVICTED {
            conflicts.release(&secrets, &n.to_string(), &None, 5);
        }
        conflicts.release(&secrets, "c", &None, 11);
        assert_eq!(["a", "c", "d"].map(|name| free_from(&conflicts, name)), [9, 11, 9]);
        assert!(conflicts.evicted.len() <= MOST_EVICTED);
    }

    fn name() -> impl Strategy<Value = String> {
        "[sbv](\\.count|_count|\\.bucket|_bucket| sum|\\.sum|\\.count\\.sum)?"
    }

    fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec(("host|dc|le|k", "a|fra|0.5|1"), 0..5)
    }

    proptest! {
        /// The law that all of this is for, against a table of all lines.
        #[test]
        fn no_two_series_ever_write_one_line(
            keys in proptest::collection::vec((0..4, name(), labels()), 1..40),
        ) {
            let (registry, _) = registry();
            let mut raw = HashSet::new();
            for (kind, name, labels) in &keys {
                let label = |(key, value): &(String, String)| Label::new(key.clone(), value.clone());
                let key = Key::from_parts(name.clone(), labels.iter().map(label).collect::<Vec<_>>());
                match kind {
                    0 => drop(registry.get::<Counter>(&key)),
                    1 => drop(registry.get::<Gauge>(&key)),
                    2 => drop(registry.get::<Histogram>(&key)),
                    _ => if registry.claim_raw(name, labels) == RawClaim::Granted {
                        raw.insert(registry.line_of(name, labels));
                    }
                }
            }
            let (tables, mut written) = (&registry.tables, HashSet::new());
            let (counters, gauges) = (tables.counters.all(), tables.gauges.all());
            let lines = counters.iter().map(Found::line);
            for line in lines.chain(gauges.iter().map(Found::line)) {
                let text = line.unwrap().text();
                prop_assert!(written.insert(text.clone()), "{}", text);
            }
            for line in raw {
                prop_assert!(written.insert(line.clone()), "{:?}", line);
            }
            for found in tables.histograms.all() {
                let line = found.line().unwrap();
                let text = line.text();
                let (head, tail) = text.split_at(line.parts().0.len());
                for suffix in spec(line.metric()).suffixes {
                    prop_assert!(written.insert(format!("{head}{suffix}{tail}")), "{}", text);
                }
            }
        }
    }
}
