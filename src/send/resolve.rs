//! Names become addresses, without anybody waiting for it.
//!
//! The system's resolver may take minutes or for ever, and cannot be interrupted. So each question is asked by a short-lived thread
//! of its own, which wakes the writer with the answer; the writer goes on without it when its time is over, and does not ask the
//! same again while a question is still stuck. At most one such thread exists per endpoint.
//!
//! Addresses that came too late for one attempt serve the next one. With the first of two name servers away each question takes 5 s,
//! which is longer than an attempt has. They are used once: should they be out of date by then, the attempt after that asks anew.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use mio::Waker;

use super::endpoint::Endpoint;

/// The name of a thread that asks.
const THREAD: &str = "opentsdb-resolve";

pub(super) type Answer = io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
pub(super) struct Resolver {
    waker: Arc<Waker>,
    /// Where the answer will come, by the endpoint's index, while a question is out.
    asked: Vec<Option<Receiver<Answer>>>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>, endpoints: usize) -> Self {
        Resolver { waker, asked: (0..endpoints).map(|_| None).collect() }
    }

    /// A resolver that has been asked for each endpoint and will never answer; lives as long as the senders.
    #[cfg(test)]
    pub(super) fn stuck(
        waker: Arc<Waker>,
        endpoints: usize,
    ) -> (Self, Vec<crossbeam_channel::Sender<Answer>>) {
        let (senders, asked) = (0..endpoints).map(|_| bounded(1)).unzip();
        let asked: Vec<_> = asked;
        (Resolver { waker, asked: asked.into_iter().map(Some).collect() }, senders)
    }

    /// Asks for the addresses of an endpoint, unless an earlier question about it is still out or has brought some since.
    pub(super) fn ask(&mut self, index: usize, endpoint: &Endpoint) -> io::Result<()> {
        let Some(asked) = self.asked.get_mut(index) else { return Ok(()) };
        if let Some(earlier) = asked.take() {
            match earlier.try_recv() {
                Ok(Ok(addresses)) => {
                    let (sender, late) = bounded(1);
                    let _ = sender.send(Ok(addresses));
                    *asked = Some(late);
                    return Ok(());
                }
                Err(TryRecvError::Empty) => {
                    *asked = Some(earlier);
                    return Ok(());
                }
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            }
        }
        let (sender, receiver) = bounded(1);
        let (endpoint, waker) = (endpoint.clone(), Arc::clone(&self.waker));
        thread::Builder::new().name(THREAD.into()).spawn(move || {
            // Nobody may be there to hear any more.
            let _ = sender.send(resolve(&endpoint));
            let _ = waker.wake();
        })?;
        *asked = Some(receiver);
        Ok(())
    }

    /// The answer, if it has come.
    pub(super) fn answer(&mut self, index: usize) -> Option<Answer> {
        let asked = self.asked.get_mut(index)?;
        let answer = match asked.as_ref()?.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the resolver's thread died")),
        };
        *asked = None;
        Some(answer)
    }
}

/// The addresses of an endpoint, in the system's order of preference; at least one.
pub(super) fn resolve(endpoint: &Endpoint) -> Answer {
    let addresses: Vec<_> = match endpoint.ip() {
        Some(ip) => vec![SocketAddr::new(ip, endpoint.port())],
        None => (endpoint.host(), endpoint.port()).to_socket_addrs()?.collect(),
    };
    if addresses.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    #[test]
    fn an_answer_wakes_the_writer_and_is_given_once() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut resolver = Resolver::new(waker, 1);
        assert!(resolver.answer(0).is_none());
        resolver.ask(0, &Endpoint::parse("localhost:1").unwrap()).unwrap();
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        let addresses = resolver.answer(0).unwrap().unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 1));
        assert!(resolver.answer(0).is_none());
    }

    #[test]
    fn a_stuck_question_is_not_asked_again_and_a_late_refusal_is() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mut resolver, senders) = Resolver::stuck(waker, 1);
        let endpoint = Endpoint::parse("127.0.0.1:7").unwrap();
        resolver.ask(0, &endpoint).unwrap();
        assert!(resolver.answer(0).is_none());
        senders[0].send(Err(ErrorKind::TimedOut.into())).unwrap();
        resolver.ask(0, &endpoint).unwrap();
        let answer = resolver.asked[0].take().unwrap().recv_timeout(Duration::from_secs(5));
        assert_eq!(answer.unwrap().unwrap(), [SocketAddr::from(([127, 0, 0, 1], 7))]);
    }

    #[test]
    fn late_addresses_are_given_once() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mut resolver, senders) = Resolver::stuck(waker, 1);
        let late = SocketAddr::from(([10, 0, 0, 1], 1));
        senders[0].send(Ok(vec![late])).unwrap();
        resolver.ask(0, &Endpoint::parse("127.0.0.1:7").unwrap()).unwrap();
        assert_eq!(resolver.answer(0).unwrap().unwrap(), [late]);
        assert!(resolver.asked[0].is_none(), "the next attempt asks anew");
    }
}
