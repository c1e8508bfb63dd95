//! How fast points leave at the default rate limit, and after a server has complained.

use std::time::{Duration, Instant};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{Point, RateLimit};

use crate::rig::{PATIENCE, Rig, eventually};

/// With the default rate limit.
fn rig() -> Rig {
    Rig::with(FakeTsd::start(), |builder| builder.with_rate_limit(RateLimit::Auto))
}

fn record(rig: &Rig, series: usize) {
    rig.record(|| (0..series).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
}

/// Storage complains seconds after the points were taken, when the server is fine again.
#[test]
fn a_shutdown_after_one_late_complaint_confirms_everything() {
    let rig = rig();
    rig.tsd.script(Fault::Refusal("put: Please throttle writes: late".into()));
    rig.tsd.script(Fault::Delay(Duration::from_millis(2500)));
    rig.deliver(|| counter!("c", "n" => "0").increment(1));
    assert_eq!(rig.stats().points_rejected.throttled, 1);
    rig.tsd.heal();
    record(&rig, 500);
    let report = rig.handle.shutdown(Duration::from_secs(5)).unwrap();
    assert_eq!((report.points, report.confirmed), (500, 500), "{report:?}");
}

/// As fast as the server takes them. At 100 a second they would take 400 s.
#[test]
fn raw_points_in_a_stream_are_all_sent_to_an_idle_server() {
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder.with_rate_limit(RateLimit::Auto).with_queue_size(10_000)
    });
    let began = Instant::now();
    for n in 0..40 {
        eventually("there is room", || rig.stats().points_pending < 8_000);
        for m in 0..1_000 {
            rig.handle.send(Point::new(format!("raw{m}"), n).tag("n", n.to_string())).unwrap();
        }
    }
    assert_eq!(rig.handle.flush(PATIENCE).unwrap().pending, 0);
    let stats = rig.stats();
    assert_eq!((stats.points_confirmed, stats.points_dropped.total()), (40_000, 0));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// A snapshot that the queue holds a tenth of, spread over 80 % of an interval of a second.
#[test]
fn ticks_send_a_snapshot_larger_than_the_queue_within_the_interval() {
    let rig = Rig::with(FakeTsd::start(), |builder| {
        let builder = builder.with_rate_limit(RateLimit::Auto).with_queue_size(300);
        builder.with_flush_interval(Duration::from_secs(1))
    });
    record(&rig, 3_000);
    let _ = rig.tsd.expect_points(3 * 3_000, PATIENCE);
    assert!(rig.stats().ticks_skipped <= 1, "{:?}", rig.stats());
}
