//! The recorder under the layers of `metrics_util` and of `metrics-tracing-context`: each hands on
//! keys that it made itself, by handles that it wraps.
use std::time::Duration;

use metrics::{Recorder, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    HostTag, MetricKindMask, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder,
};
use metrics_tracing_context::{MetricsLayer, TracingContextLayer};
use metrics_util::layers::{FanoutBuilder, FilterLayer, Layer, PrefixLayer, RouterBuilder};
use tracing_subscriber::layer::SubscriberExt;

const LONG: Duration = Duration::from_secs(30);

fn exporter() -> (FakeTsd, OpenTsdbRecorder, OpenTsdbHandle) {
    let tsd = FakeTsd::start();
    let (recorder, handle) = OpenTsdbBuilder::new(tsd.address())
        .with_host_tag(HostTag::Value("a".into()))
        .with_telemetry(false)
        .set_quantiles(&[])
        .build()
        .expect("the fake TSD is there");
    (tsd, recorder, handle)
}

/// Delivers everything, and answers the lines without their times, sorted.
fn lines(tsd: &FakeTsd, handle: &OpenTsdbHandle) -> Vec<String> {
    let report = handle.shutdown(LONG).expect("the first shutdown");
    assert_eq!((report.pending, report.dropped), (0, 0));
    let mut lines: Vec<_> = tsd
        .lines()
        .iter()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            [&words[1..2], &words[3..]].concat().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

/// An application with a metric of each kind, each updated twice so that the second time it is
/// known.
fn record(recorder: &impl Recorder) {
    with_local_recorder(recorder, || {
        for _ in 0..2 {
            counter!("requests", "path" => "/").increment(2);
            counter!("secret.tokens").increment(1);
            gauge!("depth").increment(0.5);
            histogram!("latency").record(0.25);
        }
    });
}

#[test]
fn under_prefix_every_name_has_it() {
    let (tsd, recorder, handle) = exporter();
    record(&PrefixLayer::new("shop").layer(recorder));
    assert_eq!(
        lines(&tsd, &handle),
        [
            "shop.depth 1.0 host=a",
            "shop.latency.count 2 host=a",
            "shop.latency.max 0.25 host=a",
            "shop.latency.min 0.25 host=a",
            "shop.latency.sum 0.5 host=a",
            "shop.requests 4 host=a path=/",
            "shop.secret.tokens 2 host=a",
        ]
    );
}

#[test]
fn under_filter_what_matches_is_not_sent() {
    let (tsd, recorder, handle) = exporter();
    record(&FilterLayer::from_patterns(["secret", "latency"]).layer(recorder));
    assert_eq!(lines(&tsd, &handle), ["depth 1.0 host=a", "requests 4 host=a path=/"]);
    assert_eq!(handle.stats().series, 2);
}

#[test]
fn under_fanout_each_exporter_gets_everything() {
    let (one, other) = (exporter(), exporter());
    record(&FanoutBuilder::default().add_recorder(one.1).add_recorder(other.1).build());
    let of_one = lines(&one.0, &one.2);
    assert_eq!(of_one.len(), 7);
    assert_eq!(of_one, lines(&other.0, &other.2));
}

#[test]
fn under_router_each_exporter_gets_what_is_routed_to_it() {
    let (rest, requests) = (exporter(), exporter());
    let mut router = RouterBuilder::from_recorder(rest.1);
    router.add_route(MetricKindMask::COUNTER, "requests", requests.1);
    record(&router.build());
    assert_eq!(lines(&requests.0, &requests.2), ["requests 4 host=a path=/"]);
    assert_eq!(lines(&rest.0, &rest.2).len(), 6);
}

#[test]
fn under_tracing_context_the_fields_of_the_span_are_labels() {
    let (tsd, recorder, handle) = exporter();
    let recorder = TracingContextLayer::all().layer(recorder);
    let subscriber = tracing_subscriber::registry().with(MetricsLayer::new());
    tracing::subscriber::with_default(subscriber, || {
        for (user, order) in [("ann", 1), ("ann", 2), ("bob", 3)] {
            let span = tracing::info_span!("login", user, order = order % 2);
            let _entered = span.enter();
            with_local_recorder(&recorder, || counter!("logins", "user" => "own").increment(1));
            with_local_recorder(&recorder, || counter!("orders", "service" => "web").increment(1));
        }
        with_local_recorder(&recorder, || counter!("logins", "user" => "own").increment(1));
    });
    assert_eq!(
        lines(&tsd, &handle),
        [
            "logins 1 host=a order=0 user=own",
            "logins 1 host=a user=own",
            "logins 2 host=a order=1 user=own",
            "orders 1 host=a order=0 service=web user=ann",
            "orders 1 host=a order=1 service=web user=ann",
            "orders 1 host=a order=1 service=web user=bob",
        ]
    );
}

#[test]
fn layers_may_be_stacked_and_handles_kept() {
    let (tsd, recorder, handle) = exporter();
    let prefixed = PrefixLayer::new("shop").layer(recorder);
    let recorder = FilterLayer::from_patterns(["secret"]).layer(prefixed);
    let kept = with_local_recorder(&recorder, || counter!("requests"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    kept.increment(1);
                    with_local_recorder(&recorder, || counter!("requests").increment(1));
                }
            });
        }
    });
    assert_eq!(lines(&tsd, &handle), ["shop.requests 8000 host=a"]);
}
