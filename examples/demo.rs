//! A small service, instrumented, and the lines that its metrics become.
//!
//! `cargo run --example demo` sends to a TSD inside the process; with `-- --help` behind it, it
//! says how to send to a real one.
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{Flavor, OpenTsdbBuilder, Stats, Value};

const WORKERS: usize = 3;
const SECONDS: u64 = 5;
const OWN: &str = "opentsdb.client.";
const HELP: &str = "\
A small service, instrumented, and the lines that its metrics become.

    cargo run --example demo

Environment:
    TSD=host:port    sends to this server instead of a TSD inside the process
    FLAVOR=…         what that server is: opentsdb, victoriametrics, influxdb, kairosdb
    FOR=seconds      runs for this long instead of 5 s";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().len() > 1 {
        println!("{HELP}");
        return Ok(());
    }
    let real = std::env::var("TSD").ok();
    let fake = real.is_none().then(FakeTsd::start);
    let address = real.or_else(|| fake.as_ref().map(FakeTsd::address)).unwrap_or_default();
    let seconds = std::env::var("FOR").map_or(Ok(SECONDS), |text| text.parse())?;
    let exporter = OpenTsdbBuilder::new(&address)
        .with_flavor(flavor()?)
        .with_flush_interval(Duration::from_secs(1))
        .install()?;
    println!(
        "{WORKERS} workers for {seconds} s, a snapshot a second to {address} ({OWN}* not shown)\n"
    );

    let end = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..WORKERS).map(|n| thread::spawn(move || serve(n, end))).collect();
    let mut shown = 0;
    while Instant::now() < end {
        thread::park_timeout(Duration::from_millis(100));
        shown += show(fake.as_ref(), shown);
    }
    let served: u64 = workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum();

    let report = exporter.shutdown(Duration::from_secs(5))?;
    show(fake.as_ref(), shown);
    println!("\nat shutdown: {report:?}");
    tally(served, &exporter.stats(), fake.as_ref());
    Ok(())
}

fn flavor() -> Result<Flavor, String> {
    match std::env::var("FLAVOR").as_deref() {
        Err(_) | Ok("opentsdb") => Ok(Flavor::OpenTsdb),
        Ok("victoriametrics") => Ok(Flavor::VictoriaMetrics),
        Ok("influxdb") => Ok(Flavor::InfluxDb),
        Ok("kairosdb") => Ok(Flavor::KairosDb),
        Ok(other) => Err(format!("FLAVOR={other} is unknown; see --help")),
    }
}

/// Serves requests until `end` and returns how many.
fn serve(worker: usize, end: Instant) -> u64 {
    let active = gauge!("http.active", "worker" => worker.to_string());
    let mut served = 0;
    while Instant::now() < end {
        let path = if (served as usize + worker) % 2 == 0 { "/login" } else { "/search" };
        let code = if served % 19 == 18 { "500" } else { "200" };
        let start = Instant::now();
        active.set(1.0);
        thread::park_timeout(Duration::from_millis(5 + served * 37 % 60)); // the work
        active.set(0.0);
        counter!("http.requests", "path" => path, "code" => code).increment(1);
        histogram!("http.seconds", "path" => path).record(start.elapsed().as_secs_f64());
        served += 1;
    }
    served
}

/// Prints the service's lines after the first `shown`, and returns how many there were.
fn show(fake: Option<&FakeTsd>, shown: usize) -> usize {
    let lines = fake.map(FakeTsd::lines).unwrap_or_default().split_off(shown);
    lines.iter().filter(|line| !line.contains(OWN)).for_each(|line| println!("{line}"));
    lines.len()
}

/// What the exporter counted, beside what the TSD has.
fn tally(served: u64, stats: &Stats, fake: Option<&FakeTsd>) {
    println!("served     {served} requests");
    println!("taken      {} points", stats.points_taken);
    println!("confirmed  {} by {:?}", stats.points_confirmed, stats.confirmation);
    println!("pending    {}, dropped {}", stats.points_pending, stats.points_dropped.total());
    let Some(points) = fake.map(FakeTsd::points) else { return };
    let requests = points.iter().filter(|point| point.metric == "http.requests");
    let last: HashMap<_, _> = requests.map(|point| (&point.tags, point.value)).collect();
    let counts = last.values().map(|&value| if let Value::Integer(n) = value { n } else { 0 });
    println!("at the TSD {} points, {} requests", points.len(), counts.sum::<i64>());
}
