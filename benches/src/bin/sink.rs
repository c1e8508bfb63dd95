//! A sink in a process of its own: prints its address, and at the end of its input how many lines
//! came.

use std::io::{Read, Write};

use opentsdb_benches::sink::Sink;

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
    // Whoever has started it may be gone.
    let _ = writeln!(std::io::stdout(), "{lines}");
    Ok(())
}
