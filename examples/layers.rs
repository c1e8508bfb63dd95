//! Layers between the application and the recorder: names left out, and the fields of `tracing`
//! spans as labels.
//!
//! `cargo run --example layers`, or with `TSD=host:port`.
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::OpenTsdbBuilder;
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_tracing_context::{LabelFilter, MetricsLayer, TracingContextLayer};
use metrics_util::layers::{FilterLayer, Layer, PrefixLayer};
use tracing_subscriber::layer::SubscriberExt;

/// Which fields of spans become labels. A field with many values, such as a request's number, must
/// not: each value would be a series.
#[derive(Clone)]
struct Known;

impl LabelFilter for Known {
    fn should_include_label(&self, _name: &metrics::KeyName, label: &metrics::Label) -> bool {
        label.key() == "tenant"
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    // `build`, not `install`: what is installed is the stack of layers.
    let (recorder, exporter) =
        OpenTsdbBuilder::new(std::env::var("TSD").unwrap_or_else(|_| fake.address()))
            .with_telemetry(false)
            .build()?;
    let recorder = PrefixLayer::new("shop").layer(recorder);
    let recorder = FilterLayer::from_patterns(["debug."]).layer(recorder);
    let recorder = TracingContextLayer::new(Known).layer(recorder);
    metrics::set_global_recorder(recorder).map_err(|_| "there is a recorder already")?;
    let subscriber = tracing_subscriber::registry().with(MetricsLayer::new());
    tracing::subscriber::set_global_default(subscriber)?;

    let span = tracing::info_span!("order", tenant = "acme", request = 4711);
    span.in_scope(|| counter!("orders").increment(1));
    counter!("debug.retries").increment(1);

    exporter.shutdown(Duration::from_secs(5))?;
    println!("{}", fake.lines().join("\n"));
    Ok(())
}
