//! `https://`, to a server whose certificate is right, for another name, or expired. A binary of
//! its own, for it needs a provider of cryptography: `cargo test --features tls-ring --test tls`.

use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{Action, Certificate, FakeHttpTsd, Fault, HttpFault};
use metrics_exporter_opentsdb::{
    BuildError, ConnectivityCheck, Flavor, HttpCompression, OpenTsdbBuilder, OpenTsdbHandle, Point,
    Stats, Value,
};

const PATIENCE: Duration = Duration::from_secs(20);
const BAD: [(Certificate, &str); 2] =
    [(Certificate::WrongName, "not valid for name"), (Certificate::Expired, "expired")];

fn server(certificate: Certificate) -> FakeHttpTsd {
    FakeHttpTsd::builder().tls(certificate).start()
}

fn build(builder: OpenTsdbBuilder) -> OpenTsdbHandle {
    builder.build().unwrap().1
}

fn send(handle: &OpenTsdbHandle, points: std::ops::Range<i64>) {
    for n in points {
        let point = Point::new("m", n).tag("n", n.to_string()).timestamp(1_700_000_000);
        handle.send(point).unwrap();
    }
}

#[track_caller]
fn assert_stored(tsd: &FakeHttpTsd, points: std::ops::Range<i64>) {
    for n in points {
        assert_eq!(tsd.value("m", &[("n", &n.to_string())]), Some(Value::Integer(n)));
    }
    assert_eq!((tsd.log().violations(), tsd.log().poisoned()), (vec![], vec![]));
}

#[track_caller]
fn lawful(handle: &OpenTsdbHandle) -> Stats {
    let stats = handle.stats();
    let accounted = stats.points_confirmed + stats.points_pending + stats.points_dropped.total();
    assert_eq!(stats.points_taken, accounted, "{stats:?}");
    stats
}

#[track_caller]
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn points_arrive_over_tls_by_name_and_by_address() {
    let tsd = server(Certificate::Valid);
    let by_name = tsd.address().replace("127.0.0.1", "localhost");
    for (index, builder) in
        [tsd.exporter(), tsd.exporter().add_endpoint(by_name)].into_iter().enumerate()
    {
        let handle = build(builder.with_connectivity_check(ConnectivityCheck::Connect));
        let from = 3000 * index as i64;
        send(&handle, from..from + 3000);
        assert!(handle.flush(PATIENCE).unwrap().is_delivered());
        assert_stored(&tsd, from..from + 3000);
        let stats = lawful(&handle);
        assert_eq!((stats.points_resent, stats.disconnects, stats.connects), (0, 0, 1));
        assert!(handle.shutdown(PATIENCE).unwrap().is_delivered());
    }
}

/// The kernel takes all that TLS takes at once, so no event says when to go on.
#[test]
fn a_body_that_is_more_than_tls_takes_at_once_is_sent_whole() {
    let tsd = FakeHttpTsd::builder().replies(Flavor::VictoriaMetrics).tls(Certificate::Valid);
    let tsd = tsd.start();
    let handle = build(tsd.exporter().with_http_compression(HttpCompression::Off));
    // All is there when it connects.
    tsd.script(Fault::Refuse);
    send(&handle, 0..2000);
    tsd.heal();
    assert!(handle.flush(PATIENCE).unwrap().is_delivered());
    assert_stored(&tsd, 0..2000);
    let stats = lawful(&handle);
    assert_eq!((stats.points_resent, stats.disconnects), (0, 0));
    let largest = tsd.log().requests().iter().map(|request| request.wire_bytes).max();
    assert!(largest > Some(100_000), "{largest:?}");
}

#[test]
fn nothing_is_lost_by_what_goes_wrong_behind_tls() {
    let faults = [
        Fault::Mute,
        Fault::BreakAfter(1000),
        Fault::StopReading,
        Fault::Alien(b"what?".to_vec()),
        Fault::Http(HttpFault::Cut(20)),
        Fault::Http(HttpFault::CloseUnanswered),
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let tsd = server(Certificate::Valid);
                let handle = build(tsd.exporter().with_write_timeout(Duration::from_millis(300)));
                send(&handle, 0..100);
                assert!(handle.flush(PATIENCE).unwrap().is_delivered());
                tsd.script(fault.clone());
                tsd.script(Action::Reset);
                send(&handle, 100..200);
                eventually("it fails", || handle.stats().disconnects >= 2);
                assert_eq!(lawful(&handle).points_confirmed, 100, "{fault:?}");
                tsd.heal();
                assert!(handle.flush(PATIENCE).unwrap().is_delivered(), "{fault:?}");
                assert_stored(&tsd, 0..200);
            });
        }
    });
}

#[test]
fn a_certificate_that_is_wrong_is_told_by_build() {
    for (certificate, words) in BAD {
        let tsd = server(certificate);
        let checked = tsd.exporter().with_connectivity_check(ConnectivityCheck::Connect);
        let error = checked.build().unwrap_err();
        assert!(matches!(error, BuildError::Unreachable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("certificate") && text.contains(words), "{text}");
        assert_eq!(tsd.log().request_count(), 0);
    }
}

#[test]
fn nothing_is_sent_to_a_server_whose_certificate_is_wrong() {
    for (certificate, _) in BAD {
        let tsd = server(certificate);
        let handle = build(tsd.exporter());
        send(&handle, 0..10);
        eventually("it fails", || handle.stats().disconnects + handle.stats().connect_failures > 0);
        let stats = lawful(&handle);
        assert_eq!((stats.points_confirmed, stats.points_pending), (0, 10));
        assert_eq!((tsd.log().request_count(), tsd.lines().len()), (0, 0));
        let report = handle.shutdown(Duration::from_millis(100)).unwrap();
        assert_eq!((report.pending, report.dropped), (0, 10));
    }
}
