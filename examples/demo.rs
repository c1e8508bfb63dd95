//! A little service, instrumented, and the lines that its metrics become.
//!
//! `cargo run --example demo` sends to a TSD inside the process, `TSD=host:port cargo run --example demo` to a real one;
//! `FOR=60` lets it run a minute.
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{OpenTsdbBuilder, Stats, Value};

const WORKERS: usize = 3;
const SECONDS: u64 = 5;
const OWN: &str = "opentsdb.client.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let real = std::env::var("TSD").ok();
    let fake = real.is_none().then(FakeTsd::start);
    let address = real.or_else(|| fake.as_ref().map(FakeTsd::address)).unwrap_or_default();
    let seconds = std::env::var("FOR").map_or(Ok(SECONDS), |text| text.parse())?;
    let interval = Duration::from_secs(1);
    let exporter = OpenTsdbBuilder::new(&address).with_flush_interval(interval).install()?;
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

/// Serves requests until `end`, answers how many.
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

/// Prints the service's lines behind the first `shown` of all, and answers how many more there are.
fn show(fake: Option<&FakeTsd>, shown: usize) -> usize {
    let lines = fake.map(FakeTsd::lines).unwrap_or_default().split_off(shown);
    lines.iter().filter(|line| !line.contains(OWN)).for_each(|line| println!("{line}"));
    lines.len()
}

/// What the exporter says, and beside it what the TSD has.
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
