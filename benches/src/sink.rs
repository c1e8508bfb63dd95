//! A server that reads, and answers `version`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

use memchr::{memchr_iter, memmem};

/// The question that a client has its points confirmed by, behind the line before it; and a TSD's
/// answer.
const QUESTION: &[u8; 9] = b"\nversion\n";
const ANSWER: &[u8] = b"net.opentsdb.tools 2.4.1 built at revision 0 (MINT)\n\
                        Built on 2021/09/08 03:26:53 +0000 by sink@localhost:/\n";

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
            // In front of what is read, the end of what was read before: a question may be in two reads.
            const KEPT: usize = QUESTION.len() - 1;
            let mut buffer = vec![0; KEPT + (1 << 18)];
            let question = memmem::Finder::new(QUESTION);
            for mut stream in listener.incoming().flatten() {
                // As a TSD does: an answer does not wait until the one before has its ACK.
                let _ = stream.set_nodelay(true);
                buffer[..KEPT].fill(0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[KEPT..]) {
                    if counts_lines {
                        let ends = memchr_iter(b'\n', &buffer[KEPT..KEPT + read]).count();
                        lines.fetch_add(ends as u64, Ordering::Relaxed);
                    }
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                    let questions = question.find_iter(&buffer[..KEPT + read]).count();
                    if (0..questions).any(|_| stream.write_all(ANSWER).is_err()) {
                        break;
                    }
                    buffer.copy_within(read..KEPT + read, 0);
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
