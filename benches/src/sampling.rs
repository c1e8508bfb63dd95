//! Samples of one thread and of two, and which of them count.
//!
//! On a machine that does other things too, most of what disturbs a sample is that its thread was
//! not on a processor, or that two threads were there one after the other: then they never meet at
//! a cache line, and contention seems to cost nothing. So a sample counts only when every thread of
//! it had a processor for nine tenths of the time.

use std::hint::{black_box, spin_loop};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clocks::Thread;
use crate::operations::Run;

/// What a thread must have had of its sample.
const SHARE: f64 = 0.9;
/// How long a sample is: some time slices of the scheduler.
const LENGTH: Duration = Duration::from_millis(8);
/// And of two threads: less than a time slice, since a second processor is free for less.
const PAIR_LENGTH: Duration = Duration::from_millis(2);
/// Samples to get.
const WANTED: usize = 21;
/// Samples to try.
const TRIES: usize = 1_500;

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

/// Two threads side by side, each with its own operation.
pub fn two_threads(runs: [Run; 2]) -> Summary {
    collect(|| {
        let ready = AtomicU32::new(0);
        let samples = thread::scope(|scope| {
            let threads = runs.map(|run| {
                let ready = &ready;
                scope.spawn(move || beside(run, ready))
            });
            threads.map(|thread| thread.join().expect("it does not panic"))
        });
        let [one, other] = samples;
        let ((one, one_spent), (other, other_spent)) = (one?, other?);
        let together = one.end.min(other.end).saturating_duration_since(one.start.max(other.start));
        (together >= PAIR_LENGTH.mul_f64(SHARE)).then_some((one_spent + other_spent) / 2.0)
    })
}

/// When it ran, and the nanoseconds of an operation; `None` when it had to wait for a processor.
fn beside(run: Run, ready: &AtomicU32) -> Option<(Range<Instant>, f64)> {
    // What a thread's first use costs is not part of it.
    run(1_000);
    ready.fetch_add(1, Ordering::SeqCst);
    // Not a lock: who wakes from that wakes late.
    while ready.load(Ordering::SeqCst) < 2 {
        spin_loop();
    }
    let thread = Thread::this();
    let (start, before) = (Instant::now(), thread.time());
    let (mut n, mut end) = (0u64, start);
    while end - start < PAIR_LENGTH {
        run(250);
        n += 250;
        end = Instant::now();
    }
    let (wall, on_cpu) = (end - start, thread.time() - before);
    is_undisturbed(wall, on_cpu).then(|| (start..end, wall.as_nanos() as f64 / n as f64))
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
