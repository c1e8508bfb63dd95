//! The flusher's own time for a snapshot of counters and histograms, from cells to the queue; the
//! writer's is not in it.

use criterion::{BenchmarkId, Criterion, Throughput};
use metrics::{counter, histogram};
use opentsdb_benches::clocks::Thread;
use opentsdb_benches::exporter::Exporter;
use opentsdb_benches::operations::{SAMPLES, counter_of, key};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    let running = Exporter::OpenTsdb.install(None);
    let (handle, _sink) = running.opentsdb.as_ref().expect("it was installed");
    let flusher = Thread::named("opentsdb-flusher");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("flush");
    group.sample_size(10);

    let flushes = |n: u64, change: &dyn Fn()| {
        let mut took = Duration::ZERO;
        for _ in 0..n {
            // What has not changed is left out of a second flush in a second.
            change();
            let before = flusher.time();
            handle.flush(TIMEOUT).expect("it was not shut down");
            took += flusher.time() - before;
        }
        took
    };

    // Each is there from its turn on, so the histograms come first.
    let histograms: Vec<_> =
        (0..100).map(|n| histogram!("latency", "shard" => n.to_string())).collect();
    let record = || {
        histograms.iter().for_each(|cell| SAMPLES.iter().for_each(|&sample| cell.record(sample)));
    };
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 histograms", |bencher| {
        bencher.iter_custom(|n| flushes(n, &record));
    });
    let mut counters = vec![counter!("first")];
    for size in [10_000, 100_000] {
        counters.extend((counters.len()..size).map(|n| counter_of(&key(n))));
        group.throughput(Throughput::Elements(size as u64));
        let change = || counters.iter().for_each(|counter| counter.increment(1));
        group.bench_function(BenchmarkId::new("counters", size), |bencher| {
            bencher.iter_custom(|n| flushes(n, &change));
        });
    }
    group.finish();
    criterion.final_summary();
}
