//! Counters end to end: what arrives adds up to what was counted, whatever happens on the way.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use metrics::{Counter, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault, Step};
use metrics_exporter_opentsdb::{
    Confirmation, CounterMode, HostTag, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder, Point,
    TimestampPrecision, Value,
};

const LONG: Duration = Duration::from_secs(30);
const METADATA: Metadata<'_> = Metadata::new("", Level::INFO, None);

fn exporter(
    tsd: &FakeTsd,
    mode: CounterMode,
    interval: Duration,
) -> (OpenTsdbRecorder, OpenTsdbHandle) {
    OpenTsdbBuilder::new(tsd.address())
        .with_host_tag(HostTag::Value("a".into()))
        .with_telemetry(false)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(interval)
        .with_counter_mode(mode)
        .with_confirmation(Confirmation::Version)
        // A muted question is never answered: the connection is dead after this time.
        .with_write_timeout(Duration::from_secs(1))
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .build()
        .expect("the fake TSD is there")
}

fn counter(recorder: &OpenTsdbRecorder, name: &'static str, k: u64) -> Counter {
    let key = Key::from_parts(name, vec![Label::new("k", k.to_string())]);
    recorder.register_counter(&key, &METADATA)
}

fn integer(point: &Point) -> i64 {
    match point.value {
        Value::Integer(n) => n,
        ref other => panic!("{other:?} in {point:?}"),
    }
}

/// The points, those sent again left out, by series and in order of time.
fn series(tsd: &FakeTsd) -> HashMap<String, Vec<(u64, i64)>> {
    let mut series: HashMap<_, Vec<_>> = HashMap::new();
    for point in tsd.points() {
        let time = point.timestamp.expect("a point that was received has one");
        let points = series.entry(format!("{} {:?}", point.metric, point.tags)).or_default();
        points.push((time, integer(&point)));
    }
    for points in series.values_mut() {
        points.sort_by_key(|&(time, _)| time);
        points.dedup();
    }
    series
}

#[test]
fn deltas_add_up_over_ticks_flushes_skips_and_lost_connections() {
    const SERIES: u64 = 50;
    const THREADS: u64 = 3;
    let tsd = FakeTsd::start();
    let (recorder, handle) = exporter(&tsd, CounterMode::Delta, Duration::from_millis(20));
    let counted = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (recorder, counted, is_done) = (&recorder, &counted, &is_done);
            scope.spawn(move || {
                let held = counter(recorder, "held", thread);
                while !is_done.load(Ordering::Relaxed) {
                    for k in 0..SERIES {
                        counter(recorder, "m", k).increment(k + thread);
                        held.increment(1);
                        counted.fetch_add(k + thread + 1, Ordering::Relaxed);
                    }
                    thread::park_timeout(Duration::from_millis(1));
                }
            });
        }
        let faults: [Step; 6] = [
            Action::Reset.into(),
            Action::Close.into(),
            Fault::StopReading.into(),
            Action::Restart { down: Duration::from_millis(50) }.into(),
            Fault::Mute.into(),
            Action::Crash { down: Duration::from_millis(50) }.into(),
        ];
        for (n, fault) in faults.into_iter().cycle().take(12).enumerate() {
            let more = tsd.log().accepted_count() + 200;
            assert!(tsd.wait_for(more, LONG), "{:?}", handle.stats());
            tsd.script(fault);
            if n % 2 == 0 {
                handle.flush(Duration::from_millis(50)).expect("it was not shut down");
            }
            thread::park_timeout(Duration::from_millis(60));
            tsd.heal();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let report = handle.shutdown(LONG).expect("the first shutdown");
    assert_eq!((report.pending, report.dropped), (0, 0), "{:?}", handle.stats());
    let sum: i64 = series(&tsd).into_values().flatten().map(|(_, n)| n).sum();
    assert_eq!(sum as u64, counted.load(Ordering::Relaxed));
    let stats = handle.stats();
    assert!(stats.connects > 5 && stats.points_resent > 0 && stats.ticks_skipped > 0, "{stats:?}");
    assert!(tsd.log().poisoned().is_empty());
}

/// In a queue that has room for the snapshot that waits and for the last one: a delta stays in its
/// counter until it can be queued.
#[test]
fn deltas_wait_in_their_counters_while_the_server_is_away() {
    let tsd = FakeTsd::start();
    let (recorder, handle) = OpenTsdbBuilder::new(tsd.address())
        .with_host_tag(HostTag::Value("a".into()))
        .with_telemetry(false)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_millis(10))
        .with_counter_mode(CounterMode::Delta)
        .with_queue_size(120)
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .build()
        .expect("the fake TSD is there");
    tsd.script(Fault::Refuse);
    let mut counted = 0;
    while handle.stats().ticks_skipped < 20 {
        for k in 0..60 {
            counter(&recorder, "m", k).increment(k);
            counted += k;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    tsd.heal();
    handle.shutdown(LONG).expect("the first shutdown");
    let sum: i64 = series(&tsd).into_values().flatten().map(|(_, n)| n).sum();
    assert_eq!((sum as u64, handle.stats().points_dropped.total()), (counted, 0));
}

#[test]
fn absolute_beside_increments_never_goes_down_and_counts_every_one() {
    const TURNS: u64 = 20_000;
    let tsd = FakeTsd::start();
    let (recorder, handle) = exporter(&tsd, CounterMode::Cumulative, Duration::from_millis(5));
    let held = counter(&recorder, "m", 0);
    thread::scope(|scope| {
        // Two that count, by a handle of their own and by one that is shared, and one that says how
        // much it was at least.
        scope.spawn(|| (0..TURNS).for_each(|_| counter(&recorder, "m", 0).increment(1)));
        scope.spawn(|| (0..TURNS).for_each(|_| held.increment(1)));
        scope.spawn(|| (0..TURNS).rev().for_each(|n| held.absolute(n)));
        scope.spawn(|| (0..TURNS).for_each(|n| counter(&recorder, "m", 0).absolute(n)));
    });
    let report = handle.shutdown(LONG).expect("the first shutdown");
    assert_eq!((report.pending, report.dropped), (0, 0));
    let values = series(&tsd).into_values().next().expect("one series");
    assert!(values.is_sorted_by_key(|&(_, n)| n), "{values:?}");
    let last = values.last().expect("some points").1 as u64;
    assert!((2 * TURNS..3 * TURNS).contains(&last), "{last}");
    assert!(tsd.log().poisoned().is_empty());
}

#[test]
fn absolute_alone_is_what_was_said() {
    for mode in [CounterMode::Cumulative, CounterMode::Delta] {
        let tsd = FakeTsd::start();
        let (recorder, handle) = exporter(&tsd, mode, Duration::from_secs(3_600));
        for value in [5, 3, 8, 8, 2] {
            counter(&recorder, "m", 0).absolute(value);
            handle.flush(LONG).expect("it was not shut down");
        }
        let points = tsd.points();
        let sum = points.iter().map(integer).sum::<i64>();
        let last = integer(points.last().expect("some points"));
        assert_eq!(if mode == CounterMode::Delta { sum } else { last }, 8, "{mode:?}: {points:?}");
        handle.shutdown(LONG).expect("the first shutdown");
    }
}

#[test]
fn above_the_greatest_integer_of_a_tsd_a_counter_is_a_float() {
    const TOP: u64 = i64::MAX as u64;
    struct Case {
        count: u64,
        on_the_wire: &'static str,
    }
    const CASES: &[Case] = &[
        Case { count: 1, on_the_wire: "1" },
        Case { count: TOP, on_the_wire: "9223372036854775807" },
        Case { count: TOP + 1, on_the_wire: "9.223372036854776e18" },
        Case { count: u64::MAX, on_the_wire: "1.8446744073709552e19" },
    ];
    for mode in [CounterMode::Cumulative, CounterMode::Delta] {
        let tsd = FakeTsd::start();
        let (recorder, handle) = exporter(&tsd, mode, Duration::from_secs(3_600));
        for (k, case) in (0..).zip(CASES) {
            counter(&recorder, "m", k).increment(case.count);
            // At the top it stays: it never wraps, so it never seems to have been reset.
            if case.count == u64::MAX {
                counter(&recorder, "m", k).increment(1_000);
            }
        }
        handle.shutdown(LONG).expect("the first shutdown");
        assert!(tsd.log().rejected().is_empty(), "{:?}", tsd.log().rejected());
        let lines = tsd.lines();
        for (k, case) in (0..).zip(CASES) {
            let tag = format!("k={k}");
            let line = lines
                .iter()
                .find(|line| line.split(' ').any(|word| word == tag))
                .expect("its line");
            assert_eq!(line.split(' ').nth(3), Some(case.on_the_wire), "{mode:?} {line}");
        }
    }
}
