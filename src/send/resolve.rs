//! Names become addresses, without the writer waiting for it.
//!
//! The system's resolver may take minutes and cannot be interrupted. So each query runs on a
//! short-lived thread of its own, which wakes the writer with the answer. The writer goes on
//! without it when its time is over, and asks no second time while a query is out: there is at
//! most one such thread for each endpoint.
//!
//! Addresses that come too late for one attempt serve the next one, for a minute after they were
//! asked for. With the first of two name servers away each query takes 5 s, which is longer than
//! an attempt has.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use mio::Waker;

use super::endpoint::Endpoint;
use crate::clock::Instant;

/// The name of a thread that resolves.
const THREAD: &str = "opentsdb-resolve";
/// The age of a query beyond which its answer does not serve a later attempt.
const MAX_AGE: Duration = Duration::from_secs(60);

pub(super) type Answer = io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
pub(super) struct Resolver {
    waker: Arc<Waker>,
    /// The query that is out for each endpoint.
    queries: Vec<Option<Query>>,
}

#[derive(Debug)]
struct Query {
    asked: Instant,
    answer: Receiver<Answer>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>, endpoints: usize) -> Self {
        Resolver { waker, queries: (0..endpoints).map(|_| None).collect() }
    }

    /// The addresses of an endpoint in the system's order of preference, for an attempt that began
    /// at `since`. `None` while they are being asked for: the writer is woken.
    pub(super) fn resolve(
        &mut self,
        index: usize,
        endpoint: &Endpoint,
        since: Instant,
        now: Instant,
    ) -> Option<Answer> {
        if let Ok(ip) = endpoint.host.parse() {
            return Some(Ok(vec![SocketAddr::new(ip, endpoint.port)]));
        }
        let query = self.queries.get_mut(index)?;
        if let Some(Query { asked, answer }) = query {
            let answer = match answer.try_recv() {
                Err(TryRecvError::Empty) => return None,
                answer => answer.unwrap_or_else(|_| Err(io::Error::other("its thread has ended"))),
            };
            let age = now.saturating_duration_since(*asked);
            let is_of_now = *asked >= since || (answer.is_ok() && age <= MAX_AGE);
            *query = None;
            if is_of_now {
                return Some(answer);
            }
        }
        match ask(endpoint.clone(), Arc::clone(&self.waker)) {
            Ok(answer) => *query = Some(Query { asked: now, answer }),
            Err(error) => return Some(Err(error)),
        }
        None
    }
}

fn ask(endpoint: Endpoint, waker: Arc<Waker>) -> io::Result<Receiver<Answer>> {
    let (sender, answer) = bounded(1);
    thread::Builder::new().name(THREAD.into()).spawn(move || {
        let addresses = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
        // Both fail only when the writer has ended.
        let _ = sender.send(addresses.map(Iterator::collect));
        let _ = waker.wake();
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::io::ErrorKind;

    impl Resolver {
        /// A resolver with a query out for each endpoint, which is answered by these senders alone.
        pub(in crate::send) fn stuck(
            waker: Arc<Waker>,
            endpoints: usize,
            asked: Instant,
        ) -> (Self, Vec<crossbeam_channel::Sender<Answer>>) {
            let channels = (0..endpoints).map(|_| bounded(1));
            let (senders, queries) =
                channels.map(|(sender, answer)| (sender, Some(Query { asked, answer }))).unzip();
            (Resolver { waker, queries }, senders)
        }
    }

    fn waker(poll: &Poll) -> Arc<Waker> {
        Arc::new(Waker::new(poll.registry(), Token(0)).unwrap())
    }

    /// Resolves, waiting for the answer.
    fn wait(poll: &mut Poll, resolver: &mut Resolver, endpoint: &Endpoint, now: Instant) -> Answer {
        let mut events = Events::with_capacity(1);
        loop {
            if let Some(answer) = resolver.resolve(0, endpoint, now, now) {
                return answer;
            }
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "the answer wakes the writer");
        }
    }

    #[test]
    fn an_answer_wakes_the_writer_and_is_given_once() {
        let mut poll = Poll::new().unwrap();
        let mut resolver = Resolver::new(waker(&poll), 1);
        let endpoint = Endpoint::parse("localhost:1").unwrap();
        for _ in 0..2 {
            let addresses = wait(&mut poll, &mut resolver, &endpoint, Instant::now()).unwrap();
            let is_right = |address: &SocketAddr| address.ip().is_loopback() && address.port() == 1;
            assert!(!addresses.is_empty() && addresses.iter().all(is_right), "{addresses:?}");
            assert!(resolver.queries[0].is_none());
        }
    }

    #[test]
    fn an_address_needs_no_query() {
        let poll = Poll::new().unwrap();
        let mut resolver = Resolver::new(waker(&poll), 1);
        let (endpoint, now) = (Endpoint::parse("[::1]:7").unwrap(), Instant::now());
        let answer = resolver.resolve(0, &endpoint, now, now).unwrap();
        assert_eq!(answer.unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    /// What an answer is worth by its kind, the age of its query, and whether that is of this
    /// attempt.
    #[test]
    fn late_addresses_serve_for_a_minute_and_a_late_failure_is_asked_anew() {
        let addresses = || Ok(vec![SocketAddr::from(([10, 0, 0, 1], 1))]);
        let failure = || Err(ErrorKind::TimedOut.into());
        let cases: [(&dyn Fn() -> Answer, u64, u64, bool); 6] = [
            (&addresses, 3, 0, true),
            (&addresses, 60, 50, true),
            (&addresses, 61, 50, false),
            (&addresses, 61, 0, true),
            (&failure, 3, 0, true),
            (&failure, 4, 3, false),
        ];
        for (answer, age, began, is_used) in cases {
            let mut poll = Poll::new().unwrap();
            let asked = Instant::now();
            let (mut resolver, senders) = Resolver::stuck(waker(&poll), 1, asked);
            let endpoint = Endpoint::parse("localhost:1").unwrap();
            let (since, now) =
                (asked + Duration::from_secs(began), asked + Duration::from_secs(age));
            assert!(resolver.resolve(0, &endpoint, since, now).is_none(), "still out");
            senders[0].send(answer()).unwrap();
            let given = resolver.resolve(0, &endpoint, since, now);
            assert_eq!(given.is_some(), is_used, "{:?} {age} {began}", answer());
            if given.is_none() {
                let fresh = wait(&mut poll, &mut resolver, &endpoint, now).unwrap();
                assert!(fresh[0].ip().is_loopback());
            }
        }
    }
}
