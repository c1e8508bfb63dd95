//! Two exporters at once: points go to OpenTSDB, and Prometheus may scrape; for a move from one to
//! the other, or for good.
//!
//! `cargo run --example fanout_prometheus`, or with `TSD=host:port`.
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::layers::FanoutBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let address = std::env::var("TSD").unwrap_or_else(|_| fake.address());
    // `build`, not `install`: there is one global recorder, and that is to be the fanout.
    let (opentsdb, exporter) = OpenTsdbBuilder::new(address).with_telemetry(false).build()?;
    let prometheus = PrometheusBuilder::new().build_recorder();
    let page = prometheus.handle();
    let both = FanoutBuilder::default().add_recorder(opentsdb).add_recorder(prometheus).build();
    metrics::set_global_recorder(both).map_err(|_| "there is a recorder already")?;

    counter!("http.requests", "path" => "/login").increment(3);
    gauge!("mail.queued").set(17.0);

    exporter.shutdown(Duration::from_secs(5))?;
    println!("to OpenTSDB:\n{}\n\nto Prometheus:\n{}", fake.lines().join("\n"), page.render());
    Ok(())
}
