//! Live bytes of one exporter, by an allocator that counts: `memory opentsdb`. Prints JSON as
//! `figures` does.
//!
//! What is counted is what the program asked for, without the allocator's own headers and rounding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use metrics::{Key, histogram};
use opentsdb_benches::exporter::{Exporter, Running};
use opentsdb_benches::operations::{self, SAMPLES};

/// Series that several threads count in.
const SHARED: usize = 200;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn main() {
    let name = std::env::args().nth(1).expect("memory EXPORTER");
    let exporter = Exporter::from_name(&name).expect("there is such an exporter");
    let running = exporter.install(None);
    let say = |row: &str, bytes: i64, n: usize, note: &str| {
        let value = bytes as f64 / n as f64;
        println!(
            r#"{{"exporter": "{name}", "row": "{row}", "value": {value:.1}, "unit": "B", "note": "{note}"}}"#
        );
    };

    const COUNTERS: usize = 1_000_000;
    let before = live();
    for n in 0..COUNTERS {
        operations::counter_of(&operations::key(n)).increment(1);
    }
    flush(&running);
    say("a counter series with two labels", live() - before, COUNTERS, "of 1 M, after a flush");

    let shared = (0..SHARED).map(operations::literal_key).collect();
    threads_that_count(&Arc::new(shared), &say);

    const HISTOGRAMS: usize = 200;
    let before = live();
    for n in 0..HISTOGRAMS {
        let histogram = histogram!("latency", "shard" => n.to_string());
        (0..1_000).for_each(|n| histogram.record(sample(n)));
    }
    let recorded = live() - before;
    flush(&running);
    say("a histogram after 1 k samples", recorded, HISTOGRAMS, "before a flush");
    say("a histogram after 1 k samples, flushed", live() - before, HISTOGRAMS, "");

    // The flusher's list has grown for it already.
    histogram!("other").record(1.0);
    flush(&running);
    let before = live();
    let histogram = histogram!("latency");
    (0..10_000_000).for_each(|n| histogram.record(sample(n)));
    let recorded = live() - before;
    flush(&running);
    say("a histogram after 10 M samples", recorded, 1, "before a flush");
    say("a histogram after 10 M samples, flushed", live() - before, 1, "");
    std::process::exit(0);
}

/// What a thread has for a series that others count in too, beyond what it has for its first.
fn threads_that_count(keys: &Arc<Vec<Key>>, say: &dyn Fn(&str, i64, usize, &str)) {
    const THREADS: usize = 4;
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    for _ in 0..THREADS {
        let (keys, barrier) = (Arc::clone(keys), Arc::clone(&barrier));
        thread::spawn(move || {
            operations::counter_of(&keys[0]).increment(1);
            barrier.wait();
            barrier.wait();
            keys.iter().for_each(|key| operations::counter_of(key).increment(1));
            barrier.wait();
            // It lives on until the process ends.
            barrier.wait();
        });
    }
    barrier.wait();
    let before = live();
    barrier.wait();
    barrier.wait();
    let row = "a live thread and series that it counts in";
    say(row, live() - before, THREADS * (SHARED - 1), "literal labels");
}

fn live() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Three decades, and not the same values again and again.
fn sample(n: u64) -> f64 {
    SAMPLES[n as usize % SAMPLES.len()] * (1.0 + (n % 997) as f64 / 997.0)
}

/// As the exporter does each interval; dogstatsd cannot be told to.
fn flush(running: &Running) {
    if let Some((handle, sink)) = &running.opentsdb {
        handle.flush(Duration::from_secs(120)).expect("it was not shut down");
        sink.wait_for(handle.stats().bytes_sent);
    }
    if let Some(handle) = &running.prometheus {
        handle.run_upkeep();
        drop(handle.render());
    }
}
