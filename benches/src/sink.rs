//! A server that only reads.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

/// It reads and counts on a thread of its own until the process ends.
pub struct Sink {
    address: String,
    bytes: Arc<AtomicU64>,
    lines: Arc<AtomicU64>,
}

impl Sink {
    /// Starts one on a port of the system's choice. Counting lines costs it a look at every byte.
    pub fn start(counts_lines: bool) -> io::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Sink {
            address: listener.local_addr()?.to_string(),
            bytes: Arc::default(),
            lines: Arc::default(),
        };
        let (bytes, lines) = (Arc::clone(&sink.bytes), Arc::clone(&sink.lines));
        thread::Builder::new().name("sink".into()).spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            for mut stream in listener.incoming().flatten() {
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if counts_lines {
                        let ends = buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
                        lines.fetch_add(ends as u64, Ordering::Relaxed);
                    }
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
            }
        })?;
        Ok(sink)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many line feeds were.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes were read.
    pub fn wait_for(&self, bytes: u64) {
        while self.bytes() < bytes {
            thread::park_timeout(Duration::from_micros(50));
        }
    }
}
