//! How to test instrumented code: a recorder for one closure, a TSD in the process, exact values.
//!
//! `cargo run --example local_recorder`; in a test of yours, `main` is the test's body. Nothing is
//! installed, so tests in one binary do not see each other's metrics.
use std::time::Duration;

use metrics::{counter, histogram};
use metrics_exporter_opentsdb::Value;
use metrics_exporter_opentsdb::testing::FakeTsd;

/// The code under test.
fn pour(tea: &'static str, seconds: f64) {
    counter!("cups.poured", "tea" => tea).increment(1);
    histogram!("pour.seconds").record(seconds);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tsd = FakeTsd::start();
    // With the host tag `test`, without telemetry, and silent but for a flush.
    let (recorder, exporter) = tsd.exporter().build()?;

    metrics::with_local_recorder(&recorder, || {
        pour("assam", 2.5);
        pour("assam", 3.5);
        pour("sencha", 1.0);
    });

    // Returns when the TSD has parsed every point, so no test waits for an interval, or for luck.
    exporter.flush(Duration::from_secs(5))?;
    assert_eq!(tsd.value("cups.poured", &[("tea", "assam")]), Some(Value::Integer(2)));
    assert_eq!(tsd.value("cups.poured", &[("tea", "mint")]), None);
    assert_eq!(tsd.value("pour.seconds.max", &[]), Some(Value::Float(3.5)));
    println!("{}", tsd.lines().join("\n"));
    Ok(())
}
