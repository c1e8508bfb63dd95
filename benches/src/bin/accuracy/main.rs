//! The error of quantiles, the bytes of a histogram, and the time of recording and reading: this
//! crate and others.
//!
//! `cargo run --release -p opentsdb-benches --bin accuracy` prints two tables. Bytes and errors are
//! the same in each run; times are the least of several rounds, so that other load does not count.
//!
//! This crate is measured through its public API, as an application uses it: a histogram is a
//! registered series with its name and lines, and it is read by `render`, which prints seven lines.
//! The others are bare data structures.
mod peers;
mod samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use peers::{MAKERS, Maker, Peer};

/// How often a time is measured; the least counts.
const ROUNDS: usize = 15;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The quantiles that are compared.
fn quantiles() -> impl Iterator<Item = f64> {
    (1..1000).map(|k| f64::from(k) / 1000.0).chain([0.9995, 0.9999])
}

/// The greatest relative error. Libraries differ in which sample a quantile is, so one rank more or
/// less is held against nobody.
fn worst_error(peer: &mut dyn Peer, sorted: &[f64]) -> f64 {
    let error = |q: f64, found: f64| {
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1;
        let nearby = &sorted[rank.saturating_sub(1)..sorted.len().min(rank + 2)];
        let of = |&expected: &f64| match (found - expected).abs() {
            0.0 => 0.0,
            difference => difference / expected.abs(),
        };
        nearby.iter().map(of).fold(f64::INFINITY, f64::min)
    };
    let found = peer.read();
    quantiles().zip(found).map(|(q, found)| error(q, found)).fold(0.0, f64::max)
}

fn main() {
    // Before all else: the memory of an `AtomicBucket` is freed some time after it was dropped.
    let three_decades = samples::three_decades();
    let bytes: Vec<_> = [1_000, 1_000_000]
        .map(|n| MAKERS.iter().map(|maker| bytes(maker, &three_decades[..n])).collect())
        .into();
    print_errors();
    println!();
    print_figures(&bytes, &three_decades);
}

fn print_errors() {
    print_header("worst error of a quantile");
    for (name, samples) in samples::all() {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let cell = |maker: &Maker| {
            let mut peer = (maker.make)(&quantiles().collect::<Vec<_>>());
            if !samples.iter().all(|&sample| peer.record(sample)) {
                return "–".to_owned();
            }
            percent(worst_error(&mut *peer, &sorted))
        };
        print_row(name, &MAKERS.iter().map(cell).collect::<Vec<_>>());
    }
}

fn print_figures(bytes: &[Vec<String>], samples: &[f64]) {
    print_header("three decades");
    print_row("bytes, a thousand samples", &bytes[0]);
    print_row("bytes, a million samples", &bytes[1]);
    for (name, figure, samples) in [
        ("record a sample, ns", record_time as Figure, &samples[..100_000]),
        ("read p50, p95, p99 of a thousand, µs", read_time, &samples[..1_000]),
        ("the same of a million, µs", read_time, samples),
    ] {
        let cells: Vec<_> = MAKERS.iter().map(|maker| figure(maker, samples)).collect();
        print_row(name, &cells);
    }
}

fn print_header(name: &str) {
    let names: Vec<_> = MAKERS.iter().map(|maker| maker.name.to_owned()).collect();
    print_row(name, &names);
    println!("|---|{}", "---|".repeat(MAKERS.len()));
}

fn print_row(name: &str, cells: &[String]) {
    println!("| {name} | {} |", cells.join(" | "));
}

type Figure = fn(&Maker, &[f64]) -> String;

const READ: &[f64] = &[0.5, 0.95, 0.99];

fn bytes(maker: &Maker, samples: &[f64]) -> String {
    let first = (maker.make)(READ);
    let before = LIVE.load(Ordering::Relaxed);
    let mut peer = first.another();
    samples.iter().for_each(|&sample| assert!(peer.record(sample)));
    let bytes = LIVE.load(Ordering::Relaxed) - before;
    drop(peer);
    // In groups of three.
    let digits = bytes.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn record_time(maker: &Maker, samples: &[f64]) -> String {
    let round = |_| {
        let mut peer = (maker.make)(READ);
        let start = Instant::now();
        samples.iter().for_each(|&sample| assert!(peer.record(black_box(sample))));
        start.elapsed().as_secs_f64() / samples.len() as f64 * 1e9
    };
    format!("{:.1}", (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min))
}

fn read_time(maker: &Maker, samples: &[f64]) -> String {
    let mut peer = (maker.make)(READ);
    let round = |_| {
        samples.iter().for_each(|&sample| assert!(peer.record(sample)));
        let start = Instant::now();
        black_box(peer.read());
        let time = start.elapsed().as_secs_f64() * 1e6;
        peer.clear();
        time
    };
    let rounds = if samples.len() > 10_000 { 5 } else { ROUNDS };
    format!("{:.1}", (0..rounds).map(round).fold(f64::INFINITY, f64::min))
}

fn percent(error: f64) -> String {
    let percent = error * 100.0;
    match percent {
        0.0 => "0".to_owned(),
        1e4.. => "> 10,000 %".to_owned(),
        _ if percent < 0.01 => "< 0.01 %".to_owned(),
        _ => format!("{percent:.2} %"),
    }
}
