//! A raw client, for the tests of the [`FakeTsd`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{FakeTsd, Log};

/// Longer than anything takes that works.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The length of the lines that fill a buffer.
pub(super) const LONG: usize = 1000;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
}

impl Client {
    /// A connection that the server has accepted.
    pub(super) fn connect(tsd: &FakeTsd) -> Client {
        let before = tsd.log().connection_count();
        let client = Client::dial(tsd).unwrap();
        expect(tsd, |log| log.connection_count() > before);
        client
    }

    /// A connection that the server may not know of yet.
    pub(super) fn dial(tsd: &FakeTsd) -> io::Result<Client> {
        let stream = TcpStream::connect(tsd.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream })
    }

    pub(super) fn send(&mut self, text: impl AsRef<[u8]>) -> &mut Client {
        self.stream.write_all(text.as_ref()).unwrap();
        self
    }

    /// The next `n` bytes.
    pub(super) fn read(&mut self, n: usize) -> String {
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Expects this text next.
    pub(super) fn expect(&mut self, text: &str) -> &mut Client {
        assert_eq!(self.read(text.len()), text);
        self
    }

    /// Finishes, and reads everything up to the server's FIN.
    pub(super) fn finish(&mut self) -> String {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.rest()
    }

    /// Reads everything up to the server's FIN.
    pub(super) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Expects nothing but a RST.
    pub(super) fn expect_reset(&mut self) {
        let read = self.stream.read(&mut [0; 1]);
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }

    /// Whether there is nothing to read, and no end either, at this moment.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends lines of [`LONG`] bytes until the buffers of both kernels are full; returns how many
    /// bytes that took.
    pub(super) fn fill(&mut self) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        let line = format!("put {} 1700000000 1 host=a\n", "m".repeat(LONG - 25));
        assert_eq!(line.len(), LONG);
        let lines = line.repeat(100);
        let mut sent = 0;
        loop {
            match self.stream.write(lines.as_bytes()) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        sent
    }
}

/// Waits until it is true.
#[track_caller]
pub(super) fn expect(tsd: &FakeTsd, done: impl FnMut(&Log) -> bool) {
    assert!(tsd.wait_until(PATIENCE, done), "not within {PATIENCE:?}: {tsd:?}");
}

/// A good line.
pub(super) fn put(time: u64, value: u64) -> String {
    format!("put m {time} {value} host=a\n")
}
