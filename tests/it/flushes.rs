//! Flushes and shutdowns beside one another: which second they use, who waits for whom, and what
//! their reports say.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    BuildError, Confirmation, Flavor, FlushError, HostTag, OpenTsdbBuilder, Point, SendError,
    TimestampPrecision,
};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::rig::{GRACE, PATIENCE, Rig, eventually};

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn timestamps(rig: &Rig) -> Vec<u64> {
    rig.tsd.points().iter().map(|point| point.timestamp.unwrap()).collect()
}

/// Keeps the fields of each event.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut fields = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            fields += &format!("{field}={value:?} ");
        });
        self.0.lock().unwrap().push(fields);
    }
}

/// What is logged on this thread meanwhile.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(events.clone());
    tracing::subscriber::with_default(subscriber, work);
    let events = events.0.lock().unwrap();
    events.clone()
}

#[test]
fn empty_flushes_use_no_second_whether_telemetry_is_on_or_not() {
    for telemetry in [true, false] {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_telemetry(telemetry));
        rig.deliver(|| counter!("c").increment(1));
        for _ in 0..500 {
            rig.deliver(|| ());
        }
        rig.deliver(|| counter!("c").increment(1));
        let last = timestamps(&rig).into_iter().max().unwrap();
        assert!(last <= now() + 1, "{last} {}", now());
    }
}

#[test]
fn no_flush_is_more_than_a_second_ahead_and_none_is_left_out() {
    let rig = Rig::new();
    for n in 1..=4 {
        rig.deliver(|| counter!("c").increment(1));
        let last = timestamps(&rig).into_iter().max().unwrap();
        assert!(last <= now() + 1, "{last} {}", now());
        assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(n.into()));
    }
}

#[test]
fn flushes_that_wait_for_the_next_second_share_its_snapshot() {
    let rig = Rig::new();
    rig.deliver(|| counter!("c").increment(1));
    rig.deliver(|| counter!("c").increment(1));
    rig.record(|| counter!("c").increment(1));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(rig.handle.flush(PATIENCE).unwrap().is_delivered()));
        }
    });
    assert_eq!(rig.tsd.log().accepted_count(), 3);
    // One whose time is over before the second comes takes none.
    rig.record(|| counter!("c").increment(1));
    assert_eq!(rig.handle.flush(Duration::ZERO).unwrap().points, 0);
    assert!(rig.handle.shutdown(PATIENCE).unwrap().is_delivered());
    assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(4.into()));
}

#[test]
fn the_telemetry_of_two_services_on_one_host_is_told_apart_by_the_prefix() {
    let names = ["shop", "bank"].map(|prefix| {
        let options =
            |builder: OpenTsdbBuilder| builder.set_global_prefix(prefix).with_telemetry(true);
        let rig = Rig::with(FakeTsd::start(), options);
        rig.deliver(|| counter!("c").increment(1));
        // The names of its telemetry are its own.
        let raw = Point::new("opentsdb.client.points.taken", 1);
        assert_eq!(rig.handle.send(raw), Err(SendError::Recorded));
        assert!(!rig.handle.render().contains("points.resent"), "a counter that never left zero");
        rig.tsd.points().into_iter().map(|point| point.metric).collect::<Vec<_>>()
    });
    for (names, prefix) in names.iter().zip(["shop.", "bank."]) {
        assert!(names.iter().all(|name| name.starts_with(prefix)), "{names:?}");
        assert!(names.contains(&format!("{prefix}opentsdb.client.series")));
    }
}

#[test]
fn a_second_raw_point_for_one_time_is_a_duplicate_whatever_came_between() {
    let rig = Rig::with(FakeTsd::builder().keep_lines(false).start(), |builder| {
        builder.with_queue_size(200_000)
    });
    let point = |series: u64, value: u64| {
        Point::new("raw", value).tag("n", series.to_string()).timestamp(1_700_000_000)
    };
    assert_eq!(rig.handle.send(point(0, 1)), Ok(()));
    assert_eq!(rig.handle.send(point(0, 2)), Err(SendError::Duplicate));
    for series in 1..=70_000 {
        rig.handle.send(point(series, 1).timestamp(1_700_000_001)).unwrap();
    }
    assert_eq!(rig.handle.send(point(0, 300)), Err(SendError::Duplicate));
    assert_eq!(rig.stats().points_dropped.duplicate, 2);
    assert_eq!(rig.handle.send(point(0, 3).timestamp(1_700_000_002)), Ok(()));
}

#[test]
fn a_shutdown_beside_another_waits_for_it_within_its_own_deadline() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::Version));
    rig.tsd.script(Fault::StopReading);
    rig.record(|| counter!("c").increment(1));
    thread::scope(|scope| {
        let first = scope.spawn(|| rig.handle.shutdown(PATIENCE));
        eventually("the first has begun", || rig.stats().points_taken > 0);
        let began = Instant::now();
        let short = Duration::from_millis(50);
        assert_eq!(rig.handle.shutdown(short), Err(FlushError::AlreadyShutdown));
        assert!((short..short + GRACE).contains(&began.elapsed()), "{:?}", began.elapsed());
        let guard = rig.handle.guard(PATIENCE);
        let beside = scope.spawn(|| {
            drop(guard);
            assert_eq!(rig.tsd.log().accepted_count(), 1, "all that the first had to send");
        });
        rig.tsd.heal();
        beside.join().unwrap();
        assert!(first.join().unwrap().unwrap().is_delivered());
    });
}

#[test]
fn a_flush_under_way_ends_with_the_exporter() {
    for flush_time in [PATIENCE, Duration::MAX] {
        let rig = Rig::new();
        rig.tsd.script(Fault::StopReading);
        rig.record(|| counter!("c").increment(1));
        thread::scope(|scope| {
            let flush = scope.spawn(|| rig.handle.flush(flush_time));
            eventually("the flush waits", || rig.stats().points_taken > 0);
            let began = Instant::now();
            rig.handle.shutdown(Duration::from_millis(50)).unwrap();
            let report = flush.join().unwrap().unwrap();
            assert!(began.elapsed() < PATIENCE / 4);
            assert_eq!((report.points, report.pending, report.dropped), (1, 0, 1));
        });
    }
}

#[test]
fn after_a_shutdown_nothing_is_pending_and_a_guard_logs_what_is_lost() {
    let rig = Rig::new();
    rig.tsd.script(Fault::StopReading);
    rig.record(|| (0..136).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    let guard = rig.handle.guard(Duration::from_millis(50));
    let events = logged(|| drop(guard));
    let stats = rig.stats();
    assert_eq!((stats.points_pending, stats.points_dropped.shutdown), (0, 136));
    assert!(events.len() == 1 && events[0].contains("lost=136 "), "{events:?}");

    let rig = Rig::new();
    rig.record(|| counter!("c").increment(1));
    let guard = rig.handle.guard(PATIENCE);
    assert_eq!(logged(|| drop(guard)), [""; 0], "nothing is lost");
}

#[test]
fn a_report_says_what_was_refused() {
    let strict = FakeTsd::builder().max_tags(1).start();
    let rig = Rig::with(strict, |builder| builder.with_confirmation(Confirmation::Version));
    rig.record(|| {
        counter!("good").increment(1);
        counter!("bad", "n" => "1").increment(1);
    });
    let report = rig.handle.flush(PATIENCE).unwrap();
    assert_eq!((report.points, report.confirmed, report.rejected), (2, 2, 1));
    assert!(!report.is_delivered());
    let report = rig.handle.flush(PATIENCE).unwrap();
    assert!(report.is_delivered() && report.points == 0);
}

#[test]
fn a_build_that_reaches_nobody_says_why_and_says_it_once() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let error = OpenTsdbBuilder::new(tsd.address()).build().unwrap_err();
    assert!(matches!(error, BuildError::Unreachable { .. }), "{error}");
    let mut chain = error.to_string();
    let mut source = error.source();
    assert!(source.is_some());
    while let Some(cause) = source {
        chain += &format!(": {cause}");
        source = cause.source();
    }
    assert_eq!(chain.to_lowercase().matches("connection refused").count(), 1, "{chain}");
}

#[test]
fn a_line_may_be_as_long_as_the_flavors_server_reads() {
    let longest = [
        (Flavor::OpenTsdb, 1_024),
        (Flavor::KairosDb, 1_024),
        (Flavor::VictoriaMetrics, 16 * 1_024),
        (Flavor::InfluxDb, 16 * 1_024),
    ];
    for (flavor, longest) in longest {
        let (recorder, handle) = OpenTsdbBuilder::new("127.0.0.1:1")
            .with_connectivity_check(metrics_exporter_opentsdb::ConnectivityCheck::Off)
            .with_host_tag(HostTag::Value("a".into()))
            .with_telemetry(false)
            .with_flavor(flavor)
            .build()
            .unwrap();
        let around = "put  1700000000 1 host=a\n".len();
        let name = |bytes: usize| "m".repeat(bytes - around);
        metrics::with_local_recorder(&recorder, || {
            counter!(name(longest)).increment(1);
            counter!(name(longest + 1)).increment(1);
        });
        let lines: Vec<_> = handle.render().lines().map(|line| line.len() + 1).collect();
        assert_eq!(lines, [longest], "{flavor:?}");
        assert_eq!(handle.send(Point::new(name(longest), 1)), Err(SendError::Recorded));
        let raw = |bytes| handle.send(Point::new(format!("r{}", &name(bytes)[1..]), 1));
        assert_eq!((raw(longest), raw(longest + 1)), (Ok(()), Err(SendError::TooLong)));
        handle.shutdown(Duration::ZERO).unwrap();
    }
}

#[test]
fn in_milliseconds_flushes_may_come_as_fast_as_they_are_confirmed() {
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder.with_timestamp_precision(TimestampPrecision::Milliseconds)
    });
    let began = Instant::now();
    for _ in 0..50 {
        rig.deliver(|| counter!("c").increment(1));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(rig.tsd.log().accepted_count(), 50);
}
