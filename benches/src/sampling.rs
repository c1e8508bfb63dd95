//! Samples of one thread and of two, and which of them count.
//!
//! On a machine that does other things too, most of what disturbs a sample is that its thread was not on a processor, or that two
//! threads were there one after the other: then they never meet at a cache line, and contention seems to cost nothing. So a sample
//! counts only when every thread of it had a processor for nine tenths of the time.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clocks::Thread;
use crate::operations::Run;

/// What a thread must have had of its sample.
const SHARE: f64 = 0.9;
/// How long a sample is: some time slices of the scheduler.
const LENGTH: Duration = Duration::from_millis(8);
/// Samples to get.
const WANTED: usize = 21;
/// Samples to try.
const TRIES: usize = 600;

/// What a row of samples says.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Nanoseconds of an operation; the median. NaN when no sample counted.
    pub median: f64,
    /// Samples that count.
    pub samples: usize,
    /// And those that were tried.
    pub tried: usize,
}

/// The median of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One thread.
pub fn one_thread(run: Run) -> Summary {
    run(10_000);
    let mut n = 1_000;
    loop {
        let start = Instant::now();
        run(n);
        if start.elapsed() >= LENGTH {
            break;
        }
        n *= 2;
    }
    collect(|| {
        let thread = Thread::this();
        let (start, before) = (Instant::now(), thread.time());
        run(black_box(n));
        let (wall, on_cpu) = (start.elapsed(), thread.time() - before);
        is_undisturbed(wall, on_cpu).then(|| wall.as_nanos() as f64 / n as f64)
    })
}

/// Two threads at once, each with its own operation, until time is up.
pub fn two_threads(runs: [Run; 2]) -> Summary {
    collect(|| {
        let (stop, start) = (AtomicBool::new(false), Barrier::new(3));
        let samples = thread::scope(|scope| {
            let threads = runs.map(|run| {
                let (stop, start) = (&stop, &start);
                scope.spawn(move || {
                    // What a thread's first use costs is not part of it.
                    run(1_000);
                    start.wait();
                    let thread = Thread::this();
                    let (began, before) = (Instant::now(), thread.time());
                    let mut n = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        run(500);
                        n += 500;
                    }
                    let (wall, on_cpu) = (began.elapsed(), thread.time() - before);
                    is_undisturbed(wall, on_cpu).then(|| wall.as_nanos() as f64 / n as f64)
                })
            });
            start.wait();
            thread::park_timeout(LENGTH);
            stop.store(true, Ordering::Relaxed);
            threads.map(|thread| thread.join().expect("it does not panic"))
        });
        Some((samples[0]? + samples[1]?) / 2.0)
    })
}

/// Whether a thread had a processor for nearly all of that time.
pub fn is_undisturbed(wall: Duration, on_cpu: Duration) -> bool {
    on_cpu.as_secs_f64() >= SHARE * wall.as_secs_f64()
}

/// Samples until there are enough of those that count.
pub fn collect(sample: impl Fn() -> Option<f64>) -> Summary {
    let (mut samples, mut tried) = (Vec::new(), 0);
    while samples.len() < WANTED && tried < TRIES {
        samples.extend(sample());
        tried += 1;
    }
    Summary { samples: samples.len(), tried, median: median(samples) }
}
