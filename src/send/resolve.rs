//! Names become addresses, without anybody waiting for it.
//!
//! The system's resolver may take minutes or for ever, and cannot be interrupted. So each question is asked by a short-lived thread
//! of its own, which wakes the writer with the answer; the writer goes on without it when its time is over, and does not ask the
//! same again while a question is still stuck. At most one such thread exists per endpoint.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use mio::Waker;

use super::endpoint::Endpoint;

/// The name of a thread that asks.
const THREAD: &str = "opentsdb-resolve";

type Answer = io::Result<Vec<SocketAddr>>;

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

    /// Asks for the addresses of an endpoint, unless an earlier question about it is still out.
    pub(super) fn ask(&mut self, index: usize, endpoint: &Endpoint) -> io::Result<()> {
        let Some(asked) = self.asked.get_mut(index) else { return Ok(()) };
        // An answer to an earlier attempt's question is a stale one.
        let is_stuck = asked
            .as_ref()
            .is_some_and(|answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        if is_stuck {
            return Ok(());
        }
        *asked = None;
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
