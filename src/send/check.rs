//! The check at the start: is any server there?
//!
//! It connects, closes at once and sends nothing. Each endpoint is tried by a thread of its own, so that a resolver that never
//! answers holds nobody longer than the time that was given.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::FOREVER;
use super::endpoint::Endpoint;
use super::resolve::resolve;
use crate::clock::{Clock, Instant};

/// The name of a thread that tries an endpoint.
const THREAD: &str = "opentsdb-check";

/// An address that could not be reached, and why.
pub(crate) type Unreached = (String, io::Error);

/// Whether any address of any endpoint takes a connection within `timeout`. If none does, the error is that of the last endpoint
/// to fail; one that was still being tried when the time was over counts as the last.
pub(crate) fn check(endpoints: &[Endpoint], timeout: Duration) -> Result<(), Unreached> {
    let clock = Clock::default();
    let deadline = clock.now() + timeout.min(FOREVER);
    let is_over = Arc::new(AtomicBool::new(false));
    let (sender, results) = bounded(endpoints.len());
    let mut pending: Vec<String> = Vec::new();
    let mut last = None;
    for endpoint in endpoints {
        let name = endpoint.to_string();
        let (endpoint, sender) = (endpoint.clone(), sender.clone());
        let (clock, is_over) = (clock.clone(), Arc::clone(&is_over));
        let tried = thread::Builder::new().name(THREAD.into()).spawn(move || {
            let result = reach(&endpoint, deadline, &clock, &is_over);
            // Nobody listens once another endpoint has answered.
            let _ = sender.send((endpoint.to_string(), result));
        });
        match tried {
            Ok(_) => pending.push(name),
            Err(error) => last = Some((name, error)),
        }
    }
    while !pending.is_empty() {
        match results.recv_timeout(deadline.saturating_duration_since(clock.now())) {
            Ok((_, Ok(()))) => {
                // Relaxed: it only spares the other threads an attempt or two.
                is_over.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Ok((name, Err(unreached))) => {
                pending.retain(|other| *other != name);
                last = Some(unreached);
            }
            Err(_) => {
                is_over.store(true, Ordering::Relaxed);
                let error =
                    io::Error::new(ErrorKind::TimedOut, format!("no answer within {timeout:?}"));
                return Err((pending.swap_remove(0), error));
            }
        }
    }
    Err(last.unwrap_or_else(|| (String::new(), ErrorKind::NotFound.into())))
}

/// Tries the addresses in turn, each with an equal share of the time that is left.
fn reach(
    endpoint: &Endpoint,
    deadline: Instant,
    clock: &Clock,
    is_over: &AtomicBool,
) -> Result<(), Unreached> {
    let addresses = resolve(endpoint).map_err(|error| (endpoint.to_string(), error))?;
    let mut last = (endpoint.to_string(), ErrorKind::TimedOut.into());
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(clock.now());
        if left.is_zero() || is_over.load(Ordering::Relaxed) {
            break;
        }
        let parts = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match connect(*address, left / parts) {
            Ok(()) => return Ok(()),
            Err(error) => last = (address.to_string(), error),
        }
    }
    Err(last)
}

fn connect(address: SocketAddr, timeout: Duration) -> io::Result<()> {
    // A timeout of nothing is an error of its own to the standard library.
    let stream = TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1)))?;
    if stream.local_addr()? == address {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

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
        let (address, error) = check(&endpoints(&[&absent]), Duration::from_secs(5)).unwrap_err();
        assert_eq!(address, absent);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
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
        let (unreached, error) = check(&endpoints(&[&address]), timeout).unwrap_err();
        assert!(start.elapsed() < timeout + Duration::from_millis(100));
        assert_eq!((unreached, error.kind()), (address, ErrorKind::TimedOut));
    }
}
