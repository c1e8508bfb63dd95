//! Histograms, alone and with a second thread that records to the same one all the while.

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use opentsdb_benches::exporter::Exporter;
use opentsdb_benches::operations::histogram_two_labels;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

fn main() {
    let exporter = Exporter::from_env();
    let _running = exporter.install(None);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(exporter.name());
    bench(&mut group, "histogram! two labels");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                histogram_two_labels(500);
            }
        });
        // Only as good as the machine is quiet; `figures` counts no sample in which a thread had to
        // wait for a processor.
        bench(&mut group, "histogram! two labels, a second thread beside");
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
    criterion.final_summary();
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|n| {
            let start = Instant::now();
            histogram_two_labels(n);
            start.elapsed()
        });
    });
}
