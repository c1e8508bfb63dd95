//! Handles that are kept: for code so hot that the look-up of a macro counts, and for threads that
//! share a metric.
//!
//! A macro such as `counter!` finds its series by a thread's cache in about 15 ns. A handle that is
//! kept needs no look-up. It stays right for as long as it is held: an idle series is not forgotten
//! while somebody has a handle of it.
//!
//! `cargo run --example static_handles`, or with `TSD=host:port`.
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;

// Made at the first use, which has to come after `install`: a handle that was made before records
// nothing.
static PACKETS: LazyLock<Counter> = LazyLock::new(|| counter!("net.packets"));

/// The handles of one queue, made once and moved to the thread that serves it.
struct QueueMetrics {
    bytes: Counter,
    sizes: Histogram,
}

impl QueueMetrics {
    fn new(queue: usize) -> Self {
        let queue = queue.to_string();
        QueueMetrics {
            bytes: counter!("net.bytes", "queue" => queue.clone()),
            sizes: histogram!("net.packet.bytes", "queue" => queue),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let address = std::env::var("TSD").unwrap_or_else(|_| fake.address());
    let exporter = OpenTsdbBuilder::new(address).with_telemetry(false).install()?;

    thread::scope(|scope| {
        for queue in 0..2 {
            let metrics = QueueMetrics::new(queue);
            scope.spawn(move || {
                for packet in 0..100_000_u64 {
                    let size = 64 + packet % 1_437;
                    PACKETS.increment(1);
                    metrics.bytes.increment(size);
                    metrics.sizes.record(size as f64);
                }
            });
        }
    });

    exporter.shutdown(Duration::from_secs(5))?;
    println!("{}", fake.lines().join("\n"));
    Ok(())
}
