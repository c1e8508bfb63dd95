//! Promise 3: a shutdown in each state of a server, its tally and how late it was.

use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};

use crate::rig::{App, PATIENCE, assert_law, assert_whole, builder};

/// More than a socket's buffers take.
const COUNTERS: usize = 2_000;

/// What the server does while the exporter is shut down.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub name: &'static str,
    faults: fn() -> Vec<Fault>,
    /// Whether it answers, so that a shutdown with enough time has everything confirmed.
    pub is_healthy: bool,
    /// Whether points come through at all.
    takes_points: bool,
}

pub const STATES: &[State] = &[
    State { name: "healthy", faults: Vec::new, is_healthy: true, takes_points: true },
    State {
        name: "absent",
        faults: || vec![Fault::Refuse],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "accepts and closes",
        faults: || vec![Fault::CloseNew],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "accepts and resets",
        faults: || vec![Fault::ResetNew],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "never looks at new connections",
        faults: || vec![Fault::IgnoreNew],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "never reads",
        faults: || vec![Fault::ReceiveBuffer(4096), Fault::StopReading],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "reads but mute",
        faults: || vec![Fault::Mute, Fault::HoldOpen],
        is_healthy: false,
        takes_points: true,
    },
    State {
        name: "64 kbit/s",
        faults: || {
            let every = Duration::from_millis(50);
            vec![Fault::ReceiveBuffer(4096), Fault::Trickle { bytes: 400, every }]
        },
        is_healthy: false,
        takes_points: true,
    },
    State {
        name: "reply flood",
        faults: || vec![Fault::Flood],
        is_healthy: true,
        takes_points: true,
    },
    State {
        name: "storage frozen",
        faults: || vec![Fault::FreezeStorage],
        is_healthy: false,
        takes_points: false,
    },
    State {
        name: "throttles",
        faults: || vec![Fault::Throttle],
        is_healthy: true,
        takes_points: true,
    },
];

/// How one shutdown went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Beyond the deadline.
    pub late: Duration,
    pub points: u64,
    pub confirmed: u64,
    /// Points that the server's log held when the shutdown was over.
    pub known: u64,
}

/// Shuts an exporter down within `timeout` while the server is in this state, and checks the tally.
pub fn shut_down(state: &State, mode: Confirmation, timeout: Duration) -> Outcome {
    let tsd = FakeTsd::start();
    for fault in (state.faults)() {
        tsd.script(fault);
    }
    // Long, so that only the deadline ends a stuck connection.
    let builder = builder(tsd.address(), mode).with_write_timeout(Duration::from_secs(30));
    let mut app = App::start(builder, COUNTERS);
    app.count();
    app.handle.flush(Duration::from_millis(100)).unwrap();
    if state.takes_points {
        let took = tsd.wait_until(PATIENCE, |log| log.accepted_count() + log.rejected_count() > 0);
        assert!(took, "{}, {mode:?}: the server took nothing", state.name);
    }
    app.count();
    let outcome = end(&app, timeout, &tsd);
    let what = format!("{}, {mode:?}, {timeout:?}: {outcome:?}", state.name);
    // The fault happened.
    assert_eq!(outcome.known > 0, state.takes_points, "{what}");
    if state.is_healthy && timeout >= Duration::from_secs(2) && state.name == "healthy" {
        assert_eq!(outcome.confirmed, outcome.points, "{what}");
    }
    outcome
}

/// The shutdown itself, and its tally against the server's log.
pub fn end(app: &App, timeout: Duration, tsd: &FakeTsd) -> Outcome {
    let confirmed_before = app.handle.stats().points_confirmed;
    let began = Instant::now();
    let report = app.handle.shutdown(timeout).unwrap();
    let late = began.elapsed().saturating_sub(timeout);
    assert_eq!(report.points, report.confirmed + report.pending + report.dropped, "{report:?}");
    let stats = app.handle.stats();
    assert_law(&stats);
    assert!(report.confirmed <= stats.points_confirmed - confirmed_before);
    let known =
        (tsd.log().accepted_count() - tsd.log().resent_count() + tsd.log().rejected_count()) as u64;
    assert!(
        stats.points_confirmed <= known,
        "{} confirmed, {known} in the log",
        stats.points_confirmed
    );
    // The writer may still be closing the connection.
    tsd.heal();
    assert!(
        tsd.wait_until(PATIENCE, |log| log.open_connection_count() == 0),
        "the connection stays"
    );
    assert_whole(tsd);
    Outcome { late, points: report.points, confirmed: report.confirmed, known }
}
