//! How to test instrumented code: a recorder for one closure, a TSD in the process, exact points.
//!
//! `cargo run --example local_recorder`; in a test of yours, `main` is the test's body. Nothing is
//! installed, so tests in one binary do not see each other's metrics.
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::{Value, testing::FakeTsd};

/// The code under test.
fn pour(tea: &'static str) {
    counter!("cups.poured", "tea" => tea).increment(1);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tsd = FakeTsd::start();
    let (recorder, exporter) = tsd.exporter().build()?;

    metrics::with_local_recorder(&recorder, || {
        pour("assam");
        pour("assam");
        pour("sencha");
    });

    // Returns when the TSD has parsed every point, so no test waits for an interval, or for luck.
    let report = exporter.shutdown(Duration::from_secs(5))?;
    assert_eq!((report.confirmed, report.pending, report.dropped), (2, 0, 0));

    let cups = |tea| tsd.value("cups.poured", &[("tea", tea)]);
    assert_eq!(cups("assam"), Some(Value::Integer(2)));
    assert_eq!(cups("sencha"), Some(Value::Integer(1)));
    println!("{}", tsd.lines().join("\n"));
    Ok(())
}
