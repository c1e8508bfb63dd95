//! Histograms end to end: what each distribution sends, and that no other metric sends it too.
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    Distribution, HostTag, Matcher, OpenTsdbBuilder, Point, SendError, TimestampPrecision, Value,
};

const LONG: Duration = Duration::from_secs(30);

fn builder(tsd: &FakeTsd) -> OpenTsdbBuilder {
    OpenTsdbBuilder::new(tsd.address())
        .with_host_tag(HostTag::Value("a".into()))
        .with_telemetry(false)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_secs(3_600))
}

fn number(value: Value) -> f64 {
    match value {
        Value::Integer(n) => n as f64,
        Value::Float(x) => x,
    }
}

/// The values of each series, in order of time; without the host tag.
fn series(tsd: &FakeTsd) -> BTreeMap<String, Vec<f64>> {
    let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for point in tsd.points() {
        let tags = point.tags.iter().filter(|(key, _)| key != "host");
        let tags: String = tags.map(|(key, value)| format!(" {key}={value}")).collect();
        series.entry(point.metric + &tags).or_default().push(number(point.value));
    }
    series
}

/// Records samples interval by interval, and answers what arrived.
fn sent(builder: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder, intervals: &[&[f64]]) -> FakeTsd {
    let tsd = FakeTsd::builder().histograms(true).start();
    let (recorder, handle) = builder(self::builder(&tsd)).build().expect("the fake TSD is there");
    for samples in intervals {
        with_local_recorder(&recorder, || samples.iter().for_each(|&x| histogram!("m").record(x)));
        handle.flush(LONG).expect("it was not shut down");
    }
    handle.shutdown(LONG).expect("the first shutdown");
    assert!(
        tsd.log().rejected().is_empty() && tsd.log().poisoned().is_empty(),
        "{:?}",
        tsd.log().rejected()
    );
    tsd
}

const INTERVALS: &[&[f64]] = &[&[0.25, 4.0, 0.5], &[], &[8.0]];

/// The values of each series; whether one that did not change is sent again is a matter of time.
fn assert_values(mut found: BTreeMap<String, Vec<f64>>, expected: &[(&str, &[f64])]) {
    found.values_mut().for_each(Vec::dedup);
    let found: Vec<_> =
        found.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_summary_has_the_quantiles_of_each_interval_with_samples() {
    let tsd = sent(|builder| builder.set_quantiles(&[0.5, 0.999]), INTERVALS);
    assert_values(
        series(&tsd),
        &[
            ("m.count", &[3.0, 4.0]),
            ("m.max", &[4.0, 8.0]),
            ("m.min", &[0.25, 8.0]),
            ("m.p50", &[0.503_906_25, 8.0]),
            ("m.p999", &[4.0, 8.0]),
            ("m.sum", &[4.75, 12.75]),
        ],
    );
}

#[test]
fn buckets_count_from_the_start() {
    let tsd = sent(|builder| builder.set_buckets(&[0.5, 5.0]), INTERVALS);
    assert_values(
        series(&tsd),
        &[
            ("m.bucket le=0.5", &[2.0]),
            ("m.bucket le=5.0", &[3.0]),
            ("m.bucket le=Inf", &[3.0, 4.0]),
            ("m.count", &[3.0, 4.0]),
            ("m.sum", &[4.75, 12.75]),
        ],
    );
}

#[test]
fn native_sends_one_line_for_each_interval_with_samples() {
    let tsd = sent(|builder| builder.set_distribution(Distribution::Native), INTERVALS);
    assert!(tsd.points().is_empty());
    let counts: Vec<u64> = tsd
        .log()
        .histograms()
        .iter()
        .map(|line| {
            let buckets = line.split(' ').nth(3).expect("the value").split(':');
            buckets
                .map(|bucket| {
                    bucket.split_once('=').expect("its count").1.parse::<u64>().expect("digits")
                })
                .sum()
        })
        .collect();
    assert_eq!(counts, [3, 1]);
}

#[test]
fn each_metric_is_sent_as_the_matcher_says_that_describes_it_best() {
    let tsd = FakeTsd::start();
    let (recorder, handle) = builder(&tsd)
        .set_global_prefix("shop")
        .set_quantiles(&[])
        .set_distribution_for_metric(Matcher::Prefix("shop.http.".into()), Distribution::Buckets)
        .set_buckets_for_metric(Matcher::Suffix("seconds".into()), &[1.0])
        .set_quantiles_for_metric(Matcher::Full("shop.http.own".into()), &[0.25])
        .build()
        .expect("the fake TSD is there");
    with_local_recorder(&recorder, || {
        for name in ["bytes", "cpu seconds", "http.seconds", "http.own"] {
            histogram!(name).record(0.5);
        }
    });
    handle.shutdown(LONG).expect("the first shutdown");
    let series = series(&tsd);
    let of = |name: &str| -> Vec<_> {
        series.keys().filter_map(|key| key.strip_prefix(name)).map(str::to_owned).collect()
    };
    assert_eq!(of("shop.bytes"), [".count", ".max", ".min", ".sum"]);
    assert_eq!(of("shop.cpu_seconds"), [".bucket le=1.0", ".bucket le=Inf", ".count", ".sum"]);
    assert_eq!(of("shop.http.seconds"), [".bucket le=1.0", ".bucket le=Inf", ".count", ".sum"]);
    assert_eq!(of("shop.http.own"), [".count", ".max", ".min", ".p25", ".sum"]);
}

/// Two values of one series at one time make an OpenTSDB row unreadable, so of two metrics with one
/// line the first is served.
#[test]
fn no_other_metric_writes_the_line_of_a_histogram() {
    let tsd = FakeTsd::start();
    let (recorder, handle) = builder(&tsd)
        .set_buckets_for_metric(Matcher::Full("size".into()), &[1.0])
        .build()
        .expect("the fake TSD is there");
    for _ in 0..2 {
        with_local_recorder(&recorder, || {
            histogram!("latency", "k" => "v").record(0.5);
            counter!("latency.count", "k" => "v").increment(100);
            gauge!("latency.p99", "k" => "v").set(100.0);
            counter!("latency.counts", "k" => "v").increment(100);
            gauge!("size.bucket", "le" => "1.0").set(100.0);
            histogram!("size").record(0.5);
        });
        handle.flush(LONG).expect("it was not shut down");
    }
    let raw = handle.send(Point::new("latency.sum", 1).tag("k", "v"));
    assert!(matches!(raw, Err(SendError::Recorded)), "{raw:?}");
    handle.shutdown(LONG).expect("the first shutdown");
    assert!(
        tsd.log().poisoned().is_empty() && tsd.log().rejected().is_empty(),
        "{:?}",
        tsd.log().poisoned()
    );
    // A time and series is there once.
    let lines = tsd.lines();
    let identity = |line: &String| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        [&words[..3], &words[4..]].concat()
    };
    assert_eq!(lines.iter().map(identity).collect::<HashSet<_>>().len(), lines.len());
    assert_eq!(tsd.value("latency.count", &[("host", "a"), ("k", "v")]), Some(Value::Integer(2)));
    assert_eq!(
        tsd.value("latency.counts", &[("host", "a"), ("k", "v")]),
        Some(Value::Integer(200))
    );
    assert_eq!(
        tsd.value("size.bucket", &[("host", "a"), ("le", "1.0")]),
        Some(Value::Float(100.0))
    );
    assert_eq!(tsd.value("size.count", &[("host", "a")]), None, "it came second");
    assert_eq!(handle.stats().series_refused, 6);
}

#[test]
fn nobody_writes_the_lines_of_the_exporters_own_telemetry() {
    let tsd = FakeTsd::start();
    let (recorder, handle) =
        builder(&tsd).with_telemetry(true).build().expect("the fake TSD is there");
    with_local_recorder(&recorder, || {
        counter!("opentsdb.client.connects").increment(100);
        counter!("opentsdb.client.mine").increment(100);
    });
    let raw = handle.send(Point::new("opentsdb.client.series", 1));
    assert!(matches!(raw, Err(SendError::Recorded)), "{raw:?}");
    handle.shutdown(LONG).expect("the first shutdown");
    assert!(tsd.log().poisoned().is_empty());
    assert_eq!(handle.stats().series_refused, 1);
    assert_eq!(tsd.value("opentsdb.client.mine", &[("host", "a")]), Some(Value::Integer(100)));
}
