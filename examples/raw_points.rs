//! Raw points: values that have a time of their own, sent past the aggregation. Here a day of
//! readings is loaded after the fact.
//!
//! `cargo run --example raw_points`, or with `TSD=host:port`.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{OpenTsdbBuilder, Point, RateLimit};

const HOUR: u64 = 3_600;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    // `build`, since no metrics are recorded here; the recorder is kept, or the exporter would end.
    let (_recorder, exporter) =
        OpenTsdbBuilder::new(std::env::var("TSD").unwrap_or_else(|_| fake.address()))
            .with_rate_limit(RateLimit::Unlimited)
            .with_telemetry(false)
            .build()?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let midnight = now - now % (24 * HOUR);
    for hour in 0..24 {
        let celsius = 12.0 - 6.0 * (hour as f64 / 24.0 * std::f64::consts::TAU).cos();
        let point = Point::new("roof.celsius", celsius)
            .tag("sensor", "north")
            .timestamp(midnight - 24 * HOUR + hour * HOUR);
        // Never waits. An error means that this point cannot be sent as it is, and says why.
        exporter.send(point)?;
    }
    // A blank cannot be sent, and a raw point is not cleaned. Nor is a second value for one time,
    // which would make the row unreadable in OpenTSDB.
    let again = Point::new("roof.celsius", 99.9).tag("sensor", "north").timestamp(midnight - HOUR);
    for point in [Point::new("roof temperature", 1.5), again] {
        if let Err(error) = exporter.send(point) {
            println!("not sent: {error}");
        }
    }

    let report = exporter.shutdown(Duration::from_secs(5))?;
    println!("{}\n{report:?}", fake.lines().join("\n"));
    Ok(())
}
