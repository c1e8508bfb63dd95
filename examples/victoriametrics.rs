//! VictoriaMetrics: its flavor, and histograms that its `histogram_quantile` reads.
//!
//! With `Flavor::VictoriaMetrics` names keep all of Unicode, a series may have 29 tags, and
//! delivery is confirmed by half-close, since VictoriaMetrics answers nothing. With
//! `Distribution::VmRange` a histogram has the buckets of VictoriaMetrics' own client: they can be
//! added up over instances and time, which the quantiles of a summary cannot.
//!
//! `cargo run --example victoriametrics`, or with `TSD=host:port` where VictoriaMetrics runs with
//! `-opentsdbListenAddr`.
use std::time::Duration;

use metrics::{counter, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{Distribution, Flavor, OpenTsdbBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let exporter = OpenTsdbBuilder::new(std::env::var("TSD").unwrap_or_else(|_| fake.address()))
        .with_flavor(Flavor::VictoriaMetrics)
        .set_distribution(Distribution::VmRange)
        .with_telemetry(false)
        .install()?;

    counter!("http.requests", "path" => "/größe").increment(1);
    for milliseconds in 1..=100 {
        histogram!("http.seconds", "path" => "/login").record(f64::from(milliseconds) / 1_000.0);
    }

    let report = exporter.shutdown(Duration::from_secs(5))?;
    println!("{}\n{report:?}", fake.lines().join("\n"));
    println!(
        "\nquantiles over all instances:\n  histogram_quantile(0.99, sum(rate(http.seconds_bucket[5m])) by (path, vmrange))"
    );
    Ok(())
}
