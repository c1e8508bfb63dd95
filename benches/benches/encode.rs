//! The lines of a snapshot as text, as `render` gives them: read and encoded without queue and
//! writer: of counters of one shape, then with the series of a node_exporter dump beside them.
//! Beside it prometheus' `render`, with `EXPORTER=prometheus`.

use criterion::{BenchmarkId, Criterion, Throughput};
use metrics::Counter;
use opentsdb_benches::exporter::Exporter;
use opentsdb_benches::operations::{counter_of, key};
use opentsdb_load::{SERIES, node_exporter};

fn main() {
    let exporter = Exporter::from_env();
    let running = exporter.install(None);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(exporter.name());
    group.sample_size(10);
    let mut counters: Vec<Counter> = Vec::new();
    for size in [1_000, 10_000, 100_000, 100_000 + SERIES] {
        if size > 100_000 {
            let corpus = node_exporter();
            counters.extend(corpus.iter().map(|series| counter_of(&series.key())));
        } else {
            counters.extend((counters.len()..size).map(|n| counter_of(&key(n))));
        }
        group.throughput(Throughput::Elements(size as u64));
        let id = BenchmarkId::new("render counters", size);
        match (&running.opentsdb, &running.prometheus) {
            (Some((handle, _)), _) => {
                group.bench_function(id, |bencher| bencher.iter(|| handle.render()))
            }
            (_, Some(handle)) => {
                group.bench_function(id, |bencher| bencher.iter(|| handle.render()))
            }
            _ => panic!("it renders nothing"),
        };
    }
    group.finish();
    criterion.final_summary();
}
