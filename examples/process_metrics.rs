//! The process's memory, CPU time, threads and open files, read just before each snapshot.
//!
//! `cargo run --example process_metrics` sends to a TSD inside the process, and to a real one with
//! `TSD=host:port`. It runs for `FOR` seconds, 5 if that is not set.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use metrics::gauge;
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;

/// metrics-process is a dependency of the examples on Linux alone.
#[cfg(not(target_os = "linux"))]
fn collect() -> impl FnMut() + Send {
    || gauge!("process_threads").set(1.0)
}

#[cfg(target_os = "linux")]
fn collect() -> impl FnMut() + Send {
    let collector = metrics_process::Collector::default();
    move || collector.collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let address = std::env::var("TSD").unwrap_or_else(|_| fake.address());
    let seconds = std::env::var("FOR").map_or(Ok(5), |text| text.parse())?;

    let snapshots = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&snapshots);
    let mut collect = collect();
    let exporter = OpenTsdbBuilder::new(address)
        .with_flush_interval(Duration::from_secs(1))
        .with_telemetry(false)
        // No thread and no timer of its own: values are as fresh as the snapshot.
        .on_snapshot(move || {
            collect();
            count.fetch_add(1, Ordering::Relaxed);
        })
        .install()?;

    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        gauge!("work.done").increment(1.0);
        thread::park_timeout(Duration::from_millis(10));
    }

    exporter.shutdown(Duration::from_secs(5))?;
    println!("{}", fake.lines().join("\n"));
    println!("{} snapshots", snapshots.load(Ordering::Relaxed));
    Ok(())
}
