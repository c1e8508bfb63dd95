//! Promise 8: few connections, and within the rate. Here what needs no clock; the bounds in time
//! are in `tools/faults`.

use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use opentsdb_faults::rate::capped;
use opentsdb_faults::rig::{App, builder};

/// A late reader may see two seconds' points at once, so on a busy machine the cap is only asked of
/// the whole.
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
        let before = tsd.log().connection_count();
        tsd.script(Action::Reset);
        tsd.script(fault);
        while tsd.log().connection_count() < before + 3 {
            app.work();
            app.handle.flush(Duration::from_millis(20)).unwrap();
        }
        tsd.heal();
        app.settle();
    }
    app.assert_exact(&[&tsd]);
    app.assert_lawful(&[&tsd]);
}
