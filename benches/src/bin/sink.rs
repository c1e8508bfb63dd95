//! A sink for a client in another language: prints its address, and at the end of its input how
//! many lines came.

use opentsdb_benches::sink::Sink;
use std::io::Read;

fn main() -> std::io::Result<()> {
    let sink = Sink::start(true)?;
    println!("{}", sink.address());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // Until nothing more comes.
    let mut lines = u64::MAX;
    while lines != sink.lines() {
        lines = sink.lines();
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    println!("{lines}");
    Ok(())
}
