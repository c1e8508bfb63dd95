//! One socket to a server, whatever protocol is spoken on it.
//!
//! Non-blocking in everything, so that no server can hold the writer. There is no `write_all`,
//! whose retry after a timeout splices lines, and no vectored write, which raises SIGPIPE on a
//! connection that is gone.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::clock::Instant;

/// How much the kernel may hold that it has not sent yet. Without a bound it hides megabytes from a
/// server that has stopped reading, and the answer to what stands behind them is late by the time
/// that they take.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 16 * 1024;
/// How much is read before the writer has its turn again.
const READ_BYTES: usize = 8 * 1024;
/// How long a connection is silent before the kernel asks whether the other side is still there,
/// and how often it then asks.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));
/// How long a connection that was given up is read on from.
const LINGER: Duration = Duration::from_secs(60);

/// What a turn of reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// There is nothing more for now.
    Empty,
    /// There may be more.
    More,
    /// The server has closed its side.
    Ended,
}

pub(super) struct Connection {
    stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// For what is read. Kept, since most reads find nothing, and zeroing it costs more than they
    /// do.
    buffer: Box<[u8]>,
}

/// Without what was read.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl Connection {
    /// Begins to connect.
    pub(super) fn begin(peer: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = TcpStream::connect(peer)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, peer, buffer: vec![0; READ_BYTES].into() })
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
        // With nobody listening on a port of the ephemeral range, the kernel may connect the socket
        // to itself.
        if self.stream.local_addr()? == self.peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.set_options();
        Ok(true)
    }

    /// How many of the bytes the kernel took; 0 when it takes none now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, on_bytes: impl FnOnce(&[u8])) -> io::Result<Received> {
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Ok(Received::Ended),
                Ok(read) => {
                    on_bytes(&self.buffer[..read]);
                    return Ok(Received::More);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Empty),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn half_close(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// After both sides have closed: whether the server's machine has acknowledged everything.
    ///
    /// The end of the stream alone proves nothing when the server's FIN was under way while we were
    /// still writing: the reset that our bytes will be answered with arrives later. Everything is
    /// acknowledged, our own FIN included, when the system has no peer for the socket any more.
    ///
    /// | system | says so |
    /// |---|---|
    /// | Linux | at once |
    /// | macOS, BSD | at once, by their sources; not tried |
    /// | gVisor | after a minute where we closed first |
    /// | Windows | never |
    ///
    /// Where it has never said so the caller waits for a while, and a reset that comes later than
    /// that is missed. `version` depends on none of this.
    pub(super) fn is_settled(&self) -> io::Result<bool> {
        let is_over = self.stream.peer_addr().is_err();
        // Only after the question above: a reset sets the error first and takes the peer away then.
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(is_over),
        }
    }

    /// A system that refuses one of them is no reason to have no connection.
    fn set_options(&self) {
        let _ = self.stream.set_nodelay(true);
        let socket = SockRef::from(&self.stream);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    }

    /// Lets the kernel hold more than it does otherwise, for the rest of a line on a connection
    /// that takes nothing.
    fn make_room(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(u32::MAX);
    }
}

/// A connection that was given up.
///
/// The server may still read what the kernel holds of it, and had better find whole lines. So the
/// line that was begun is finished, then our side is closed. The socket stays for a while, and
/// replies are read and thrown away: a reply to a closed socket is answered with a reset, and the
/// kernel then throws away what it has not sent yet, in the middle of a line.
#[derive(Debug)]
pub(super) struct Released {
    connection: Connection,
    /// What is missing of the line that was begun.
    rest: Vec<u8>,
    /// When it is closed whatever the server does.
    until: Instant,
}

impl Released {
    pub(super) fn new(connection: Connection, rest: Vec<u8>, now: Instant) -> Self {
        connection.make_room();
        Released { connection, rest, until: now + LINGER }
    }

    /// Whether the kernel has every line whole.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes on as far as it can without waiting; returns when to go on, or `None` when it is done
    /// with.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Instant> {
        if !self.rest.is_empty() {
            let taken = self.connection.write(&self.rest).ok()?;
            self.rest.drain(..taken);
        }
        if self.rest.is_empty() {
            let _ = self.connection.half_close();
        }
        let received = self.connection.read(|_| {}).ok()?;
        let is_over = now >= self.until || (received == Received::Ended && self.rest.is_empty());
        let next = if received == Received::More { now } else { self.until };
        (!is_over).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel does now and then where nobody listens on a port of the ephemeral range.
    #[test]
    fn a_socket_that_is_connected_to_itself_is_a_refused_one() {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        let stream = TcpStream::from_std(socket.into());
        let peer = own.as_socket().unwrap();
        let connection = Connection { stream, peer, buffer: Box::default() };
        let refused = connection.is_established().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(!format!("{connection:?}").contains("buffer"));
    }
}
