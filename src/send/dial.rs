//! From endpoints to a connection.
//!
//! An attempt goes through all addresses of all endpoints, resolving each when its turn comes. The time for connecting is one
//! budget: an address gets an equal share of what is left, so that a black hole in front takes nothing from those behind it, and
//! what an address that refuses at once does not need goes to the others.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Registry, Token};

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::resolve::{self, Resolver};
use super::rotation::Rotation;
use crate::clock::Instant;

/// What all attempts have in common.
pub(super) struct Dialer {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) resolver: Resolver,
    pub(super) rotation: Rotation,
    pub(super) registry: Registry,
    /// The token of the sockets.
    pub(super) token: Token,
    /// The budget of an attempt.
    pub(super) timeout: Duration,
}

/// One attempt to reach a server.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Endpoints not tried yet.
    rest: VecDeque<usize>,
    /// The one that is being tried.
    endpoint: usize,
    /// Its addresses not tried yet.
    addresses: VecDeque<SocketAddr>,
    stage: Stage,
    /// What is left of the budget.
    left: Duration,
    /// The last thing that went wrong.
    failure: Failure,
}

#[derive(Debug)]
enum Stage {
    /// The next address or endpoint is to be tried.
    Ready,
    Resolving(Share),
    Connecting(Connection, Share),
}

/// The part of the budget that one step has.
#[derive(Clone, Copy, Debug)]
struct Share {
    since: Instant,
    until: Instant,
}

/// How an attempt goes.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to do until then or until the socket or the resolver answers.
    Wait(Instant),
    /// This endpoint has taken the connection.
    Connected(usize, Connection),
    /// Nobody has; the last failure.
    Failed(Failure),
}

impl Attempt {
    pub(super) fn new(dialer: &mut Dialer, now: Instant) -> Self {
        Attempt {
            rest: dialer.rotation.order(now).collect(),
            endpoint: 0,
            addresses: VecDeque::new(),
            stage: Stage::Ready,
            left: dialer.timeout,
            failure: Failure::NoEndpoint,
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn turn(&mut self, dialer: &mut Dialer, now: Instant) -> Progress {
        loop {
            let stage = std::mem::replace(&mut self.stage, Stage::Ready);
            let step = match stage {
                Stage::Ready => self.next(dialer, now),
                Stage::Resolving(share) => self.resolve(share, dialer, now),
                Stage::Connecting(connection, share) => self.connect(connection, share, now),
            };
            match step {
                Ok(()) => {}
                Err(Progress::Connected(endpoint, connection)) => {
                    dialer.rotation.connected(endpoint, connection.peer(), now);
                    return Progress::Connected(endpoint, connection);
                }
                Err(progress) => return progress,
            }
        }
    }

    /// Begins with the next address, or else with the next endpoint. `Err` is the end of this turn.
    fn next(&mut self, dialer: &mut Dialer, now: Instant) -> Result<(), Progress> {
        if let Some(peer) = self.addresses.pop_front() {
            let share = self.share(now);
            match Connection::begin(peer, &dialer.registry, dialer.token) {
                Ok(connection) => self.stage = Stage::Connecting(connection, share),
                Err(source) => self.failure = Failure::Connect { peer, source },
            }
            return Ok(());
        }
        let Some(endpoint) = self.rest.pop_front() else {
            let failure = std::mem::replace(&mut self.failure, Failure::NoEndpoint);
            return Err(Progress::Failed(failure));
        };
        self.endpoint = endpoint;
        let named = &dialer.endpoints[endpoint];
        let asked = match named.ip() {
            Some(_) => resolve::resolve(named).map(|addresses| self.addresses.extend(addresses)),
            None => dialer.resolver.ask(endpoint, named).map(|()| {
                self.stage = Stage::Resolving(self.share(now));
            }),
        };
        if let Err(source) = asked {
            self.failure = Failure::Resolve { endpoint: named.to_string(), source };
        }
        Ok(())
    }

    fn resolve(&mut self, share: Share, dialer: &mut Dialer, now: Instant) -> Result<(), Progress> {
        let named = &dialer.endpoints[self.endpoint];
        match dialer.resolver.answer(self.endpoint) {
            Some(Ok(mut addresses)) => {
                dialer.rotation.arrange(self.endpoint, &mut addresses);
                self.addresses.extend(addresses);
            }
            Some(Err(source)) => {
                self.failure = Failure::Resolve { endpoint: named.to_string(), source };
            }
            None if now >= share.until => {
                self.use_up(share, now);
                self.failure = Failure::ResolverSilent { endpoint: named.to_string() };
            }
            None => {
                self.stage = Stage::Resolving(share);
                return Err(Progress::Wait(share.until));
            }
        }
        Ok(())
    }

    fn connect(
        &mut self,
        connection: Connection,
        share: Share,
        now: Instant,
    ) -> Result<(), Progress> {
        let peer = connection.peer();
        match connection.is_established() {
            Ok(true) => return Err(Progress::Connected(self.endpoint, connection)),
            Ok(false) if now < share.until => {
                self.stage = Stage::Connecting(connection, share);
                return Err(Progress::Wait(share.until));
            }
            Ok(false) => self.failure = Failure::ConnectTimeout { peer },
            Err(source) => self.failure = Failure::Connect { peer, source },
        }
        self.use_up(share, now);
        Ok(())
    }

    /// An equal part of what is left, for the step that begins now.
    fn share(&self, now: Instant) -> Share {
        let others = self.addresses.len() + self.rest.len();
        let parts = u32::try_from(others + 1).unwrap_or(u32::MAX);
        Share { since: now, until: now + self.left / parts }
    }

    fn use_up(&mut self, share: Share, now: Instant) {
        self.left = self.left.saturating_sub(now.saturating_duration_since(share.since));
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Answer;
    use super::*;
    use crossbeam_channel::Sender;
    use mio::{Events, Poll, Waker};
    use std::net::TcpListener;
    use std::sync::Arc;

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn dialer(poll: &Poll, texts: &[String]) -> (Dialer, Vec<Sender<Answer>>) {
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (resolver, senders) = Resolver::stuck(waker, texts.len());
        let dialer = Dialer {
            endpoints: texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect(),
            resolver,
            rotation: Rotation::new(texts.len()),
            registry: poll.registry().try_clone().unwrap(),
            token: Token(1),
            timeout: TIMEOUT,
        };
        (dialer, senders)
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

    /// Goes on until the attempt ends, with a time that jumps to each deadline; answers what passed, too.
    fn run(poll: &mut Poll, dialer: &mut Dialer) -> (Progress, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut attempt = Attempt::new(dialer, now);
        let mut events = Events::with_capacity(4);
        loop {
            match attempt.turn(dialer, now) {
                Progress::Wait(until) => {
                    // What answers at all on loopback does so by then.
                    poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
                    if events.is_empty() {
                        now = until;
                    }
                }
                progress => return (progress, now - start),
            }
        }
    }

    #[test]
    fn a_stuck_resolver_and_a_black_hole_leave_their_share_to_who_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hole, _kept) = black_hole();
        let mut poll = Poll::new().unwrap();
        let texts = ["stuck.invalid".to_owned(), hole, address.to_string()];
        let (mut dialer, _senders) = dialer(&poll, &texts);
        let (progress, took) = run(&mut poll, &mut dialer);
        let Progress::Connected(endpoint, connection) = progress else { panic!("{progress:?}") };
        assert_eq!((endpoint, connection.peer()), (2, address));
        assert_eq!(took, TIMEOUT / 3 * 2);
    }

    /// A name server that is away makes each question take longer than an attempt may; asked anew each time, it would never answer.
    #[test]
    fn an_answer_that_came_too_late_serves_the_next_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut poll = Poll::new().unwrap();
        let (mut dialer, senders) = dialer(&poll, &["slow.invalid".to_owned()]);
        let (progress, _) = run(&mut poll, &mut dialer);
        assert!(
            matches!(progress, Progress::Failed(Failure::ResolverSilent { .. })),
            "{progress:?}"
        );
        senders[0].send(Ok(vec![address])).unwrap();
        let (progress, _) = run(&mut poll, &mut dialer);
        let Progress::Connected(_, connection) = progress else { panic!("{progress:?}") };
        assert_eq!(connection.peer(), address);
    }

    #[test]
    fn an_attempt_ends_with_its_budget_and_says_what_failed_last() {
        let (hole, _kept) = black_hole();
        let mut poll = Poll::new().unwrap();
        let (mut dialer, _senders) = dialer(&poll, &["stuck.invalid".to_owned(), hole]);
        let (progress, took) = run(&mut poll, &mut dialer);
        assert!(
            matches!(progress, Progress::Failed(Failure::ConnectTimeout { .. })),
            "{progress:?}"
        );
        assert_eq!(took, TIMEOUT);
    }

    #[test]
    fn who_refuses_takes_no_time_from_the_others() {
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (hole, _kept) = black_hole();
        let mut poll = Poll::new().unwrap();
        let (mut dialer, _senders) = dialer(&poll, &[refused.to_string(), hole]);
        let (progress, took) = run(&mut poll, &mut dialer);
        assert!(
            matches!(progress, Progress::Failed(Failure::ConnectTimeout { .. })),
            "{progress:?}"
        );
        assert_eq!(took, TIMEOUT);
    }
}
