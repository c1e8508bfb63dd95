//! Lines that two series would both write.
//!
//! **Problem.** A histogram `latency` writes lines named `latency.count`, `latency.p99`, …, and a counter may be called so as well.
//! Two values for one name and tags at one time make an OpenTSDB row unreadable. A table of all lines of all histograms would be
//! larger than that of the series.
//!
//! **Idea.** The name tells: whom a series could meet is found by taking a suffix off its name, or by putting one on, and by looking
//! that up when the series is registered, and at no other time.
//!
//! **Mechanism.**
//! 1. A counter or gauge, when it is registered: its name is cut at the last `.` and at the last `_`. If the histograms called like
//!    the first part do write lines with the second, the one with the same tags is looked up.
//! 2. A histogram: the names of its lines are looked up among counters and gauges. That is left out as long as there was none
//!    that step 1 found to be called like a histogram's line ([`Suspects`]), which is nearly always.
//! 3. Both run under the lock of registration, so of two that meet the later one is refused.
//!
//! Two histograms never meet: no suffix ends with another. The lines of the exporter's own telemetry are few, and compared one by
//! one.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use metrics::{Key, Label};

use super::registry::Registry;
use super::samples::Shape;
use crate::wire::kept::Line;
use crate::wire::series::Rules;

/// Whether anything but a histogram was ever called like a histogram's line. Never reset: that costs look-ups, no more.
#[derive(Default)]
pub(super) struct Suspects {
    /// Like a line with the tags of its series.
    plain: AtomicBool,
    /// Like a line with a tag more.
    tagged: AtomicBool,
}

/// What a server knows a series by.
pub(crate) struct WireName<'a> {
    /// With the prefix.
    metric: Cow<'a, str>,
    /// In order of their keys.
    tags: Vec<(&'a str, &'a str)>,
    /// That of any plain key of it.
    hash: u64,
}

impl<'a> WireName<'a> {
    /// That of a line whose canonical hash is known.
    pub(super) fn of(line: Line<'a>, hash: u64) -> Self {
        WireName { metric: line.metric().into(), tags: line.tags().collect(), hash }
    }

    fn new(metric: impl Into<Cow<'a, str>>, tags: Vec<(&'a str, &'a str)>, rules: &Rules) -> Self {
        let metric = metric.into();
        let own = tags.iter().filter(|(key, value)| !rules.is_default(key, value));
        let labels: Vec<_> =
            own.map(|&(key, value)| Label::new(key.to_owned(), value.to_owned())).collect();
        let name = metric.get(rules.prefix.len()..).unwrap_or_default();
        let hash = Key::from_parts(name.to_owned(), labels).get_hash();
        WireName { metric, tags, hash }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is_of(&self, line: Line<'_>) -> bool {
        line.metric() == self.metric && line.tags().eq(self.tags.iter().copied())
    }

    /// The two ways to take the name for that of a histogram with a suffix.
    fn splits(&self, prefix: usize) -> impl Iterator<Item = (&str, &str)> {
        let cuts = ['.', '_'].into_iter().filter_map(|separator| self.metric.rfind(separator));
        cuts.filter(move |&cut| cut > prefix).map(|cut| self.metric.split_at(cut))
    }

    /// The name of a line that a histogram of this name writes.
    fn line(&self, suffix: &str, tag: Option<&'a str>, rules: &Rules) -> Self {
        let mut tags = self.tags.clone();
        if let Some((key, value)) = tag.and_then(|tag| tag.split_once('=')) {
            tags.insert(tags.partition_point(|(known, _)| *known < key), (key, value));
        }
        WireName::new(format!("{}{suffix}", self.metric), tags, rules)
    }
}

impl Registry {
    /// Whether a counter or a gauge is called so.
    pub(super) fn has_single(&self, name: &WireName<'_>) -> bool {
        self.counters.has(name) || self.gauges.has(name)
    }

    /// Whether a histogram, or the exporter itself, writes the line of this counter, gauge or raw point.
    pub(super) fn meets_histogram(&self, name: &WireName<'_>) -> bool {
        if self.reserved.iter().any(|line| name.is_of(line.line())) {
            return true;
        }
        let rules = self.rules();
        name.splits(rules.prefix.len()).any(|(base, suffix)| {
            let Shape { names, own_tag, .. } = self.shape_of(base);
            let mut tags = name.tags.clone();
            if names.suffixes().contains(&suffix) {
                self.suspects.plain.store(true, Relaxed);
                return self.histograms.has(&WireName::new(base, tags, rules));
            }
            let Some((_, own)) = names.tagged().filter(|tagged| tagged.0 == suffix) else {
                return false;
            };
            let is_own = |(key, value): &(&str, &str)| {
                Some(*key) == own_tag && own.contains(&format!("{key}={value}"))
            };
            let Some(at) = tags.iter().position(is_own) else { return false };
            self.suspects.tagged.store(true, Relaxed);
            tags.remove(at);
            self.histograms.has(&WireName::new(base, tags, rules))
        })
    }

    /// Whether a counter or a gauge has one of the lines of this histogram.
    pub(super) fn meets_single(&self, name: &WireName<'_>, shape: &Shape) -> bool {
        let is_there = |suffix, tag| self.has_single(&name.line(suffix, tag, self.rules()));
        let plain = || shape.names.suffixes().iter().any(|suffix| is_there(suffix, None));
        let tagged = || {
            let (suffix, tags) = shape.names.tagged()?;
            Some(tags.iter().any(|tag| is_there(suffix, Some(tag))))
        };
        self.suspects.plain.load(Relaxed) && plain()
            || self.suspects.tagged.load(Relaxed) && tagged().unwrap_or(false)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::buckets::Scheme;
    use super::super::counter::Counter;
    use super::super::gauge::Gauge;
    use super::super::registry::{Options, RawClaim, Registered};
    use super::super::samples::{Histogram, Names};
    use super::super::table::Known;
    use super::*;
    use crate::stats::Counters;
    use crate::wire::charset::Charset;
    use crate::wire::series::OwnTag;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    type Labels = &'static [(&'static str, &'static str)];

    /// The lines of each kind of distribution, as far as it matters here.
    #[derive(Debug)]
    struct Lines {
        suffixes: &'static [&'static str],
        own_tag: OwnTag,
        tagged: Option<(&'static str, Vec<String>)>,
    }

    impl Names for Lines {
        fn suffixes(&self) -> Vec<&str> {
            self.suffixes.to_vec()
        }

        fn tagged(&self) -> Option<(&str, &[String])> {
            self.tagged.as_ref().map(|(suffix, tags)| (*suffix, tags.as_slice()))
        }
    }

    fn lines(metric: &str) -> Lines {
        let tags =
            |key: &str, values: [&str; 2]| values.map(|value| format!("{key}={value}")).into();
        match metric.strip_prefix("app.").unwrap().chars().next().unwrap() {
            'b' => Lines {
                suffixes: &[".count", ".sum"],
                own_tag: Some("le"),
                tagged: Some((".bucket", tags("le", ["0.5", "Inf"]))),
            },
            'v' => Lines {
                suffixes: &["_count", "_sum"],
                own_tag: Some("vmrange"),
                tagged: Some(("_bucket", tags("vmrange", ["0...1", "1...+Inf"]))),
            },
            'n' => Lines { suffixes: &[], own_tag: None, tagged: None },
            _ => Lines { suffixes: &[".count", ".sum", ".p99"], own_tag: None, tagged: None },
        }
    }

    fn rules() -> Rules {
        Rules {
            charset: Charset::Unicode,
            max_tags: 4,
            prefix: "app.".into(),
            globals: vec![("dc".into(), "fra".into())],
            host: Some(("host".into(), "a".into())),
        }
    }

    fn registry() -> (Registry, Arc<Counters>) {
        let shapes = Box::new(|metric: &str| {
            let lines = lines(metric);
            Shape { scheme: Scheme::Log, own_tag: lines.own_tag, names: Arc::new(lines) }
        });
        let stats = Arc::new(Counters::default());
        let options = Options {
            rules: rules(),
            shapes,
            limit: 1_000,
            has_unit_suffixes: false,
            line_limit: 1024,
            reserved: Vec::new(),
        };
        (Registry::new(options, Arc::clone(&stats)), stats)
    }

    fn is_taken<K: Registered>(registry: &Registry, name: &'static str, labels: Labels) -> bool {
        registry.get::<K>(&Key::from_parts(name, labels)).is_none()
    }

    struct Case {
        histogram: (&'static str, Labels),
        other: (&'static str, Labels),
        meet: bool,
    }

    const fn case(histogram: &'static str, other: &'static str, meet: bool) -> Case {
        Case { histogram: (histogram, &[("k", "v")]), other: (other, &[("k", "v")]), meet }
    }

    const fn tagged(
        histogram: &'static str,
        other: &'static str,
        labels: Labels,
        meet: bool,
    ) -> Case {
        Case { histogram: (histogram, &[("k", "v")]), other: (other, labels), meet }
    }

    const CASES: &[Case] = &[
        case("summary", "summary", false),
        case("summary", "summary.count", true),
        case("summary", "summary.sum", true),
        case("summary", "summary.p99", true),
        case("summary", "summary.p50", false),
        case("summary", "summary_count", false),
        case("summary", "summary.count.count", false),
        case("summary", "summary.count_", false),
        case("summary", "other.count", false),
        case("sum mary", "sum mary.count", true),
        case("sum mary", "sum_mary.count", true),
        case("summary.count", "summary.count.count", true),
        case("summary.x_y", "summary.x_y.sum", true),
        case("native", "native.count", false),
        // With `dc` and `host` besides: the fourth tag is kept free for the bucket's own.
        case("buckets", "buckets.count", true),
        case("buckets", "buckets.bucket", false),
        case("vm", "vm_sum", true),
        case("vm.x", "vm.x_sum", true),
        case("vm", "vm.sum", false),
        tagged("summary", "summary.count", &[], false),
        tagged("summary", "summary.count", &[("k", "w")], false),
        tagged("summary", "summary.count", &[("host", "a"), ("k", "v")], true),
        tagged("summary", "summary.count", &[("host", "b"), ("k", "v")], false),
        tagged("buckets", "buckets.bucket", &[("k", "v"), ("le", "0.5")], true),
        tagged("buckets", "buckets.bucket", &[("le", "Inf"), ("k", "v")], true),
        tagged("buckets", "buckets.bucket", &[("k", "v"), ("le", "0.7")], false),
        tagged("vm", "vm_bucket", &[("k", "v"), ("vmrange", "1...+Inf")], true),
        tagged("vm", "vm_bucket", &[("k", "v"), ("le", "0...1")], false),
        // Both had too many tags, and what is left of them is the same.
        Case {
            histogram: ("summary", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]),
            other: ("summary.sum", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("f", "6")]),
            meet: true,
        },
        // A bucket has one tag of its own, so this histogram keeps three.
        Case {
            histogram: ("buckets", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            other: ("buckets.count", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            meet: false,
        },
        Case {
            histogram: ("buckets", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            other: ("buckets.bucket", &[("a", "1"), ("b", "2"), ("c", "3"), ("le", "0.5")]),
            meet: true,
        },
    ];

    #[test]
    fn of_two_that_would_write_one_line_the_first_is_served() {
        for Case { histogram, other, meet } in CASES {
            let (registry, stats) = registry();
            assert!(!is_taken::<Histogram>(&registry, histogram.0, histogram.1));
            let found = is_taken::<Counter>(&registry, other.0, other.1);
            assert_eq!(found, *meet, "{histogram:?} before the counter {other:?}");
            assert!(is_taken::<Gauge>(&registry, other.0, other.1), "by one or the other");
            let tags: Vec<_> = other.1.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
            let claim = registry.claim_raw(other.0, &tags);
            assert_eq!(claim, RawClaim::Recorded, "a raw point {other:?}");
            assert_eq!(stats.series_refused.get(), if *meet { 2 } else { 1 });

            let (registry, _) = self::registry();
            assert!(!is_taken::<Gauge>(&registry, other.0, other.1));
            let found = is_taken::<Histogram>(&registry, histogram.0, histogram.1);
            assert_eq!(found, *meet, "{histogram:?} after the gauge {other:?}");
        }
    }

    #[test]
    fn a_name_is_free_again_once_its_series_is_evicted() {
        let (registry, _) = registry();
        assert!(!is_taken::<Histogram>(&registry, "summary", &[]));
        assert!(is_taken::<Counter>(&registry, "summary.count", &[]));
        let mut fresh = registry.take_fresh();
        assert!(registry.evict(fresh.histograms.pop().unwrap(), |_| true).is_ok());
        assert!(!is_taken::<Counter>(&registry, "summary.count", &[]));
        assert!(is_taken::<Histogram>(&registry, "summary", &[]));
    }

    /// Few words, so that they meet; separators and unclean characters among them.
    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof![Just("s"), Just("b"), Just("v")], 1..2).prop_flat_map(
            |head| {
                let rest = prop_oneof![
                    Just(""),
                    Just(".count"),
                    Just("_count"),
                    Just(".bucket"),
                    Just("_bucket"),
                    Just(" sum"),
                    Just(".sum"),
                    Just(".count.sum")
                ];
                rest.prop_map(move |rest| format!("{}{rest}", head[0]))
            },
        )
    }

    fn labels() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let key = prop_oneof![Just("host"), Just("dc"), Just("le"), Just("vmrange"), Just("k")];
        let value = prop_oneof![Just("a"), Just("fra"), Just("0.5"), Just("0...1"), Just("1")];
        proptest::collection::vec((key, value), 0..5)
    }

    proptest! {
        /// The law that all of this is for, against a table of all lines.
        #[test]
        fn no_two_series_ever_write_one_line(keys in proptest::collection::vec((0..3, name(), labels()), 1..40)) {
            let (registry, stats) = registry();
            let mut refused = 0;
            for (kind, name, labels) in &keys {
                let labels: Vec<_> = labels.iter().map(|&(key, value)| Label::new(key, value)).collect();
                let key = Key::from_parts(name.clone(), labels);
                let found = match kind {
                    0 => registry.get::<Counter>(&key).is_some(),
                    1 => registry.get::<Gauge>(&key).is_some(),
                    _ => registry.get::<Histogram>(&key).is_some(),
                };
                refused += u64::from(!found);
            }
            prop_assert_eq!(stats.series_refused.get(), refused);
            let mut written = HashSet::new();
            let (counters, gauges) = (registry.counters.all(), registry.gauges.all());
            for line in counters.iter().map(Known::line).chain(gauges.iter().map(Known::line)) {
                let line = line.unwrap();
                let tags: Vec<_> = line.tags().map(|(key, value)| format!("{key}={value}")).collect();
                prop_assert!(written.insert((line.metric().to_owned(), tags)), "{:?}", line);
            }
            for line in registry.histograms.all().iter().map(Known::line) {
                let line = line.unwrap();
                let lines = lines(line.metric());
                let tags: Vec<_> = line.tags().map(|(key, value)| format!("{key}={value}")).collect();
                for suffix in lines.suffixes {
                    prop_assert!(written.insert((format!("{}{suffix}", line.metric()), tags.clone())), "{:?}", line);
                }
                let Some((suffix, own)) = &lines.tagged else { continue };
                for tag in own {
                    let mut tags = tags.clone();
                    tags.push(tag.clone());
                    tags.sort();
                    prop_assert!(tags.len() <= 4);
                    prop_assert!(written.insert((format!("{}{suffix}", line.metric()), tags)), "{:?}", line);
                }
            }
        }
    }
}
