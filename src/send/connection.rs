//! One socket to a server.
//!
//! Non-blocking in everything, so that no server can hold the writer. There is no `write_all`, whose retry after a timeout splices
//! lines, and no vectored write, which raises SIGPIPE on a connection that is gone.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

/// How much the kernel may hold that it has not sent yet. Without a bound it hides megabytes of a server that has stopped reading,
/// and the answer to a `version` behind them is late by the time that they take.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 16 * 1024;
/// How much is read before the writing has its turn again.
const READ_TURN: usize = 64 * 1024;
/// How long a connection is silent before the kernel asks whether the other side is still there, and how often it then asks.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// How a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// There is nothing more for now.
    Empty,
    /// There may be more.
    More,
    /// The server has closed its side.
    Ended,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn begin(peer: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = TcpStream::connect(peer)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, peer })
    }

    /// Whether the connection is there by now.
    pub(super) fn is_established(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        // With nobody listening on a port of the ephemeral range, the kernel may connect the socket to itself.
        if self.stream.local_addr()? == self.peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.set_options()?;
        Ok(true)
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How many of the bytes the kernel took; 0 when it takes none now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Ok(0) if !bytes.is_empty() => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    /// Reads what is there, but no more than a turn's worth.
    pub(super) fn drain(
        &mut self,
        buffer: &mut [u8],
        mut on_bytes: impl FnMut(&[u8]),
    ) -> io::Result<Drained> {
        let mut left = READ_TURN;
        while left > 0 {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Drained::Ended),
                Ok(n) => {
                    on_bytes(&buffer[..n]);
                    left = left.saturating_sub(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Empty),
                Err(error) => return Err(error),
            }
        }
        Ok(Drained::More)
    }

    /// Lets the kernel hold more than it does otherwise, for the rest of a line on a connection that takes nothing.
    pub(super) fn make_room(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // Without it the line stays torn, which is what happens elsewhere too.
        let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(u32::MAX);
    }

    /// Says that nothing more will be written.
    pub(super) fn half_close(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// After both sides have closed: whether the server's machine has acknowledged everything.
    ///
    /// The server's FIN may have been under way while we were still writing. The end of the stream alone proves nothing then: the
    /// reset that our bytes will be answered with arrives later. It has acknowledged them, and our own FIN, only when the kernel
    /// has no peer for the socket any more.
    pub(super) fn is_settled(&self) -> io::Result<bool> {
        let is_over = !cfg!(any(target_os = "linux", target_os = "android"))
            || self.stream.peer_addr().is_err();
        // Only after the question above: a reset sets the error first and takes the peer away then.
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(is_over),
        }
    }

    fn set_options(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let socket = SockRef::from(&self.stream);
        let (time, interval) = KEEPALIVE;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        Ok(())
    }
}
