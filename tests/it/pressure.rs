//! A server that is slower than the snapshots.

use std::time::{Duration, Instant};

use metrics::{Counter, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{HostTag, OpenTsdbBuilder, OpenTsdbRecorder, Point};

use crate::rig::PATIENCE;

const LONG: Duration = Duration::from_secs(60);
/// An interval that no test lives to see the end of: whatever is spread over it does not arrive.
const DAY: Duration = Duration::from_secs(86_400);

fn builder(tsd: &FakeTsd) -> OpenTsdbBuilder {
    OpenTsdbBuilder::new(tsd.address())
        .with_flush_interval(DAY)
        .with_host_tag(HostTag::Value("a".into()))
        .with_telemetry(false)
}

fn counters(recorder: &OpenTsdbRecorder, n: usize) -> Vec<Counter> {
    let metadata = Metadata::new(module_path!(), Level::INFO, None);
    let counter = |n: usize| {
        let key = Key::from_parts("m", vec![Label::new("n", n.to_string())]);
        recorder.register_counter(&key, &metadata)
    };
    (0..n).map(counter).collect()
}

#[test]
fn a_queue_smaller_than_a_snapshot_loses_nothing_while_connected() {
    for size in [1, 100, 1_000] {
        let tsd = FakeTsd::start();
        let (recorder, handle) = builder(&tsd).with_queue_size(size).build().unwrap();
        let counters = counters(&recorder, 2_000);
        counters.iter().for_each(|counter| counter.increment(1));
        let report = handle.flush(LONG).unwrap();
        assert_eq!((report.confirmed, report.pending, report.dropped), (2_000, 0, 0), "{size}");
        assert_eq!(tsd.points().len(), 2_000);
        handle.shutdown(LONG).unwrap();
    }
}

#[test]
fn a_flush_is_not_spread_though_its_snapshot_is_larger_than_the_queue() {
    let tsd = FakeTsd::builder().keep_lines(false).start();
    let (recorder, handle) = builder(&tsd).with_queue_size(5_000).build().unwrap();
    let counters = counters(&recorder, 50_000);
    assert_eq!(handle.flush(LONG).unwrap().confirmed, 50_000);
    counters.iter().for_each(|counter| counter.increment(1));
    assert_eq!(handle.shutdown(LONG).unwrap().confirmed, 50_000);
}

#[test]
fn render_answers_while_the_flusher_waits_for_a_stuck_server() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::StopReading);
    let (recorder, handle) = builder(&tsd).with_queue_size(2_000).build().unwrap();
    let counters = counters(&recorder, 100_000);
    // Until the flusher is there: it has more points than the queue and the socket take.
    let is_stuck = |_: &usize| handle.flush(Duration::from_millis(300)).unwrap().pending >= 2_000;
    assert!((0..100).find(is_stuck).is_some(), "the server reads: {:?}", handle.stats());
    counters[7].increment(7);
    let seven = |line: &str| line.starts_with("put m ") && line.ends_with(" 7 host=a n=7");
    assert!(handle.render().lines().any(seven));
    handle.shutdown(Duration::ZERO).unwrap();
}

/// Raw points that came without a pause kept the queue from ever being empty, and every tick was
/// taken for one too many.
#[test]
fn a_stream_of_raw_points_leaves_the_snapshots_their_ticks() {
    let tsd = FakeTsd::start();
    let second = Duration::from_secs(1);
    let (recorder, handle) = builder(&tsd).with_flush_interval(second).build().unwrap();
    let _counters = counters(&recorder, 1);
    let began = Instant::now();
    let mut sent = 0u32;
    while tsd.points().iter().filter(|point| point.metric == "m").count() < 3 {
        assert!(began.elapsed() < PATIENCE, "{:?}", handle.stats());
        // More than the rate's floor, so that there is always one to send.
        for _ in 0..20 {
            handle.send(Point::new("raw", sent).tag("n", sent.to_string())).unwrap();
            sent += 1;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    handle.shutdown(LONG).unwrap();
}
