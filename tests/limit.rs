//! The memory that ever more series may take, in a process of its own for the allocator that counts
//! and the subscriber that listens.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    CounterMode, HostTag, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder, Value,
};
use opentsdb_faults::log::Listener;

const LIMIT: u64 = 100_000;
/// Distinct keys that are offered: many more, and, where that says as much, some more.
const MANY: u64 = 600_000;
const MORE: u64 = 200_000;
const THREADS: u64 = 2;
/// What the exporter may have at any moment, its queue and its buffers included.
const MOST_BYTES: isize = 100 << 20;
const LONG: Duration = Duration::from_secs(60);
/// How the thread of the TSD is called, whose memory is not the exporter's.
const TSD: &str = "fake-tsd";
const METADATA: Metadata<'_> = Metadata::new("", Level::INFO, None);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are allocated, and the most that ever were; by the TSD's thread none.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// Whether this is the TSD's thread; `None` until it is known, and while it is found out, which
    /// may allocate.
    static IS_TSD: Cell<Option<bool>> = const { Cell::new(None) };
}

fn add(bytes: isize) {
    let is_tsd = IS_TSD.get().unwrap_or_else(|| {
        IS_TSD.set(Some(false));
        let is_tsd = thread::current().name().is_some_and(|name| name.starts_with(TSD));
        IS_TSD.set(Some(is_tsd));
        is_tsd
    });
    if !is_tsd {
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the exporter warned of.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads of this process are an exporter's.
fn exporter_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with("opentsdb-")).count()
}

/// What a test uses: one at a time, since there is one allocator.
struct Bench {
    tsd: FakeTsd,
    recorder: OpenTsdbRecorder,
    handle: OpenTsdbHandle,
    live_before: isize,
    began: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Self {
        Bench::with(|builder| builder)
    }

    fn with(options: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = lock(&ALONE);
        // The second time it is there already.
        let _ = tracing::subscriber::set_global_default(Listener(|line: &str| {
            if line.starts_with("WARN") {
                lock(&WARNINGS).push(line.to_owned());
            }
        }));
        lock(&WARNINGS).clear();
        // The exporter of the test before is freed by its own threads, once it was shut down.
        let began = Instant::now();
        while exporter_threads() > 0 {
            assert!(began.elapsed() < LONG, "an exporter that was shut down ends");
            thread::park_timeout(Duration::from_millis(5));
        }
        let tsd = FakeTsd::start();
        let live_before = LIVE.load(Ordering::Relaxed);
        PEAK.store(live_before, Ordering::Relaxed);
        let builder = OpenTsdbBuilder::new(tsd.address())
            .with_series_limit(LIMIT as usize)
            .with_queue_size(1_000_000)
            .with_host_tag(HostTag::Value("a".into()))
            .with_flush_interval(Duration::from_secs(3_600))
            .with_telemetry(false);
        let (recorder, handle) = options(builder).build().expect("the fake TSD is there");
        Bench { tsd, recorder, handle, live_before, began: Instant::now(), _alone: alone }
    }

    /// Counts once by each of the keys, on several threads.
    fn offer(&self, offered: u64, key: impl Fn(u64) -> Key + Sync) {
        let count = |key: &Key| self.recorder.register_counter(key, &METADATA).increment(1);
        let key = &key;
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let keys = (thread..offered).step_by(THREADS as usize);
                scope.spawn(move || keys.for_each(|n| count(&key(n))));
            }
        });
    }

    /// Delivers everything, and answers the sum of the counters at the TSD with this metric, and of
    /// these those beyond the limit.
    fn sums(&self, metric: &str) -> (u64, u64) {
        let report = self.handle.flush(LONG).expect("it was not shut down");
        assert_eq!((report.pending, report.dropped), (0, 0));
        let peak = PEAK.load(Ordering::Relaxed) - self.live_before;
        let live = LIVE.load(Ordering::Relaxed) - self.live_before;
        println!(
            "{:.1} s, {} MiB live, {} MiB at most",
            self.began.elapsed().as_secs_f64(),
            live >> 20,
            peak >> 20
        );
        assert!(peak <= MOST_BYTES, "{peak} bytes");
        let (mut all, mut beyond) = (0, 0);
        for point in self.tsd.points() {
            let Value::Integer(n) = point.value else { panic!("{point:?}") };
            all += n as u64;
            let is_beyond = point.tags.contains(&("overflow".to_owned(), "true".to_owned()));
            if is_beyond && point.metric == metric {
                beyond += n as u64;
            }
        }
        (all, beyond)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(LONG);
    }
}

fn key(name: &str, value: String) -> Key {
    let labels = vec![Label::from_static_parts("code", "200"), Label::new("user", value)];
    Key::from_parts(name.to_owned(), labels)
}

#[test]
fn beyond_the_limit_nothing_grows_and_nothing_is_lost() {
    let bench = Bench::new();
    // Alternately two metrics, so that each has its series beyond the limit.
    let name = |n| if n % 3 == 0 { "logins" } else { "requests" };
    bench.offer(MANY, |n| key(name(n), format!("user-{n}")));
    // Existing series go on: each thread's first keys were let in for certain.
    let first = key("logins", "user-0".into());
    bench.recorder.register_counter(&first, &METADATA).increment(6);
    let (all, beyond) = bench.sums("requests");
    assert_eq!(all, MANY + 6);
    assert_eq!(
        bench.tsd.value("logins", &[("code", "200"), ("host", "a"), ("user", "user-0")]),
        Some(Value::Integer(7))
    );
    let stats = bench.handle.stats();
    assert_eq!((stats.series, stats.series_overflow), (LIMIT + 2, MANY - LIMIT));
    assert!((MANY - LIMIT) * 2 / 3 - LIMIT < beyond && beyond < MANY - LIMIT, "{beyond}");
    assert_eq!(bench.tsd.log().series_count() as u64, LIMIT + 2);

    bench.handle.flush(LONG).expect("it was not shut down");
    let warnings = lock(&WARNINGS).clone();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("limit") && warnings[0].contains("label=\"user\""),
        "{warnings:?}"
    );
}

#[test]
fn keys_that_have_to_be_cleaned_do_not_grow_either() {
    let bench = Bench::new();
    bench.offer(MORE, |n| key("requests", format!("user {n}")));
    let (all, beyond) = bench.sums("requests");
    assert_eq!((all, beyond), (MORE, MORE - LIMIT));
    assert_eq!(bench.handle.stats().series, LIMIT + 1);
}

#[test]
fn keys_that_become_one_series_do_not_grow_either() {
    let bench = Bench::new();
    // 19 bits as spaces and colons, all of which become the same.
    let value = |n: u64| (0..19).map(|bit| if n >> bit & 1 == 0 { ' ' } else { ':' }).collect();
    bench.offer(MORE, |n| key("requests", value(n)));
    assert!(PEAK.load(Ordering::Relaxed) - bench.live_before < 16 << 20, "it is one series");
    assert_eq!(bench.sums("requests"), (MORE, 0));
    assert_eq!(bench.handle.stats().series, 1);
}

#[test]
fn ever_new_names_do_not_grow_either() {
    let bench = Bench::new();
    bench.offer(MORE, |n| Key::from_name(format!("requests.{n}")));
    let (all, _) = bench.sums("");
    // A new name has no series to share: there are some of these too, and beyond them it is only
    // counted.
    let stats = bench.handle.stats();
    assert_eq!((stats.series, stats.series_overflow), (LIMIT + 1_000, MORE - LIMIT));
    assert_eq!(all, LIMIT + 1_000);
}

/// What cannot be sent takes no memory of its size, neither in the registry nor in a thread's
/// cache, and what is left out of a line takes none either.
#[test]
fn labels_of_any_length_take_no_memory_of_their_size() {
    const LIMIT_BYTES: isize = 4 << 20;
    let megabyte = "x".repeat(1 << 20);
    let bench = Bench::new();
    // The first handle of a thread makes its cache.
    bench.offer(10, |n| key("short", format!("user-{n}")));
    let before = LIVE.load(Ordering::Relaxed);
    let took = || LIVE.load(Ordering::Relaxed) - before;
    bench.offer(20_000, |n| key("requests", format!("{n:08192}")));
    assert!(took() < LIMIT_BYTES, "{} bytes for 20,000 labels of 8 KB", took());
    bench.offer(100, |n| key("requests", n.to_string() + &megabyte));
    assert!(took() < LIMIT_BYTES, "{} bytes for 100 labels of a megabyte", took());
    let stats = bench.handle.stats();
    assert_eq!((stats.series, stats.series_refused), (10, 20_100));
    // Of two labels of one key the later one is sent.
    bench.offer(100, |n| {
        let values = [n.to_string() + &megabyte, format!("user-{}", n % 10)];
        Key::from_parts("short", values.map(|value| Label::new("user", value)).to_vec())
    });
    assert!(took() < LIMIT_BYTES, "{} bytes for 100 keys that lose a megabyte", took());
    assert_eq!(bench.handle.stats().series, 20);
    let report = bench.handle.flush(LONG).expect("it was not shut down");
    assert_eq!((report.dropped, report.pending), (20_100, 0));
    let warnings = lock(&WARNINGS).clone();
    assert!(warnings.iter().any(|warning| warning.contains("metric=\"requests\"")), "{warnings:?}");
}

/// As in a server with a thread for each request, whose differences wait for the TSD to come back.
#[test]
fn threads_that_end_leave_nothing_behind_while_no_snapshot_is_taken() {
    const ENDED: usize = 2_000;
    const COUNTERS: usize = 20;
    let bench = Bench::with(|builder| {
        builder.with_counter_mode(CounterMode::Delta).with_flush_interval(Duration::from_millis(20))
    });
    bench.tsd.script(Fault::Refuse);
    let keys: Vec<Key> = (0..COUNTERS).map(|n| key("requests", format!("user-{n}"))).collect();
    let request = || {
        keys.iter().for_each(|key| bench.recorder.register_counter(key, &METADATA).increment(1));
    };
    let wait_for_skips = || {
        let before = bench.handle.stats().ticks_skipped;
        while bench.handle.stats().ticks_skipped < before + 3 {
            assert!(bench.began.elapsed() < LONG, "{:?}", bench.handle.stats());
            thread::park_timeout(Duration::from_millis(5));
        }
    };
    request();
    wait_for_skips();
    let live_before = LIVE.load(Ordering::Relaxed);
    for _ in 0..ENDED {
        thread::scope(|scope| scope.spawn(request).join()).expect("it does not panic");
    }
    wait_for_skips();
    let left = LIVE.load(Ordering::Relaxed) - live_before;
    // Each of a thread's counters took 136 bytes.
    assert!(left < (ENDED * COUNTERS * 136 / 10) as isize, "{left} bytes");
    bench.tsd.heal();
    bench.handle.shutdown(LONG).expect("the first shutdown");
    let counts = bench.tsd.points().into_iter().map(|point| point.value);
    let sum: i64 = counts.map(|n| if let Value::Integer(n) = n { n } else { 0 }).sum();
    assert_eq!(sum as usize, (ENDED + 1) * COUNTERS);
}
