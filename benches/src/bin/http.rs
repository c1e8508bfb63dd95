//! What HTTP costs: a line into a body, and points a second to a real server, beside requests of 50
//! points as Telegraf makes them.
//!
//! ```text
//! http lines [COUNT]                      ns and bytes a line, plain and gzip
//! http send ADDRESS FLAVOR [SERIES [MS]]  points a second: telnet, HTTP, HTTP without gzip, 50 points a request
//! ```
//!
//! `ADDRESS` is of the form `127.0.0.1:4242`, with a comma and the address of HTTP behind it where
//! that is another. With `MS` the server is a round trip of so many milliseconds away, through a
//! proxy in the process. The lines are counters with two labels, as in the other benches.
//! `valgrind --tool=callgrind` over `http lines` gives instructions.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::{Compression, write::GzEncoder};
use metrics::{Counter, with_local_recorder};
use metrics_exporter_opentsdb::{
    Flavor, HttpCompression, InstanceTag, OpenTsdbBuilder, OpenTsdbHandle, RateLimit,
};
use opentsdb_benches::operations::{counter_of, key};

use self::body::Body;

#[path = "../../../src/send/http/body.rs"]
#[expect(dead_code, reason = "the crate uses all of it")]
mod body;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(120);
/// Points of a request as Telegraf makes it (`httpBatchSize`).
const TELEGRAF: usize = 50;
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lines"] => lines(100_000),
        ["lines", count] => lines(count.parse()?),
        ["send", address, flavor] => send(address, flavor, 100_000, 0),
        ["send", address, flavor, series] => send(address, flavor, series.parse()?, 0),
        ["send", address, flavor, series, ms] => {
            send(address, flavor, series.parse()?, ms.parse()?)
        }
        _ => Err("http lines [COUNT] | http send ADDRESS FLAVOR [SERIES [MS]]".into()),
    }
}

/// An exporter of so many counters.
fn exporter(builder: OpenTsdbBuilder, series: usize) -> Result<(OpenTsdbHandle, Vec<Counter>)> {
    let (recorder, handle) = builder
        .with_instance_tag(InstanceTag::Off)
        .with_telemetry(false)
        .with_flush_interval(Duration::from_secs(86_400))
        .with_rate_limit(RateLimit::Unlimited)
        .with_queue_size(10_000_000)
        .build()?;
    let counters =
        with_local_recorder(&recorder, || (0..series).map(|n| counter_of(&key(n))).collect());
    Ok((handle, counters))
}

/// The lines of a snapshot, each with its line feed.
fn snapshot(series: usize) -> Result<Vec<String>> {
    let builder = OpenTsdbBuilder::new("127.0.0.1:1")
        .with_connectivity_check(metrics_exporter_opentsdb::ConnectivityCheck::Off);
    let (handle, counters) = exporter(builder, series)?;
    counters.iter().enumerate().for_each(|(n, counter)| counter.increment(n as u64 * 7919));
    Ok(handle.render().split_inclusive('\n').map(str::to_owned).collect())
}

fn lines(count: usize) -> Result<()> {
    let lines = snapshot(count)?;
    let bytes: usize = lines.iter().map(String::len).sum();
    println!("{} lines of {} bytes", lines.len(), bytes / lines.len());
    for (limit, is_gzip) in [(8_000, false), (8_000, true), (1 << 20, false), (1 << 20, true)] {
        let (mut body, mut best, mut wire, mut requests) = (Body::new(), f64::MAX, 0, 0);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            (wire, requests) = (0, 0);
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let points =
                    body.make(&rest.iter().map(String::as_bytes), usize::MAX, limit, is_gzip);
                wire += body.bytes(is_gzip).len();
                requests += 1;
                rest = &rest[points..];
            }
            best = best.min(began.elapsed().as_secs_f64());
        }
        println!(
            "at most {limit} bytes, gzip {is_gzip}: {:.0} ns a line, {:.1} bytes, {} lines a request",
            best * 1e9 / lines.len() as f64,
            wire as f64 / lines.len() as f64,
            lines.len() / requests,
        );
    }
    Ok(())
}

fn send(address: &str, flavor: &str, series: usize, round_trip_ms: u64) -> Result<()> {
    let flavor = match flavor {
        "opentsdb" => Flavor::OpenTsdb,
        "victoria" => Flavor::VictoriaMetrics,
        "influxdb" => Flavor::InfluxDb,
        other => return Err(format!("which server is {other}?").into()),
    };
    let (telnet, http) = address.split_once(',').unwrap_or((address, address));
    let delay = Duration::from_millis(round_trip_ms) / 2;
    let (telnet, http) = (&proxy(telnet, delay)?, &proxy(http, delay)?);
    let url = format!("http://{http}");
    let ways = [
        ("telnet", OpenTsdbBuilder::new(telnet)),
        ("http, gzip", OpenTsdbBuilder::new(&url)),
        ("http, plain", OpenTsdbBuilder::new(&url).with_http_compression(HttpCompression::Off)),
    ];
    for (name, builder) in ways {
        let (handle, counters) = exporter(builder.with_flavor(flavor), series)?;
        // The first makes the series known.
        let mut seconds = f64::MAX;
        for _ in 0..=ROUNDS {
            seconds = seconds.min(flush(&handle, &counters)?);
        }
        println!("{name}: {:.0} points/s", series as f64 / seconds);
        handle.shutdown(PATIENCE)?;
    }
    let lines = snapshot(series)?;
    let mut seconds = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        telegraf(http, &lines)?;
        seconds = seconds.min(began.elapsed().as_secs_f64());
    }
    println!("50 points a request: {:.0} points/s", series as f64 / seconds);
    Ok(())
}

/// How long a flush of all takes.
fn flush(handle: &OpenTsdbHandle, counters: &[Counter]) -> Result<f64> {
    counters.iter().for_each(|counter| counter.increment(1));
    // At the beginning of a second, since one snapshot a second is taken at most.
    let passed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    thread::park_timeout(Duration::from_nanos(1_000_500_000 - u64::from(passed)));
    let began = Instant::now();
    let report = handle.flush(PATIENCE)?;
    let rejected = handle.stats().points_rejected.total();
    assert_eq!((report.pending, rejected), (0, 0), "{report:?}");
    Ok(began.elapsed().as_secs_f64())
}

/// One request after the other on one connection, each compressed by itself at the usual level.
fn telegraf(address: &str, lines: &[String]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut body = Body::new();
    for batch in lines.chunks(TELEGRAF) {
        body.make(&batch.iter().map(String::as_bytes), usize::MAX, 1 << 20, false);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(body.bytes(false))?;
        let gzip = gzip.finish()?;
        let head = format!(
            "POST /api/put HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            gzip.len()
        );
        stream.write_all(&[head.as_bytes(), &gzip].concat())?;
        read_answer(&mut reader)?;
    }
    Ok(())
}

/// An address at which the server is so far away, each way.
fn proxy(server: &str, delay: Duration) -> Result<String> {
    if delay.is_zero() {
        return Ok(server.to_owned());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, server) = (listener.local_addr()?.to_string(), server.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&server) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                    thread::spawn(move || pass_on(from, to, delay));
                }
            }
        }
    });
    Ok(address)
}

/// Passes on what comes, each piece so much later, and the end.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    let _ = to.set_nodelay(true);
    thread::spawn(move || {
        for (due, piece) in pieces {
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

fn read_answer(reader: &mut impl BufRead) -> Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    if !line.contains(" 20") {
        return Err(line.into());
    }
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(())
}
