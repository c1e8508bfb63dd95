//! The applications under fault, each a process of its own: `faults app NAME ADDRESS …`.
//!
//! Standard output is the report, `key=value` a line; an application goes on when its standard
//! input ends.

use std::io::Read;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::{
    BuildError, Confirmation, ConnectivityCheck, HostTag, InstanceTag, OpenTsdbBuilder, Point,
    RateLimit, Spool, TimestampPrecision,
};
use opentsdb_faults::log::Listener;

const LONG: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
    let number = |index: usize| argument(index).parse::<u64>().unwrap_or(0);
    let address = argument(1);
    match argument(0) {
        "exit" => return exit(address, argument(2), number(3)),
        "record" => record(address, number(2)),
        "latency" => latency(address, number(2), Duration::from_secs(number(3))),
        "memory" => memory(address, argument(2), number(3)),
        "spawn" => spawn(address),
        "install" => install(address),
        "steady" => steady(address, argument(2)),
        "emfile" => emfile(address),
        "clock" => clock(address),
        "fork" => fork(address, number(2)),
        "panics" => panics(address),
        "soak" => crate::soak::application(address, argument(2), number(3)),
        "rounds" => rounds(address, argument(2), argument(3), number(4)),
        "fill" => fill(address, argument(2), number(3) << 20),
        "drain" => drain(address, argument(2)),
        unknown => panic!("no application {unknown:?}"),
    }
    ExitCode::SUCCESS
}

pub(crate) fn say(key: &str, value: impl std::fmt::Display) {
    println!("{key}={value}");
}

/// Until the judge closes our input.
fn await_judge() {
    let mut nothing = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut nothing);
}

fn builder(address: &str) -> OpenTsdbBuilder {
    OpenTsdbBuilder::new(address)
        .with_host_tag(HostTag::Value("a".into()))
        .with_instance_tag(InstanceTag::Off)
        .with_telemetry(false)
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_backoff(Duration::from_millis(20), Duration::from_millis(200))
        .with_rate_limit(RateLimit::Unlimited)
}

fn quick(address: &str) -> OpenTsdbBuilder {
    builder(address)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_millis(50))
        .with_write_timeout(Duration::from_secs(1))
}

/// A line of `/proc/self/status`, in KiB.
pub(crate) fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let digits: String = line.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// The names of this process's threads that are the exporter's.
fn exporter_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("opentsdb-")).count()
}

fn all_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux").count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

// ---- promise 4 ----

/// Counts once and ends in this way.
fn exit(address: &str, way: &str, run: u64) -> ExitCode {
    let builder = OpenTsdbBuilder::new(address).with_host_tag(HostTag::Value("a".into()));
    let handle = builder.install().expect("a healthy server");
    let _guard = (way != "shutdown").then(|| handle.guard(LONG));
    counter!("exits", "run" => run.to_string()).increment(run + 1);
    assert!(way != "panic", "an application's own panic");
    if way == "shutdown" {
        let report = handle.shutdown(LONG).expect("the first");
        assert_eq!((report.pending, report.dropped), (0, 0));
    }
    ExitCode::SUCCESS
}

// ---- promise 1 ----

/// Records and registers on two threads that say who they are, for so many milliseconds.
fn record(address: &str, milliseconds: u64) {
    let handle = quick(address).install().expect("no check");
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let work = move || {
        // The link is to this thread's own folder, whose name is its number.
        let task = std::fs::read_link("/proc/thread-self").expect("Linux");
        let number = task.file_name().expect("a folder").to_string_lossy().into_owned();
        let mut records = 0_u64;
        while Instant::now() < end {
            for n in 0..1_000_u64 {
                counter!("hits", "n" => (n % 100).to_string()).increment(1);
                histogram!("times").record(n as f64);
                gauge!("depth").set(n as f64);
            }
            counter!("new", "n" => format!("{number}.{}", records % 10_000)).increment(1);
            records += 3_001;
        }
        (number, records)
    };
    let threads = [std::thread::spawn(work), std::thread::spawn(work)];
    let mut records = 0;
    for (n, thread) in threads.into_iter().enumerate() {
        let (number, count) = thread.join().expect("no panic");
        say(&format!("thread{n}"), number);
        records += count;
    }
    handle.send(Point::new("raw", 1).tag("n", "1")).expect("a good point");
    say("records", records);
    say("main", std::process::id());
    let report = handle.shutdown(Duration::from_millis(100)).expect("the first");
    say("confirmed", report.confirmed);
    let stats = handle.stats();
    say("bytes", stats.bytes_sent);
    say("pending", stats.points_taken - stats.points_confirmed);
}

/// The time of each of so many records, spread over `time`; one in a hundred of them is of a new
/// series while there are fewer than 50,000.
fn latency(address: &str, records: u64, time: Duration) {
    let handle = quick(address).with_queue_size(100_000).install().expect("no check");
    let known: Vec<_> = (0..1_000).map(|n| counter!("hits", "n" => n.to_string())).collect();
    // Buckets of 10 ns to 1 ms, and one for the rest.
    let mut buckets = vec![0_u64; 100_001];
    let (mut worst, mut registered) = (0, 0_u64);
    let start = Instant::now();
    for n in 0..records {
        if n % 1_000 == 0 {
            let due = start + time.mul_f64(n as f64 / records as f64);
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
        }
        let is_new = n % 100 == 0 && registered < 50_000;
        let began = Instant::now();
        if is_new {
            counter!("new", "n" => n.to_string()).increment(1);
            registered += 1;
        } else if n % 2 == 0 {
            known[(n % 1_000) as usize].increment(1);
        } else {
            histogram!("times").record(n as f64);
        }
        let took = began.elapsed().as_nanos() as u64;
        worst = worst.max(took);
        buckets[((took / 10) as usize).min(100_000)] += 1;
    }
    let at = |share: f64| {
        let mut left = (records as f64 * share) as u64;
        let bucket = buckets.iter().position(|&count| {
            let is_here = count > left;
            left = left.saturating_sub(count);
            is_here
        });
        bucket.unwrap_or(0) as u64 * 10
    };
    say("p50", at(0.5));
    say("p99", at(0.99));
    say("p999", at(0.999));
    say("worst", worst);
    let stats = handle.stats();
    say("pending", stats.points_taken - stats.points_confirmed);
    let _ = handle.shutdown(Duration::ZERO);
}

// ---- promise 2 ----

/// Grows what can grow for so many milliseconds; says how much memory that took.
fn memory(address: &str, what: &str, milliseconds: u64) {
    let handle = quick(address)
        .with_flush_interval(Duration::from_millis(100))
        .with_write_timeout(LONG)
        .with_queue_size(100_000)
        .with_series_limit(10_000)
        .install()
        .expect("no check");
    let known: Vec<_> = (0..5_000).map(|n| counter!("hits", "n" => n.to_string())).collect();
    let times = histogram!("times");
    (0..10_000).for_each(|n| times.record(f64::from(n)));
    let _ = handle.flush(Duration::from_secs(1));
    let before = status("VmRSS:");
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let (mut peak, mut done) = (before, 0_u64);
    let mut checked = Instant::now();
    // The series are a number, not a time.
    while Instant::now() < end || what == "series" {
        match what {
            "stuck" => known.iter().for_each(|counter| counter.increment(1)),
            "histogram" => {
                (0..10_000).for_each(|n| times.record(f64::from(n) * 1e-3 + done as f64));
            }
            _ => (0..1_000).for_each(|n| {
                counter!("offered", "n" => (done + n).to_string()).increment(1);
            }),
        }
        done += match what {
            "stuck" => 5_000,
            "histogram" => 10_000,
            _ => 1_000,
        };
        if checked.elapsed() > Duration::from_millis(50) {
            checked = Instant::now();
            peak = peak.max(status("VmRSS:"));
        }
        if what == "series" && done >= 300_000 {
            break;
        }
    }
    peak = peak.max(status("VmRSS:"));
    say("before", before);
    say("peak", peak);
    say("done", done);
    let stats = handle.stats();
    say("series", stats.series);
    say("overflow", stats.series_overflow);
    say("pending", stats.points_taken - stats.points_confirmed - stats.points_dropped.total());
    say("dropped", stats.points_dropped.queue_full);
    say("skipped", stats.ticks_skipped);
    let _ = handle.shutdown(Duration::ZERO);
}

// ---- promise 10 ----

/// Builds where a thread cannot be had.
fn spawn(address: &str) {
    let before = descriptors();
    let built = builder(address).build();
    match &built {
        Err(error @ BuildError::Spawn { .. }) => say("error", error),
        other => say("error", format!("none: {:?}", other.is_ok())),
    }
    drop(built);
    say("threads", all_threads());
    say("descriptors", descriptors() - before);
    // And the next one works.
    let (recorder, handle) = builder(address).build().expect("threads again");
    metrics::with_local_recorder(&recorder, || counter!("again").increment(1));
    let report = handle.shutdown(LONG).expect("the first");
    say("confirmed", report.confirmed);
}

fn install(address: &str) {
    let handle = builder(address).install().expect("no check");
    counter!("hits").increment(1);
    handle.flush(LONG).expect("it runs");
    let before = exporter_threads();
    let second = builder(address).install();
    say("refused", matches!(second, Err(BuildError::FailedToSetGlobalRecorder)));
    say("before", before);
    say("after", exporter_threads());
    let report = handle.shutdown(LONG).expect("the first");
    say("confirmed", report.confirmed);
}

/// Counts until it is told to end, and says what it has counted.
fn steady(address: &str, option: &str) {
    if option == "sigpipe" {
        // SAFETY: no other thread is there yet, and the default is no handler of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let handle =
        quick(address).with_confirmation(Confirmation::Version).install().expect("no check");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        await_judge();
        over.store(true, Ordering::SeqCst);
    });
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        counter!("rounds").increment(1);
        for n in 0..100 {
            counter!("hits", "n" => n.to_string()).increment(1);
        }
        count += 1;
        let _ = handle.flush(Duration::from_millis(10));
    }
    let report = handle.shutdown(LONG).expect("the first");
    say("count", count);
    say("pending", report.pending + report.dropped);
    let stats = handle.stats();
    say("resent", stats.points_resent);
    say("restarts", stats.restarts);
}

/// Goes on while it has no descriptor for a socket.
fn emfile(address: &str) {
    let handle = quick(address).install().expect("no check");
    counter!("hits").increment(1);
    handle.flush(LONG).expect("it runs");
    say("ready", 1);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read and write `limit`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    let none = libc::rlimit { rlim_cur: 3, ..limit };
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) };
    // The judge has reset the connection.
    await_judge();
    counter!("hits").increment(1);
    let report = handle.flush(Duration::from_millis(500)).expect("it runs");
    say("starved", report.pending);
    say("failures", handle.stats().connect_failures);
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    counter!("hits").increment(1);
    let report = handle.shutdown(LONG).expect("the first");
    say("pending", report.pending + report.dropped);
    say("restarts", handle.stats().restarts);
}

/// Counts at an interval of a second; the judge steps the wall clock.
fn clock(address: &str) {
    let handle =
        builder(address).with_flush_interval(Duration::from_secs(1)).install().expect("no check");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let counting = std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            counter!("hits").increment(1);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    say("ready", 1);
    await_judge();
    is_over.store(true, Ordering::SeqCst);
    counting.join().expect("no panic");
    let report = handle.shutdown(LONG).expect("the first");
    say("pending", report.pending + report.dropped);
    let stats = handle.stats();
    say("steps", stats.clock_steps);
    say("taken", stats.points_taken);
    say("dropped", stats.points_dropped.total());
}

/// Forks while every thread is at work; the children record, shut down and exit.
fn fork(address: &str, children: u64) {
    let handle = quick(address).install().expect("no check");
    let guard = handle.guard(LONG);
    let is_over = AtomicBool::new(false);
    let began = Barrier::new(2);
    let recorded = AtomicU64::new(0);
    let (mut hung, mut bad) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            began.wait();
            while !is_over.load(Ordering::SeqCst) {
                counter!("parent").increment(1);
                recorded.fetch_add(1, Ordering::SeqCst);
                let _ = handle.flush(Duration::from_millis(5));
                let _ = (handle.render(), handle.describe());
            }
        });
        let held = counter!("child");
        began.wait();
        for _ in 0..children {
            // SAFETY: what the child does after it is what is being tried.
            let child = unsafe { libc::fork() };
            if child == 0 {
                held.increment(1);
                counter!("child").increment(1);
                let is_refused = handle.flush(LONG).is_err() && handle.shutdown(LONG).is_err();
                // Of locks that were held at the fork none is asked for.
                let is_refused = is_refused && handle.render().is_empty();
                let is_refused = is_refused && handle.describe().is_empty();
                let _ = handle.stats();
                handle.wait();
                drop(handle.guard(LONG));
                let _ = handle.send(Point::new("child.raw", 1).tag("n", "1"));
                // SAFETY: it ends this process, without what the parent has registered for its own
                // end.
                unsafe { libc::_exit(if is_refused { 7 } else { 8 }) };
            }
            match wait_for(child) {
                Some(7) => {}
                Some(_) => bad += 1,
                None => hung += 1,
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    drop(guard);
    say("hung", hung);
    say("bad", bad);
    say("recorded", recorded.into_inner());
    let stats = handle.stats();
    say("pending", stats.points_pending + stats.points_dropped.total());
}

/// The exit code of a child, or `None` when it had to be killed.
fn wait_for(child: libc::pid_t) -> Option<i32> {
    let end = Instant::now() + Duration::from_secs(5);
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours.
        if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
            return Some(libc::WEXITSTATUS(status));
        }
        if Instant::now() > end {
            // SAFETY: the child is ours, and not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            unsafe { libc::waitpid(child, &mut status, 0) };
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Whether the subscriber panics on each event.
static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicU64 = AtomicU64::new(0);

fn panic_if_told(_: &str) {
    if PANICS.load(Ordering::SeqCst) {
        PANICKED.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("a subscriber's own fault"));
    }
}

/// At an interval of a second, and says when the panic was.
fn panics(address: &str) {
    tracing::subscriber::set_global_default(Listener(panic_if_told)).expect("the first");
    let handle =
        builder(address).with_flush_interval(Duration::from_secs(1)).install().expect("no check");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let counting = std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            counter!("hits").increment(1);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    handle.flush(LONG).expect("it runs");
    PANICS.store(true, Ordering::SeqCst);
    // The flusher's: a value that cannot be sent.
    gauge!("not.a.number").set(f64::NAN);
    let _ = handle.flush(Duration::from_millis(100));
    // The two flushes were the ticks of two seconds; the third second has one of its own again.
    let caught_up = Instant::now() + Duration::from_secs(2);
    while let Some(left) = caught_up.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    say("panicked", PANICKED.load(Ordering::SeqCst));
    // The writer's: the judge resets the connection.
    await_judge();
    let end = Instant::now() + LONG;
    while handle.stats().restarts < 2 && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let sent = handle.stats().points_confirmed;
    let began = Instant::now();
    while handle.stats().points_confirmed == sent && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    say("silent", began.elapsed().as_millis());
    say("failures", handle.stats().connect_failures);
    say("connects", handle.stats().connects);
    say("restarts", handle.stats().restarts);
    PANICS.store(false, Ordering::SeqCst);
    is_over.store(true, Ordering::SeqCst);
    counting.join().expect("no panic");
    let report = handle.shutdown(LONG).expect("the first");
    say("pending", report.pending);
}

// ---- the spool ----

/// A raw point with the number of the round, from this one on, between snapshots; says which rounds
/// nothing may lose any more. From round 0 on there are none: it delivers what it finds.
fn rounds(address: &str, folder: &str, mode: &str, start: u64) {
    let spool = Spool::new(folder).write_ahead(mode == "ahead");
    let built = quick(address).with_queue_size(20).with_spool(spool).build();
    let (recorder, handle) = match built {
        Ok(built) => built,
        Err(error) => return say("error", error),
    };
    say("ready", 1);
    for round in (start.max(1)..).take_while(|_| start > 0) {
        say("round", round);
        let bytes = handle.stats().spool_bytes;
        metrics::with_local_recorder(&recorder, || counter!("load").increment(1));
        let point = Point::new("round", round).timestamp(1_700_000_000_000 + round);
        handle.send(point).expect("it runs");
        // What is on disk alone the judge sees for itself.
        let is_confirmed = || {
            let stats = handle.stats();
            stats.points_pending == 0 && stats.points_spooled == 0
        };
        let has_grown = || mode == "ahead" && handle.stats().spool_bytes > bytes;
        let end = Instant::now() + Duration::from_millis(100);
        while !is_confirmed() && !has_grown() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if is_confirmed() {
            say("due", round);
        } else if has_grown() && round > start {
            // The writer had perhaps begun before this point came; the one before it saw.
            say("due", round - 1);
        }
    }
    await_judge();
}

/// Long lines, until there is so much of them on disk.
fn fill(address: &str, folder: &str, bytes: u64) {
    let spool = Spool::new(folder).max_bytes(2 * bytes);
    let (_recorder, handle) = builder(address).with_spool(spool).build().expect("no check");
    let value = "v".repeat(200);
    let send = |n: u64| {
        let point = Point::new("backlog", n).timestamp(1_000_000_000 + n);
        let tags = ["a", "b", "c", "d"].into_iter();
        let _ = handle.send(tags.fold(point, |point, key| point.tag(key, value.as_str())));
    };
    send(0);
    for n in 1.. {
        send(n);
        if n % 1_000 == 0 {
            while handle.stats().points_pending > 9_000 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if handle.stats().spool_bytes >= bytes {
                break;
            }
        }
    }
    let report = handle.shutdown(LONG).expect("the first");
    say("bytes", handle.stats().spool_bytes);
    say("dropped", report.dropped + handle.stats().points_dropped.total());
}

/// Delivers what it finds, and says what memory that took.
fn drain(address: &str, folder: &str) {
    let before = status("VmRSS:");
    let spool = Spool::new(folder);
    let (_recorder, handle) = builder(address).with_spool(spool).build().expect("no check");
    while handle.stats().spool_bytes > 0 || handle.stats().points_pending > 0 {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    say("before", before);
    say("peak", status("VmHWM:"));
    say("pending", handle.stats().points_pending);
    let _ = handle.shutdown(LONG);
}
