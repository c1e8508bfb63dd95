//! Promises 5, 6 and 7: outages under load, and what must hold after them.

use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};

use crate::rig::{App, PATIENCE, builder, ended_by_server};

const COUNTERS: usize = 50;

/// Makes the fault that takes a server away at a random byte.
type Outage = fn(&mut fastrand::Rng) -> Action;

pub const RESET: Outage = |_| Action::Reset;
pub const RESTART: Outage =
    |random| Action::Restart { down: Duration::from_millis(random.u64(0..30)) };
pub const CRASH: Outage = |random| Action::Crash { down: Duration::from_millis(random.u64(0..30)) };

/// Totals of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub outages: usize,
    pub accepted: usize,
    pub resent: u64,
    pub confirmed: u64,
}

/// A server that counts lines and keeps none: searching the text of thousands of connections is
/// slow.
pub fn counting() -> FakeTsd {
    FakeTsd::builder().keep_lines(false).start()
}

/// Runs an application through outages one after the other, and checks it after each.
pub fn survive(mode: Confirmation, outages: usize, outage: Outage, seed: u64) -> Sum {
    let mut random = fastrand::Rng::with_seed(seed);
    let tsd = counting();
    let mut app = App::start(builder(tsd.address(), mode), COUNTERS);
    for _ in 0..outages {
        let bytes = random.usize(1..30_000);
        let before = ended_by_server(&tsd);
        tsd.script(outage(&mut random).after_bytes(bytes));
        app.work();
        while tsd.pending_step_count() > 0 {
            app.count();
            app.handle.flush(Duration::from_millis(random.u64(1..20))).unwrap();
        }
        app.work();
        // In mode `HalfClose` the client may end the connection itself at that moment, so an outage
        // may find none.
        assert!(ended_by_server(&tsd) >= before);
        app.assert_lawful(&[&tsd]);
    }
    finish(&mut app, &[&tsd], outages)
}

/// The same with two servers of which one is away at a time.
pub fn fail_over(mode: Confirmation, outages: usize, seed: u64) -> Sum {
    let mut random = fastrand::Rng::with_seed(seed);
    let servers = [counting(), counting()];
    let builder = builder(servers[0].address(), mode).add_endpoint(servers[1].address());
    let mut app = App::start(builder, COUNTERS);
    let both = [&servers[0], &servers[1]];
    for outage in 0..outages {
        let (away, there) = (both[outage % 2], both[(outage + 1) % 2]);
        there.heal();
        let step = if random.bool() { Action::Reset } else { Action::Close };
        away.script(step.after_bytes(random.usize(1..5_000)));
        let before = there.log().accepted_count();
        app.work();
        while away.pending_step_count() > 0 {
            app.count();
            app.handle.flush(Duration::from_millis(random.u64(1..20))).unwrap();
            if away.pending_step_count() > 0 && there.log().accepted_count() > before {
                // The exporter is connected to the other server: drive it over to this one.
                there.script(Fault::Refuse);
                there.script(Action::Reset);
                app.handle.flush(Duration::from_millis(20)).unwrap();
                there.heal();
            }
        }
        away.script(Fault::Refuse);
        // It may have been connected to again in between.
        away.script(Action::Reset);
        app.work();
        app.settle();
        assert!(there.log().accepted_count() > before, "the other one has taken over");
    }
    both.iter().for_each(|tsd| tsd.heal());
    finish(&mut app, &both, outages)
}

fn finish(app: &mut App, servers: &[&FakeTsd], outages: usize) -> Sum {
    app.work();
    app.settle();
    app.assert_exact(servers);
    let stats = app.assert_lawful(servers);
    assert!(servers.iter().all(|tsd| tsd.log().rejected_count() == 0), "a line was none");
    let ended: usize = servers.iter().map(|tsd| ended_by_server(tsd)).sum();
    // In mode `HalfClose` there are moments without a connection, so some outages find none.
    assert!(ended >= outages / 2, "{ended} of {outages} outages took a connection along");
    let report = app.handle.shutdown(PATIENCE).unwrap();
    assert_eq!((report.pending, report.dropped), (0, 0), "{report:?}");
    let (accepted, resent): (usize, usize) = servers.iter().fold((0, 0), |sum, tsd| {
        (sum.0 + tsd.log().accepted_count(), sum.1 + tsd.log().resent_count())
    });
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
