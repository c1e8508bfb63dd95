//! Counters and gauges on one thread: `EXPORTER=prometheus cargo bench --bench hot_path`; this
//! crate without `EXPORTER`.

use criterion::Criterion;
use opentsdb_benches::exporter::Exporter;
use opentsdb_benches::operations::{COUNTERS, HELD, Operation};
use std::time::Instant;

fn main() {
    let exporter = Exporter::from_env();
    let _running = exporter.install(None);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(exporter.name());
    for &Operation { name, run } in COUNTERS.iter().chain(HELD) {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|n| {
                let start = Instant::now();
                run(n);
                start.elapsed()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
