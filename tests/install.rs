//! The global recorder, in a process of its own.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    BuildError, FlushError, HostTag, OpenTsdbBuilder, Point, SendError,
};

const LONG: Duration = Duration::from_secs(20);

/// How many threads of this process are an exporter's.
fn exporter_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("opentsdb-")).count()
}

fn last_timestamp(tsd: &FakeTsd) -> u64 {
    tsd.points().iter().filter_map(|point| point.timestamp).max().unwrap()
}

#[test]
fn an_application_installs_one_exporter_and_its_metrics_arrive() {
    let tsd = FakeTsd::start();
    let builder = || {
        OpenTsdbBuilder::new(tsd.address())
            .with_host_tag(HostTag::Value("a".into()))
            .with_telemetry(false)
    };
    let handle = builder().install().unwrap();

    counter!("requests", "path" => "/").increment(3);
    gauge!("depth").set(1.5);
    histogram!("latency").record(0.25);
    let report = handle.flush(LONG).unwrap();
    assert_eq!((report.points, report.confirmed, report.pending, report.dropped), (9, 9, 0, 0));
    let metrics: Vec<_> = tsd.points().into_iter().map(|point| point.metric).collect();
    for name in ["requests", "depth", "latency.count", "latency.sum", "latency.p99"] {
        assert!(metrics.contains(&name.to_string()), "{name} in {metrics:?}");
    }

    // A thread gets its name when it first runs: both have by now.
    assert_eq!(exporter_threads(), 2);
    // A second one is refused and leaves no thread behind.
    assert!(matches!(builder().install(), Err(BuildError::FailedToSetGlobalRecorder)));
    assert_eq!(exporter_threads(), 2);

    let guard = handle.guard(LONG);
    counter!("requests", "path" => "/").increment(1);
    drop(guard);
    let last =
        Point::new("requests", 4).tag("host", "a").tag("path", "/").timestamp(last_timestamp(&tsd));
    assert!(tsd.points().contains(&last), "{last:?}");
    assert!(matches!(handle.shutdown(LONG), Err(FlushError::AlreadyShutdown)));
    assert!(matches!(handle.flush(LONG), Err(FlushError::AlreadyShutdown)));
    assert!(matches!(handle.send(Point::new("raw", 1)), Err(SendError::AlreadyShutdown)));
    assert!(handle.render().contains("put requests "));
    // What is recorded from here on goes nowhere, and harms nobody.
    counter!("requests", "path" => "/").increment(1);
    let stats = handle.stats();
    assert_eq!(stats.points_taken, stats.points_confirmed + stats.points_dropped.total());
}
