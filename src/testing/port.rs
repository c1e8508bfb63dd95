//! A port that is the server's own from start to end.
//!
//! While a server is down its port must refuse connections, and must still be there when it comes
//! back: a port that was freed may be another test's in a moment. So a socket that is bound and
//! never listens keeps the port, and the one that listens comes and goes beside it
//! (`SO_REUSEPORT`). Where that is not to be had, the listener stays, and the server resets who
//! comes.
//!
//! Nor is it another server's of the process later: an exporter may outlive its server and go on
//! looking for it, and would be taken for a client of the other.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, Type};

/// Lower than those of the server's waker and connections.
const LISTENER: Token = Token(0);
/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    /// Bound and not listening, where it can be shared.
    _keeper: Option<Socket>,
    /// `None` while connections are refused.
    listener: Option<TcpListener>,
    /// The receive buffer that connections begin with, when one was asked for.
    receive_buffer: Option<usize>,
}

impl Port {
    /// Binds a free port of 127.0.0.1 and listens.
    pub(super) fn bind(registry: &Registry) -> io::Result<Self> {
        let (first, address) = unused()?;
        let mut port = Port { address, _keeper: None, listener: None, receive_buffer: None };
        if CAN_CLOSE {
            port._keeper = Some(first);
            port.open(registry)?;
        } else {
            port.listen(first, registry)?;
        }
        Ok(port)
    }

    /// Listens again.
    pub(super) fn open(&mut self, registry: &Registry) -> io::Result<()> {
        match &self.listener {
            Some(_) => Ok(()),
            None => self.listen(socket(self.address)?, registry),
        }
    }

    /// Refuses connections from now on; those not accepted yet are reset. Returns whether that
    /// could be done.
    pub(super) fn close(&mut self) -> bool {
        if CAN_CLOSE {
            self.listener = None;
        }
        CAN_CLOSE
    }

    /// The next connection, if there is one.
    pub(super) fn accept(&self) -> Option<TcpStream> {
        loop {
            match self.listener.as_ref()?.accept() {
                Ok((stream, _)) => return Some(stream),
                Err(error) => match error.kind() {
                    // The client was gone before it was accepted, or a signal came: the next one
                    // may be fine.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => return None,
                },
            }
        }
    }

    /// Sets the receive buffer of the connections to come, from now on.
    pub(super) fn set_receive_buffer(&mut self, bytes: usize) {
        self.receive_buffer = Some(bytes);
        if let Some(listener) = &self.listener {
            // A system that does not set it leaves all as it was, which the test sees.
            let _ = SockRef::from(listener).set_recv_buffer_size(bytes);
        }
    }

    fn listen(&mut self, socket: Socket, registry: &Registry) -> io::Result<()> {
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }
}

/// Whether two sockets can be bound to a port while only one listens.
const CAN_CLOSE: bool = cfg!(target_os = "linux");

/// The ports that servers of this process have, or have had.
static USED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
/// How many used ports are passed over before one is used again.
const MAX_PASSED: usize = 64;

/// A socket on a free port that no server of this process has had, unless few of those are left.
fn unused() -> io::Result<(Socket, SocketAddr)> {
    // Held, so that the system offers others.
    let mut passed = Vec::new();
    loop {
        let socket = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        if used.insert(address.port()) || passed.len() == MAX_PASSED {
            return Ok((socket, address));
        }
        passed.push(socket);
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many, dozens would be the same.
    #[test]
    fn a_port_that_was_freed_is_not_the_next_server_s() {
        let ports = (0..1000).map(|_| unused().unwrap().1.port());
        assert_eq!(ports.collect::<BTreeSet<_>>().len(), 1000);
    }
}
