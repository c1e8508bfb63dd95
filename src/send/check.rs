//! The check at the start: whether any server takes a connection.
//!
//! It runs one attempt to connect, closes at once and sends nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use super::dial::{Attempt, Dialer, Progress};
use super::endpoint::Endpoint;
use super::failure::Unreached;
use super::rotation::{EndpointOrder, Rotation};
use crate::clock::Clock;

/// Whether any address of any endpoint takes a connection within `timeout`, of which each endpoint
/// has an equal share. If none does, the error is the last one, with its address.
pub(crate) fn check(endpoints: &[Endpoint], timeout: Duration) -> Result<(), Unreached> {
    attempt(endpoints, timeout).unwrap_or_else(|source| {
        let address = endpoints.first().map(Endpoint::to_string).unwrap_or_default();
        Err(Unreached { action: "connect to", address, source })
    })
}

/// The outer error is that of the event queue.
fn attempt(endpoints: &[Endpoint], timeout: Duration) -> io::Result<Result<(), Unreached>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(4));
    let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
    let share = timeout / u32::try_from(endpoints.len()).unwrap_or(u32::MAX).max(1);
    let rotation = Rotation::new(endpoints.len(), EndpointOrder::Preferred, None);
    let mut dialer = Dialer::new(endpoints.to_vec(), rotation, share, poll.registry(), waker)?;
    let clock = Clock::default();
    let mut attempt = Attempt::new(&mut dialer, clock.now());
    loop {
        let until = match attempt.turn(&mut dialer, clock.now()) {
            Progress::Wait(until) => until,
            Progress::Connected(..) => return Ok(Ok(())),
            Progress::Failed(_, unreached) => return Ok(Err(unreached)),
        };
        let left = until.saturating_duration_since(clock.now());
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use std::io::{ErrorKind, Read};
    use std::net::{SocketAddr, TcpListener};

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect()
    }

    /// An address on which nobody listens, held so that nobody else does.
    fn nobody() -> (socket2::Socket, String) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        (socket, address)
    }

    #[test]
    fn any_server_that_answers_will_do_and_gets_no_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (_held, absent) = nobody();
        check(&endpoints(&[&absent, &address]), Duration::from_secs(5)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.is_empty());
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        check(&endpoints(&[&format!("localhost:{port}")]), Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn when_nobody_answers_the_error_names_the_address_and_the_cause() {
        let (_held, absent) = nobody();
        let error = check(&endpoints(&[&absent]), Duration::from_secs(5)).unwrap_err();
        assert_eq!((error.address, error.source.kind()), (absent, ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_server_that_never_answers_holds_nobody_past_the_timeout() {
        // A full backlog drops the next SYN without an answer.
        let (socket, address) = nobody();
        socket.listen(0).unwrap();
        let _fill: Vec<_> =
            (0..2).map(|_| mio::net::TcpStream::connect(address.parse().unwrap())).collect();
        let timeout = Duration::from_millis(200);
        let start = Instant::now();
        let error = check(&endpoints(&[&address]), timeout).unwrap_err();
        assert!(start.elapsed() < timeout + Duration::from_millis(100));
        assert_eq!((error.address, error.source.kind()), (address, ErrorKind::TimedOut));
    }
}
