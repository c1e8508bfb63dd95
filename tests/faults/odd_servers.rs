//! What is no outage and must not become one: idle closes, servers that say nothing, slow readers,
//! garbage, refusals.

use std::time::Duration;

use metrics_exporter_opentsdb::testing::{End, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, Flavor};
use opentsdb_faults::odd_servers::{garbage, idle_closes};
use opentsdb_faults::rig::{App, PATIENCE, builder, connections};

#[test]
fn an_idle_connection_that_the_server_closes_costs_no_point() {
    for mode in [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose] {
        idle_closes(mode, 20);
    }
}

#[test]
fn a_megabyte_of_garbage_confirms_nothing_and_loses_nothing() {
    for (seed, mode) in [Confirmation::Version, Confirmation::HalfClose].into_iter().enumerate() {
        garbage(mode, seed as u64);
    }
}

/// VictoriaMetrics: `p` is the first byte, a connection that says nothing blocks the others,
/// `version` is never answered.
#[test]
fn a_silent_server_is_asked_once_and_never_first() {
    for flavor in [Flavor::OpenTsdb, Flavor::VictoriaMetrics] {
        let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
        let builder = builder(tsd.address(), Confirmation::Auto).with_flavor(flavor);
        let mut app = App::start(builder, 20);
        for _ in 0..20 {
            app.work();
            app.settle();
        }
        app.assert_exact(&[&tsd]);
        let stats = app.assert_lawful(&[&tsd]);
        assert_eq!(stats.confirmation, Some(Confirmation::HalfClose));
        let asked = tsd.log().version_count();
        assert_eq!(asked, usize::from(flavor == Flavor::OpenTsdb));
        for connection in connections(&tsd) {
            assert!(connection.bytes > 0 && connection.first_bytes.starts_with(b"put "));
            assert_ne!(connection.end, End::ResetByClient);
        }
    }
}

/// A reader that stops and goes, with little room.
#[test]
fn a_slow_reader_that_goes_on_is_never_reconnected() {
    for mode in [Confirmation::Version, Confirmation::Written] {
        let tsd = FakeTsd::start();
        tsd.script(Fault::ReceiveBuffer(4096));
        // However busy the machine is, the server reads again before that time is over.
        let builder = builder(tsd.address(), mode).with_write_timeout(PATIENCE);
        let mut app = App::start(builder, 500);
        app.count();
        app.handle.flush(PATIENCE).unwrap();
        for _ in 0..20 {
            tsd.script(Fault::StopReading);
            app.count();
            app.handle.flush(Duration::from_millis(50)).unwrap();
            tsd.heal();
            tsd.script(Fault::Trickle { bytes: 1000, every: Duration::from_millis(1) });
            let before = tsd.log().accepted_count();
            assert!(tsd.wait_for(before + 100, PATIENCE));
            tsd.heal();
            app.settle();
        }
        // In mode `Written` what is confirmed may still be under way, and each tick adds to it.
        app.handle.shutdown(PATIENCE).unwrap();
        assert!(tsd.wait_for(app.handle.stats().points_taken as usize, PATIENCE));
        app.assert_exact(&[&tsd]);
        let stats = app.assert_lawful(&[&tsd]);
        assert_eq!((stats.connects, stats.points_resent), (1, 0), "{mode:?}");
        assert_eq!(tsd.log().connection_count(), 1);
    }
}

#[test]
fn a_point_that_is_refused_is_confirmed_and_counted_by_its_class() {
    type Class = fn(&metrics_exporter_opentsdb::Rejections) -> u64;
    let cases: &[(Fault, Class)] = &[
        (Fault::Throttle, |rejected| rejected.throttled),
        (Fault::UnknownMetrics, |rejected| rejected.unknown_metric),
        (Fault::ReadOnly, |rejected| rejected.unknown_command),
        (Fault::Refusal("put: HBase error: gone".into()), |rejected| rejected.storage),
        (Fault::Refusal("put: invalid value: what".into()), |rejected| rejected.invalid_value),
    ];
    for (fault, class) in cases {
        let tsd = FakeTsd::start();
        tsd.script(fault.clone());
        let mut app = App::start(builder(tsd.address(), Confirmation::Version), 10);
        app.count();
        // Ended, so that no tick comes between the readings below.
        app.handle.shutdown(PATIENCE).unwrap();
        let stats = app.assert_lawful(&[&tsd]);
        assert_eq!(class(&stats.points_rejected), tsd.log().rejected_count() as u64, "{fault:?}");
        assert_eq!(stats.points_rejected.total(), tsd.log().rejected_count() as u64, "{fault:?}");
        assert_eq!(stats.points_confirmed, stats.points_taken);
    }
}
