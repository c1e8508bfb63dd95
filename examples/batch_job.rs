//! A job that runs for a while and ends: what it did, sent before it ends.
//!
//! A job differs from a service in three ways. It may end before the first tick, so `shutdown`
//! sends everything; whether that went well is in the report. Each run starts its counters from
//! zero, so totals of a run are gauges. And where it runs does not matter: a label names the job
//! instead of the host.
//!
//! `cargo run --example batch_job`, or with `TSD=host:port`.
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{HostTag, OpenTsdbBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let exporter = OpenTsdbBuilder::new(std::env::var("TSD").unwrap_or_else(|_| fake.address()))
        .with_host_tag(HostTag::None)
        .add_global_label("job", "nightly-invoices")
        .with_telemetry(false)
        .install()?; // fails without a TSD; with `ConnectivityCheck::Off` the job runs anyway

    let start = Instant::now();
    let mut written = 0_u64;
    for invoice in 0..1_000_u64 {
        let begun = Instant::now();
        match write_invoice(invoice) {
            Ok(bytes) => written += bytes,
            Err(()) => counter!("invoices.failed").increment(1),
        }
        histogram!("invoice.seconds").record(begun.elapsed().as_secs_f64());
    }
    gauge!("invoices.bytes").set(written as f64);
    gauge!("invoices.job.seconds").set(start.elapsed().as_secs_f64());

    let report = exporter.shutdown(Duration::from_secs(10))?;
    println!("{}", fake.lines().join("\n"));
    if report.is_delivered() {
        println!("delivered {} points", report.confirmed);
    } else {
        // The invoices are written, so this is no failure of the job.
        println!("the TSD did not take everything: {report:?}");
    }
    Ok(())
}

/// The work.
fn write_invoice(number: u64) -> Result<u64, ()> {
    if number % 250 == 249 { Err(()) } else { Ok(1_000 + number) }
}
