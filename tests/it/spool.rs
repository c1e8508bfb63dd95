//! What memory has no room for, and what is left at the end, goes to disk and is delivered later.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{FakeHttpTsd, FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    BuildError, CounterMode, FlushError, FlushReport, InstanceTag, OpenTsdbBuilder, Point, Spool,
    TimestampPrecision, Value,
};

use crate::http::HttpRig;
use crate::rig::{self, PATIENCE, Rig, eventually};

/// A name that nobody has; what is there goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("opentsdb-spool-it-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.0)
    }

    /// The segments' files.
    fn segments(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "spool");
        paths.filter(is_segment).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Rig {
    /// With time enough for a busy disk, and waits until another exporter may use the spool.
    fn shut_down(&self) -> FlushReport {
        let report = self.handle.shutdown(Duration::from_secs(1)).unwrap();
        let again = self.handle.shutdown(PATIENCE);
        assert!(matches!(again, Err(FlushError::AlreadyShutdown)), "{again:?}");
        report
    }
}

/// To a server that refuses connections.
fn away() -> FakeTsd {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    tsd
}

/// Raw points with these values, each with a time of its own.
fn send(rig: &Rig, values: std::ops::Range<u64>) {
    for n in values {
        rig.handle.send(Point::new("raw", n).timestamp(1_700_000_000 + n)).unwrap();
    }
}

/// One, and when the server is known to be away 20 at a time up to this many, into a queue of 100
/// that goes to disk: raw points wait for nothing.
fn send_slowly(rig: &Rig, points: u64) {
    send(rig, 0..1);
    eventually("the link is known to be down", || rig.stats().connect_failures > 0);
    for start in (1..points).step_by(20) {
        send(rig, start..start + 20);
        eventually("there is room", || rig.stats().points_pending < 80);
    }
}

/// As all that the spool keeps.
#[test]
fn deltas_of_an_outage_go_to_disk_and_each_count_arrives_once() {
    const SERIES: u64 = 20;
    let folder = Folder::new();
    let options = |builder: OpenTsdbBuilder| {
        builder
            .with_counter_mode(CounterMode::Delta)
            .with_timestamp_precision(TimestampPrecision::Milliseconds)
            .with_flush_interval(Duration::from_millis(20))
            .with_queue_size(300)
            .with_spool(folder.spool())
    };
    let rig = Rig::with(away(), options);
    let mut counted = 0;
    eventually("many snapshots are on disk", || {
        rig.record(|| {
            for n in 0..SERIES {
                counter!("m", "n" => n.to_string()).increment(1);
            }
        });
        counted += SERIES;
        rig.stats().points_spooled > 20 * SERIES
    });
    let report = rig.shut_down();
    assert_eq!((report.dropped, rig.stats().points_dropped.total()), (0, 0), "{report:?}");
    let rig = Rig::with(FakeTsd::start(), options);
    eventually("the disk is empty", || rig.stats().spool_bytes == 0);
    rig.settle();
    let count = |point: Point| match point.value {
        Value::Integer(count) => count as u64,
        Value::Float(_) => 0,
    };
    let arrived: u64 = rig.tsd.points().into_iter().map(count).sum();
    assert_eq!(arrived, counted, "{:?}", rig.stats());
}

/// The values that arrived, sorted.
fn arrived(tsd: &FakeTsd) -> Vec<Value> {
    let mut points = tsd.points();
    points.sort_by_key(|point| point.timestamp);
    points.into_iter().map(|point| point.value).collect()
}

fn values(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

#[test]
fn an_outage_longer_than_the_queue_loses_nothing() {
    for write_ahead in [false, true] {
        let folder = Folder::new();
        let spool = folder.spool().write_ahead(write_ahead);
        let rig = Rig::with(away(), |builder| builder.with_queue_size(100).with_spool(spool));
        send_slowly(&rig, 1001);
        let stats = rig.stats();
        assert_eq!((stats.points_taken, stats.points_dropped.total()), (1001, 0), "{stats:?}");
        assert!(stats.points_spooled >= 900 && stats.spool_bytes > 20_000, "{stats:?}");
        assert!(stats.oldest_spooled.is_some());
        rig.tsd.heal();
        eventually("all have arrived", || rig.tsd.log().accepted_count() >= 1001);
        eventually("nothing is left on disk", || folder.segments().is_empty());
        assert_eq!(arrived(&rig.tsd), values(0..1001));
        eventually("the counts are right", || {
            let stats = rig.stats();
            (stats.spool_bytes, stats.oldest_spooled, stats.points_pending) == (0, None, 0)
        });
        let stats = rig.stats();
        assert_eq!((stats.spool_errors, stats.points_dropped.total()), (0, 0), "{stats:?}");
    }
}

/// More series than the queue has room for: the flusher waits for the disk, and drops nothing.
#[test]
fn a_snapshot_that_is_larger_than_the_queue_loses_nothing() {
    let folder = Folder::new();
    let rig =
        Rig::with(away(), |builder| builder.with_queue_size(1_000).with_spool(folder.spool()));
    send(&rig, 0..1);
    eventually("the link is known to be down", || rig.stats().connect_failures > 0);
    let count = || (0..5_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1));
    rig.record(count);
    let report = rig.handle.flush(Duration::from_secs(2)).unwrap();
    assert_eq!((report.confirmed, report.dropped), (0, 0), "{report:?}");
    assert!(report.spooled >= 4_000, "{report:?}");
    rig.tsd.heal();
    assert!(rig.tsd.wait_for(5_001, PATIENCE));
    rig.settle();
    assert_eq!(rig.delivered().len(), 5_001);
}

#[test]
fn what_is_left_at_the_shutdown_is_delivered_by_the_next_process() {
    for write_ahead in [false, true] {
        let folder = Folder::new();
        let spool = || folder.spool().write_ahead(write_ahead);
        for start in [0, 500] {
            let rig = Rig::with(away(), |builder| builder.with_spool(spool()));
            send(&rig, start..start + 500);
            let report = rig.shut_down();
            assert_eq!((report.points, report.spooled), (500, 500), "{report:?}");
            assert_eq!((report.pending, report.dropped, report.confirmed), (0, 0, 0));
            assert!(!report.is_delivered());
            rig.stats();
        }
        let next = away();
        let rig = Rig::with(next, |builder| builder.with_spool(spool()));
        assert!(rig.stats().spool_bytes > 20_000, "it is known at once: {:?}", rig.stats());
        rig.tsd.heal();
        assert!(rig.tsd.wait_for(1000, PATIENCE));
        eventually("nothing is left on disk", || folder.segments().is_empty());
        assert_eq!(arrived(&rig.tsd), values(0..1000));
        let stats = rig.stats();
        assert_eq!((stats.points_taken, stats.points_confirmed), (1000, 1000), "{stats:?}");
        assert_eq!((stats.points_spooled, stats.points_resent), (0, 0), "{stats:?}");
    }
}

/// In flight, and not answered.
#[test]
fn what_was_sent_and_not_confirmed_is_kept_too() {
    let folder = Folder::new();
    let tsd = FakeTsd::start();
    tsd.script(Fault::Mute);
    let rig = Rig::with(tsd, |builder| {
        let version = metrics_exporter_opentsdb::Confirmation::Version;
        builder.with_confirmation(version).with_spool(folder.spool())
    });
    send(&rig, 0..100);
    assert!(rig.tsd.wait_for(100, PATIENCE));
    let report = rig.shut_down();
    assert_eq!((report.spooled, report.dropped), (100, 0), "{report:?}");
    let next = Rig::with(FakeTsd::start(), |builder| builder.with_spool(folder.spool()));
    assert!(next.tsd.wait_for(100, PATIENCE));
    assert_eq!(arrived(&next.tsd), values(0..100));
}

#[test]
fn while_the_server_is_well_the_disk_is_idle() {
    let folder = Folder::new();
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder
            .with_timestamp_precision(TimestampPrecision::Milliseconds)
            .with_spool(folder.spool())
    });
    for _ in 0..5 {
        rig.deliver(|| counter!("c").increment(1));
    }
    let stats = rig.stats();
    assert_eq!((stats.points_spooled, stats.spool_bytes, stats.spool_errors), (0, 0, 0));
    let names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
    let report = rig.handle.shutdown(PATIENCE).unwrap();
    assert!(report.is_delivered(), "{report:?}");
}

/// As after SIGKILL: the directory is copied while a snapshot is on its way.
#[test]
fn with_write_ahead_a_snapshot_is_on_disk_before_it_is_sent() {
    let (folder, killed) = (Folder::new(), Folder::new());
    let tsd = FakeTsd::start();
    tsd.script(Fault::StopReading);
    let rig = Rig::with(tsd, |builder| builder.with_spool(folder.spool().write_ahead(true)));
    rig.record(|| counter!("c").increment(7));
    let report = rig.handle.flush(Duration::from_secs(1)).unwrap();
    assert_eq!(report.pending, 1, "{report:?}");
    eventually("the line is on its way", || rig.stats().points_sent == 1);
    assert_eq!(folder.segments().len(), 1);
    fs::create_dir(&killed.0).unwrap();
    for path in folder.segments() {
        fs::copy(&path, killed.0.join(path.file_name().unwrap())).unwrap();
    }
    let next = Rig::with(FakeTsd::start(), |builder| builder.with_spool(killed.spool()));
    assert!(next.tsd.wait_for(1, PATIENCE));
    assert_eq!(next.delivered(), ["put c 7 host=a"]);
    rig.tsd.heal();
    rig.settle();
    eventually("what is confirmed is deleted", || folder.segments().is_empty());
    assert_eq!(rig.stats().points_spooled, 0);
    rig.handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn fresh_points_go_before_the_backlog_and_the_backlog_within_the_rate() {
    let folder = Folder::new();
    {
        let rig = Rig::with(away(), |builder| builder.with_spool(folder.spool()));
        send(&rig, 0..2_000);
        assert_eq!(rig.shut_down().spooled, 2_000);
    }
    let rate = std::num::NonZeroU32::new(1_000).unwrap();
    let rig = Rig::with(FakeTsd::start(), |builder| {
        let limit = metrics_exporter_opentsdb::RateLimit::PerSecond(rate);
        builder.with_rate_limit(limit).with_spool(folder.spool())
    });
    let began = Instant::now();
    assert!(rig.tsd.wait_for(200, PATIENCE));
    rig.record(|| counter!("fresh").increment(1));
    rig.handle.flush(PATIENCE).unwrap();
    let before = rig.tsd.log().accepted_count();
    assert!(before < 1_500, "the fresh point came behind {before}");
    assert!(rig.tsd.wait_for(2_001, PATIENCE));
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    eventually("nothing is left on disk", || folder.segments().is_empty());
}

#[test]
fn no_line_reaches_a_server_that_is_no_point() {
    let folder = Folder::new();
    {
        let rig = Rig::with(away(), |builder| builder.with_spool(folder.spool()));
        send(&rig, 0..10);
        rig.shut_down();
    }
    // With the checksum of what it says, by whoever may write here.
    let path = &folder.segments()[0];
    plant(path, b"diediedie\nput m 1700000000 1 host=a\nput m 17000");
    let rig = Rig::with(FakeTsd::start(), |builder| builder.with_spool(folder.spool()));
    assert!(rig.tsd.wait_for(11, PATIENCE));
    eventually("nothing is left on disk", || folder.segments().is_empty());
    rig.settle();
    assert_eq!(rig.tsd.lines().len(), 11);
    assert_eq!(rig.stats().spool_errors, 2);
    assert_eq!(rig.stats().points_rejected.total(), 0);
}

/// Appends a record that is right but for what is in it.
fn plant(path: &Path, lines: &[u8]) {
    let mut file = fs::read(path).unwrap();
    let length = (lines.len() as u32).to_le_bytes();
    let summed = [&length[..], lines].concat();
    let sum = (0..256u32).map(|n| (0..8).fold(n, |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1))));
    let table: Vec<_> = sum.collect();
    let step = |c: u32, byte: &u8| table[usize::from(c as u8 ^ byte)] ^ (c >> 8);
    let sum = !summed.iter().fold(!0u32, step);
    file.extend([&length[..], &sum.to_le_bytes(), lines].concat());
    fs::write(path, file).unwrap();
}

/// Elsewhere no directory is moved while a file in it is open.
#[cfg(unix)]
#[test]
fn a_disk_that_fails_costs_nothing_that_memory_has_room_for() {
    let folder = Folder::new();
    let rig = Rig::with(away(), |builder| builder.with_queue_size(100).with_spool(folder.spool()));
    send(&rig, 0..1);
    eventually("the link is known to be down", || rig.stats().connect_failures > 0);
    let aside = folder.0.with_extension("aside");
    fs::rename(&folder.0, &aside).unwrap();
    send(&rig, 1..300);
    eventually("it is counted", || rig.stats().spool_errors > 0);
    let stats = rig.stats();
    assert_eq!((stats.points_pending, stats.points_spooled), (100, 0), "{stats:?}");
    assert_eq!(stats.points_dropped.queue_full, 200);
    // And it is tried again.
    fs::rename(&aside, &folder.0).unwrap();
    eventually("it is written again", || rig.stats().points_spooled >= 50);
    rig.tsd.heal();
    assert!(rig.tsd.wait_for(100, PATIENCE));
    rig.settle();
    assert_eq!(arrived(&rig.tsd), values(200..300));
}

#[test]
fn points_beyond_the_limit_are_dropped_and_counted() {
    let folder = Folder::new();
    let rig = Rig::with(away(), |builder| {
        builder.with_queue_size(100).with_spool(folder.spool().max_bytes(20_000))
    });
    send_slowly(&rig, 2_001);
    let stats = rig.stats();
    assert!(stats.spool_bytes <= 20_000 && stats.points_dropped.spool > 1_000, "{stats:?}");
    rig.tsd.heal();
    eventually("nothing is left on disk", || folder.segments().is_empty());
    rig.settle();
    let stats = rig.stats();
    let left = rig.tsd.log().accepted_count() as u64;
    assert_eq!(left + stats.points_dropped.spool, 2_001, "{stats:?}");
    assert_eq!(arrived(&rig.tsd), values(2_001 - left..2_001));
}

#[test]
fn a_held_directory_is_an_error_that_names_the_holder() {
    let folder = Folder::new();
    let tsd = FakeTsd::start();
    let build = || rig::builder(&tsd).with_spool(folder.spool()).build();
    let (recorder, handle) = build().unwrap();
    let error = build().unwrap_err();
    assert!(matches!(&error, BuildError::Spool { directory, .. } if *directory == folder.0));
    let text = error.to_string();
    if cfg!(unix) {
        let holder = format!("process {} uses it", std::process::id());
        assert!(text.contains(&holder) && text.contains("a directory of its own"), "{text}");
    }
    handle.shutdown(PATIENCE).unwrap();
    drop(recorder);
    let (_recorder, handle) = build().unwrap();
    handle.shutdown(PATIENCE).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn the_second_exporter_of_a_kind_has_the_subdirectory_of_its_number() {
    let folder = Folder::new();
    let tsd = FakeTsd::start();
    let build = || {
        let host = metrics_exporter_opentsdb::HostTag::Value(format!("{:?}", folder.0.file_name()));
        let builder = rig::builder(&tsd).with_instance_tag(InstanceTag::Auto).with_host_tag(host);
        builder.with_spool(folder.spool()).build().unwrap()
    };
    let running = [build(), build()];
    assert!(folder.0.join("2").join("lock").is_file());
    for (_, handle) in running {
        handle.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn what_was_kept_is_delivered_over_http_too() {
    let folder = Folder::new();
    let tsd = FakeHttpTsd::start();
    tsd.script(Fault::Refuse);
    let rig = HttpRig::with(tsd, |builder| builder.with_queue_size(100).with_spool(folder.spool()));
    rig.send(0..1);
    eventually("the link is known to be down", || rig.handle.stats().connect_failures > 0);
    for start in (1..401).step_by(20) {
        rig.send(start..start + 20);
        eventually("there is room", || rig.handle.stats().points_pending < 80);
    }
    let report = rig.handle.shutdown(Duration::from_secs(1)).unwrap();
    assert_eq!((report.pending, report.dropped), (0, 0), "{report:?}");
    let next = HttpRig::with(FakeHttpTsd::start(), |builder| builder.with_spool(folder.spool()));
    eventually("nothing is left on disk", || folder.segments().is_empty());
    next.assert_stored(0..401);
    assert_eq!(next.handle.stats().points_confirmed, 401);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let build = |spool| OpenTsdbBuilder::new("tsd").with_spool(spool).build().unwrap_err();
    for (spool, fix) in [
        (Spool::new("/x").max_bytes(0), "max_bytes"),
        (Spool::new("/x").max_age(Duration::ZERO), "max_age"),
        // Before any server is looked for.
        (Spool::new(""), "name a directory"),
    ] {
        let text = build(spool).to_string();
        assert!(text.starts_with("with_spool(") && text.contains(fix), "{text}");
    }
}

#[test]
fn the_spool_has_telemetry_once_it_was_used() {
    let folder = Folder::new();
    let precision = TimestampPrecision::Milliseconds;
    let rig = Rig::with(FakeTsd::start(), |builder| {
        let builder = builder.with_telemetry(true).with_timestamp_precision(precision);
        builder.with_queue_size(100).with_spool(folder.spool())
    });
    rig.deliver(|| counter!("c").increment(1));
    let lines = |rig: &Rig| {
        let lines = rig.tsd.lines().into_iter().filter(|line| line.contains("spool"));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(lines(&rig), [""; 0]);
    rig.tsd.script(Fault::Refuse);
    rig.tsd.script(metrics_exporter_opentsdb::testing::Action::Reset);
    eventually("the connection is gone", || !rig.stats().connected);
    rig.record(|| (0..60).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    rig.handle.flush(Duration::from_millis(100)).unwrap();
    eventually("points are on disk", || rig.stats().spool_bytes > 0);
    rig.tsd.heal();
    eventually("nothing is left on disk", || rig.stats().spool_bytes == 0);
    rig.deliver(|| counter!("c").increment(1));
    rig.deliver(|| counter!("c").increment(1));
    let last = |name: &str| rig.tsd.value(&format!("opentsdb.client.{name}"), &[]);
    assert!(matches!(last("points.spooled"), Some(Value::Integer(1..))), "{:?}", lines(&rig));
    // None if no snapshot saw the points on disk.
    assert!(last("spool.bytes").is_none_or(|bytes| bytes == Value::Float(0.0)));
    assert!(last("spool.age").is_none_or(|age| age == Value::Float(0.0)));
    assert_eq!(last("spool.errors"), None);
}

/// A fork has the parent's open files, and with them its lock.
#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_keeps_nobody_from_the_directory_once_the_exporter_has_ended() {
    let folder = Folder::new();
    let tsd = FakeTsd::start();
    let build = || rig::builder(&tsd).with_spool(folder.spool()).build();
    let (_recorder, handle) = build().unwrap();
    // SAFETY: the child calls nothing but what may be called after a fork, and ends by the alarm at
    // the latest.
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::alarm(60) };
        loop {
            unsafe { libc::pause() };
        }
    }
    assert!(build().is_err(), "the parent has it");
    handle.shutdown(PATIENCE).unwrap();
    let next = build();
    // SAFETY: it is ours, and was not waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    next.unwrap().1.shutdown(PATIENCE).unwrap();
}
