//! Promise 8: the rate that a server sees, and how many connections.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, RateLimit};

use crate::rig::{App, builder, connections};

/// The most points that arrived within any second.
pub fn most_in_a_second(arrivals: &[(Instant, usize)]) -> usize {
    let second = Duration::from_secs(1);
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for &(at, points) in arrivals {
        sum += points;
        while arrivals[first].0 + second <= at {
            sum -= arrivals[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// Whether each connection had ended when the next one came. A server that reads slowly may see the
/// end of one a moment later.
pub fn one_at_a_time(tsd: &FakeTsd) -> bool {
    const MOMENT: Duration = Duration::from_millis(100);
    let all: Vec<_> = connections(tsd).collect();
    let is_gone = |closed: Option<Instant>, by| closed.is_some_and(|at| at <= by + MOMENT);
    all.windows(2).all(|pair| is_gone(pair[0].closed, pair[1].opened))
}

/// Sends a backlog at a cap, with resets in between; returns the most points in any second, and the
/// cap.
pub fn capped(cap: u32, points: usize, resets: usize) -> (usize, usize) {
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let limit = RateLimit::PerSecond(NonZeroU32::new(cap).unwrap());
    let builder = builder(tsd.address(), Confirmation::Version)
        // No tick: each would add what takes twenty seconds to send.
        .with_flush_interval(Duration::from_secs(86_400))
        .with_rate_limit(limit);
    let mut app = App::start(builder, points);
    app.count();
    app.handle.flush(Duration::from_millis(50)).unwrap();
    for n in 0..resets {
        tsd.script(Action::Reset.after_lines((n + 1) * points / (resets + 2)));
    }
    tsd.heal();
    app.settle();
    assert_eq!(tsd.pending_step_count(), 0);
    app.assert_exact(&[&tsd]);
    app.assert_lawful(&[&tsd]);
    assert!(one_at_a_time(&tsd));
    (most_in_a_second(&tsd.log().arrivals()), cap as usize)
}
