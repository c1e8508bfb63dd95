//! An endpoint that speaks HTTP: what is known of it, and the connection to it.

use std::fmt::Display;
use std::mem;

use super::body::Body;
use super::head::{Head, Options};
use super::learned::Learned;
use super::session::{Known, Session};
use crate::clock::Instant;
use crate::send::backoff::Wait;
use crate::send::connection::{Connection, Released};
use crate::send::delivery::Delivery;
use crate::send::endpoint::Endpoint;
use crate::send::peer::{Outcome, Peer, Turn};
use crate::send::status::{End, Failure};
use crate::send::stream::Stream;
use crate::send::url::Url;
use crate::send::window::Window;
use crate::stats::Confirmation;

pub(crate) struct HttpPeer {
    endpoint: Endpoint,
    known: Known,
    /// The connection, or why there is none.
    session: Result<Session, Failure>,
}

impl HttpPeer {
    pub(crate) fn new(endpoint: &Endpoint, url: &Url, options: &Options) -> Self {
        let known = Known {
            learned: Learned::new(),
            body: Body::new(),
            head: Head::new(url, &endpoint.authority(), options.ask, options),
            options: options.clone(),
        };
        HttpPeer { endpoint: endpoint.clone(), known, session: Err(Failure::Closed) }
    }
}

impl Peer for HttpPeer {
    fn confirmation(&self) -> Confirmation {
        self.known.options.ask.confirmation()
    }

    fn connected(&mut self, connection: Connection, now: Instant) {
        let stream = Stream::open(connection, &self.endpoint, &self.known.options.trust);
        self.session = stream.map(|stream| Session::new(stream, now)).map_err(|error| {
            Failure::Refused(format!("cannot begin with TLS: {error}"), Wait::Slowest)
        });
    }

    fn turn(&mut self, delivery: &mut Delivery, name: &dyn Display, now: Instant) -> Outcome {
        let session = match &mut self.session {
            Ok(session) => session,
            Err(failure) => return Err(End::Failed(mem::replace(failure, Failure::Closed))),
        };
        session.turn(&mut Turn { delivery, known: &mut self.known, name, now })
    }

    fn is_proved(&self, _: Instant) -> bool {
        self.session.as_ref().is_ok_and(|session| session.has_confirmed)
    }

    fn release(&mut self, _: &Window, now: Instant) -> Option<Released> {
        let session = mem::replace(&mut self.session, Err(Failure::Closed)).ok()?;
        // Half a request is none, wherever it ends.
        Some(Released::new(session.exchange.stream.close(), Vec::new(), now))
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::queue::Queue;
    use crate::send::limiter::{Limiter, RateLimit};
    use crate::send::status::Status;
    use crate::stats::Counters;

    #[test]
    fn a_failure_to_begin_with_tls_keeps_its_cause() {
        let (now, counters) = (Instant::now(), Arc::new(Counters::default()));
        let mut delivery = Delivery {
            queue: Arc::new(Queue::new(1, Arc::clone(&counters))),
            status: Status::new(Arc::clone(&counters)),
            counters,
            window: Window::new(),
            limiter: Limiter::new(RateLimit::Unlimited, Duration::ZERO, now),
            leave_at: None,
            write_timeout: Duration::ZERO,
            keeper: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = mio::Poll::new().unwrap();
        let connection =
            Connection::begin(listener.local_addr().unwrap(), poll.registry(), mio::Token(0));
        let endpoint = Endpoint::parse("https://localhost").unwrap();
        // These trust nobody: they have no configuration of TLS.
        let options = Options::default();
        let mut peer = HttpPeer::new(&endpoint, endpoint.url.as_ref().unwrap(), &options);
        peer.connected(connection.unwrap(), now);
        let result = peer.turn(&mut delivery, &"tsd", now);
        let Err(End::Failed(failure)) = result else { panic!("{result:?}") };
        assert_eq!(failure.to_string(), "cannot begin with TLS: unsupported");
        assert!(peer.release(&delivery.window, now).is_none());
    }
}
