//! A mirror: every metric to two servers, for a move from one to the other or for good.
//!
//! Each exporter has a queue, a connection and counters of its own, so that a server that is away
//! costs the other nothing. Endpoints that stand in for each other are not that: see
//! `OpenTsdbBuilder::add_endpoint`.
//!
//! `cargo run --example several_exporters` sends to two TSDs inside the process, and to real ones
//! with `TSD=host:port` and `MIRROR=host:port`.
use std::time::Duration;

use metrics::{counter, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{ConnectivityCheck, OpenTsdbBuilder};
use metrics_util::layers::FanoutBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (fake, fake_mirror) = (FakeTsd::start(), FakeTsd::start());
    let tsd = std::env::var("TSD").unwrap_or_else(|_| fake.address());
    let mirror = std::env::var("MIRROR").unwrap_or_else(|_| fake_mirror.address());

    // `build`, not `install`: there is one global recorder, and that is to be the fanout.
    let (first, to_tsd) = OpenTsdbBuilder::new(tsd).with_telemetry(false).build()?;
    let (second, to_mirror) = OpenTsdbBuilder::new(mirror)
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_telemetry(false)
        .build()?;
    let both = FanoutBuilder::default().add_recorder(first).add_recorder(second).build();
    metrics::set_global_recorder(both).map_err(|_| "there is a recorder already")?;

    counter!("http.requests", "path" => "/login").increment(3);
    histogram!("http.seconds").record(0.042);

    for (name, exporter, fake) in [("TSD", to_tsd, fake), ("mirror", to_mirror, fake_mirror)] {
        let report = exporter.shutdown(Duration::from_secs(5))?;
        println!("{name}: {report:?}\n{}", fake.lines().join("\n"));
    }
    Ok(())
}
