//! The writer on a clock that the test moves: what it does after seconds and minutes, whatever the machine's speed.

use std::time::Duration;

use super::faults::nobody;
use super::server::{Script, Server};
use super::{Rig, options};
use crate::clock::{Clock, Instant, Mock};
use crate::queue::Phase;
use crate::send::confirm::QUESTION;
use crate::stats::Confirmation;
use crate::testing::{End, FakeTsd, Fault, Replies};

/// How far the clock goes at once.
const STEP: Duration = Duration::from_millis(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

fn pass(rig: &Rig, clock: &Mock, time: Duration) {
    clock.advance(time);
    // The writer looks at the clock when it is woken.
    drop(rig.queue.hurry());
}

/// Lets time pass, some ten times faster than it does, until something holds.
fn pass_until(rig: &Rig, clock: &Mock, what: impl Fn() -> bool) {
    rig.until(|_| {
        pass(rig, clock, STEP);
        what()
    });
}

/// Pushes lines in one batch, and answers them.
fn push<const N: usize>(rig: &Rig, lines: [&str; N]) -> [String; N] {
    let lines = lines.map(String::from);
    rig.counters.points_taken.add(N as u64);
    let bytes = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    rig.queue.push(bytes, N, Instant::now());
    rig.queue.announce();
    lines
}

/// An exporter in `Auto` whose server has answered a first time, and how many bytes that took.
fn answered_once(first: &str) -> (FakeTsd, Mock, Rig, usize) {
    let tsd = FakeTsd::start();
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut options = options(&[tsd.address().parse().unwrap()], Confirmation::Auto);
    options.write_timeout = WRITE_TIMEOUT;
    let rig = Rig::at(options, clock);
    let hurry = rig.queue.hurry();
    push(&rig, [first]);
    let stats = rig.until(|stats| stats.confirmation == Some(Confirmation::Version));
    drop(hurry);
    (tsd, mock, rig, stats.bytes_sent as usize)
}

/// A TSD whose storage hangs blocks the connection at a point of a new series, and leaves `version` behind it unanswered. Stopped
/// then, it closes in good order what it has read and never handled, which confirms nothing: it has answered before.
#[test]
fn a_server_stopped_while_its_storage_hangs_confirms_nothing_by_closing() {
    let mut lines = vec![String::from("put known 1700000000 1 host=a")];
    let (tsd, clock, rig, before) = answered_once(&lines[0]);
    // Nothing but the timeouts waits for the clock.
    let _hurry = rig.queue.hurry();
    tsd.script(Fault::FreezeStorage);
    lines.extend(push(&rig, ["put known 1700000001 2 host=a", "put once 1700000001 1 host=a"]));
    let sent: usize = lines[1..].iter().map(|line| line.len() + 1).sum();
    rig.until(|stats| stats.bytes_sent as usize == before + sent + QUESTION.len());
    // The connection is given up; the ones after it are half-closed when they were silent for a while.
    pass(&rig, &clock, WRITE_TIMEOUT);
    for round in 1..=2 {
        pass_until(&rig, &clock, || tsd.connections() > round && tsd.open_connections() == 0);
        lines.extend(push(&rig, [&format!("put raw{round} 1700000001 1 host=a")]));
        tsd.script(Fault::CloseUnhandled);
        let last = tsd.connection(round).unwrap();
        let sent: usize = lines[1..=1 + round].iter().map(|line| line.len() + 1).sum();
        assert_eq!(last.bytes as usize, sent + QUESTION.len(), "it has read what it closes");
        assert_eq!(last.end, End::ByServer);
        assert_eq!(tsd.commands(), ["version"], "only the first question was handled");
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

/// As when another server has taken over the address: it closes three times in silence, and is believed the third time.
#[test]
fn a_server_that_no_longer_knows_version_is_half_closed_in_the_end() {
    let (tsd, clock, rig, before) = answered_once("put m 1700000000 1 host=a");
    let _hurry = rig.queue.hurry();
    tsd.replies(Replies::Silent);
    let [line] = push(&rig, ["put m 1700000001 2 host=a"]);
    let sent = before + line.len() + 1 + QUESTION.len();
    rig.until(|stats| stats.bytes_sent as usize == sent);
    pass(&rig, &clock, WRITE_TIMEOUT);
    pass_until(&rig, &clock, || rig.counters.stats().points_pending == 0);
    let stats = rig.until(|stats| stats.confirmation == Some(Confirmation::HalfClose));
    assert_eq!((stats.connects, stats.points_resent), (4, 3));
    assert_eq!((tsd.accepted(), tsd.resent()), (5, 3));
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

/// The wait after a failure may be half an hour by then, and the shutdown's deadline is a matter of seconds.
#[test]
fn at_the_end_a_server_that_has_come_back_is_found_though_the_last_failure_is_fresh() {
    let (socket, address) = nobody();
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let longest = Duration::from_secs(3600);
    let mut options = options(&[address], Confirmation::Version);
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
    socket.listen(8).unwrap();
    let server = Server::on(socket.into(), &[Script::Tsd]);
    let closed = clock.now();
    rig.queue.close();
    pass_until(&rig, &mock, || {
        let passed = clock.now() - closed;
        assert!(passed < Duration::from_secs(2), "{:?}", rig.counters.stats());
        rig.counters.stats().points_confirmed == 1
    });
    assert_eq!(server.received().len(), 1);
}
