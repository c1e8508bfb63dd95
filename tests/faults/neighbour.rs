//! Promise 8: no server is harmed by its clients. Here what needs no clock; the envelopes in time are in `faults/run`.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, RateLimit};

use super::rig::{App, builder, connections};

/// The most points that arrived within any second.
pub(crate) fn most_in_a_second(arrivals: &[(Instant, usize)]) -> usize {
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

/// Whether each connection was gone when the next one came. The server may see the end of one it was slow to read a moment later.
pub(crate) fn one_at_a_time(tsd: &FakeTsd) -> bool {
    const MOMENT: Duration = Duration::from_millis(100);
    let all: Vec<_> = connections(tsd).collect();
    let is_gone = |closed: Option<Instant>, by| closed.is_some_and(|at| at <= by + MOMENT);
    all.windows(2).all(|pair| is_gone(pair[0].closed, pair[1].opened))
}

/// Sends a backlog at a cap, with resets in between; answers the most points in any second and the cap.
pub(crate) fn capped(cap: u32, points: usize, resets: usize) -> (usize, usize) {
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
        tsd.script(Fault::Reset.after_lines((n + 1) * points / (resets + 2)));
    }
    tsd.heal();
    app.settle();
    assert_eq!(tsd.steps_left(), 0);
    app.assert_exact(&[&tsd]);
    app.assert_lawful(&[&tsd]);
    assert!(one_at_a_time(&tsd));
    (most_in_a_second(&tsd.arrivals()), cap as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A late reader may see two seconds' points at once, so on a busy machine the cap is only asked of the whole.
    #[test]
    fn a_cap_holds_for_a_backlog_and_for_what_is_sent_again() {
        let began = Instant::now();
        let points = 2_000;
        capped(1_000, points, 2);
        let least = (points as f64 - 100.0) / 1_000.0;
        assert!(began.elapsed().as_secs_f64() >= least, "{:?}", began.elapsed());
    }

    #[test]
    fn there_is_one_connection_at_a_time_whatever_happens() {
        let tsd = FakeTsd::start();
        let mut app = App::start(builder(tsd.address(), Confirmation::Version), 20);
        for fault in [Fault::Mute, Fault::FreezeStorage, Fault::StopReading] {
            let before = tsd.connections();
            tsd.script(Fault::Reset);
            tsd.script(fault);
            while tsd.connections() < before + 3 {
                app.work();
                app.handle.flush(Duration::from_millis(20)).unwrap();
            }
            tsd.heal();
            app.settle();
        }
        app.assert_exact(&[&tsd]);
        app.assert_lawful(&[&tsd]);
    }
}
