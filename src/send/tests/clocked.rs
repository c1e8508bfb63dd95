//! The writer on a clock that the test moves: what it does after seconds and minutes, whatever the
//! machine's speed.

use std::io::Read;
use std::time::Duration;

use super::ends::listener;
use super::faults::nobody;
use super::{Rig, address, options};
use crate::builder::Flavor;
use crate::clock::{Clock, Instant, Mock};
use crate::queue::Phase;
use crate::send::telnet::confirm::{ANSWER_TIME, LEARNED_FOR, QUESTION};
use crate::stats::Confirmation;
use crate::testing::{Action, End, FakeTsd, Fault};

/// How far the clock goes at once.
pub(super) const STEP: Duration = Duration::from_millis(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn pass(rig: &Rig, clock: &Mock, time: Duration) {
    clock.advance(time);
    // The writer looks at the clock when it is woken.
    drop(rig.queue.expedite());
}

/// Lets time pass, some ten times faster than it does, until something holds.
pub(super) fn pass_until(rig: &Rig, clock: &Mock, what: impl Fn() -> bool) {
    rig.until(|_| {
        pass(rig, clock, STEP);
        what()
    });
}

/// Lets time pass until so many bytes are sent, and then as much as a server may take to answer;
/// returns when everything is confirmed. To be found silent, the server has to close promptly after
/// our half-close: the clock stands still meanwhile, since a busy machine is no proof against it.
fn confirm_in_silence(rig: &Rig, clock: &Mock, bytes: usize) {
    pass_until(rig, clock, || rig.counters.stats().bytes_sent as usize == bytes);
    pass(rig, clock, ANSWER_TIME);
    rig.until(|stats| {
        // The writer asks the system again whether everything is acknowledged.
        pass(rig, clock, Duration::ZERO);
        stats.points_pending == 0
    });
}

/// Pushes lines in one batch, and answers them.
pub(super) fn push<const N: usize>(rig: &Rig, lines: [&str; N]) -> [String; N] {
    let lines = lines.map(String::from);
    let bytes = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    rig.queue.push(bytes, N, Instant::now());
    lines
}

/// An exporter in `Auto` whose server has answered a first time, and how many bytes that took.
fn answered_once(first: &str) -> (FakeTsd, Mock, Rig, usize) {
    let tsd = FakeTsd::start();
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut options = options(&[tsd.address().parse().unwrap()], Confirmation::Auto);
    options.write_timeout = WRITE_TIMEOUT;
    let rig = Rig::at(options, clock);
    let expedite = rig.queue.expedite();
    push(&rig, [first]);
    rig.until(|stats| stats.confirmation == Some(Confirmation::Version));
    drop(expedite);
    // Read anew: a reading is of no one moment, and its bytes may be from before the question.
    let bytes = rig.counters.stats().bytes_sent as usize;
    (tsd, mock, rig, bytes)
}

/// A TSD whose storage hangs blocks the connection at a point of a new series, and leaves `version`
/// behind it unanswered. Stopped then, it closes in good order what it has read and never handled,
/// which confirms nothing.
#[test]
fn a_server_stopped_while_its_storage_hangs_confirms_nothing_by_closing() {
    let mut lines = vec![String::from("put known 1700000000 1 host=a")];
    let (tsd, clock, rig, before) = answered_once(&lines[0]);
    // Nothing but the timeouts waits for the clock.
    let _expedite = rig.queue.expedite();
    tsd.script(Fault::FreezeStorage);
    lines.extend(push(&rig, ["put known 1700000001 2 host=a", "put once 1700000001 1 host=a"]));
    let sent: usize = lines[1..].iter().map(|line| line.len() + 1).sum();
    let burst = sent + QUESTION.len();
    for round in 1..=3 {
        rig.until(|stats| stats.bytes_sent as usize == before + round * burst);
        // Longer than an endpoint that never answered may be silent.
        pass(&rig, &clock, ANSWER_TIME);
        assert_eq!(tsd.log().open_connection_count(), 1, "it is not half-closed");
        tsd.script(Action::CloseUnread);
        let closed = tsd.log().connection(round - 1).unwrap();
        let earlier = if round == 1 { before } else { 0 };
        assert_eq!(closed.bytes as usize, earlier + burst, "it has read what it closes");
        assert_eq!(closed.end, End::ByServer);
        assert_eq!(tsd.log().version_count(), 1, "only the first question was handled");
        pass_until(&rig, &clock, || tsd.log().connection_count() > round);
        assert_eq!(rig.counters.stats().points_confirmed, 1);
    }
    tsd.heal();
    pass_until(&rig, &clock, || rig.counters.stats().points_pending == 0);
    lines.sort();
    let mut received = tsd.lines();
    received.sort();
    received.dedup();
    assert_eq!(received, lines);
    let stats = rig.counters.stats();
    assert_eq!(
        (stats.points_dropped.total(), stats.confirmation),
        (0, Some(Confirmation::Version))
    );
}

#[test]
fn a_connection_that_owes_no_answer_may_be_idle_for_longer_than_the_timeout() {
    let (_tsd, clock, rig, _) = answered_once("put m 1700000000 1 host=a");
    let _expedite = rig.queue.expedite();
    pass(&rig, &clock, 2 * WRITE_TIMEOUT);
    push(&rig, ["put m 1700000001 2 host=a"]);
    let stats = rig.until(|stats| stats.points_confirmed == 2);
    assert_eq!((stats.connects, stats.disconnects), (1, 0));
}

/// The kernel also takes what a server never reads that closes each connection.
#[test]
fn what_the_kernel_took_speaks_for_a_server_that_keeps_the_connection_for_a_second() {
    for (kept_open, connected) in [(Duration::ZERO, false), (Duration::from_secs(1), true)] {
        let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
        let tsd = FakeTsd::start();
        let rig = Rig::at(options(&[address(&tsd)], Confirmation::Written), clock);
        let _expedite = rig.queue.expedite();
        push(&rig, ["put m 1700000000 1 host=a"]);
        rig.until(|stats| stats.points_confirmed == 1 && tsd.log().accepted_count() == 1);
        pass(&rig, &mock, kept_open);
        tsd.script(Action::Close);
        // Closed by a server that is not proved yet, it is a failure.
        rig.until(|stats| stats.disconnects == 1 && stats.connected == connected);
    }
}

#[test]
fn a_server_that_does_not_close_after_our_half_close_is_left_after_the_timeout() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let tsd = FakeTsd::start();
    tsd.script(Fault::HoldOpen);
    let mut options = options(&[address(&tsd)], Confirmation::HalfClose);
    options.write_timeout = WRITE_TIMEOUT;
    let rig = Rig::at(options, clock);
    let _expedite = rig.queue.expedite();
    push(&rig, ["put m 1700000000 1 host=a"]);
    rig.until(|_| tsd.log().accepted_count() == 1);
    pass(&rig, &mock, Duration::from_secs(1));
    rig.until(|_| tsd.log().open_connection_count() == 0);
    pass(&rig, &mock, WRITE_TIMEOUT);
    let stats = rig.until(|stats| stats.disconnects == 1);
    assert_eq!((stats.connects, stats.points_confirmed), (1, 0));
}

#[test]
fn at_the_end_the_close_of_a_server_that_has_confirmed_everything_is_awaited_for_a_second() {
    let (tsd, clock, rig, _) = answered_once("put m 1700000000 1 host=a");
    tsd.script(Fault::HoldOpen);
    rig.queue.close();
    rig.until(|_| tsd.log().open_connection_count() == 0);
    pass(&rig, &clock, Duration::from_secs(1));
    rig.until(|_| rig.queue.phase() == Phase::Finished);
    assert_eq!(rig.counters.stats().disconnects, 0);
}

/// As when another server has taken over the address. Its silence is believed when ten minutes have
/// passed since the last answer.
#[test]
fn a_server_that_no_longer_knows_version_is_half_closed_after_ten_minutes() {
    let (tsd, clock, rig, before) = answered_once("put m 1700000000 1 host=a");
    let _expedite = rig.queue.expedite();
    tsd.replies(Flavor::VictoriaMetrics);
    let [line] = push(&rig, ["put m 1700000001 2 host=a"]);
    let sent = before + line.len() + 1 + QUESTION.len();
    rig.until(|stats| stats.bytes_sent as usize == sent);
    pass(&rig, &clock, WRITE_TIMEOUT);
    rig.until(|stats| stats.disconnects == 1 && stats.points_confirmed == 1);
    pass(&rig, &clock, LEARNED_FOR);
    confirm_in_silence(&rig, &clock, sent + line.len() + 1 + QUESTION.len());
    let stats = rig.until(|stats| stats.confirmation == Some(Confirmation::HalfClose));
    assert_eq!((stats.connects, stats.points_resent), (2, 1));
    assert_eq!((tsd.log().accepted_count(), tsd.log().resent_count()), (3, 1));
}

/// VictoriaMetrics where `version` was asked and never answered, and then a TSD takes its place.
#[test]
fn what_silence_decided_is_asked_again_after_ten_minutes() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let options = options(&[tsd.address().parse().unwrap()], Confirmation::Auto);
    let rig = Rig::at(options, clock);
    let _expedite = rig.queue.expedite();
    let [line] = push(&rig, ["put m 1700000000 1 host=a"]);
    let asked = line.len() + 1 + QUESTION.len();
    confirm_in_silence(&rig, &mock, asked);
    assert_eq!(rig.counters.stats().confirmation, Some(Confirmation::HalfClose));
    let [line] = push(&rig, ["put m 1700000001 1 host=a"]);
    confirm_in_silence(&rig, &mock, asked + line.len() + 1);
    assert_eq!(tsd.log().version_count(), 1);
    tsd.replies(Flavor::OpenTsdb);
    pass(&rig, &mock, LEARNED_FOR);
    push(&rig, ["put m 1700000002 1 host=a"]);
    rig.settle();
    assert_eq!(tsd.log().version_count(), 2);
    assert_eq!(rig.counters.stats().confirmation, Some(Confirmation::Version));
}

/// As a TCP proxy does whose server is away: it takes the connection and what comes on it, tries to
/// reach the server, and closes in good order when its own time is over.
#[test]
fn a_proxy_without_its_server_confirms_nothing_in_auto_whenever_it_closes() {
    // Before the question has been unanswered for long, and long after our half-close.
    for closes_late in [false, true] {
        let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
        let proxy = FakeTsd::start();
        proxy.script(Fault::Mute);
        proxy.script(Fault::HoldOpen);
        let mut options = options(&[proxy.address().parse().unwrap()], Confirmation::Auto);
        options.write_timeout = WRITE_TIMEOUT;
        let rig = Rig::at(options, clock);
        let _expedite = rig.queue.expedite();
        let [line] = push(&rig, ["put m 1700000000 1 host=a"]);
        let burst = line.len() + 1 + QUESTION.len();
        for round in 1..=3 {
            rig.until(|_| {
                proxy.log().connection(round - 1).is_some_and(|c| c.bytes as usize == burst)
            });
            if closes_late {
                pass(&rig, &mock, ANSWER_TIME);
                rig.until(|_| proxy.log().open_connection_count() == 0);
            }
            pass(&rig, &mock, Duration::from_secs(1));
            proxy.script(Action::CloseUnread);
            pass_until(&rig, &mock, || proxy.log().connection_count() > round);
            let stats = rig.counters.stats();
            assert_eq!((stats.points_confirmed, stats.confirmation), (0, None));
        }
        // The server is back, and a new connection reaches it.
        proxy.heal();
        proxy.script(Action::Reset);
        pass_until(&rig, &mock, || rig.counters.stats().points_pending == 0);
        assert_eq!(rig.counters.stats().confirmation, Some(Confirmation::Version));
    }
}

/// As a TSD does that stores slowly and refuses a point now and then.
#[test]
fn refusals_prolong_the_wait_for_an_answer_but_not_for_ever() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let (sick, healthy) = (FakeTsd::start(), FakeTsd::start());
    sick.script(Fault::Mute);
    let addresses = [&sick, &healthy].map(|tsd| tsd.address().parse().unwrap());
    let mut options = options(&addresses, Confirmation::Version);
    options.write_timeout = WRITE_TIMEOUT;
    let rig = Rig::at(options, clock.clone());
    let _expedite = rig.queue.expedite();
    push(&rig, ["put m 1700000000 1 host=a"]);
    rig.until(|_| sick.log().accepted_count() == 1);
    let start = clock.now();
    let mut refusals = 0;
    while rig.counters.stats().disconnects == 0 {
        sick.script(Action::Say(b"put: HBase error: slow\n".to_vec()));
        refusals += 1;
        rig.until(|stats| stats.points_rejected.storage == refusals || stats.disconnects == 1);
        pass(&rig, &mock, WRITE_TIMEOUT / 2);
        // The writer has read the clock when it has nothing to do for a while.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let took = clock.now() - start;
    assert!(took > 4 * WRITE_TIMEOUT && took < 7 * WRITE_TIMEOUT, "{took:?}");
    pass_until(&rig, &mock, || rig.counters.stats().points_pending == 0);
    assert_eq!(healthy.log().accepted_count(), 1);
}

/// It takes too long for the lines that were begun, so no question can be asked.
#[test]
fn a_server_that_reads_a_little_within_each_timeout_is_left_for_a_healthy_one() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let (sick, healthy) = (listener(2304), FakeTsd::start());
    let addresses = [sick.local_addr().unwrap(), address(&healthy)];
    let mut options = options(&addresses, Confirmation::Version);
    options.write_timeout = WRITE_TIMEOUT;
    let rig = Rig::at(options, clock.clone());
    let _expedite = rig.queue.expedite();
    // In one batch, more than the kernel takes in all the time.
    let lines = b"put m 1700000000 1 host=a\n".repeat(150_000);
    rig.queue.push(lines, 150_000, Instant::now());
    let (mut stream, _) = sick.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let start = clock.now();
    while rig.counters.stats().disconnects == 0 {
        let before = rig.counters.stats().bytes_sent;
        rig.until(|stats| {
            let _ = stream.read(&mut [0; 2048]);
            stats.bytes_sent > before || stats.disconnects > 0
        });
        pass(&rig, &mock, WRITE_TIMEOUT / 2);
        // The writer has read the clock when it has nothing to do for a while.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let took = clock.now() - start;
    assert!(took > 4 * WRITE_TIMEOUT && took < 7 * WRITE_TIMEOUT, "{took:?}");
    pass_until(&rig, &mock, || healthy.log().accepted_count() > 0);
}

#[test]
fn a_writer_that_nobody_can_end_gives_up_at_its_time_and_counts_what_it_had() {
    let (_held, address) = nobody();
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let rig = Rig::at(options(&[address], Confirmation::Auto), clock.clone());
    push(&rig, ["put m 1700000000 1 host=a", "put m 1700000001 2 host=a"]);
    let end = clock.now() + Duration::from_secs(30);
    rig.queue.end_at(end);
    rig.queue.close();
    pass_until(&rig, &mock, || rig.counters.stats().connect_failures > 0);
    let failures = rig.counters.stats().connect_failures;
    pass(&rig, &mock, end - clock.now() - STEP);
    rig.until(|stats| stats.connect_failures > failures);
    assert_eq!((rig.queue.phase(), rig.counters.stats().points_pending), (Phase::Closing, 2));
    pass(&rig, &mock, STEP);
    rig.until(|_| rig.queue.phase() == Phase::Finished);
    let stats = rig.counters.stats();
    assert_eq!((stats.points_dropped.shutdown, stats.points_pending), (2, 0));
}

/// The wait after a failure may be half an hour by then, and the shutdown's deadline is a matter of
/// seconds.
#[test]
fn at_the_end_a_server_that_has_come_back_is_found_though_the_last_failure_is_fresh() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let longest = Duration::from_secs(3600);
    let mut options = options(&[address(&tsd)], Confirmation::Version);
    options.backoff = Duration::from_millis(10)..=longest;
    let rig = Rig::at(options, clock.clone());
    push(&rig, ["put m 1700000000 1 host=a"]);
    // The clock stands still after it, so the last attempt has failed and the next one waits.
    for failures in 1..=20 {
        rig.until(|stats| {
            let has_failed = stats.connect_failures >= failures;
            if !has_failed {
                pass(&rig, &mock, longest);
                std::thread::park_timeout(Duration::from_millis(10));
            }
            has_failed
        });
    }
    std::thread::park_timeout(Duration::from_millis(50));
    tsd.heal();
    let closed = clock.now();
    rig.queue.close();
    pass_until(&rig, &mock, || {
        let passed = clock.now() - closed;
        assert!(passed < Duration::from_secs(2), "{:?}", rig.counters.stats());
        rig.counters.stats().points_confirmed == 1
    });
    assert_eq!(tsd.log().accepted_count(), 1);
}
