//! A little service, instrumented, and the lines that its metrics become.
//!
//! `cargo run --example demo` sends to a TSD inside the process, `TSD=host:port cargo run --example demo` to a real one.
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{OpenTsdbBuilder, Stats};

const WORKERS: usize = 3;
const PATHS: [&str; 2] = ["/login", "/search"];
const SECONDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let real = std::env::var("TSD").ok();
    let fake = real.is_none().then(FakeTsd::start);
    let address = real.or_else(|| fake.as_ref().map(FakeTsd::address)).unwrap_or_default();
    let exporter =
        OpenTsdbBuilder::new(&address).with_flush_interval(Duration::from_secs(1)).install()?;
    println!(
        "{WORKERS} workers serve requests for {SECONDS} s; a snapshot a second goes to {address}\n"
    );

    let (stops, workers): (Vec<_>, Vec<_>) = (0..WORKERS)
        .map(|worker| {
            let (stop, stopped) = mpsc::channel();
            (stop, thread::spawn(move || serve(worker, &stopped)))
        })
        .unzip();
    let end = Instant::now() + Duration::from_secs(SECONDS as u64);
    let mut shown = 0;
    while Instant::now() < end {
        thread::park_timeout(Duration::from_millis(200));
        show(fake.as_ref(), &mut shown);
    }
    drop(stops); // each worker ends with its request
    let served: u64 = workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum();

    let report = exporter.shutdown(Duration::from_secs(5))?;
    show(fake.as_ref(), &mut shown);
    println!("\nthe last snapshot, at shutdown: {report:?}");
    tally(served, &exporter.stats(), fake.as_ref());
    Ok(())
}

/// Serves requests until its stop channel closes, and answers how many.
fn serve(worker: usize, stopped: &Receiver<()>) -> u64 {
    let active = gauge!("http.active", "worker" => worker.to_string());
    for request in 0_u64.. {
        let path = PATHS[(request as usize + worker) % PATHS.len()];
        let code = if request % 19 == 18 { "500" } else { "200" };
        let (start, work) = (Instant::now(), Duration::from_millis(5 + request * 37 % 60));
        active.set(1.0);
        let is_last = stopped.recv_timeout(work) != Err(RecvTimeoutError::Timeout);
        active.set(0.0);
        counter!("http.requests", "path" => path, "code" => code).increment(1);
        histogram!("http.seconds", "path" => path).record(start.elapsed().as_secs_f64());
        if is_last {
            return request + 1;
        }
    }
    0
}

/// Prints the lines that have arrived since the last call; of the exporter's own, only how many.
fn show(fake: Option<&FakeTsd>, shown: &mut usize) {
    let lines = fake.map(FakeTsd::lines).unwrap_or_default();
    let (own, service): (Vec<_>, Vec<_>) =
        lines[*shown..].iter().partition(|line| line.starts_with("put opentsdb.client"));
    service.iter().for_each(|line| println!("  {line}"));
    if !own.is_empty() {
        println!("  … and {} lines of opentsdb.client.*, the exporter's own telemetry", own.len());
    }
    *shown = lines.len();
}

fn tally(served: u64, stats: &Stats, fake: Option<&FakeTsd>) {
    println!("requests served {served}");
    println!("points taken    {}", stats.points_taken);
    println!("  confirmed     {} by {:?}", stats.points_confirmed, stats.confirmation);
    println!("  pending       {}", stats.points_pending);
    println!("  dropped       {}", stats.points_dropped.total());
    if let Some(fake) = fake {
        println!("the TSD got     {}", fake.points().len());
    }
}
