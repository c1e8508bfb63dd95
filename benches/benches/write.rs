//! From counters to the far end of a loopback socket, beside the same bytes ready-made.

use criterion::{Criterion, Throughput};
use opentsdb_benches::exporter::Exporter;
use opentsdb_benches::operations::{counter_of, key};
use opentsdb_benches::sink::Sink;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

const COUNTERS: usize = 200_000;
const TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> std::io::Result<()> {
    let running = Exporter::OpenTsdb.install(None);
    let (handle, sink) = running.opentsdb.as_ref().expect("it was installed");
    let counters: Vec<_> = (0..COUNTERS).map(|n| counter_of(&key(n))).collect();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("write");
    group.sample_size(10).throughput(Throughput::Elements(COUNTERS as u64));
    group.bench_function("flush", |bencher| {
        bencher.iter_batched(
            || counters.iter().for_each(|counter| counter.increment(1)),
            |()| {
                handle.flush(TIMEOUT).expect("it was not shut down");
                sink.wait_for(handle.stats().bytes_sent);
            },
            criterion::BatchSize::PerIteration,
        );
    });

    let text = handle.render().into_bytes();
    let ready = Sink::start(false)?;
    let mut stream = TcpStream::connect(ready.address())?;
    stream.set_nodelay(true)?;
    let mut sent = 0;
    group.bench_function("the same bytes ready-made", |bencher| {
        bencher.iter(|| {
            text.chunks(64 * 1024).for_each(|piece| stream.write_all(piece).expect("it reads"));
            sent += text.len() as u64;
            ready.wait_for(sent);
        });
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
