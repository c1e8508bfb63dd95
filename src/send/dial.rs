//! From endpoints to a connection.
//!
//! An attempt goes through the endpoints, and resolves each when its turn comes. An endpoint has
//! the whole connect timeout, the time for resolving its name included. Each of its addresses gets
//! an equal share of what is left, but at least a second, or half of a shorter timeout: less would
//! not outlast one lost packet. So an address that does not answer takes nothing from those behind
//! it, and the time that an address does not need goes to the others. Addresses that were not
//! reached in time come first at the next attempt.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::resolve::Resolver;
use super::rotation::Rotation;
use super::status::Unreached;
use crate::clock::Instant;

/// The event of the waker.
const WAKE: Token = Token(0);
/// The event of the socket, of which there is one at a time.
const SOCKET: Token = Token(1);
/// The least share of an address where the timeout is twice that: a lost first packet is sent again
/// after a second.
const MIN_SHARE: Duration = Duration::from_millis(1100);

/// What all attempts have in common, and the events of the thread.
pub(super) struct Dialer {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) resolver: Resolver,
    pub(super) rotation: Rotation,
    /// The most time for one endpoint.
    timeout: Duration,
    poll: Poll,
    events: Events,
    /// Ends a wait.
    pub(super) waker: Arc<Waker>,
}

impl Dialer {
    /// At least one endpoint.
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        rotation: Rotation,
        timeout: Duration,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let resolver = Resolver::new(Arc::clone(&waker), endpoints.len());
        let events = Events::with_capacity(4);
        Ok(Dialer { endpoints, resolver, rotation, timeout, poll, events, waker })
    }

    /// Waits for an event, or until the time.
    pub(super) fn wait(&mut self, until: Option<Instant>, now: Instant) -> io::Result<()> {
        let timeout = until.map(|until| until.saturating_duration_since(now));
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }
}

/// One attempt to reach a server.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Endpoints not tried yet.
    rest: VecDeque<usize>,
    /// The one that is being tried.
    endpoint: usize,
    /// When its time is over.
    pub(super) deadline: Instant,
    /// Its addresses not tried yet; none until it is resolved.
    addresses: VecDeque<SocketAddr>,
    /// What is being connected, and until when it has time.
    connecting: Option<(Connection, Instant)>,
    /// The first endpoint that was not reached and had another one behind it.
    pub(super) skipped: Option<(usize, Unreached)>,
}

/// How an attempt goes.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to do until then or until the socket or the resolver answers.
    Wait(Instant),
    /// This endpoint has taken the connection.
    Connected(usize, Connection),
    /// None has; the last endpoint's failure.
    Failed(usize, Unreached),
}

/// How a step of an attempt went. `Err` is the end of an address, or of the endpoint where it has
/// no other.
type Step = Result<Progress, Unreached>;

impl Attempt {
    pub(super) fn new(dialer: &mut Dialer, now: Instant) -> Self {
        let mut rest = VecDeque::from(dialer.rotation.order(now));
        Attempt {
            endpoint: rest.pop_front().unwrap_or_default(),
            rest,
            deadline: now + dialer.timeout,
            addresses: VecDeque::new(),
            connecting: None,
            skipped: None,
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn turn(&mut self, dialer: &mut Dialer, now: Instant) -> Progress {
        loop {
            match self.step(dialer, now) {
                Ok(progress) => return progress,
                Err(_) if now < self.deadline && !self.addresses.is_empty() => {}
                Err(failure) => {
                    dialer.rotation.failed(self.endpoint, now);
                    let Some(next) = self.rest.pop_front() else {
                        dialer.rotation.restart(now);
                        return Progress::Failed(self.endpoint, failure);
                    };
                    self.skipped.get_or_insert((self.endpoint, failure));
                    (self.endpoint, self.deadline) = (next, now + dialer.timeout);
                    self.addresses.clear();
                }
            }
        }
    }

    fn step(&mut self, dialer: &mut Dialer, now: Instant) -> Step {
        let Some((connection, until)) = self.connecting.take() else {
            return self.begin(dialer, now);
        };
        let peer = connection.peer;
        match connection.is_established() {
            Ok(true) => {
                dialer.rotation.connected(now);
                Ok(Progress::Connected(self.endpoint, connection))
            }
            Ok(false) if now < until => {
                self.connecting = Some((connection, until));
                Ok(Progress::Wait(until))
            }
            Ok(false) => Err(self.not_connected(peer, timed_out(), dialer)),
            Err(source) => Err(self.not_connected(peer, source, dialer)),
        }
    }

    /// Resolves the endpoint, or begins to connect to its next address.
    fn begin(&mut self, dialer: &mut Dialer, now: Instant) -> Step {
        let until = now + self.share(dialer.timeout, now);
        let Some(peer) = self.addresses.pop_front() else { return self.resolve(dialer, now) };
        let connection = Connection::begin(peer, dialer.poll.registry(), SOCKET)
            .map_err(|source| self.not_connected(peer, source, dialer))?;
        self.connecting = Some((connection, until));
        Ok(Progress::Wait(until))
    }

    fn resolve(&mut self, dialer: &mut Dialer, now: Instant) -> Step {
        let endpoint = &dialer.endpoints[self.endpoint];
        let since = self.deadline - dialer.timeout;
        let answer = match dialer.resolver.resolve(self.endpoint, endpoint, since, now) {
            None if now < self.deadline => return Ok(Progress::Wait(self.deadline)),
            None => Err(timed_out()),
            Some(Ok(addresses)) if addresses.is_empty() => {
                Err(io::Error::new(ErrorKind::NotFound, "the name has no address"))
            }
            Some(answer) => answer,
        };
        let mut addresses = answer.map_err(|source| Unreached {
            action: "resolve",
            address: endpoint.to_string(),
            source,
        })?;
        dialer.rotation.arrange(self.endpoint, &mut addresses);
        self.addresses = addresses.into();
        self.begin(dialer, now)
    }

    fn not_connected(&self, peer: SocketAddr, source: io::Error, dialer: &mut Dialer) -> Unreached {
        dialer.rotation.address_failed(self.endpoint);
        Unreached { action: "connect to", address: peer.to_string(), source }
    }

    /// The time that the next address has.
    fn share(&self, timeout: Duration, now: Instant) -> Duration {
        let left = self.deadline.saturating_duration_since(now);
        let parts = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX).max(1);
        let least = MIN_SHARE.min(timeout / 2);
        (left / parts).max(least).min(left)
    }
}

pub(super) fn timed_out() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Answer;
    use super::super::rotation::EndpointOrder;
    use super::*;
    use crossbeam_channel::Sender;
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn dialer(texts: &[String]) -> (Dialer, Vec<Sender<Answer>>) {
        let endpoints = texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect();
        let rotation = Rotation::new(texts.len(), EndpointOrder::Preferred, None);
        let dialer = Dialer::new(endpoints, rotation, TIMEOUT).unwrap();
        let waker = Arc::clone(&dialer.waker);
        let (resolver, senders) = Resolver::stuck(waker, texts.len(), Instant::now());
        (Dialer { resolver, ..dialer }, senders)
    }

    /// A listener whose backlog is full, so that it answers no further connection.
    fn black_hole() -> (String, impl Sized) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let fill: Vec<_> = (0..2).map(|_| mio::net::TcpStream::connect(address).unwrap()).collect();
        (address.to_string(), (socket, fill))
    }

    /// Goes on until the attempt ends, with a time that jumps to each deadline; returns what
    /// passed, too.
    fn run(dialer: &mut Dialer) -> (Progress, Duration) {
        let now = Instant::now();
        let mut attempt = Attempt::new(dialer, now);
        finish(&mut attempt, dialer, now)
    }

    fn finish(attempt: &mut Attempt, dialer: &mut Dialer, start: Instant) -> (Progress, Duration) {
        let mut now = start;
        loop {
            match attempt.turn(dialer, now) {
                Progress::Wait(until) => {
                    // What answers at all on loopback does so by then.
                    dialer.wait(Some(now + Duration::from_millis(100)), now).unwrap();
                    if dialer.events.is_empty() {
                        now = until;
                    }
                }
                progress => return (progress, now - start),
            }
        }
    }

    #[test]
    fn a_stuck_resolver_and_a_black_hole_have_the_timeout_each_and_keep_nobody_from_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hole, _kept) = black_hole();
        let texts = ["stuck.invalid".to_owned(), hole, address.to_string()];
        let (mut dialer, _senders) = dialer(&texts);
        let start = Instant::now();
        let mut attempt = Attempt::new(&mut dialer, start);
        let (progress, took) = finish(&mut attempt, &mut dialer, start);
        let Progress::Connected(endpoint, connection) = progress else { panic!("{progress:?}") };
        assert_eq!((endpoint, connection.peer), (2, address));
        assert_eq!(took, TIMEOUT * 2);
        let (skipped, unreached) = attempt.skipped.unwrap();
        assert_eq!((skipped, unreached.action), (0, "resolve"));
    }

    #[test]
    fn an_attempt_that_reaches_nobody_names_the_last_endpoint_and_address() {
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (hole, _kept) = black_hole();
        let (mut dialer, _senders) = dialer(&[refused.to_string(), hole.clone()]);
        let (progress, took) = run(&mut dialer);
        let Progress::Failed(1, failure) = progress else { panic!("{progress:?}") };
        assert_eq!(failure.source.kind(), ErrorKind::TimedOut, "{failure:?}");
        assert_eq!(failure.to_string(), format!("cannot connect to {hole}"));
        assert_eq!(took, TIMEOUT, "an address that refuses takes no time");
    }

    /// A name server that is away makes each query take longer than an endpoint has.
    #[test]
    fn an_answer_that_came_too_late_serves_the_next_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut dialer, senders) = dialer(&["slow.invalid".to_owned()]);
        let (progress, _) = run(&mut dialer);
        let Progress::Failed(0, failure) = progress else { panic!("{progress:?}") };
        assert_eq!((failure.action, failure.source.kind()), ("resolve", ErrorKind::TimedOut));
        senders[0].send(Ok(vec![address])).unwrap();
        let (progress, _) = run(&mut dialer);
        let Progress::Connected(_, connection) = progress else { panic!("{progress:?}") };
        assert_eq!(connection.peer, address);
    }

    #[test]
    fn a_name_without_an_address_is_a_failure() {
        let (mut dialer, senders) = dialer(&["empty.invalid".to_owned()]);
        senders[0].send(Ok(Vec::new())).unwrap();
        let (progress, _) = run(&mut dialer);
        let Progress::Failed(0, failure) = progress else { panic!("{progress:?}") };
        assert_eq!((failure.action, failure.source.kind()), ("resolve", ErrorKind::NotFound));
    }

    #[test]
    fn resolving_and_all_addresses_of_a_name_share_one_timeout() {
        let (hole, _kept) = black_hole();
        let hole: SocketAddr = hole.parse().unwrap();
        // The timeout and the time that resolving takes, in seconds; how many addresses there are,
        // and how many are tried.
        let cases = [(4, 1, 1, 1), (4, 1, 2, 2), (4, 1, 20, 3), (1, 0, 2, 2), (1, 0, 20, 2)];
        for (timeout, slow, addresses, tried) in cases {
            let (timeout, slow) = (Duration::from_secs(timeout), Duration::from_secs(slow));
            let (mut dialer, senders) = dialer(&["many.invalid".to_owned()]);
            dialer.timeout = timeout;
            let start = Instant::now();
            let mut attempt = Attempt::new(&mut dialer, start);
            let progress = attempt.turn(&mut dialer, start);
            assert!(matches!(progress, Progress::Wait(until) if until == start + timeout));
            senders[0].send(Ok(vec![hole; addresses])).unwrap();
            let (mut now, mut waits) = (start + slow, 0);
            while let Progress::Wait(until) = attempt.turn(&mut dialer, now) {
                assert!(until - now >= MIN_SHARE.min(timeout / 2) || until == start + timeout);
                // Woken for another reason.
                let again = attempt.turn(&mut dialer, now);
                assert!(matches!(again, Progress::Wait(same) if same == until), "{again:?}");
                (now, waits) = (until, waits + 1);
            }
            assert_eq!((waits, now - start), (tried, timeout), "{addresses} addresses");
            // The next attempt begins with those that had no turn.
            let mut next: Vec<_> =
                (0..20).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
            dialer.rotation.arrange(0, &mut next);
            assert_eq!(usize::from(next[0].port()), tried);
        }
    }
}
