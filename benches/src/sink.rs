//! A server that reads, and answers `version`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

/// The question that a client has its points confirmed by.
const QUESTION: &[u8; 8] = b"version\n";

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
                // The last bytes that came, a question perhaps.
                let mut last = [0; QUESTION.len()];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    let new = read.min(last.len());
                    last.rotate_left(new);
                    let kept = last.len() - new;
                    last[kept..].copy_from_slice(&buffer[read - new..read]);
                    if counts_lines {
                        let ends = buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
                        lines.fetch_add(ends as u64, Ordering::Relaxed);
                    }
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                    if last == *QUESTION && stream.write_all(b"net.opentsdb.tools 2.4.1\n").is_err()
                    {
                        break;
                    }
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
