//! Two exporters at once: OpenTSDB is sent to, Prometheus may scrape; for a move from one to the other, or for good.
//!
//! `cargo run --example fanout_prometheus` sends to a TSD inside the process.
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::layers::FanoutBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tsd = FakeTsd::start();
    // `build`, not `install`: there is one global recorder, and that is to be the fanout.
    let (opentsdb, exporter) = OpenTsdbBuilder::new(tsd.address()).with_telemetry(false).build()?;
    let prometheus = PrometheusBuilder::new().build_recorder();
    let page = prometheus.handle();
    let both = FanoutBuilder::default().add_recorder(opentsdb).add_recorder(prometheus).build();
    metrics::set_global_recorder(both).map_err(|_| "there is a recorder already")?;

    counter!("http.requests", "path" => "/login").increment(3);
    gauge!("mail.queued").set(17.0);

    exporter.shutdown(Duration::from_secs(5))?;
    println!("to OpenTSDB:\n{}\n\nto Prometheus:\n{}", tsd.lines().join("\n"), page.render());
    Ok(())
}
