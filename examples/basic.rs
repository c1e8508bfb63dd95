//! The smallest use: install, instrument, and leave with everything delivered.
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::OpenTsdbBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = OpenTsdbBuilder::new("localhost:4242").install()?;
    let _guard = exporter.guard(Duration::from_secs(5)); // on leaving: a last snapshot, delivered

    counter!("http.requests", "path" => "/login", "code" => "200").increment(1);
    gauge!("mail.queued").set(17.0);
    histogram!("http.seconds", "path" => "/login").record(0.042);
    Ok(())
}
