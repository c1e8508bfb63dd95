//! Promises 5, 6 and 7: after an outage of any kind, the last value of each counter is the truth and each point that was made once
//! has arrived; what was confirmed is in a server's log; every line was whole, and the same each time.

use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};

use super::rig::{App, PATIENCE, builder, ended_by_server};

const COUNTERS: usize = 50;

/// One outage of a server under load, at a random byte.
type Outage = fn(&mut fastrand::Rng) -> Fault;

pub(crate) const RESET: Outage = |_| Fault::Reset;
pub(crate) const RESTART: Outage =
    |random| Fault::Restart { down: Duration::from_millis(random.u64(0..30)) };
pub(crate) const CRASH: Outage =
    |random| Fault::Crash { down: Duration::from_millis(random.u64(0..30)) };

/// What went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) outages: usize,
    pub(crate) accepted: usize,
    pub(crate) resent: u64,
    pub(crate) confirmed: u64,
}

/// A server that keeps no text: with thousands of connections, to look it through takes long.
pub(crate) fn counting() -> FakeTsd {
    FakeTsd::builder().keep_lines(false).start()
}

/// Has one outage after the other, with the application at work in between and meanwhile.
pub(crate) fn survive(mode: Confirmation, outages: usize, outage: Outage, seed: u64) -> Sum {
    let mut random = fastrand::Rng::with_seed(seed);
    let tsd = counting();
    let mut app = App::start(builder(tsd.address(), mode), COUNTERS);
    for _ in 0..outages {
        let bytes = random.usize(1..30_000);
        let before = ended_by_server(&tsd);
        tsd.script(outage(&mut random).after_bytes(bytes));
        app.work();
        while tsd.steps_left() > 0 {
            app.count();
            app.handle.flush(Duration::from_millis(random.u64(1..20))).unwrap();
        }
        app.work();
        // A burst of half-closes may end just then by the client's own doing: an outage counts when it took a connection along,
        // but the point is what it did to those that were made meanwhile.
        assert!(ended_by_server(&tsd) >= before);
        app.assert_lawful(&[&tsd]);
    }
    finish(&mut app, &[&tsd], outages)
}

/// The servers take turns at being away.
pub(crate) fn fail_over(mode: Confirmation, outages: usize, seed: u64) -> Sum {
    let mut random = fastrand::Rng::with_seed(seed);
    let servers = [counting(), counting()];
    let builder = builder(servers[0].address(), mode).add_endpoint(servers[1].address());
    let mut app = App::start(builder, COUNTERS);
    let both = [&servers[0], &servers[1]];
    for outage in 0..outages {
        let (away, there) = (both[outage % 2], both[(outage + 1) % 2]);
        there.heal();
        let step = if random.bool() { Fault::Reset } else { Fault::Close };
        away.script(step.after_bytes(random.usize(1..5_000)));
        let before = there.accepted();
        app.work();
        while away.steps_left() > 0 {
            app.count();
            app.handle.flush(Duration::from_millis(random.u64(1..20))).unwrap();
            if away.steps_left() > 0 && there.accepted() > before {
                // It is the other one that is in use: have it change places.
                there.script(Fault::Refuse);
                there.script(Fault::Reset);
                app.handle.flush(Duration::from_millis(20)).unwrap();
                there.heal();
            }
        }
        away.script(Fault::Refuse);
        // It may have been connected to again in between.
        away.script(Fault::Reset);
        app.work();
        app.settle();
        assert!(there.accepted() > before, "the other one has taken over");
    }
    both.iter().for_each(|tsd| tsd.heal());
    finish(&mut app, &both, outages)
}

fn finish(app: &mut App, servers: &[&FakeTsd], outages: usize) -> Sum {
    app.work();
    app.settle();
    app.assert_exact(servers);
    let stats = app.assert_lawful(servers);
    assert!(servers.iter().all(|tsd| tsd.rejections() == 0), "a line was none");
    let ended: usize = servers.iter().map(|tsd| ended_by_server(tsd)).sum();
    // In mode `HalfClose` there are moments without a connection, so some outages find none.
    assert!(ended >= outages / 2, "{ended} of {outages} outages took a connection along");
    let report = app.handle.shutdown(PATIENCE).unwrap();
    assert_eq!((report.pending, report.dropped), (0, 0), "{report:?}");
    let (accepted, resent): (usize, usize) =
        servers.iter().fold((0, 0), |sum, tsd| (sum.0 + tsd.accepted(), sum.1 + tsd.resent()));
    let stats_at_end = app.handle.stats();
    assert_eq!(stats_at_end.points_confirmed, stats_at_end.points_taken);
    if let [_] = servers {
        assert_eq!(stats_at_end.points_taken, (accepted - resent) as u64, "each point once");
    }
    Sum {
        outages: ended,
        accepted,
        resent: stats.points_resent,
        confirmed: stats_at_end.points_confirmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Confirmation; 2] = [Confirmation::Version, Confirmation::HalfClose];

    #[test]
    fn resets_after_random_byte_counts_lose_nothing() {
        for (seed, mode) in MODES.into_iter().enumerate() {
            let sum = survive(mode, 30, RESET, seed as u64);
            assert!(sum.resent > 0, "nothing had to be sent again: {sum:?}");
        }
    }

    /// As behind a device that ends every connection at some size: what a connection could still confirm must not be lost with it.
    #[test]
    fn a_backlog_gets_through_connections_that_break_after_150_kilobytes_each() {
        let tsd = FakeTsd::start();
        tsd.script(Fault::Refuse);
        let builder = builder(tsd.address(), Confirmation::Version).with_flush_interval(PATIENCE);
        let mut app = App::start(builder, 10_000);
        app.count();
        app.handle.flush(Duration::from_millis(50)).unwrap();
        for _ in 0..200 {
            tsd.script(Fault::Reset.after_bytes(150_000));
        }
        tsd.heal();
        app.settle();
        let left = tsd.steps_left();
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
}
