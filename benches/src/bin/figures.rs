//! Measures one exporter in one respect and prints what it finds, a JSON object a line: `figures
//! opentsdb threads`.
//!
//! `benches/run` runs it for each exporter in turn, each time in a process of its own.

use std::cell::Cell;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Counter, Key, histogram};
use metrics_exporter_opentsdb::Confirmation;
use opentsdb_benches::clocks::{Thread, preemptions};
use opentsdb_benches::exporter::{Exporter, Running, install_ours};
use opentsdb_benches::operations::{self, Operation};
use opentsdb_benches::sampling::{collect, is_undisturbed, median, one_thread, two_threads};
use opentsdb_benches::sink::Sink;

const FLUSHER: &str = "opentsdb-flusher";
const FORWARDER: &str = "metrics-exporter-dogstatsd";
const MILLION: usize = 1_000_000;
const TIMEOUT: Duration = Duration::from_secs(120);
/// What is written at a time.
const CHUNK: usize = 64 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, exporter, section] = &arguments[..] else { panic!("figures EXPORTER SECTION") };
    let exporter = Exporter::from_name(exporter).expect("there is such an exporter");
    let report = Report { exporter };
    match section.as_str() {
        "hot" => hot(&report),
        "sites" => sites(&report),
        "threads" => threads(&report),
        "random" => random(&report),
        "flush 10k" => flush(&report, 10_000),
        "flush 100k" => flush(&report, 100_000),
        "flush 1M" => flush(&report, MILLION),
        "drain" => drain(&report),
        "accuracy" => accuracy(&report),
        "first sight" => first_sight(&report),
        "register" => register(&report),
        "write" => write(&report),
        "confirm" => confirm(&report),
        _ => panic!("no such section"),
    }
    // Without the wait for what is still queued.
    std::process::exit(0);
}

struct Report {
    exporter: Exporter,
}

impl Report {
    fn say(&self, row: &str, value: f64, unit: &str, note: &str) {
        println!(
            r#"{{"exporter": "{}", "row": "{row}", "value": {value:.3}, "unit": "{unit}", "note": "{note}"}}"#,
            self.exporter.name()
        );
    }
}

fn hot(report: &Report) {
    let _running = report.exporter.install(None);
    for Operation { name, run } in operations::all() {
        let summary = one_thread(run);
        let note = format!("{} of {} samples", summary.samples, summary.tried);
        report.say(&format!("{name}, one thread"), summary.median, "ns", &note);
    }
}

/// Calls of so many macros in turn, as in a program that has them; a macro is its key.
fn sites(report: &Report) {
    const N: usize = 16 * 1_024;
    let _running = report.exporter.install(None);
    for sites in [16, 256, 1_024] {
        let keys: Vec<Key> = (0..sites).map(operations::literal_key).collect();
        let summary = collect(|| {
            let thread = Thread::this();
            let (start, before) = (Instant::now(), thread.time());
            for key in keys.iter().cycle().take(N) {
                operations::counter_of(key).increment(black_box(1));
            }
            let (wall, on_cpu) = (start.elapsed(), thread.time() - before);
            is_undisturbed(wall, on_cpu).then(|| wall.as_nanos() as f64 / N as f64)
        });
        let note = format!("{} of {} samples", summary.samples, summary.tried);
        report.say(&format!("counter! of {sites} call sites in turn"), summary.median, "ns", &note);
    }
}

fn threads(report: &Report) {
    let _running = report.exporter.install(None);
    let pairs: [(&str, [operations::Run; 2]); 3] = [
        ("counter! two labels, two threads on one metric", [operations::counter_two_labels; 2]),
        (
            "counter! two labels, two threads on two metrics",
            [operations::counter_two_labels, operations::counter_other],
        ),
        ("histogram! two labels, two threads on one metric", [operations::histogram_two_labels; 2]),
    ];
    for (name, runs) in pairs {
        side_by_side(report, name, runs);
    }
    for &Operation { name, run } in operations::SHARED {
        // Made here, so that neither of the two is the thread that made it.
        run(1);
        side_by_side(report, &format!("{name}, two threads on one handle"), [run; 2]);
    }
}

fn side_by_side(report: &Report, name: &str, runs: [operations::Run; 2]) {
    let summary = two_threads(runs);
    let note = format!("{} of {} samples", summary.samples, summary.tried);
    report.say(name, summary.median, "ns", &note);
}

fn random(report: &Report) {
    let _running = report.exporter.install(None);
    let keys: Vec<Key> = (0..MILLION).map(operations::key).collect();
    let touch = |key: &Key| operations::counter_of(key).increment(1);
    keys.iter().for_each(touch);
    let random = Random::new(1);
    let summary = collect(|| {
        // Some milliseconds.
        const N: u32 = 10_000;
        let thread = Thread::this();
        let (start, before) = (Instant::now(), thread.time());
        for _ in 0..N {
            touch(&keys[random.next() as usize % MILLION]);
        }
        let (wall, on_cpu) = (start.elapsed(), thread.time() - before);
        is_undisturbed(wall, on_cpu).then(|| wall.as_nanos() as f64 / f64::from(N))
    });
    let note = format!("{} of {} samples", summary.samples, summary.tried);
    report.say("counter at random of 1 M series", summary.median, "ns", &note);
}

/// Registers so many counters.
fn counters(n: usize) -> Vec<Counter> {
    (0..n).map(|n| operations::counter_of(&operations::key(n))).collect()
}

fn change_all(counters: &[Counter]) {
    counters.iter().for_each(|counter| counter.increment(1));
}

fn size(n: usize) -> &'static str {
    match n {
        10_000 => "10 k",
        100_000 => "100 k",
        _ => "1 M",
    }
}

/// The time that its thread is on a processor for a flush. Ours hands the lines to another thread;
/// dogstatsd's sends them, by large packets, which is a small part of it.
fn flush(report: &Report, n: usize) {
    let rounds = (3 * MILLION / n).clamp(9, 60);
    // Long enough to change all counters between two of dogstatsd's flushes.
    let interval = Duration::from_millis(300) + Duration::from_micros(3) * n as u32;
    let running = report.exporter.install(Some(interval));
    let counters = counters(n);
    let row = format!("flush of {} counters", size(n));
    match report.exporter {
        Exporter::OpenTsdb => flush_ours(report, &running, &counters, rounds, &row),
        Exporter::Prometheus => {
            let handle = running.prometheus.as_ref().expect("it was installed");
            let samples = (0..rounds.min(9)).map(|_| {
                change_all(&counters);
                let before = Thread::this().time();
                black_box(handle.render());
                (Thread::this().time() - before).as_nanos() as f64 / n as f64
            });
            report.say(&row, median(samples.collect()), "ns", "render()");
        }
        Exporter::DogStatsD => {
            let samples = flushes_of_dogstatsd(&|| change_all(&counters), interval, rounds);
            report.say(
                &row,
                median(samples) / n as f64,
                "ns",
                "its forwarder, sending included: a packet per 65 kB",
            );
        }
        _ => {}
    }
}

fn flush_ours(report: &Report, running: &Running, counters: &[Counter], rounds: usize, row: &str) {
    let (handle, sink) = running.opentsdb.as_ref().expect("it was installed");
    let n = counters.len() as f64;
    let thread = Thread::named(FLUSHER);
    let samples = (0..=rounds).map(|_| {
        change_all(counters);
        let before = thread.time();
        let flush = handle.flush(TIMEOUT).expect("it was not shut down");
        assert!(flush.points as f64 >= n && flush.pending == 0, "{flush:?}");
        (thread.time() - before).as_nanos() as f64 / n
    });
    // The first adopts the series.
    let samples: Vec<f64> = samples.skip(1).collect();
    report.say(row, median(samples), "ns", "its flusher, without the writer");
    sink.wait_for(handle.stats().bytes_sent);
    let text = handle.render().into_bytes();
    // To a buffer as large, which is in memory already.
    let mut copy = text.clone();
    let copies = (0..9).map(|_| {
        let before = Thread::this().time();
        black_box(&mut copy).copy_from_slice(&text);
        (Thread::this().time() - before).as_nanos() as f64 / n
    });
    let note = format!("{:.1} bytes a line", text.len() as f64 / n);
    report.say(&row.replace("flush", "memcpy of the lines"), median(copies.collect()), "ns", &note);
    // From where a series has its line, which is not beside the next one's, to a batch.
    let lines: Vec<Box<[u8]>> =
        text.split_inclusive(|&byte| byte == b'\n').map(Box::from).collect();
    let mut batch = Vec::with_capacity(CHUNK);
    let copies = (0..9).map(|_| {
        let before = Thread::this().time();
        for line in &lines {
            if batch.len() + line.len() > CHUNK {
                black_box(&mut batch).clear();
            }
            batch.extend_from_slice(line);
        }
        (Thread::this().time() - before).as_nanos() as f64 / n
    });
    report.say(&row.replace("flush", "memcpy line by line"), median(copies.collect()), "ns", "");
}

/// What its forwarder costs per flush, in nanoseconds, with `change` before each.
fn flushes_of_dogstatsd(change: &dyn Fn(), interval: Duration, rounds: usize) -> Vec<f64> {
    let thread = Thread::named(FORWARDER);
    // Its time on a processor rises by a flush, and then stands still.
    let next = |least: Duration| {
        let began = thread.time();
        let (mut last, mut still) = (began, 0);
        loop {
            thread::park_timeout(interval / 20);
            let now = thread.time();
            still = if now == last { still + 1 } else { 0 };
            // Still for so long: it is done, and not only without a processor for a while.
            if still == 6 && now > began + least {
                return now - began;
            }
            last = now;
        }
    };
    next(Duration::from_micros(20));
    let flushes: Vec<Duration> = (0..=rounds)
        .map(|_| {
            change();
            next(Duration::from_micros(200))
        })
        .collect();
    flushes.iter().skip(1).map(|flush| flush.as_nanos() as f64).collect()
}

/// Samples into many histograms, then the flush that makes quantiles of them.
fn drain(report: &Report) {
    const HISTOGRAMS: usize = 200;
    const EACH: usize = 1_000;
    let interval = Duration::from_millis(1_500);
    let running = report.exporter.install(Some(interval));
    let fill = || {
        let random = Random::new(7);
        for n in 0..HISTOGRAMS {
            let histogram = histogram!("latency", "shard" => n.to_string());
            (0..EACH).for_each(|_| histogram.record(random.over_three_decades()));
        }
    };
    let row = "quantiles of a histogram of 1 k samples";
    let mut samples = Vec::new();
    for round in 0..8 {
        let took = match report.exporter {
            Exporter::OpenTsdb => {
                fill();
                let (handle, _) = running.opentsdb.as_ref().expect("it was installed");
                let thread = Thread::named(FLUSHER);
                let before = thread.time();
                handle.flush(TIMEOUT).expect("it was not shut down");
                thread.time() - before
            }
            Exporter::Prometheus => {
                fill();
                let handle = running.prometheus.as_ref().expect("it was installed");
                let before = Thread::this().time();
                handle.run_upkeep();
                black_box(handle.render());
                Thread::this().time() - before
            }
            // The others send samples, or nothing.
            _ => return,
        };
        if round > 0 {
            samples.push(took.as_nanos() as f64 / 1e3 / HISTOGRAMS as f64);
        }
    }
    report.say(row, median(samples), "µs", "flush included");
}

/// Knuth's MMIX generator.
struct Random(Cell<u64>);

impl Random {
    fn new(seed: u64) -> Self {
        Random(Cell::new(seed))
    }

    /// 31 bits.
    fn next(&self) -> u64 {
        let next = self
            .0
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0.set(next);
        next >> 33
    }

    /// Evenly from 0 to 1.
    fn even(&self) -> f64 {
        self.next() as f64 / (1u64 << 31) as f64
    }

    /// From 1 ms to 1 s, each decade as likely.
    fn over_three_decades(&self) -> f64 {
        10f64.powf(self.even() * 3.0 - 3.0)
    }
}

/// The worst error of the quantiles that are sent by default.
fn accuracy(report: &Report) {
    let running = report.exporter.install(None);
    let (mut worst, mut at) = (0f64, String::new());
    for seed in 0..50 {
        let name = format!("latency{seed}");
        let histogram = histogram!(name.clone());
        let random = Random::new(seed);
        let n = [100, 1_000, 10_000, 25_000][seed as usize % 4];
        let mut samples: Vec<f64> = (0..n).map(|_| random.over_three_decades()).collect();
        samples.iter().for_each(|&sample| histogram.record(sample));
        samples.sort_by(f64::total_cmp);
        let text = match (&running.opentsdb, &running.prometheus) {
            (Some((handle, _)), _) => handle.render(),
            (_, Some(handle)) => handle.render(),
            _ => return,
        };
        for (quantile, ours, theirs) in
            [(0.5, "p50", "0.5"), (0.95, "p95", "0.95"), (0.99, "p99", "0.99")]
        {
            let (ours, theirs) =
                (format!("put {name}.{ours} "), format!("{name}{{quantile=\"{theirs}\"}} "));
            let line =
                text.lines().find(|line| line.starts_with(&ours) || line.starts_with(&theirs));
            let line = line.expect("there is such a quantile");
            let word = if line.starts_with("put") { 3 } else { 1 };
            let value: f64 =
                line.split(' ').nth(word).and_then(|word| word.parse().ok()).expect("a number");
            let rank = (quantile * samples.len() as f64).ceil() as usize;
            let exact = samples[rank.max(1) - 1];
            let error = (value - exact).abs() / exact * 100.0;
            if error > worst {
                (worst, at) = (error, format!("p{} of {n} samples", quantile * 100.0));
            }
        }
    }
    report.say("worst quantile error", worst, "%", &at);
}

/// A new key is made, registered, and counted in.
fn first_sight(report: &Report) {
    const EACH: usize = 1_000;
    let _running = report.exporter.install(None);
    let samples = (0..100).map(|sample| {
        let before = Thread::this().time();
        for n in sample * EACH..(sample + 1) * EACH {
            operations::counter_of(&operations::key(n)).increment(1);
        }
        (Thread::this().time() - before).as_nanos() as f64 / EACH as f64
    });
    let note = "the median of each thousand of 100 k";
    report.say("first sight of a key", median(samples.collect()), "ns", note);
}

/// The time that a new series takes, while a million are flushed and while nothing else happens.
fn register(report: &Report) {
    const NEW: usize = 20_000;
    let running = report.exporter.install(Some(Duration::from_millis(1)));
    let _counters = counters(MILLION);
    let made = Cell::new(2 * MILLION);
    let tail = |wanted: usize| {
        let mut took = Vec::new();
        while took.len() < wanted {
            let key = operations::key(made.replace(made.get() + 1));
            let before = preemptions();
            let start = Instant::now();
            let _ = black_box(operations::counter_of(&key));
            let nanoseconds = start.elapsed().as_nanos() as f64;
            // A time slice that another process took says nothing of a lock.
            if preemptions() == before {
                took.push(nanoseconds);
            }
            if took.len() % 16 == 0 {
                thread::yield_now();
            }
        }
        took.sort_by(f64::total_cmp);
        took[wanted * 999 / 1000]
    };
    let flush: Box<dyn Fn() + Sync + Send> = match (&running.opentsdb, &running.prometheus) {
        (Some((handle, _)), _) => {
            let handle = handle.clone();
            Box::new(move || drop(black_box(handle.render())))
        }
        (_, Some(handle)) => {
            let handle = handle.clone();
            Box::new(move || drop(black_box(handle.render())))
        }
        _ => return,
    };
    flush();
    tail(NEW);
    let idle = tail(NEW);
    let stop = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flush();
            }
        });
        thread::park_timeout(Duration::from_millis(50));
        let busy = tail(NEW);
        stop.store(true, Ordering::Relaxed);
        busy
    });
    report.say("registering, p99.9, idle", idle, "ns", "");
    report.say("registering, p99.9, while 1 M series are flushed", busy, "ns", "");
}

/// Lines a second from counters to the far end of a socket, beside the same bytes ready-made.
fn write(report: &Report) {
    if report.exporter != Exporter::OpenTsdb {
        return;
    }
    let running = report.exporter.install(None);
    let counters = counters(MILLION);
    let (handle, sink) = running.opentsdb.as_ref().expect("it was installed");
    let mut rates = Vec::new();
    for _ in 0..7 {
        change_all(&counters);
        let start = Instant::now();
        let flush = handle.flush(TIMEOUT).expect("it was not shut down");
        sink.wait_for(handle.stats().bytes_sent);
        rates.push(flush.points as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    rates.remove(0);
    report.say("encode and write", median(rates), "M lines/s", "to the last byte read");
    let text = handle.render().into_bytes();
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    if let Ok(path) = std::env::var("LINES_FILE") {
        File::create(path).and_then(|mut file| file.write_all(&text)).expect("it can be written");
    }
    let ready = Sink::start(false).expect("a port");
    let mut stream = TcpStream::connect(ready.address()).expect("it listens");
    stream.set_nodelay(true).expect("it is a socket");
    let rates = (1..=7).map(|round| {
        let start = Instant::now();
        for piece in text.chunks(CHUNK) {
            stream.write_all(piece).expect("it reads");
        }
        ready.wait_for(round * text.len() as u64);
        lines as f64 / start.elapsed().as_secs_f64() / 1e6
    });
    report.say("the same bytes ready-made", median(rates.collect()), "M lines/s", "");
}

/// From `flush()` to confirmed by a server that reads at once, as the exporter does it by default.
fn confirm(report: &Report) {
    if report.exporter != Exporter::OpenTsdb {
        return;
    }
    let running = install_ours(Confirmation::Auto);
    let (handle, _sink) = running.opentsdb.as_ref().expect("it was installed");
    let mut counters = Vec::new();
    for (n, rounds) in [(10_000, 60), (MILLION, 6)] {
        counters.extend((counters.len()..n).map(|n| operations::counter_of(&operations::key(n))));
        let samples = (0..=rounds).map(|_| {
            change_all(&counters);
            let start = Instant::now();
            let flush = handle.flush(TIMEOUT).expect("it was not shut down");
            assert!(flush.confirmed >= n as u64 && flush.is_delivered(), "{flush:?}");
            start.elapsed().as_nanos() as f64 / n as f64
        });
        let samples: Vec<f64> = samples.skip(1).collect();
        report.say(&format!("flush of {} to confirmed", size(n)), median(samples), "ns", "");
    }
}
