//! Promises 5, 6 and 7: after an outage of any kind, the last value of each counter is the truth
//! and each point that was made once has arrived.

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use opentsdb_faults::outages::{CRASH, RESET, RESTART, fail_over, survive};
use opentsdb_faults::rig::{App, PATIENCE, builder, ended_by_server};
use std::time::Duration;

const MODES: [Confirmation; 2] = [Confirmation::Version, Confirmation::HalfClose];

#[test]
fn resets_after_random_byte_counts_lose_nothing() {
    for (seed, mode) in MODES.into_iter().enumerate() {
        let sum = survive(mode, 30, RESET, seed as u64);
        assert!(sum.resent > 0, "nothing had to be sent again: {sum:?}");
    }
}

/// As behind a device that ends every connection at some size: what a connection could still
/// confirm must not be lost with it.
#[test]
fn a_backlog_gets_through_connections_that_break_after_150_kilobytes_each() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let builder = builder(tsd.address(), Confirmation::Version).with_flush_interval(PATIENCE);
    let mut app = App::start(builder, 10_000);
    app.count();
    app.handle.flush(Duration::from_millis(50)).unwrap();
    for _ in 0..200 {
        tsd.script(Action::Reset.after_bytes(150_000));
    }
    tsd.heal();
    app.settle();
    let left = tsd.pending_step_count();
    assert!(left > 0, "it got through only once the connections lasted");
    assert!(left < 195, "{left} of 200 connections did not break");
    app.assert_exact(&[&tsd]);
    app.assert_lawful(&[&tsd]);
}

/// The same where a burst is confirmed by its end: it has to end before the connection breaks.
#[test]
fn a_backlog_gets_through_half_closes_on_connections_that_break_after_17_kilobytes_each() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::BreakAfter(17_000));
    let builder = builder(tsd.address(), Confirmation::HalfClose).with_flush_interval(PATIENCE);
    let mut app = App::start(builder, 5_000);
    app.work();
    app.settle();
    let broken = ended_by_server(&tsd);
    assert!(broken > 5, "{broken} connections broke");
    app.assert_exact(&[&tsd]);
    app.assert_lawful(&[&tsd]);
}

#[test]
fn restarts_under_load_lose_nothing() {
    for (seed, mode) in MODES.into_iter().enumerate() {
        survive(mode, 15, RESTART, seed as u64 + 10);
    }
}

#[test]
fn crashes_lose_nothing() {
    for (seed, mode) in MODES.into_iter().enumerate() {
        survive(mode, 15, CRASH, seed as u64 + 20);
    }
    survive(Confirmation::Auto, 15, CRASH, 29);
}

#[test]
fn two_servers_that_take_turns_lose_nothing() {
    for (seed, mode) in MODES.into_iter().enumerate() {
        fail_over(mode, 6, seed as u64 + 30);
    }
}
