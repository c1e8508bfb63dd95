//! `POST /api/put` through everything that can happen to a connection, and what a TSD says of
//! storage and of single points.

use std::time::Duration;

use metrics_exporter_opentsdb::testing::{
    Action, FakeHttpTsd, Fault, HttpAnswer, HttpFault, Step, TooLarge,
};
use metrics_exporter_opentsdb::{Confirmation, HttpCompression, Rejections};

use crate::http::{HttpRig, point};
use crate::rig::{eventually, lawful};

/// What a server is waited for.
const SHORT: Duration = Duration::from_millis(200);

fn hasty(tsd: FakeHttpTsd) -> HttpRig {
    HttpRig::with(tsd, |builder| builder.with_write_timeout(SHORT).with_connect_timeout(SHORT))
}

/// As long as it lasts nothing is confirmed, and nothing is lost by it.
#[test]
fn nothing_is_confirmed_while_a_server_is_no_server_and_nothing_is_lost() {
    let faults: &[Fault] = &[
        Fault::StopReading,
        Fault::BreakAfter(150),
        Fault::Mute,
        Fault::Flood,
        Fault::Alien(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        Fault::Alien(b"<html>HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Fault::Alien(vec![0x15, 3, 3, 0, 2, 2, 70]),
        Fault::Alien(Vec::new()),
        Fault::ReadOnly,
        Fault::FreezeStorage,
        Fault::Refuse,
        Fault::IgnoreNew,
        Fault::ResetNew,
        Fault::CloseNew,
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let rig = hasty(FakeHttpTsd::start());
                rig.send(0..100);
                rig.flush();
                rig.tsd.script(fault.clone());
                rig.tsd.script(Action::Reset);
                rig.send(100..300);
                eventually(&format!("{fault:?} fails twice"), || {
                    let stats = rig.handle.stats();
                    stats.disconnects + stats.connect_failures >= 3
                });
                assert_eq!(lawful(rig.handle.stats()).points_confirmed, 100, "{fault:?}");
                rig.tsd.heal();
                rig.flush();
                rig.assert_stored(0..300);
                let stats = rig.handle.stats();
                let refused = stats.points_rejected.total() + stats.points_dropped.total();
                assert_eq!((stats.points_confirmed, refused), (300, 0), "{fault:?}");
            });
        }
    });
}

#[test]
fn a_slow_server_is_a_good_one() {
    let slow: [Step; 4] = [
        Fault::Trickle { bytes: 100, every: Duration::from_millis(1) }.into(),
        Fault::Delay(Duration::from_millis(30)).into(),
        Fault::HoldOpen.into(),
        HttpFault::UntilClose.into(),
    ];
    for step in slow {
        let rig = HttpRig::new();
        rig.tsd.script(step.clone());
        for n in 0..3 {
            rig.send(n * 10..n * 10 + 10);
            rig.flush();
        }
        rig.assert_stored(0..30);
        let stats = rig.handle.stats();
        assert_eq!((stats.disconnects, stats.points_resent), (0, 0), "{step:?}");
        assert_eq!(rig.tsd.log().resent_count(), 0);
    }
}

/// At any byte and behind any request: each point is stored, and again only as the same bytes.
#[test]
fn a_connection_may_end_in_any_way_and_at_any_byte() {
    let actions = [
        Action::Reset,
        Action::Close,
        Action::CloseUnread,
        Action::HalfClose,
        Action::Say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Action::Say(b"what?".to_vec()),
        Action::Restart { down: Duration::from_millis(10) },
        Action::Crash { down: Duration::from_millis(10) },
    ];
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rig = hasty(FakeHttpTsd::start());
        for round in 0..40 {
            let action = actions[random.usize(..actions.len())].clone();
            rig.tsd.script(match random.bool() {
                true => action.after_bytes(random.usize(..1000)),
                false => action.after_lines(random.usize(..2)),
            });
            rig.send(round * 50..(round + 1) * 50);
            if random.bool() {
                rig.flush();
            }
        }
        rig.flush();
        rig.assert_stored(0..2000);
        let stats = lawful(rig.handle.stats());
        assert_eq!(stats.points_confirmed, 2000, "seed {seed}: {stats:?}");
        assert_eq!(stats.points_rejected.total(), 0, "seed {seed}");
    }
}

/// In any order: each point is stored, none is taken for refused, and none is confirmed that is not
/// stored.
#[test]
fn a_server_may_answer_anything_at_any_time() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rig = hasty(FakeHttpTsd::start());
        for round in 0..40 {
            rig.tsd.script(fault(&mut random));
            rig.tsd.script(Action::Heal.after_lines(random.usize(1..3)));
            rig.send(round * 50..(round + 1) * 50);
            if random.bool() {
                rig.flush();
            }
            let stats = lawful(rig.handle.stats());
            let stored = rig.tsd.log().series_count();
            assert!(stats.points_confirmed <= stored as u64, "seed {seed}: {stats:?}");
        }
        rig.tsd.heal();
        rig.flush();
        rig.assert_stored(0..2000);
        let stats = lawful(rig.handle.stats());
        assert_eq!(stats.points_confirmed, 2000, "seed {seed}: {stats:?}");
        assert_eq!(stats.points_rejected.total(), 0, "seed {seed}");
    }
}

fn fault(random: &mut fastrand::Rng) -> HttpFault {
    const STATUSES: &[u16] = &[200, 301, 302, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504];
    let answer = |status| HttpAnswer::new(status).body("<html>what?</html>");
    match random.u8(..9) {
        0 => HttpFault::Answer(answer(STATUSES[random.usize(..STATUSES.len())])),
        1 => HttpFault::Answer(answer(STATUSES[random.usize(..STATUSES.len())]).storing()),
        2 => HttpFault::Chunked,
        3 => HttpFault::UntilClose,
        4 => HttpFault::Cut(random.usize(..150)),
        5 => HttpFault::WrongLength([-20, -1, 1, 20][random.usize(..4)]),
        6 => HttpFault::CloseUnanswered,
        7 => HttpFault::CloseAfter,
        _ => HttpFault::CloseSilently,
    }
}

/// A fault of each kind, one after the other on one exporter, as a bad week would have it.
#[test]
fn what_was_learned_of_a_bad_time_does_not_outlive_it() {
    let rig = hasty(FakeHttpTsd::start());
    let faults: [Step; 8] = [
        HttpFault::CloseUnanswered.into(),
        HttpFault::Answer(HttpAnswer::new(500).body("busy").storing()).into(),
        HttpFault::Limit(600, TooLarge::Status(413)).into(),
        HttpFault::Answer(HttpAnswer::new(429)).into(),
        HttpFault::Answer(HttpAnswer::new(503).body("<html>")).into(),
        HttpFault::Cut(60).into(),
        Fault::Mute.into(),
        Fault::Refuse.into(),
    ];
    let mut sent = 0;
    for fault in faults {
        rig.tsd.script(fault);
        rig.tsd.script(Action::Heal.after(Duration::from_millis(50)));
        rig.send(sent..sent + 200);
        sent += 200;
        rig.flush();
    }
    eventually("all steps are done", || rig.tsd.pending_step_count() == 0);
    let before = rig.tsd.log().request_count();
    rig.send(sent..sent + 200);
    rig.flush();
    rig.assert_stored(0..sent + 200);
    let stats = lawful(rig.handle.stats());
    assert_eq!((stats.points_rejected.total(), stats.points_dropped.total()), (0, 0));
    assert!(rig.tsd.log().request_count() - before < 20);
}

#[test]
fn with_stored_nothing_is_confirmed_while_storage_is_frozen() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_confirmation(Confirmation::Stored).with_write_timeout(SHORT)
    });
    rig.send(0..100);
    rig.flush();
    rig.tsd.script(Fault::FreezeStorage);
    // Of known series: the TSD has them in memory, and says that it could not store them in time.
    for n in 0..100 {
        rig.handle.send(point(n).timestamp(1_700_000_001_000)).unwrap();
    }
    let late = |status| rig.tsd.log().requests().iter().filter(|it| it.status == status).count();
    eventually("it is told so twice", || late(400) >= 2);
    let stats = lawful(rig.handle.stats());
    assert_eq!((stats.points_confirmed, stats.points_rejected.total()), (100, 0), "{stats:?}");
    rig.tsd.heal();
    rig.flush();
    assert_eq!((rig.handle.stats().points_confirmed, rig.tsd.log().series_count()), (200, 100));
    assert_eq!(rig.handle.stats().points_rejected.total(), 0);
}

/// What a TSD says of every point, and as what it is counted.
#[test]
fn a_point_is_counted_as_what_it_was_refused_for() {
    type Count = fn(Rejections) -> u64;
    let cases: [(Fault, Count); 4] = [
        (Fault::UnknownMetrics, |it| it.unknown_metric),
        (Fault::Throttle, |it| it.throttled),
        (Fault::Refusal("put: HBase error: no region".into()), |it| it.storage),
        (Fault::Refusal("put: Unexpected exception".into()), |it| it.other),
    ];
    for (fault, count) in cases {
        let rig = HttpRig::new();
        rig.tsd.script(fault.clone());
        rig.send(0..100);
        rig.flush();
        let stats = lawful(rig.handle.stats());
        assert_eq!(
            (count(stats.points_rejected), stats.points_rejected.total()),
            (100, 100),
            "{fault:?}"
        );
        assert_eq!((stats.points_confirmed, stats.points_resent), (100, 0), "{fault:?}");
        rig.tsd.heal();
        rig.send(100..200);
        rig.flush();
        rig.assert_stored(100..200);
    }
}

/// As a balancer does whose backends are away: it takes connections, and closes them.
#[test]
fn an_outage_is_not_taken_for_a_limit_of_size() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_http_compression(HttpCompression::Off)
    });
    rig.tsd.script(HttpFault::CloseUnanswered);
    rig.send(0..1000);
    eventually("it fails often", || rig.handle.stats().disconnects >= 12);
    rig.tsd.heal();
    rig.flush();
    let before = rig.tsd.log().request_count();
    rig.send(1000..3000);
    rig.flush();
    rig.assert_stored(0..3000);
    let requests = rig.tsd.log().request_count() - before;
    assert!(requests < 60, "{requests} requests of 8,000 bytes");
}

/// As a TSD with `enable_chunked` alone closes over 4,096 bytes.
#[test]
fn a_limit_that_is_never_said_is_found_and_kept() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_http_compression(HttpCompression::Off)
    });
    rig.tsd.script(HttpFault::Limit(4096, TooLarge::Close));
    for n in 0..10 {
        rig.send(n * 300..n * 300 + 300);
        rig.flush();
    }
    rig.assert_stored(0..3000);
    let requests = rig.tsd.log().requests();
    let refused = requests.iter().filter(|request| request.status == 0).count();
    assert!((1..=4).contains(&refused), "{refused} of {}", requests.len());
    let mean = requests.iter().map(|it| it.wire_bytes).sum::<usize>() / requests.len();
    assert!(mean > 1500, "{mean} bytes a request");
}

/// A proxy's page says nothing of the points.
#[test]
fn a_500_of_a_proxy_refuses_no_point_however_long_it_lasts() {
    let rig = HttpRig::new();
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(500).body("<html>Internal Server Error")));
    rig.send(0..8);
    eventually("it fails often", || rig.handle.stats().disconnects >= 20);
    rig.tsd.heal();
    rig.flush();
    rig.assert_stored(0..8);
    assert_eq!(rig.handle.stats().points_rejected.total(), 0);
}
