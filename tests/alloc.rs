//! Nothing is allocated where it must not be: on the application's threads once a series is known,
//! and on the exporter's threads once a flush has been as large as this one.
//!
//! The allocator of this process counts, thread by thread. What the facade itself allocates, for
//! the key of a call with a label that is not a literal, is measured with its no-op recorder and
//! taken off.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use metrics::{Counter, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_opentsdb::testing::{FakeHttpTsd, FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    Confirmation, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder, Point, RateLimit,
    TimestampPrecision,
};

/// What the names of the exporter's threads begin with.
const OUR_THREADS: &str = "opentsdb-";
/// More lines than a batch holds, so that several buffers are on their way at once.
const SERIES: usize = 5_000;
const TIMEOUT: Duration = Duration::from_secs(20);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the exporter's threads while `WATCHES_THREADS`.
static BY_OUR_THREADS: AtomicU64 = AtomicU64::new(0);
static WATCHES_THREADS: AtomicBool = AtomicBool::new(false);
/// Bytes that the process holds, and the most that it held since `peak_of` began.
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Allocations of this thread.
    static BY_THIS_THREAD: Cell<u64> = const { Cell::new(0) };
    /// Asking for the thread's name may allocate in turn.
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread's allocations are counted by `HELD`.
    static USES_HELD: Cell<bool> = const { Cell::new(false) };
}

/// A counter of the exporter's that the allocator itself holds.
static HELD: OnceLock<Counter> = OnceLock::new();

fn count() {
    if USES_HELD.get() {
        HELD.get().into_iter().for_each(|held| held.increment(1));
    }
    BY_THIS_THREAD.with(|count| count.set(count.get() + 1));
    if WATCHES_THREADS.load(Ordering::Relaxed) && !IS_COUNTING.replace(true) {
        if thread::current().name().is_some_and(|name| name.starts_with(OUR_THREADS)) {
            BY_OUR_THREADS.fetch_add(1, Ordering::Relaxed);
        }
        IS_COUNTING.set(false);
    }
}

/// The process holds `new` bytes instead of `old` ones.
fn hold(new: usize, old: usize) {
    let live = LIVE.fetch_add(new as u64, Ordering::Relaxed) + new as u64;
    PEAK.fetch_max(live, Ordering::Relaxed);
    LIVE.fetch_sub(old as u64, Ordering::Relaxed);
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        hold(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// One test at a time: the exporter's threads of another would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exporter(tsd: &FakeTsd) -> (OpenTsdbRecorder, OpenTsdbHandle) {
    exporter_to(tsd.address())
}

fn exporter_to(address: String) -> (OpenTsdbRecorder, OpenTsdbHandle) {
    OpenTsdbBuilder::new(address)
        // So that two flushes a moment apart are two whole snapshots.
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_secs(3600))
        .build()
        .expect("the fake TSD is there")
}

/// Allocations of this thread in a call, after as many calls as it takes to get used to it.
fn allocations(call: impl Fn()) -> u64 {
    (0..100).for_each(|_| call());
    let before = BY_THIS_THREAD.get();
    (0..1_000).for_each(|_| call());
    BY_THIS_THREAD.get() - before
}

/// A call of the application's.
struct Case {
    name: &'static str,
    call: fn(),
}

const MACROS: &[Case] = &[
    Case { name: "counter!", call: || counter!("requests").increment(1) },
    Case {
        name: "counter! with two labels",
        call: || counter!("requests", "method" => "get", "code" => "200").increment(1),
    },
    Case {
        name: "counter! absolute",
        call: || counter!("requests", "method" => "get").absolute(7),
    },
    Case { name: "gauge!", call: || gauge!("depth", "queue" => "in").set(1.5) },
    Case { name: "gauge! increment", call: || gauge!("depth").increment(1.5) },
    Case { name: "histogram!", call: || histogram!("latency", "method" => "get").record(0.25) },
    Case {
        name: "a label made at run time",
        call: || counter!("requests", "code" => black_box(404).to_string()).increment(1),
    },
    Case {
        name: "a name made at run time",
        call: || counter!(format!("requests.{}", black_box(7))).increment(1),
    },
];

#[test]
fn a_macro_call_allocates_no_more_than_the_facade() {
    let _alone = alone();
    let tsd = FakeTsd::start();
    let (recorder, handle) = exporter(&tsd);
    for case in MACROS {
        let facade = with_local_recorder(&metrics::NoopRecorder, || allocations(case.call));
        let ours = with_local_recorder(&recorder, || allocations(case.call));
        assert_eq!(ours, facade, "{}", case.name);
    }
    handle.shutdown(TIMEOUT).expect("the first shutdown");
}

#[test]
fn a_held_handle_allocates_nothing() {
    let _alone = alone();
    let tsd = FakeTsd::start();
    let (recorder, handle) = exporter(&tsd);
    let (counter, gauge, histogram) = with_local_recorder(&recorder, || {
        (counter!("requests"), gauge!("depth"), histogram!("latency"))
    });
    let calls: &[(&str, &(dyn Fn() + Sync))] = &[
        ("increment", &|| counter.increment(1)),
        ("absolute", &|| counter.absolute(1)),
        ("gauge set", &|| gauge.set(1.5)),
        ("gauge increment", &|| gauge.increment(1.5)),
        ("record", &|| histogram.record(0.25)),
        ("record_many", &|| histogram.record_many(0.25, 3)),
    ];
    for (name, call) in calls {
        assert_eq!(allocations(call), 0, "{name}");
        let elsewhere = thread::scope(|scope| scope.spawn(|| allocations(call)).join());
        assert_eq!(elsewhere.expect("it does not panic"), 0, "{name} on another thread");
    }
    handle.shutdown(TIMEOUT).expect("the first shutdown");
}

#[test]
fn an_allocator_may_count_its_calls_with_a_held_counter() {
    let _alone = alone();
    let tsd = FakeTsd::start();
    let (recorder, handle) = exporter(&tsd);
    HELD.get_or_init(|| with_local_recorder(&recorder, || counter!("allocations")));
    let calls = || {
        USES_HELD.set(true);
        (0..100).for_each(|n| drop(black_box(Box::new(n))));
        USES_HELD.set(false);
    };
    calls();
    let elsewhere = thread::spawn(calls).join();
    elsewhere.expect("it does not panic");
    // One more on the other thread: what the handle needs for it.
    assert!(handle.render().contains(" 201 "), "{}", handle.render());
    handle.shutdown(TIMEOUT).expect("the first shutdown");
}

#[test]
fn a_steady_flush_allocates_nothing() {
    let _alone = alone();
    let tsd = FakeTsd::builder().keep_lines(false).start();
    assert_steady(SERIES, &tsd, exporter(&tsd));
}

#[test]
fn a_steady_flush_over_http_allocates_nothing() {
    let _alone = alone();
    let tsd = FakeHttpTsd::builder().keep_lines(false).start();
    // Fewer: the double reads JSON slowly.
    assert_steady(SERIES / 10, &tsd, exporter_to(tsd.address()));
}

fn assert_steady(
    series: usize,
    tsd: &FakeTsd,
    (recorder, handle): (OpenTsdbRecorder, OpenTsdbHandle),
) {
    let change_all = || {
        with_local_recorder(&recorder, || {
            for n in 0..series {
                counter!("requests", "shard" => n.to_string(), "code" => "200").increment(1);
                gauge!("depth", "shard" => n.to_string()).set(n as f64 / 3.0);
                histogram!("latency", "shard" => n.to_string()).record(0.25);
            }
        });
    };
    let flush = || {
        change_all();
        let report = handle.flush(TIMEOUT).expect("it was not shut down");
        assert!(report.points >= 3 * series as u64 && report.pending == 0, "{report:?}");
    };
    flush();
    // How many buffers are on their way at once is a race with the writer. Here they are more than
    // one snapshot ever needs: a stuck server holds up one and a half.
    tsd.script(Fault::StopReading);
    while handle.stats().points_pending < 9 * series as u64 * 3 / 2 {
        change_all();
        handle.flush(Duration::from_millis(100)).expect("it was not shut down");
    }
    tsd.heal();
    (0..3).for_each(|_| flush());
    BY_OUR_THREADS.store(0, Ordering::Relaxed);
    WATCHES_THREADS.store(true, Ordering::Relaxed);
    (0..5).for_each(|_| flush());
    WATCHES_THREADS.store(false, Ordering::Relaxed);
    assert_eq!(BY_OUR_THREADS.load(Ordering::Relaxed), 0);
    handle.shutdown(TIMEOUT).expect("the first shutdown");
}

/// The most bytes that the process takes at once for this.
fn peak_of(run: impl FnOnce()) -> u64 {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    PEAK.load(Ordering::Relaxed) - before
}

const MIB: u64 = 1 << 20;

/// A server that reads everything and answers nothing, so that no point is ever confirmed.
fn never_confirmed() -> (FakeTsd, OpenTsdbBuilder) {
    let tsd = FakeTsd::builder().keep_lines(false).start();
    tsd.script(Fault::Mute);
    let builder = OpenTsdbBuilder::new(tsd.address())
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_secs(3600))
        .with_confirmation(Confirmation::Version)
        .with_rate_limit(RateLimit::Unlimited);
    (tsd, builder)
}

/// An exporter of so many counters, and what makes a point of each of them that waits.
fn counters(builder: OpenTsdbBuilder, count: u64) -> (OpenTsdbRecorder, OpenTsdbHandle, impl Fn()) {
    let (recorder, handle) = builder.with_telemetry(false).build().expect("the fake TSD is there");
    let counters: Vec<_> = with_local_recorder(&recorder, || {
        (0..count).map(|n| counter!("requests", "shard" => n.to_string())).collect()
    });
    let snapshot = {
        let handle = handle.clone();
        move || {
            counters.iter().for_each(|counter| counter.increment(1));
            let pending = handle.stats().points_pending + count;
            // A busy machine may let a deadline pass before it takes the snapshot.
            while handle.stats().points_pending < pending {
                let _ = handle.flush(Duration::from_millis(20));
            }
        }
    };
    (recorder, handle, snapshot)
}

#[test]
fn snapshots_without_a_confirmation_take_the_memory_of_their_lines() {
    let _alone = alone();
    let (_tsd, builder) = never_confirmed();
    let (_recorder, handle, snapshot) = counters(builder, 3_000);
    let peak = peak_of(|| (0..20).for_each(|_| snapshot()));
    assert_eq!(handle.stats().points_confirmed, 0);
    assert!(peak < 24 * MIB, "{peak} bytes for 60,000 points");
    let _ = handle.shutdown(Duration::ZERO);
}

#[test]
fn a_queue_of_one_point_does_not_hold_a_buffer_for_each_that_was_sent() {
    let _alone = alone();
    let (_tsd, builder) = never_confirmed();
    let (_recorder, handle, snapshot) = counters(builder.with_queue_size(1), 3_000);
    let peak = peak_of(snapshot);
    assert_eq!(handle.stats().points_confirmed, 0);
    assert!(peak < 24 * MIB, "{peak} bytes for 3,000 points");
    let _ = handle.shutdown(Duration::ZERO);
}

#[test]
fn raw_points_without_a_confirmation_do_not_hold_a_buffer_each() {
    const POINTS: u64 = 3_000;
    let _alone = alone();
    let (_tsd, builder) = never_confirmed();
    let (_recorder, handle) = builder.build().expect("the fake TSD is there");
    let peak = peak_of(|| {
        for n in 0..POINTS {
            let point = Point::new("m", n).timestamp(1_700_000_000_000 + n);
            handle.send(point).expect("it is well-formed");
            // One at a time, so that each is a batch of its own.
            while handle.stats().points_sent <= n {
                thread::yield_now();
            }
        }
    });
    assert_eq!(handle.stats().points_pending, POINTS);
    assert!(peak < 24 * MIB, "{peak} bytes for {POINTS} points");
    let _ = handle.shutdown(Duration::ZERO);
}
