//! What becomes of metrics that are too many, too long, or called like others.

use std::time::Duration;

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{BuildError, OpenTsdbBuilder, Point, SendError, Value};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn beyond_max_tags_the_tags_that_tell_senders_apart_stay() {
    let tsd = FakeTsd::start();
    let (recorder, handle) = tsd
        .exporter()
        .add_global_label("dc", "fra")
        .with_max_tags(4)
        .build()
        .expect("the fake TSD is there");
    with_local_recorder(&recorder, || {
        for last in ["x", "y"] {
            counter!("m", "a" => "1", "b" => "2", "c" => last).increment(1);
        }
    });
    handle.shutdown(LONG).expect("the first shutdown");
    let tags = [("a", "1"), ("b", "2"), ("dc", "fra"), ("host", "test")];
    assert_eq!(tsd.value("m", &tags), Some(Value::Integer(2)), "what became one series is added");
    let stats = handle.stats();
    assert_eq!((stats.series, stats.tags_dropped, stats.series_merged), (1, 1, 1));
}

#[test]
fn more_tags_of_every_series_than_it_may_have_are_a_build_error() {
    let builder = |globals: usize| {
        let builder = OpenTsdbBuilder::new("127.0.0.1").with_max_tags(3);
        (0..globals).fold(builder, |builder, n| builder.add_global_label(format!("k{n}"), "v"))
    };
    let build = |builder: OpenTsdbBuilder| {
        let off = metrics_exporter_opentsdb::ConnectivityCheck::Off;
        builder.with_connectivity_check(off).build().map(drop)
    };
    build(builder(2)).expect("with the host three");
    for refused in [builder(3), builder(2).set_buckets(&[1.0])] {
        let error = build(refused).expect_err("one too many");
        assert!(
            matches!(error, BuildError::InvalidConfiguration { option: "with_max_tags", .. }),
            "{error}"
        );
    }
}

#[test]
fn a_raw_point_and_a_recorded_metric_never_write_one_series() {
    let tsd = FakeTsd::start();
    let (recorder, handle) = tsd.exporter().build().expect("the fake TSD is there");
    let point = |name: &str| Point::new(name, 1).tag("k", "v").timestamp(1_700_000_000);
    assert_eq!(handle.send(point("raw")), Ok(()));
    with_local_recorder(&recorder, || {
        counter!("raw", "k" => "v").increment(300);
        gauge!("raw", "k" => "w").set(1.0);
        counter!("recorded", "k" => "v").increment(300);
    });
    assert_eq!(handle.send(point("recorded")), Err(SendError::Recorded));
    handle.shutdown(LONG).expect("the first shutdown");
    assert!(tsd.log().poisoned().is_empty(), "{:?}", tsd.log().poisoned());
    assert_eq!(tsd.value("raw", &[("k", "v")]), Some(Value::Integer(1)));
    assert_eq!(tsd.value("raw", &[("k", "w")]), Some(Value::Float(1.0)));
    assert_eq!(tsd.value("recorded", &[("k", "v")]), Some(Value::Integer(300)));
    assert_eq!(handle.stats().series_refused, 1);
}
