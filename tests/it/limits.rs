//! The limits of a line: how many tags it has, and its length; against an oracle that does it the
//! naive way.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    BuildError, ConnectivityCheck, Distribution, Flavor, HostTag, InstanceTag, Matcher,
    OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder,
};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(30);
const LONGEST_LINE: usize = 1024;
const METADATA: Metadata<'_> = Metadata::new("", Level::INFO, None);
const GLOBALS: [(&str, &str); 3] = [("dc", "fra"), ("env", "prod"), ("k1", "global")];

fn builder(max_tags: usize) -> OpenTsdbBuilder {
    GLOBALS
        .iter()
        .fold(OpenTsdbBuilder::new("127.0.0.1:1"), |builder, &(key, value)| {
            builder.add_global_label(key, value)
        })
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_host_tag(HostTag::Value("a".into()))
        // Many exporters of one identity at once.
        .with_instance_tag(InstanceTag::Off)
        .with_telemetry(false)
        .with_flush_interval(Duration::from_secs(3_600))
        .with_max_tags(max_tags)
}

fn build(builder: OpenTsdbBuilder) -> (OpenTsdbRecorder, OpenTsdbHandle) {
    builder.build().expect("nothing has to be there")
}

type Labels = Vec<(String, String)>;

/// Metric, tags and value of each line.
fn lines(handle: &OpenTsdbHandle) -> Vec<(String, Labels, String)> {
    let rendered = handle.render();
    let line = |line: &str| {
        assert!(line.len() < LONGEST_LINE, "with its line feed: {line}");
        let words: Vec<_> = line.split(' ').collect();
        let tag = |word: &&str| word.split_once('=').map(|(key, value)| (key.into(), value.into()));
        let tags: Option<Vec<_>> = words[4..].iter().map(tag).collect();
        (words[1].to_owned(), tags.expect(line), words[3].to_owned())
    };
    rendered.lines().filter(|line| line.starts_with("put ")).map(line).collect()
}

/// What the documentation of `with_max_tags` says, one step after the other. Answers the tags, and
/// how many were left out.
fn naive_tags(labels: &Labels, max_tags: usize) -> (BTreeMap<String, String>, usize) {
    let clean = |word: &str| word.replace(' ', "_");
    let mut own: Labels = Vec::new();
    for (key, value) in labels {
        match own.iter_mut().find(|(known, _)| *known == clean(key)) {
            Some((_, known)) => *known = clean(value),
            None => own.push((clean(key), clean(value))),
        }
    }
    let is_new = |(key, _): &&(&str, &str)| !own.iter().any(|(known, _)| known == key);
    let defaults: Vec<_> = GLOBALS.iter().chain([&("host", "a")]).filter(is_new).copied().collect();
    let mut dropped = 0;
    while own.len() + defaults.len() > max_tags {
        // A label in place of a global one tells senders apart as that does.
        let is_own = |(key, _): &(String, String)| {
            key != "host" && !GLOBALS.iter().any(|(global, _)| global == key)
        };
        let Some(last) = own.iter().rposition(is_own) else { break };
        own.remove(last);
        dropped += 1;
    }
    let defaults = defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    (own.into_iter().chain(defaults).collect(), dropped)
}

/// Labels of which many are the same, and many have to be cleaned.
fn labels(most: usize) -> impl Strategy<Value = Labels> {
    let key = prop_oneof![
        (0..80).prop_map(|n| format!("k{n}")),
        (0..4).prop_map(|n| format!("k {n}")),
        Just("host".to_owned()),
        Just("dc".to_owned()),
    ];
    let value = prop_oneof![Just("a"), Just("b"), Just("fra"), Just("a b"), Just("a_b")];
    proptest::collection::vec((key, value.prop_map(str::to_owned)), 0..most)
}

fn key(name: &'static str, labels: &Labels) -> Key {
    let label = |(key, value): &(String, String)| Label::new(key.clone(), value.clone());
    Key::from_parts(name, labels.iter().map(label).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn there_is_one_series_for_each_identity_and_every_count_is_in_one(
        keys in proptest::collection::vec(prop_oneof![labels(5), labels(70)], 1..20),
        max_tags in prop_oneof![4usize..=8, 4usize..=64],
    ) {
        let (recorder, handle) = build(builder(max_tags));
        let (mut expected, mut dropped) = (BTreeMap::new(), 0);
        let mut known = BTreeMap::new();
        for labels in &keys {
            recorder.register_counter(&key("m", labels), &METADATA).increment(1);
            // The facade takes keys for equal that differ in the order of their labels, also where
            // a label is there twice.
            let mut sorted = labels.clone();
            sorted.sort();
            let (tags, left_out) =
                known.entry(sorted).or_insert_with(|| naive_tags(labels, max_tags)).clone();
            let count = expected.entry(tags).or_insert(0);
            if *count == 0 {
                dropped += left_out as u64;
            }
            *count += 1;
        }
        let found: Vec<_> = lines(&handle)
            .into_iter()
            .map(|(_, tags, value)| (tags.into_iter().collect::<BTreeMap<_, _>>(), value.parse().unwrap()))
            .collect();
        prop_assert_eq!(found.len(), expected.len(), "one line for each");
        prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, i32>>(), expected);
        prop_assert_eq!(handle.stats().tags_dropped, dropped);
    }

    #[test]
    fn the_buckets_tag_is_within_the_limit(
        labels in labels(70),
        max_tags in 5usize..=64,
        is_vmrange in any::<bool>(),
    ) {
        let builder = if is_vmrange {
            builder(max_tags).with_flavor(Flavor::VictoriaMetrics).set_distribution(Distribution::VmRange)
        } else {
            builder(max_tags).set_buckets(&[0.5, 1.0])
        };
        let (own, suffix) = if is_vmrange { ("vmrange", "_bucket") } else { ("le", ".bucket") };
        let (recorder, handle) = build(builder);
        let key = key("m", &labels);
        recorder.register_histogram(&key, &METADATA).record(0.7);
        let expected = naive_tags(&labels, max_tags - 1).0;
        let (mut buckets, mut identities) = (0, BTreeSet::new());
        for (metric, mut tags, _) in lines(&handle) {
            prop_assert!(identities.insert((metric.clone(), tags.clone())));
            let keys = tags.len();
            tags.retain(|(key, _)| key != own);
            prop_assert_eq!(keys - tags.len(), usize::from(metric.ends_with(suffix)));
            buckets += keys - tags.len();
            prop_assert!(keys <= max_tags);
            prop_assert_eq!(&tags.into_iter().collect::<BTreeMap<_, _>>(), &expected);
        }
        prop_assert_eq!(buckets, if is_vmrange { 1 } else { 3 });
    }
}

#[test]
fn a_tag_that_is_only_the_buckets_is_refused_by_build() {
    let buckets = |max_tags| builder(max_tags).set_buckets(&[1.0]);
    let for_one =
        |max_tags| builder(max_tags).set_buckets_for_metric(Matcher::Full("m".into()), &[1.0]);
    assert!(buckets(5).build().is_ok() && for_one(5).build().is_ok() && builder(4).build().is_ok());
    for refused in [buckets(4), for_one(4), builder(3), builder(0), builder(65)] {
        let error = refused.build().expect_err("it cannot work");
        let is_of_tags =
            matches!(error, BuildError::InvalidConfiguration { option: "with_max_tags", .. });
        assert!(is_of_tags, "{error}");
    }
}

#[test]
fn what_leaves_no_line_room_is_refused_by_build() {
    let long = "x".repeat(1_000);
    let half = || "x".repeat(500);
    let cases: [(&str, OpenTsdbBuilder); 5] = [
        ("set_global_prefix", builder(8).set_global_prefix(long.as_str())),
        ("with_host_tag", builder(8).with_host_tag(HostTag::Value(long.clone()))),
        ("with_instance_tag", builder(8).with_instance_tag(InstanceTag::Value(long.clone()))),
        ("add_global_label", builder(8).add_global_label("k", long.as_str())),
        ("add_global_label", builder(8).set_global_prefix(half()).add_global_label("k", half())),
    ];
    for (expected, refused) in cases {
        assert!(refused.clone().with_flavor(Flavor::VictoriaMetrics).build().is_ok(), "{expected}");
        let error = refused.build().expect_err("no line would be sent");
        let is_named =
            matches!(error, BuildError::InvalidConfiguration { option, .. } if option == expected);
        assert!(is_named && error.to_string().len() < 200, "{error}");
    }
}

/// Names and tags so long that there is room for little or nothing: whole lines that a TSD takes,
/// or none and counted.
#[test]
fn no_line_is_longer_than_a_tsd_reads() {
    const LENGTHS: &[usize] = &[10, 800, 900, 950, 970, 980, 990, 1_000, 1_010, 1_100];
    let kinds: [fn(OpenTsdbBuilder) -> OpenTsdbBuilder; 3] = [
        |builder| builder,
        |builder| builder.set_buckets(&[1e-300, 0.25]),
        |builder| builder.set_distribution(Distribution::Native),
    ];
    for kind in kinds {
        let tsd = FakeTsd::builder().histograms(true).start();
        let builder = OpenTsdbBuilder::new(tsd.address())
            .with_host_tag(HostTag::Value("a".into()))
            .with_telemetry(false);
        let (recorder, handle) = build(kind(builder));
        for &length in LENGTHS {
            let key = Key::from_parts("m", vec![Label::new("k", "v".repeat(length))]);
            recorder.register_counter(&key, &METADATA).increment(1);
            let histogram = recorder.register_histogram(&key, &METADATA);
            (0..1_000).for_each(|n| histogram.record(f64::from(n) * 1.1));
        }
        let report = handle.shutdown(LONG).expect("the first shutdown");
        let stats = handle.stats();
        assert_eq!(report.points, report.confirmed + report.dropped, "{report:?}");
        assert_eq!(stats.points_dropped.too_long, report.dropped);
        assert!(report.dropped > 0 && stats.connects == 1, "{stats:?}");
        assert!(tsd.log().rejected().is_empty(), "{:?}", tsd.log().rejected());
        assert_eq!(tsd.log().accepted_count() as u64, report.confirmed);
        let longest = tsd.lines().iter().map(String::len).max().expect("some lines");
        assert!((LONGEST_LINE - 60..LONGEST_LINE).contains(&longest), "{longest}");
    }
}
