//! Confirmed means parsed: nothing is called so that is not in the server's log.

use std::time::{Duration, Instant};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{Action, End, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, Point, TimestampPrecision};

use crate::rig::{CONFIRMATIONS, PATIENCE, Rig};

#[test]
fn a_mute_server_confirms_nothing_by_version() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::Version));
    rig.tsd.script(Fault::Mute);
    rig.record(|| counter!("c").increment(1));
    let report = rig.handle.flush(Duration::from_millis(200)).unwrap();
    assert_eq!((report.confirmed, report.pending, rig.tsd.log().accepted_count()), (0, 1, 1));
    assert!(rig.stats().oldest_pending.unwrap() >= Duration::from_millis(100));
}

#[test]
fn a_server_that_does_not_close_confirms_nothing_by_half_close() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::HalfClose));
    rig.tsd.script(Fault::HoldOpen);
    rig.record(|| counter!("c").increment(1));
    let report = rig.handle.flush(Duration::from_millis(200)).unwrap();
    assert_eq!((report.confirmed, report.pending, rig.tsd.log().accepted_count()), (0, 1, 1));
    rig.tsd.heal();
    rig.settle();
    assert_eq!(
        (rig.tsd.log().accepted_count(), rig.tsd.log().connection(0).unwrap().end),
        (1, End::ByClient)
    );
}

#[test]
fn auto_asks_once_and_falls_back_to_half_close() {
    let rig = Rig::new();
    rig.tsd.script(Fault::Mute);
    let began = Instant::now();
    rig.deliver(|| counter!("c").increment(1));
    assert!(began.elapsed() >= Duration::from_secs(2));
    rig.deliver(|| counter!("c").increment(1));
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(rig.tsd.log().version_count(), 1);
    assert_eq!(rig.stats().confirmation, Some(Confirmation::HalfClose));
    assert_eq!((rig.tsd.log().accepted_count(), rig.tsd.log().resent_count()), (2, 0));
}

#[test]
fn half_close_makes_a_connection_for_each_burst() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::HalfClose));
    for burst in 1..=5 {
        rig.deliver(|| counter!("c").absolute(burst));
        assert_eq!(rig.tsd.log().connection_count() as u64, burst);
    }
    assert_eq!(rig.tsd.log().version_count(), 0);
    assert!((0..5).all(|index| rig.tsd.log().connection(index).unwrap().end == End::ByClient));
}

#[test]
fn written_asks_nothing_and_believes_the_kernel() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::Written));
    rig.tsd.script(Fault::StopReading);
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!((rig.tsd.log().accepted_count(), rig.tsd.log().version_count()), (0, 0));
    rig.tsd.heal();
    assert!(rig.tsd.wait_for(1, PATIENCE));
}

#[test]
fn a_put_that_waits_for_storage_is_not_confirmed() {
    // In seconds the third flush would wait for the next one.
    let precision = TimestampPrecision::Milliseconds;
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| {
            builder.with_confirmation(confirmation).with_timestamp_precision(precision)
        });
        rig.deliver(|| counter!("known").increment(1));
        rig.tsd.script(Fault::FreezeStorage);
        rig.deliver(|| counter!("known").increment(1));
        rig.record(|| counter!("new").increment(1));
        let connections = rig.tsd.log().connection_count();
        let report = rig.handle.flush(Duration::from_millis(300)).unwrap();
        // And `known` besides, unless this millisecond was used.
        assert!([1, 2].contains(&report.pending), "{confirmation:?}: {report:?}");
        assert_eq!(report.confirmed, 0, "{confirmation:?}");
        // Each connection that is given up leaves a worker of the server blocked.
        assert!(rig.tsd.log().connection_count() <= connections + 1, "{confirmation:?}");
        rig.tsd.heal();
        rig.settle();
        assert_eq!(
            rig.tsd.log().accepted_count() as u64,
            rig.stats().points_taken,
            "{confirmation:?}"
        );
        assert_eq!(rig.tsd.value("new", &[("host", "a")]), Some(1.into()), "{confirmation:?}");
    }
}

#[test]
fn what_is_confirmed_is_in_the_log_under_any_fault() {
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        // After its FIN a server that throws away what it reads looks to a half-close like one that
        // has handled it.
        let last =
            if confirmation == Confirmation::Version { Action::CloseUnread } else { Action::Reset };
        let faults = [Action::Reset, Action::Close, last];
        for (index, fault) in faults.into_iter().cycle().take(60).enumerate() {
            rig.tsd.script(fault.after_lines(37 + 11 * index));
        }
        let mut n = 0;
        while rig.tsd.pending_step_count() > 0 {
            for _ in 0..100 {
                n += 1;
                rig.handle.send(Point::new("p", n).timestamp(1_700_000_000 + n)).unwrap();
            }
            // The server's log is asked after the counters: it can only have grown in between.
            let confirmed = rig.stats().points_confirmed;
            let parsed = rig.tsd.log().accepted_count() - rig.tsd.log().resent_count();
            assert!(confirmed <= parsed as u64, "{confirmation:?}: {confirmed} of {parsed}");
            // Somebody waits, or half-closes would be a second apart.
            while rig.tsd.pending_step_count() > 0 && rig.stats().points_pending >= 5_000 {
                rig.handle.flush(Duration::from_millis(10)).unwrap();
            }
        }
        rig.deliver(|| ());
        assert_eq!(
            (rig.tsd.log().accepted_count() - rig.tsd.log().resent_count()) as u64,
            n,
            "{confirmation:?}"
        );
    }
}

#[test]
fn a_flush_reports_what_became_of_its_points() {
    let rig = Rig::new();
    rig.record(|| (0..10).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    let report = rig.handle.flush(PATIENCE).unwrap();
    assert_eq!((report.points, report.confirmed, report.pending, report.dropped), (10, 10, 0, 0));
    let report = rig.handle.flush(PATIENCE).unwrap();
    assert_eq!((report.points, report.confirmed, report.pending, report.dropped), (0, 0, 0, 0));
}
