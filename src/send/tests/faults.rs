//! The writer against servers that misbehave.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use opentsdb_faults::log::Listener;

use super::{Rig, SECOND, address, assert_arrived, options};
use crate::builder::Flavor;
use crate::clock::{Clock, Instant};
use crate::queue::{Link, Phase, Queue};
use crate::send::endpoint::Endpoint;
#[cfg(feature = "http")]
use crate::send::http::head::Ask;
use crate::send::limiter::RateLimit;
use crate::send::resolve::Resolver;
use crate::send::{Options, Writer};
use crate::stats::{Confirmation, Counters};
#[cfg(feature = "http")]
use crate::testing::FakeHttpTsd;
use crate::testing::{Action, FakeTsd, Fault};

const MODES: [Confirmation; 3] =
    [Confirmation::Version, Confirmation::HalfClose, Confirmation::Auto];

/// An address on which nobody listens, held so that nobody else does.
pub(super) fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[cfg(feature = "http")]
pub(super) fn http_options(tsd: &FakeHttpTsd) -> Options {
    let mut options = options(&[], Confirmation::Auto);
    options.endpoints.push(Endpoint::parse(&tsd.address()).unwrap());
    options.protocols.http.batch_bytes = 8000;
    options.protocols.http.ask = Ask::Details;
    options
}

#[test]
fn a_server_that_accepts_and_closes_confirms_nothing_in_any_mode() {
    for confirmation in MODES {
        let tsd = FakeTsd::start();
        tsd.script(Fault::CloseNew);
        let mut rig = Rig::new(&tsd, confirmation);
        let lines = rig.push(3000);
        let stats = rig.until(|stats| stats.disconnects >= 20);
        assert_eq!((stats.points_confirmed, stats.connect_failures), (0, 0));
        tsd.heal();
        rig.settle();
        assert_arrived(&tsd, &lines);
    }
}

#[test]
fn a_server_that_accepts_and_closes_does_not_bring_the_backoff_down() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::CloseNew);
    assert_stays_away(options(&[address(&tsd)], Confirmation::Version));
    #[cfg(feature = "http")]
    {
        let tsd = FakeHttpTsd::start();
        tsd.script(Fault::CloseNew);
        assert_stays_away(http_options(&tsd));
    }
}

fn assert_stays_away(mut options: Options) {
    options.backoff = Duration::from_millis(20)..=Duration::from_millis(320);
    // The writer's own generator is made from this thread's.
    fastrand::seed(1);
    let start = Instant::now();
    let mut rig = Rig::with(options);
    rig.push(10);
    rig.until(|stats| stats.disconnects >= 10);
    // Nine waits under ceilings of 20, 40, 80, 160 and five times 320 ms; were each connect to
    // begin anew, of 20 ms each.
    assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
}

#[test]
fn a_flood_of_replies_starves_nothing() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Flood);
    let mut rig = Rig::new(&tsd, Confirmation::Version);
    let lines = rig.push(20_000);
    let stats = rig.settle();
    assert!(stats.points_rejected.other > 0);
    assert_eq!((stats.connects, stats.points_resent), (1, 0));
    assert_arrived(&tsd, &lines);
}

#[test]
fn an_idle_connection_that_the_server_closed_costs_no_point_and_no_wait() {
    let tsd = FakeTsd::start();
    let mut rig = Rig::new(&tsd, Confirmation::Version);
    let mut lines = Vec::new();
    for round in 1..=20 {
        lines.extend(rig.push(1));
        rig.settle();
        tsd.script(Action::Close);
        let stats = rig.until(|stats| stats.disconnects == round);
        assert_eq!((stats.connects, stats.connect_failures, stats.connected), (round, 0, true));
        assert_eq!((stats.points_sent, stats.points_resent), (round, 0));
    }
    assert_arrived(&tsd, &lines);
}

#[test]
fn replies_are_counted_and_a_refused_point_is_confirmed_all_the_same() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refusal("put: unknown metric: No such name".into()));
    let mut rig = Rig::new(&tsd, Confirmation::Auto);
    rig.push(1234);
    let stats = rig.settle();
    assert_eq!(stats.points_rejected.unknown_metric, 1234);
    assert_eq!(stats.points_confirmed, 1234);
}

#[test]
fn a_slow_reader_is_waited_for_while_it_makes_progress() {
    for confirmation in [Confirmation::Version, Confirmation::HalfClose] {
        let tsd = FakeTsd::start();
        tsd.script(Fault::ReceiveBuffer(4096));
        tsd.script(Fault::Trickle { bytes: 512, every: Duration::from_millis(2) });
        let mut options = options(&[address(&tsd)], confirmation);
        options.write_timeout = Duration::from_millis(400);
        let mut rig = Rig::with(options);
        let lines = rig.push(2000);
        let stats = rig.settle();
        assert_eq!((stats.connects, stats.points_resent), (1, 0), "{confirmation:?}");
        assert_arrived(&tsd, &lines);
    }
}

#[test]
fn a_server_that_stops_reading_is_given_up_and_comes_back_to_everything() {
    for confirmation in MODES {
        let tsd = FakeTsd::start();
        tsd.script(Fault::StopReading);
        let mut options = options(&[address(&tsd)], confirmation);
        // Long enough for a server on a busy machine to read again once it may.
        options.write_timeout = SECOND;
        let mut rig = Rig::with(options);
        let lines = rig.push(50_000);
        rig.until(|stats| stats.disconnects > 0);
        tsd.heal();
        let stats = rig.settle();
        assert!(stats.connects >= 2 && stats.points_resent > 0, "{confirmation:?}: {stats:?}");
        assert_arrived(&tsd, &lines);
    }
}

#[test]
fn a_server_that_hangs_gets_one_connection_at_a_time_and_never_before_the_backoff() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::StopReading);
    let mut options = options(&[address(&tsd)], Confirmation::Version);
    options.write_timeout = Duration::from_millis(50);
    options.backoff = Duration::from_millis(100)..=Duration::from_millis(100);
    let start = Instant::now();
    let mut rig = Rig::with(options);
    rig.push(1);
    rig.until(|stats| stats.connects >= 4);
    assert!(start.elapsed() >= 3 * Duration::from_millis(150), "{:?}", start.elapsed());
}

#[test]
fn an_abandoned_writer_ends_at_once_with_every_point_dropped() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::StopReading);
    let mut rig = Rig::new(&tsd, Confirmation::HalfClose);
    rig.push(100_000);
    let sent = rig.until(|stats| stats.points_sent > 100).points_sent;
    rig.queue.abandon();
    assert!(rig.queue.wait_finished(Some(Instant::now() + SECOND)));
    let stats = rig.counters.stats();
    assert!(stats.points_sent >= sent && stats.points_confirmed == 0);
    assert_eq!((stats.points_pending, stats.points_dropped.shutdown), (0, 100_000));
}

#[test]
fn an_absent_server_is_no_reason_to_stay_at_the_end() {
    let (_held, address) = nobody();
    let mut rig = Rig::with(options(&[address], Confirmation::Auto));
    rig.push(10);
    rig.until(|stats| stats.connect_failures > 2);
    rig.queue.close();
    assert!(!rig.queue.wait_finished(Some(Instant::now() + Duration::from_millis(20))));
    rig.queue.abandon();
    assert!(rig.queue.wait_finished(Some(Instant::now() + SECOND)));
    let stats = rig.counters.stats();
    assert_eq!((stats.points_dropped.shutdown, stats.points_pending), (10, 0));
}

#[test]
fn at_the_end_an_undecided_server_is_asked_all_the_same() {
    for replies in [Flavor::VictoriaMetrics, Flavor::OpenTsdb] {
        let tsd = FakeTsd::builder().replies(replies).start();
        let mut rig = Rig::new(&tsd, Confirmation::Auto);
        let lines = rig.push(100);
        rig.close();
        let stats = rig.counters.stats();
        assert_eq!((stats.points_confirmed, stats.points_resent), (100, 0));
        assert_arrived(&tsd, &lines);
        assert_eq!((stats.connects, tsd.log().version_count()), (1, 1), "{replies:?}");
    }
}

/// A writer, not running yet, whose resolver has been asked and will not answer while the senders
/// live.
fn stuck(options: Options) -> (Rig, Writer, Vec<impl Sized + use<>>) {
    let counters = Arc::new(Counters::default());
    let queue = Arc::new(Queue::new(100, Arc::clone(&counters)));
    let endpoints = options.endpoints.len();
    let mut writer =
        Writer::new(options, Arc::clone(&queue), Arc::clone(&counters), Clock::default()).unwrap();
    let waker = Arc::clone(&writer.dialer.waker);
    let (resolver, senders) = Resolver::stuck(waker, endpoints, Instant::now());
    writer.dialer.resolver = resolver;
    (Rig { queue, counters, next: 0 }, writer, senders)
}

#[test]
fn a_resolver_that_never_answers_delays_neither_the_others_nor_the_end() {
    let tsd = FakeTsd::start();
    let mut options = options(&[address(&tsd)], Confirmation::Version);
    options.endpoints.insert(0, Endpoint::parse("stuck.invalid").unwrap());
    options.connect_timeout = Duration::from_millis(200);
    let (mut rig, mut writer, _senders) = stuck(options);
    std::thread::scope(|scope| {
        scope.spawn(|| writer.run());
        let lines = rig.push(10);
        rig.settle();
        assert_arrived(&tsd, &lines);
        rig.queue.abandon();
    });
}

#[test]
fn while_a_name_is_being_resolved_the_end_comes_at_once() {
    let mut options = options(&[], Confirmation::Version);
    options.endpoints.push(Endpoint::parse("stuck.invalid").unwrap());
    options.connect_timeout = 3600 * SECOND;
    let (mut rig, mut writer, _senders) = stuck(options);
    std::thread::scope(|scope| {
        scope.spawn(|| writer.run());
        rig.push(10);
        rig.until(|_| rig.queue.waiting().fresh == 10);
        rig.queue.abandon();
    });
    assert_eq!(rig.counters.stats().points_dropped.shutdown, 10);
}

#[test]
fn when_the_first_endpoint_is_absent_or_sick_the_second_gets_everything() {
    let (_held, absent) = nobody();
    let sick = FakeTsd::start();
    sick.script(Fault::CloseNew);
    for first in [absent, address(&sick)] {
        let tsd = FakeTsd::start();
        let mut rig = Rig::with(options(&[first, address(&tsd)], Confirmation::Version));
        let lines = rig.push(3000);
        let stats = rig.settle();
        assert_eq!(stats.connect_failures, 0);
        assert_arrived(&tsd, &lines);
    }
}

#[test]
fn a_server_that_starts_later_gets_everything() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let mut rig = Rig::new(&tsd, Confirmation::Version);
    let lines = rig.push(10);
    rig.until(|stats| stats.connect_failures + stats.disconnects > 3);
    tsd.heal();
    rig.settle();
    assert_arrived(&tsd, &lines);
}

#[test]
fn a_cap_holds_on_the_wire() {
    let tsd = FakeTsd::start();
    let mut options = options(&[address(&tsd)], Confirmation::Version);
    options.rate = RateLimit::PerSecond(NonZeroU32::new(2000).unwrap());
    let mut rig = Rig::with(options);
    let start = Instant::now();
    rig.push(1200);
    let queue = Arc::clone(&rig.queue);
    let _expedite = queue.expedite();
    rig.settle();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(500) && took < SECOND, "{took:?}");
}

#[test]
fn a_complaint_slows_down() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Throttle);
    assert_slows_down(options(&[address(&tsd)], Confirmation::Version));
    #[cfg(feature = "http")]
    {
        let tsd = FakeHttpTsd::start();
        tsd.script(Fault::Throttle);
        assert_slows_down(http_options(&tsd));
    }
}

/// To a server that wants fewer of any points.
fn assert_slows_down(mut options: Options) {
    options.rate = RateLimit::PerSecond(NonZeroU32::new(1000).unwrap());
    let mut rig = Rig::with(options);
    rig.push(50);
    rig.settle();
    let start = Instant::now();
    rig.push(350);
    let stats = rig.settle();
    // At half of the rate, all but the 50 points that may go at once.
    assert!(start.elapsed() >= Duration::from_millis(550), "{:?}", start.elapsed());
    assert_eq!(stats.points_rejected.throttled, 400);
}

#[test]
fn a_panic_is_counted_and_costs_nothing_but_the_connection() {
    // A user's subscriber may panic on any text. The only test of this binary that sets a global
    // one; others are not disturbed by it.
    let panicking = Listener(|line: &str| assert!(!line.contains("panic, please")));
    let _ = tracing::subscriber::set_global_default(panicking);
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refusal("put: HBase error: panic, please".into()));
    let mut rig = Rig::new(&tsd, Confirmation::Version);
    let mut lines = rig.push(2000);
    rig.settle();
    rig.until(|stats| stats.restarts == 1);
    lines.extend(rig.push(1));
    rig.settle();
    let refused: HashSet<_> = tsd.log().rejected().into_iter().map(|(line, _)| line).collect();
    assert_eq!(refused, lines.into_iter().collect());
    rig.close();
    assert_eq!(rig.queue.phase(), Phase::Finished);
    rig.queue.set_link(Link::Up);
}
