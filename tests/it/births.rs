//! The zero before the first value of a counter.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{CounterMode, Matcher, OpenTsdbBuilder, TimestampPrecision, Value};

use crate::rig::{self, PATIENCE, Rig, eventually};

const INTERVAL: Duration = Duration::from_millis(50);

/// With ticks.
fn options(builder: OpenTsdbBuilder) -> OpenTsdbBuilder {
    builder
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(INTERVAL)
        .with_birth_zeros(true)
}

/// The points of a metric, all of one series, in order of time.
fn points(tsd: &FakeTsd, metric: &str) -> Vec<(u64, Value)> {
    let points = tsd.points().into_iter().filter(|point| point.metric == metric);
    let mut points: Vec<_> = points.map(|point| (point.timestamp.unwrap(), point.value)).collect();
    points.sort_by_key(|(time, _)| *time);
    points
}

/// Records at once, and once more when that has been sent; waits until that has, too.
fn record(rig: &Rig) {
    rig.record(|| counter!("first").increment(5));
    eventually("the first", || points(&rig.tsd, "first").len() > 1);
    rig.record(|| {
        counter!("later").increment(7);
        gauge!("gauge").set(1.0);
        histogram!("histogram").record(1.0);
    });
    eventually("the others", || {
        ["later", "gauge", "histogram.count"].iter().all(|name| !points(&rig.tsd, name).is_empty())
    });
    rig.settle();
}

#[test]
fn a_counter_that_appears_between_two_snapshots_begins_with_a_zero_one_interval_before() {
    let rig = Rig::with(FakeTsd::start(), options);
    record(&rig);
    let [(zero, none), (time, value)] = points(&rig.tsd, "later")[..2] else { panic!() };
    assert_eq!((none, value), (Value::Integer(0), Value::Integer(7)));
    assert_eq!(time - zero, INTERVAL.as_millis() as u64);
    for (metric, first) in [
        ("first", Value::Integer(5)),
        ("gauge", Value::Float(1.0)),
        ("histogram.count", Value::Integer(1)),
    ] {
        assert_eq!(points(&rig.tsd, metric)[0].1, first, "{metric}");
    }
}

#[test]
fn none_begins_so_unless_asked_and_no_delta_ever() {
    for (mode, birth_zeros) in [(CounterMode::Cumulative, false), (CounterMode::Delta, true)] {
        let rig = Rig::with(FakeTsd::start(), |builder| {
            options(builder).with_counter_mode(mode).with_birth_zeros(birth_zeros)
        });
        record(&rig);
        assert_eq!(points(&rig.tsd, "later")[0].1, Value::Integer(7), "{mode:?}");
    }
}

/// Which has counted further, in the same series.
#[test]
fn a_restart_writes_over_no_time_of_the_process_before() {
    let tsd = FakeTsd::start();
    for _ in 0..10 {
        let (recorder, handle) = options(rig::builder(&tsd)).build().unwrap();
        let points = || points(&tsd, "c").len();
        let more = points() + 2;
        metrics::with_local_recorder(&recorder, || counter!("c").increment(500));
        eventually("two points", || points() >= more);
        metrics::with_local_recorder(&recorder, || counter!("c").increment(500));
        handle.shutdown(PATIENCE).unwrap();
    }
    assert_eq!(tsd.log().poisoned(), [""; 0]);
    assert!(points(&tsd, "c").iter().all(|(_, value)| *value != Value::Integer(0)));
}

/// Beyond the limit a key shares a series, and has its own once there is room.
#[test]
fn overflow_merged_and_evicted_series_have_one_value_for_a_time() {
    let rig = Rig::with(FakeTsd::start(), |builder| {
        options(builder)
            .with_series_limit(20)
            .idle_timeout_for_metric(Matcher::Prefix("m".into()), Some(Duration::from_secs(1)))
    });
    for round in 0u64.. {
        rig.record(|| {
            counter!("steady").increment(1);
            for n in 0..30 {
                let user = n + round / 50 * 5;
                counter!("m", "user" => format!("no_{user}")).increment(300);
                counter!("m", "user" => format!("no {user}")).increment(1);
            }
        });
        if round % 7 == 0 {
            rig.handle.flush(PATIENCE).unwrap();
        }
        std::thread::park_timeout(INTERVAL / 3);
        if rig.stats().series_evicted > 15 {
            break;
        }
    }
    rig.settle();
    let stats = rig.stats();
    assert!(stats.series_overflow > 0 && stats.series_merged > 0, "{stats:?}");
    let zeros = rig.tsd.points().iter().filter(|point| point.value == Value::Integer(0)).count();
    assert!(zeros > 5, "{zeros}");
}
