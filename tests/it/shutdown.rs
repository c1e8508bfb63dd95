//! Shutdown keeps its deadline in every state of the server and tells the truth.

use std::time::{Duration, Instant};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    Confirmation, ConnectivityCheck, FlushError, HostTag, OpenTsdbBuilder,
};

use opentsdb_faults::log::lines_of;

use crate::rig::{CONFIRMATIONS, GRACE, PATIENCE, Rig, lawful};

const DEADLINES: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(250)];

/// What a server can be like, by the faults that make it so.
fn states() -> Vec<(&'static str, Vec<Fault>)> {
    let trickle = Fault::Trickle { bytes: 80, every: Duration::from_millis(10) };
    vec![
        ("absent", vec![Fault::Refuse]),
        ("ignores who connects", vec![Fault::IgnoreNew]),
        ("resets who connects", vec![Fault::ResetNew]),
        ("closes who connects", vec![Fault::CloseNew]),
        ("never reads", vec![Fault::ReceiveBuffer(4096), Fault::StopReading]),
        ("reads and is mute", vec![Fault::Mute, Fault::HoldOpen]),
        ("slow link", vec![Fault::ReceiveBuffer(4096), trickle]),
        ("reply flood", vec![Fault::Flood]),
        ("frozen storage", vec![Fault::FreezeStorage]),
        ("throttles", vec![Fault::Throttle]),
        ("answers late", vec![Fault::Delay(Duration::from_millis(100))]),
        ("healthy", vec![]),
    ]
}

/// How late a shutdown of 1,000 points is, having checked that it told the truth.
fn lateness(
    state: &str,
    faults: &[Fault],
    deadline: Duration,
    confirmation: Confirmation,
) -> Duration {
    let case = format!("{state}, {deadline:?}, {confirmation:?}");
    let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
    faults.iter().for_each(|fault| rig.tsd.script(fault.clone()));
    rig.record(|| (0..1_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    let began = Instant::now();
    let report = rig.handle.shutdown(deadline).unwrap();
    let took = began.elapsed();
    let total = report.confirmed + report.pending + report.dropped;
    assert_eq!(report.points, total, "{case}: {report:?}");
    let parsed = rig.tsd.log().accepted_count() + rig.tsd.log().rejected_count();
    assert!(report.confirmed <= parsed as u64, "{case}: {report:?} {parsed}");
    assert!(matches!(rig.handle.flush(PATIENCE), Err(FlushError::AlreadyShutdown)));
    took.saturating_sub(deadline)
}

#[test]
fn shutdown_keeps_its_deadline_and_tells_the_truth_in_every_state_of_the_server() {
    for confirmation in CONFIRMATIONS {
        for (state, faults) in states() {
            for deadline in DEADLINES {
                // A busy machine makes one late now and then; one that waits for the server is late
                // each time.
                let late = (0..4).map(|_| lateness(state, &faults, deadline, confirmation));
                let is_in_time = late.into_iter().any(|late| late <= GRACE);
                assert!(is_in_time, "{state}, {deadline:?}, {confirmation:?}");
            }
        }
    }
}

#[test]
fn shutdown_of_a_healthy_server_confirms_everything() {
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        rig.record(|| (0..1_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
        let report = rig.handle.shutdown(PATIENCE).unwrap();
        assert_eq!((report.points, report.confirmed), (1_000, 1_000), "{confirmation:?}");
        assert_eq!(rig.tsd.log().series_count(), 1_000);
    }
}

#[test]
fn shutdown_keeps_its_deadline_while_a_name_is_not_resolved() {
    // `.invalid` never resolves; how long that takes to be known is up to the system.
    let (recorder, handle) = OpenTsdbBuilder::new("tsd.invalid:4242")
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_host_tag(HostTag::Value("a".into()))
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || counter!("c").increment(1));
    let began = Instant::now();
    let report = handle.shutdown(Duration::from_millis(100)).unwrap();
    assert!(began.elapsed() <= Duration::from_millis(100) + GRACE);
    assert_eq!((report.confirmed, report.points), (0, report.pending + report.dropped));
    lawful(handle.stats());
}

#[test]
fn the_last_increment_arrives_300_of_300_times() {
    for round in 0..300 {
        let rig = Rig::new();
        let guard = rig.handle.guard(PATIENCE);
        if round % 2 == 0 {
            rig.deliver(|| counter!("c").increment(1));
        }
        rig.record(|| counter!("c").increment(round + 1));
        drop(guard);
        let total = round + 1 + u64::from(round % 2 == 0);
        assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(total.into()), "round {round}");
        assert!(rig.tsd.wait_until(PATIENCE, |log| log.open_connection_count() == 0));
    }
}

#[test]
fn wait_returns_when_a_server_that_was_away_has_everything() {
    let rig = Rig::new();
    rig.tsd.script(Fault::Refuse);
    rig.tsd.script(Action::Heal.after(Duration::from_millis(100)));
    rig.record(|| counter!("c").increment(1));
    rig.handle.wait();
    assert_eq!((rig.tsd.log().accepted_count(), rig.stats().points_confirmed), (1, 1));
}

#[test]
fn only_the_first_of_many_shutdowns_does_something() {
    let rig = Rig::new();
    rig.record(|| counter!("c").increment(1));
    let results: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| rig.handle.shutdown(PATIENCE))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(rig.tsd.log().accepted_count(), 1);
}

#[test]
fn dropping_handle_and_recorder_does_not_end_the_exporter() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_flush_interval(Duration::from_secs(1)));
    let counter = rig.record(|| counter!("c"));
    drop(rig.handle.clone());
    counter.increment(1);
    assert!(rig.tsd.wait_for(1, PATIENCE));
}

#[test]
fn what_a_shutdown_lost_is_in_the_log() {
    let rig = Rig::new();
    rig.tsd.script(Fault::Mute);
    rig.record(|| counter!("c").increment(1));
    let lines = lines_of(|| drop(rig.handle.guard(Duration::from_millis(50))));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("lost=1 points=1"), "{lines:?}");
}
