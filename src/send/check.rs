//! The start-up check: whether any server can be reached, and would take points.

use std::io;
use std::time::Duration;

use super::dial::{Attempt, Dialer, Progress};
use super::endpoint::Endpoint;
#[cfg(feature = "http")]
use super::http;
use super::protocols::Protocols;
use super::rotation::{EndpointOrder, Rotation};
use super::status::Unreached;
use crate::clock::Clock;

/// Whether any endpoint takes points, as far as that can be found out without sending one, within
/// `timeout`, of which each has an equal share. If none does, the error is the last one, with its
/// address. The outer error is that of the event queue.
pub(crate) fn check(
    endpoints: &[Endpoint],
    order: EndpointOrder,
    timeout: Duration,
    protocols: &Protocols,
) -> io::Result<Result<(), Unreached>> {
    let mut endpoints = endpoints.to_vec();
    if order == EndpointOrder::Spread {
        fastrand::shuffle(&mut endpoints);
    }
    let share = timeout / u32::try_from(endpoints.len()).unwrap_or(u32::MAX).max(1);
    let mut result = Ok(());
    for endpoint in endpoints {
        let rotation = Rotation::new(1, order, None);
        let mut dialer = Dialer::new(vec![endpoint.clone()], rotation, share)?;
        result = dialer.check(&endpoint, protocols)?;
        if result.is_ok() {
            break;
        }
    }
    Ok(result)
}

impl Dialer {
    /// Checks its one endpoint.
    fn check(
        &mut self,
        endpoint: &Endpoint,
        protocols: &Protocols,
    ) -> io::Result<Result<(), Unreached>> {
        let clock = Clock::default();
        let mut attempt = Attempt::new(self, clock.now());
        let connection = loop {
            match attempt.turn(self, clock.now()) {
                Progress::Wait(until) => self.wait(Some(until), clock.now())?,
                Progress::Connected(_, connection) => break connection,
                Progress::Failed(_, unreached) => return Ok(Err(unreached)),
            }
        };
        // A server that speaks HTTP says whether it would take points; of another it is enough that
        // it takes a connection.
        #[cfg(feature = "http")]
        if let Some(url) = &endpoint.url {
            let unreached = |source| {
                let address = endpoint.to_string();
                Ok(Err(Unreached { action: "send to", address, source }))
            };
            let begun = http::Check::begin(connection, endpoint, url, &protocols.http, clock.now());
            let mut check = match begun {
                Ok(check) => check,
                Err(source) => return unreached(source),
            };
            loop {
                match check.turn(clock.now(), attempt.deadline) {
                    Ok(Some(until)) => self.wait(Some(until), clock.now())?,
                    Ok(None) => break,
                    Err(source) => return unreached(source),
                }
            }
        }
        #[cfg(not(feature = "http"))]
        let _ = (connection, endpoint, protocols);
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "http")]
    use std::io::Write;
    use std::io::{ErrorKind, Read};
    use std::net::{SocketAddr, TcpListener};

    use super::*;
    use crate::stats::Confirmation;

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect()
    }

    fn check(texts: &[&str], timeout: Duration) -> Result<(), Unreached> {
        let protocols = Protocols {
            confirmation: Confirmation::Auto,
            #[cfg(feature = "http")]
            http: http::head::Options::default(),
        };
        super::check(&endpoints(texts), EndpointOrder::Preferred, timeout, &protocols).unwrap()
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
        check(&[&absent, &address], Duration::from_secs(5)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.is_empty());
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        check(&[&format!("localhost:{port}")], Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn when_nobody_answers_the_error_names_the_address_and_the_cause() {
        let (_held, absent) = nobody();
        let error = check(&[&absent], Duration::from_secs(5)).unwrap_err();
        assert_eq!((error.address, error.source.kind()), (absent, ErrorKind::ConnectionRefused));
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_server_that_closes_without_an_answer_would_take_no_points() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        });
        let error = check(&[&address], Duration::from_secs(5)).unwrap_err();
        assert_eq!((error.address, error.action), (format!("{address}/api/put"), "send to"));
        assert_eq!(error.source.kind(), ErrorKind::UnexpectedEof);
        server.join().unwrap();
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_server_that_answers_without_an_end_holds_nobody_past_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(&[b' '; 4096]).is_ok() {}
        });
        let error = check(&[&address], Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::TimedOut);
        // It has ended because it was left.
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_never_answers_holds_nobody_past_the_timeout() {
        // A full backlog drops the next SYN without an answer.
        let (socket, address) = nobody();
        socket.listen(0).unwrap();
        let _fill: Vec<_> =
            (0..2).map(|_| mio::net::TcpStream::connect(address.parse().unwrap())).collect();
        let error = check(&[&address], Duration::from_millis(200)).unwrap_err();
        assert_eq!((error.address, error.source.kind()), (address, ErrorKind::TimedOut));
    }
}
