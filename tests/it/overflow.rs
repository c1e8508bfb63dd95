//! What happens when more comes than goes: while connected the interval stretches, while
//! disconnected the oldest points go.

use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{Point, SendError, TimestampPrecision, Value};

use crate::rig::{PATIENCE, Rig, eventually};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn while_the_server_is_away_the_oldest_points_are_dropped_and_counted() {
    let precision = TimestampPrecision::Milliseconds;
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder.with_queue_size(100).with_timestamp_precision(precision)
    });
    rig.tsd.script(Fault::Refuse);
    for round in 1..=30 {
        rig.record(|| {
            (0..10).for_each(|n| gauge!("g", "n" => n.to_string()).set(f64::from(round)));
        });
        let report = rig.handle.flush(10 * SHORT).unwrap();
        assert_eq!((report.confirmed, report.points), (0, report.pending + report.dropped));
        let taken = 10 * round as u64;
        eventually("the snapshot is taken", || rig.stats().points_taken == taken);
    }
    let stats = rig.stats();
    assert_eq!((stats.points_taken, stats.points_confirmed), (300, 0));
    assert_eq!((stats.points_pending, stats.points_dropped.queue_full), (100, 200));
    assert!(stats.connect_failures > 0);
    rig.tsd.heal();
    rig.settle();
    let rounds: Vec<_> = rig.tsd.points().into_iter().map(|point| point.value).collect();
    assert_eq!(rounds.len(), 100);
    let expected = (21..=30).flat_map(|round| [Value::from(f64::from(round)); 10]);
    assert_eq!(rounds, expected.collect::<Vec<_>>());
}

#[test]
fn raw_points_never_wait_and_drop_the_oldest() {
    let rig = Rig::with(FakeTsd::start(), |builder| builder.with_queue_size(10));
    rig.tsd.script(Fault::Refuse);
    for n in 0..100 {
        rig.handle
            .send(Point::new("raw", n).timestamp(1_700_000_000 + u64::from(n as u32)))
            .unwrap();
    }
    eventually("the link is known to be down", || rig.stats().connect_failures > 0);
    assert_eq!((rig.stats().points_taken, rig.stats().points_dropped.queue_full), (100, 90));
    rig.tsd.heal();
    rig.settle();
    let values: Vec<_> = rig.tsd.points().into_iter().map(|point| point.value).collect();
    assert_eq!(values, (90..100).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_raw_point_for_a_time_that_it_has_is_refused_and_counted() {
    let rig = Rig::new();
    let point = |value| Point::new("raw", value).tag("k", "v").timestamp(1_700_000_000);
    rig.handle.send(point(1)).unwrap();
    assert_eq!(rig.handle.send(point(2)), Err(SendError::Duplicate));
    rig.deliver(|| ());
    assert_eq!((rig.tsd.log().accepted_count(), rig.stats().points_dropped.duplicate), (1, 1));
}

#[test]
fn while_connected_the_interval_stretches_and_no_point_is_dropped() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::ReceiveBuffer(4096));
    let rig = Rig::with(tsd, |builder| {
        builder.with_flush_interval(Duration::from_secs(1)).with_queue_size(20_000)
    });
    let series: Vec<_> = (0..10_000).map(|n| n.to_string()).collect();
    let update = || series.iter().for_each(|n| counter!("c", "n" => n.clone()).increment(1));
    rig.record(update);
    assert!(rig.tsd.wait_for(1, PATIENCE));
    rig.tsd.script(Fault::StopReading);
    eventually("a tick is left out", || {
        rig.record(update);
        rig.stats().ticks_skipped > 0
    });
    assert_eq!(rig.stats().points_dropped.total(), 0);
    rig.tsd.heal();
    assert_eq!(rig.handle.shutdown(PATIENCE).unwrap().pending, 0);
    let stats = rig.stats();
    assert_eq!((stats.points_dropped.total(), stats.points_resent), (0, 0));
    assert_eq!(
        (rig.tsd.log().accepted_count() as u64, rig.tsd.log().connection_count()),
        (stats.points_taken, 1)
    );
}

#[test]
fn metrics_cost_the_application_nothing_while_the_server_is_stuck() {
    let rig = Rig::with(FakeTsd::start(), |builder| builder.with_queue_size(1_000));
    rig.tsd.script(Fault::StopReading);
    let handles: Vec<_> =
        rig.record(|| (0..2_000).map(|n| counter!("c", "n" => n.to_string())).collect());
    eventually("the snapshot is taken", || {
        rig.handle.flush(SHORT).unwrap();
        rig.stats().points_pending > 0
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| handles.iter().for_each(|c| c.increment(1))));
        }
    });
    rig.record(|| (0..1_000).for_each(|n| counter!("new", "n" => n.to_string()).increment(1)));
    assert_eq!(rig.tsd.log().accepted_count(), 0);
    assert!(rig.stats().points_pending > 0);
    rig.tsd.heal();
    rig.deliver(|| ());
    for n in ["0", "1999"] {
        assert_eq!(rig.tsd.value("c", &[("host", "a"), ("n", n)]), Some(200.into()));
    }
}
