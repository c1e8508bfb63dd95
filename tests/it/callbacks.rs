//! What the application does before each snapshot, on the exporter's thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    FlushError, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder, Point, SendError,
    TimestampPrecision, Value,
};

use crate::rig::{self, PATIENCE, Rig};

fn builder(tsd: &FakeTsd) -> OpenTsdbBuilder {
    rig::builder(tsd).with_timestamp_precision(TimestampPrecision::Milliseconds)
}

/// What `call` sends to the test, and an exporter that calls it with its recorder and handle before
/// each snapshot.
fn calling<T: Send + 'static>(
    tsd: &FakeTsd,
    call: impl Fn(&OpenTsdbRecorder, &OpenTsdbHandle) -> T + Send + 'static,
) -> (Arc<(OpenTsdbRecorder, OpenTsdbHandle)>, Receiver<T>) {
    let exporter = Arc::new(OnceLock::<Arc<(OpenTsdbRecorder, OpenTsdbHandle)>>::new());
    let (sender, results) = mpsc::channel();
    let known = Arc::clone(&exporter);
    let callback = move || {
        if let Some(exporter) = known.get() {
            sender.send(call(&exporter.0, &exporter.1)).unwrap();
        }
    };
    let built = Arc::new(builder(tsd).on_snapshot(callback).build().unwrap());
    assert!(exporter.set(Arc::clone(&built)).is_ok());
    (built, results)
}

#[test]
fn what_a_callback_records_is_in_each_snapshot() {
    let tsd = FakeTsd::start();
    let read = AtomicU64::new(0);
    let (exporter, _results) = calling(&tsd, move |recorder, handle| {
        let n = read.fetch_add(1, Ordering::Relaxed) + 1;
        with_local_recorder(recorder, || {
            gauge!("read").set(n as f64);
            counter!("calls").increment(1);
        });
        handle.send(Point::new("raw", n).timestamp(1_700_000_000_000 + n)).unwrap();
    });
    for n in 1..=3 {
        exporter.1.flush(PATIENCE).unwrap();
        assert_eq!(tsd.value("read", &[]), Some(Value::Float(n as f64)));
        assert_eq!(tsd.value("calls", &[]), Some(Value::Integer(n)));
        assert_eq!(tsd.value("raw", &[]), Some(Value::Integer(n)));
    }
    exporter.1.shutdown(PATIENCE).unwrap();
    assert_eq!(tsd.value("read", &[]), Some(Value::Float(4.0)), "and in the last one");
    assert!(tsd.log().poisoned().is_empty());
}

#[test]
fn a_tick_calls_them_too() {
    let tsd = FakeTsd::start();
    let (calls, called) = mpsc::channel();
    let _exporter = builder(&tsd)
        .with_flush_interval(Duration::from_millis(20))
        .on_snapshot(move || _ = calls.send(()))
        .build()
        .unwrap();
    (0..3).for_each(|_| called.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_panic_in_one_is_counted_and_costs_neither_the_snapshot_nor_the_next_one() {
    let (calls, called) = mpsc::channel();
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder
            .with_timestamp_precision(TimestampPrecision::Milliseconds)
            .on_snapshot(|| panic!("of the test"))
            .on_snapshot(move || calls.send(()).unwrap())
    });
    for n in 1..=3 {
        rig.deliver(|| counter!("c").increment(1));
        assert_eq!(rig.tsd.value("c", &[]), Some(Value::Integer(n)));
        called.try_recv().unwrap();
        assert_eq!(rig.stats().restarts, n as u64);
    }
}

#[test]
fn in_a_callback_flush_and_shutdown_answer_at_once_and_end_nothing() {
    let tsd = FakeTsd::start();
    let (exporter, results) = calling(&tsd, |_, handle| {
        handle.wait();
        drop(handle.guard(Duration::MAX));
        (handle.flush(Duration::MAX), handle.shutdown(Duration::MAX))
    });
    with_local_recorder(&exporter.0, || counter!("c").increment(1));
    assert_eq!(exporter.1.flush(PATIENCE).unwrap().confirmed, 1);
    let refused = Err(FlushError::OnSnapshot);
    assert_eq!(results.try_recv().unwrap(), (refused, refused));
    assert!(exporter.1.shutdown(PATIENCE).unwrap().is_delivered());
    assert_eq!(exporter.1.send(Point::new("late", 1)), Err(SendError::AlreadyShutdown));
}

#[test]
fn a_callback_that_never_ends_holds_no_deadline_up() {
    let (release, held) = mpsc::channel::<()>();
    let rig = Rig::with(FakeTsd::start(), |builder| builder.on_snapshot(move || _ = held.recv()));
    rig.record(|| counter!("c").increment(1));
    let short = Duration::from_millis(50);
    assert_eq!(rig.handle.flush(short).unwrap().points, 0);
    rig.handle.shutdown(short).unwrap();
    drop(release);
}

#[test]
fn clones_of_a_builder_share_a_callback() {
    let tsd = FakeTsd::start();
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let builder = builder(&tsd).on_snapshot(move || _ = count.fetch_add(1, Ordering::SeqCst));
    let exporters = [builder.clone().build().unwrap(), builder.build().unwrap()];
    for (_, handle) in &exporters {
        handle.flush(PATIENCE).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
