//! The writer against servers on loopback.

mod clocked;
mod ends;
mod faults;
mod server;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::server::{Received, Script, Server};
use super::endpoint::Endpoint;
use super::limiter::RateLimit;
use super::{Options, spawn};
use crate::clock::{Clock, Instant};
use crate::queue::Queue;
use crate::stats::{Confirmation, Counters, Stats};

/// A queue with a writer behind it.
struct Rig {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    /// Numbers the lines.
    next: usize,
}

const SECOND: Duration = Duration::from_secs(1);

fn options(addresses: &[SocketAddr], confirmation: Confirmation) -> Options {
    let endpoint = |address: &SocketAddr| Endpoint::parse(&address.to_string()).unwrap();
    Options {
        endpoints: addresses.iter().map(endpoint).collect(),
        rate: RateLimit::Unlimited,
        interval: SECOND,
        connect_timeout: SECOND,
        write_timeout: 5 * SECOND,
        backoff: Duration::from_millis(5)..=Duration::from_millis(20),
        confirmation,
    }
}

impl Rig {
    fn new(server: &Server, confirmation: Confirmation) -> Self {
        Self::with(options(&[server.address], confirmation))
    }

    fn with(options: Options) -> Self {
        Self::at(options, Clock::default())
    }

    fn at(options: Options, clock: Clock) -> Self {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(1_000_000, Arc::clone(&counters)));
        spawn(options, Arc::clone(&queue), Arc::clone(&counters), clock).unwrap();
        Rig { queue, counters, next: 0 }
    }

    /// Pushes so many lines in batches of 1000 at most, and answers them.
    fn push(&mut self, points: usize) -> Vec<String> {
        let lines: Vec<_> = (self.next..self.next + points)
            .map(|n| format!("put some.metric.of.ours 1700000000 {n} host=a"))
            .collect();
        self.next += points;
        for batch in lines.chunks(1000) {
            let bytes = batch.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            self.queue.push(bytes, batch.len(), Instant::now());
        }
        lines
    }

    /// Waits until everything is confirmed.
    fn settle(&self) -> Stats {
        let deadline = Instant::now() + 5 * SECOND;
        let is_settled = self.queue.wait_settled(self.queue.watermark(), Some(deadline));
        let stats = self.counters.stats();
        assert!(is_settled, "{stats:?}");
        assert_eq!(stats.points_pending, 0);
        stats
    }

    fn close(&self) {
        self.queue.close();
        assert!(self.queue.wait_finished(Some(Instant::now() + 5 * SECOND)));
    }

    fn until(&self, mut what: impl FnMut(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + 5 * SECOND;
        loop {
            let stats = self.counters.stats();
            if what(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{stats:?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

/// Each of the lines arrived, and nothing else did.
fn assert_arrived(received: &[Received], lines: &[String]) {
    let expected: HashSet<_> = lines.iter().cloned().collect();
    let arrived: HashSet<_> = received.iter().flat_map(Received::lines).collect();
    let strange: Vec<_> = arrived.difference(&expected).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(arrived.len(), expected.len());
    for received in received {
        let start = &received.bytes[..received.bytes.len().min(4)];
        assert!(b"put ".starts_with(start), "{received:?}");
    }
}

#[test]
fn version_confirms_on_one_connection() {
    let server = Server::start(&[Script::Tsd]);
    let mut rig = Rig::new(&server, Confirmation::Version);
    let mut lines = rig.push(5000);
    rig.settle();
    lines.extend(rig.push(1));
    let stats = rig.settle();
    rig.close();
    let received = server.wait(|log| log.iter().all(|received| received.is_ended));
    assert_arrived(&received, &lines);
    assert_eq!((received.len(), stats.connects), (1, 1));
    assert_eq!((stats.points_sent, stats.points_resent), (5001, 0));
    assert_eq!(stats.confirmation, Some(Confirmation::Version));
    assert_eq!(stats.bytes_sent, received[0].bytes.len() as u64);
}

#[test]
fn half_close_confirms_each_burst_on_a_connection_of_its_own() {
    let server = Server::start(&[Script::Mute]);
    let mut rig = Rig::new(&server, Confirmation::HalfClose);
    let mut lines = rig.push(1000);
    rig.settle();
    lines.extend(rig.push(500));
    let stats = rig.settle();
    rig.close();
    let received = server.received();
    assert_arrived(&received, &lines);
    assert_eq!((received.len(), stats.connects, stats.connect_failures), (2, 2, 0));
    assert_eq!((stats.points_sent, stats.points_resent), (1500, 0));
    assert!(received.iter().all(|received| received.questions() == 0));
}

#[test]
fn what_the_kernel_took_is_confirmed_when_the_user_says_so() {
    let server = Server::start(&[Script::Mute]);
    let mut rig = Rig::new(&server, Confirmation::Written);
    let lines = rig.push(5000);
    let stats = rig.settle();
    assert_eq!(stats.confirmation, Some(Confirmation::Written));
    rig.close();
    let received = server.received();
    assert_arrived(&received, &lines);
    assert!(received[0].is_ended, "the writer waits for the server to close");
}

#[test]
fn auto_finds_out_what_a_server_answers() {
    let cases = [
        (Script::Tsd, Confirmation::Version, 1),
        (Script::Mute, Confirmation::HalfClose, 2),
        (Script::Late(2500), Confirmation::Version, 2),
    ];
    std::thread::scope(|scope| {
        for (script, expected, connects) in cases {
            scope.spawn(move || {
                let server = Server::start(&[script]);
                let mut rig = Rig::new(&server, Confirmation::Auto);
                let mut lines = rig.push(100);
                rig.settle();
                lines.extend(rig.push(100));
                let stats = rig.settle();
                assert_eq!(stats.confirmation, Some(expected), "{script:?}");
                assert_eq!(stats.connects, connects, "{script:?}");
                assert_eq!(stats.points_resent, 0, "{script:?}");
                let received = server.received();
                assert_arrived(&received, &lines);
                assert_eq!(received[0].questions(), if connects == 1 { 2 } else { 1 });
            });
        }
    });
}

#[test]
fn after_resets_everything_arrives_whole_and_unchanged() {
    for confirmation in [Confirmation::Version, Confirmation::HalfClose] {
        let mut scripts: Vec<_> = (0..30).map(|n| Script::ResetAfter(1 + n * 1777)).collect();
        scripts.push(Script::Tsd);
        let server = Server::start(&scripts);
        let mut rig = Rig::new(&server, confirmation);
        let lines = rig.push(5000);
        let stats = rig.settle();
        assert!(stats.connects >= 31, "{}", stats.connects);
        assert!(stats.points_resent > 0);
        assert!(stats.points_sent >= 5000 + stats.points_resent);
        let received = server.received();
        assert_arrived(&received, &lines);
    }
}
