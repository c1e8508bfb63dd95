//! The smallest use: install, record, and leave with everything delivered.
//!
//! `cargo run --example basic` sends to a TSD inside the process, and to a real one with
//! `TSD=host:port`.
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let address = std::env::var("TSD").unwrap_or_else(|_| fake.address());

    let exporter = OpenTsdbBuilder::new(address).with_telemetry(false).install()?;

    counter!("http.requests", "path" => "/login", "code" => "200").increment(1);
    gauge!("mail.queued").set(17.0);
    histogram!("http.seconds", "path" => "/login").record(0.042);

    // The last snapshot, delivered. A service has `exporter.guard(…)` at the top of main do this.
    let report = exporter.shutdown(Duration::from_secs(5))?;
    println!("{}\n{report:?}", fake.lines().join("\n"));
    Ok(())
}
