//! The writer against servers on loopback.

mod clocked;
mod connects;
mod ends;
mod faults;
mod half_closes;
#[cfg(feature = "http")]
mod requests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::limiter::RateLimit;
use super::rotation::EndpointOrder;
use super::{Options, Protocols, Writer};
use crate::builder::Flavor;
use crate::clock::{Clock, Instant};
use crate::queue::Queue;
use crate::stats::{Confirmation, Counters, Stats};
use crate::testing::{Action, End, FakeTsd, Fault};

/// A queue with a writer behind it.
struct Rig {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    /// Numbers the lines.
    next: usize,
}

const SECOND: Duration = Duration::from_secs(1);
/// How long a test waits for what has to happen, on a machine that has other things to do too.
const PATIENCE: Duration = Duration::from_secs(30);

fn address(tsd: &FakeTsd) -> SocketAddr {
    tsd.address().parse().unwrap()
}

fn options(addresses: &[SocketAddr], confirmation: Confirmation) -> Options {
    let endpoint = |address: &SocketAddr| Endpoint::parse(&address.to_string()).unwrap();
    Options {
        endpoints: addresses.iter().map(endpoint).collect(),
        order: EndpointOrder::Preferred,
        max_age: None,
        rate: RateLimit::Unlimited,
        interval: SECOND,
        connect_timeout: SECOND,
        write_timeout: 5 * SECOND,
        backoff: Duration::from_millis(5)..=Duration::from_millis(20),
        protocols: Protocols {
            confirmation,
            #[cfg(feature = "http")]
            http: Default::default(),
        },
        keeper: None,
        held: None,
    }
}

impl Rig {
    fn new(tsd: &FakeTsd, confirmation: Confirmation) -> Self {
        Self::with(options(&[address(tsd)], confirmation))
    }

    fn with(options: Options) -> Self {
        Self::at(options, Clock::default())
    }

    fn at(options: Options, clock: Clock) -> Self {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(1_000_000, Arc::clone(&counters)));
        let writer = Writer::new(options, Arc::clone(&queue), Arc::clone(&counters), clock);
        writer.unwrap().spawn().unwrap();
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
        let deadline = Instant::now() + PATIENCE;
        let is_settled = self.queue.wait_settled(self.queue.watermark(), Some(deadline));
        let stats = self.counters.stats();
        assert!(is_settled, "{stats:?}");
        assert_eq!(stats.points_pending, 0);
        stats
    }

    fn close(&self) {
        self.queue.close();
        assert!(self.queue.wait_finished(Some(Instant::now() + PATIENCE)));
    }

    fn until(&self, mut what: impl FnMut(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + PATIENCE;
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

/// Each of the lines arrived, nothing else did, and every connection began with one.
fn assert_arrived(tsd: &FakeTsd, lines: &[String]) {
    let expected: HashSet<_> = lines.iter().cloned().collect();
    let arrived: HashSet<_> = tsd.lines().into_iter().collect();
    let strange: Vec<_> = arrived.difference(&expected).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(arrived.len(), expected.len());
    let log = tsd.log();
    assert_eq!(log.rejected_count(), 0);
    for connection in (0..log.connection_count()).filter_map(|index| log.connection(index)) {
        let start = &connection.first_bytes[..connection.first_bytes.len().min(4)];
        assert!(b"put ".starts_with(start), "{connection:?}");
    }
}

#[test]
fn version_confirms_on_one_connection() {
    let tsd = FakeTsd::start();
    let mut rig = Rig::new(&tsd, Confirmation::Version);
    let mut lines = rig.push(5000);
    rig.settle();
    lines.extend(rig.push(1));
    let stats = rig.settle();
    rig.close();
    assert_arrived(&tsd, &lines);
    let connection = tsd.log().connection(0).unwrap();
    assert_eq!((stats.connects, stats.disconnects, connection.end), (1, 0, End::ByClient));
    assert_eq!((stats.points_sent, stats.points_resent), (5001, 0));
    assert_eq!(stats.confirmation, Some(Confirmation::Version));
    assert_eq!(stats.bytes_sent, connection.bytes);
}

#[test]
fn half_close_confirms_each_burst_on_a_connection_of_its_own() {
    let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let mut rig = Rig::new(&tsd, Confirmation::HalfClose);
    let mut lines = rig.push(1000);
    rig.settle();
    lines.extend(rig.push(500));
    let stats = rig.settle();
    rig.close();
    assert_arrived(&tsd, &lines);
    assert_eq!((tsd.log().connection_count(), stats.connects, stats.disconnects), (2, 2, 0));
    assert_eq!((stats.points_sent, stats.points_resent), (1500, 0));
    assert_eq!(tsd.log().version_count(), 0);
}

#[test]
fn what_the_kernel_took_is_confirmed_when_the_user_says_so() {
    let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let mut rig = Rig::new(&tsd, Confirmation::Written);
    let lines = rig.push(5000);
    let stats = rig.settle();
    assert_eq!(stats.confirmation, Some(Confirmation::Written));
    rig.close();
    assert_arrived(&tsd, &lines);
    let connection = tsd.log().connection(0).unwrap();
    assert_eq!(connection.end, End::ByClient, "the writer waits for the server to close");
}

#[test]
fn auto_finds_out_what_a_server_answers() {
    let late = Some(Fault::Delay(Duration::from_millis(2500)));
    let cases = [
        (Flavor::OpenTsdb, None, Confirmation::Version, 1, 2),
        (Flavor::VictoriaMetrics, None, Confirmation::HalfClose, 2, 1),
        (Flavor::OpenTsdb, late, Confirmation::Version, 2, 2),
    ];
    std::thread::scope(|scope| {
        for (replies, fault, expected, connects, questions) in cases {
            scope.spawn(move || {
                let tsd = FakeTsd::builder().replies(replies).start();
                if let Some(fault) = fault {
                    tsd.script(fault);
                }
                let mut rig = Rig::new(&tsd, Confirmation::Auto);
                let mut lines = rig.push(100);
                rig.settle();
                lines.extend(rig.push(100));
                let stats = rig.settle();
                assert_eq!(stats.confirmation, Some(expected), "{replies:?}");
                assert_eq!((stats.connects, stats.points_resent), (connects, 0), "{replies:?}");
                assert_arrived(&tsd, &lines);
                assert_eq!(tsd.log().version_count(), questions, "{replies:?}");
            });
        }
    });
}

#[test]
fn after_resets_everything_arrives_whole_and_unchanged() {
    for confirmation in [Confirmation::Version, Confirmation::HalfClose] {
        let tsd = FakeTsd::start();
        (0..30).for_each(|n| tsd.script(Action::Reset.after_bytes(1 + n * 777)));
        let mut rig = Rig::new(&tsd, confirmation);
        let lines = rig.push(5000);
        let stats = rig.settle();
        assert!(stats.disconnects >= 10, "{stats:?}");
        assert!(stats.points_resent > 0);
        assert!(stats.points_sent >= 5000 + stats.points_resent);
        assert_arrived(&tsd, &lines);
    }
}

/// Where every connection breaks, not everything is sent each time.
#[test]
fn after_a_failure_a_few_points_are_sent_until_some_are_confirmed() {
    let tsd = FakeTsd::start();
    let mut options = options(&[address(&tsd)], Confirmation::Version);
    options.write_timeout = PATIENCE;
    let mut rig = Rig::with(options);
    // Where the connection is not accepted yet, there is nothing to reset.
    let reset = |rig: &Rig| {
        rig.until(|_| tsd.log().open_connection_count() == 1);
        tsd.script(Action::Reset);
    };
    tsd.script(Fault::Mute);
    let mut lines = rig.push(1);
    rig.until(|stats| stats.points_sent == 1);
    reset(&rig);
    rig.until(|stats| stats.disconnects == 1);
    lines.extend(rig.push(5000));
    for (sent, resent) in [(129, 1), (257, 129), (385, 257)] {
        let stats = rig.until(|stats| stats.points_sent >= sent && stats.points_resent >= resent);
        assert_eq!((stats.points_sent, stats.points_resent), (sent, resent));
        reset(&rig);
    }
    tsd.heal();
    tsd.script(Action::Reset);
    rig.settle();
    assert_arrived(&tsd, &lines);
}
