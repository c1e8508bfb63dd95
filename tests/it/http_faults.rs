//! `POST /api/put` to servers that misbehave.

use std::time::Duration;

use metrics_exporter_opentsdb::testing::{
    Action, FakeHttpTsd, Fault, HttpAnswer, HttpFault, HttpRequest, Step, TooLarge,
};
use metrics_exporter_opentsdb::{Confirmation, HttpCompression, Point};

use crate::http::HttpRig;
use crate::rig::{GRACE, eventually, lawful};

/// The server does this wrong a few times, or for so long; nothing may be lost by it, and no point
/// is refused.
#[test]
fn nothing_is_lost_by_what_a_server_does_wrong_for_a_while() {
    let short = Duration::from_millis(300);
    let cases: &[HttpFault] = &[
        HttpFault::Answer(HttpAnswer::new(429)),
        HttpFault::Answer(HttpAnswer::new(503).body("busy")),
        HttpFault::Answer(HttpAnswer::new(502).body("<h1>Bad Gateway</h1>").storing()),
        HttpFault::Answer(HttpAnswer::new(504).storing()),
        HttpFault::Answer(HttpAnswer::new(408)),
        HttpFault::Answer(HttpAnswer::new(401)),
        HttpFault::Answer(HttpAnswer::new(404)),
        HttpFault::Answer(HttpAnswer::new(302).header("Location", "/login")),
        HttpFault::Answer(HttpAnswer::new(200).body("<html>login</html>")),
        HttpFault::Answer(HttpAnswer::new(500).storing()),
        HttpFault::Cut(40),
        HttpFault::WrongLength(10),
        HttpFault::WrongLength(-10),
        HttpFault::CloseUnanswered,
    ];
    std::thread::scope(|scope| {
        for fault in cases {
            scope.spawn(move || {
                let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
                    builder.with_write_timeout(short)
                });
                rig.send(0..100);
                rig.flush();
                rig.tsd.script(fault.clone());
                rig.send(100..300);
                eventually("it fails twice", || rig.handle.stats().disconnects >= 2);
                let stats = lawful(rig.handle.stats());
                assert_eq!(stats.points_confirmed, 100, "{fault:?}");
                rig.tsd.heal();
                rig.flush();
                rig.assert_stored(0..300);
                let stats = rig.handle.stats();
                assert_eq!(stats.points_rejected.total(), 0, "{fault:?}");
                assert_eq!(stats.points_dropped.total(), 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn ways_to_answer_that_are_anybody_s_right_are_no_failures() {
    for fault in [HttpFault::Chunked, HttpFault::CloseAfter] {
        let rig = HttpRig::new();
        rig.tsd.script(fault.clone());
        for n in 0..5 {
            rig.send(n * 10..n * 10 + 10);
            rig.flush();
        }
        rig.assert_stored(0..50);
        let stats = rig.handle.stats();
        assert_eq!((stats.disconnects, stats.points_resent), (0, 0), "{fault:?}");
    }
}

#[test]
fn a_kept_alive_connection_that_was_closed_is_replaced_without_a_pause() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        // A failure would wait for an hour.
        let hour = Duration::from_secs(3600);
        builder.with_backoff(hour, hour)
    });
    rig.tsd.script(HttpFault::CloseSilently);
    for n in 0..20 {
        rig.send(n..n + 1);
        rig.flush();
    }
    rig.tsd.heal();
    rig.send(20..21);
    rig.flush();
    // As HAProxy does when a connection is idle for too long.
    let before = rig.handle.stats().disconnects;
    rig.tsd.script(Action::Say(
        b"HTTP/1.1 408 Request Time-out\r\nConnection: close\r\n\r\n".to_vec(),
    ));
    rig.tsd.script(Action::Close);
    eventually("it is left", || rig.handle.stats().disconnects > before);
    let left = rig.handle.stats().disconnects;
    rig.send(21..22);
    rig.flush();
    // Closed when the next request is there.
    rig.tsd.script(HttpFault::CloseUnanswered);
    rig.send(22..23);
    eventually("it is closed", || rig.handle.stats().disconnects > left);
    rig.tsd.heal();
    rig.assert_stored(0..22);
}

/// An exporter that stays away for long after a failure.
fn patient() -> HttpRig {
    let hour = Duration::from_secs(3600);
    HttpRig::with(FakeHttpTsd::start(), |builder| builder.with_backoff(hour, hour))
}

/// The server closes what was idle while the request is on its way.
#[test]
fn a_request_that_meets_the_end_of_its_connection_is_sent_once_more_at_once() {
    let rig = patient();
    rig.send(0..1);
    rig.flush();
    rig.tsd.script(HttpFault::CloseUnanswered);
    rig.tsd.script(Action::Heal.after_lines(1));
    rig.send(1..2);
    rig.flush();
    rig.assert_stored(0..2);
    assert_eq!((rig.handle.stats().disconnects, rig.tsd.log().request_count()), (1, 3));
}

/// Before it was sent anything, before its first answer, and within a later one.
#[test]
fn a_connection_that_ends_otherwise_is_a_failure_with_a_backoff() {
    let is_failure = |rig: &HttpRig| {
        eventually("it is a failure", || {
            let stats = rig.handle.stats();
            stats.disconnects == 1 && !stats.connected
        });
    };
    for fault in [Step::from(Fault::CloseNew), HttpFault::CloseUnanswered.into()] {
        let rig = patient();
        rig.tsd.script(fault);
        rig.send(0..1);
        is_failure(&rig);
    }
    let rig = patient();
    rig.send(0..1);
    rig.flush();
    rig.tsd.script(HttpFault::Cut(20));
    rig.send(1..2);
    is_failure(&rig);
}

#[test]
fn an_answer_to_no_request_confirms_none() {
    let rig = HttpRig::new();
    rig.send(0..1);
    rig.flush();
    rig.tsd.script(Fault::Mute);
    rig.tsd.script(Action::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()));
    rig.send(1..2);
    eventually("it is left", || rig.handle.stats().disconnects > 0);
    assert_eq!(lawful(rig.handle.stats()).points_confirmed, 1);
    rig.tsd.heal();
    rig.tsd.script(Action::Reset);
    rig.flush();
    rig.assert_stored(0..2);
}

/// A server that fails for a moment has said nothing of the point.
#[test]
fn a_single_point_outlives_a_few_answers_of_500() {
    let rig = HttpRig::new();
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(500)));
    rig.tsd.script(Action::Heal.after_lines(3));
    rig.send(0..1);
    rig.flush();
    rig.assert_stored(0..1);
    assert_eq!(rig.handle.stats().points_rejected.total(), 0);
}

/// A point that no TSD takes: it has more tags than `tsd.storage.max_tags`.
fn bad(n: usize) -> Point {
    (0..9).fold(Point::new("bad", 1), |point, tag| point.tag(format!("t{tag}"), n.to_string()))
}

#[test]
fn a_point_that_is_refused_is_counted_by_kind_and_the_others_are_stored() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| builder.with_max_tags(12));
    rig.send(0..50);
    rig.handle.send(bad(1)).unwrap();
    rig.send(50..100);
    rig.flush();
    rig.assert_stored(0..100);
    let stats = rig.handle.stats();
    assert_eq!(stats.points_rejected.illegal_argument, 1, "{stats:?}");
    assert_eq!((stats.points_rejected.total(), stats.points_confirmed), (1, 101));
}

#[test]
fn a_server_of_all_or_nothing_keeps_every_good_point() {
    for status in [400, 500] {
        for is_gzip in [true, false] {
            let tsd = FakeHttpTsd::builder().refuse_all(status).gzip(is_gzip).start();
            let rig = HttpRig::with(tsd, |builder| builder.with_max_tags(12));
            rig.send(0..100);
            rig.handle.send(bad(1)).unwrap();
            rig.send(100..200);
            rig.handle.send(bad(2)).unwrap();
            rig.handle.send(bad(3)).unwrap();
            rig.flush();
            rig.assert_stored(0..200);
            let stats = rig.handle.stats();
            assert_eq!(stats.points_rejected.total(), 3, "{status} {stats:?}");
            assert!(rig.tsd.log().request_count() < 100);
        }
    }
}

/// GreptimeDB takes compressed bytes for bad JSON.
#[test]
fn a_server_without_gzip_is_sent_plain_text() {
    let rig = HttpRig::with(FakeHttpTsd::builder().gzip(false).start(), |builder| builder);
    rig.send(0..1000);
    rig.flush();
    rig.assert_stored(0..1000);
    let requests = rig.tsd.log().requests();
    let gzip = requests.iter().filter(|it| it.header("content-encoding").is_some()).count();
    assert_eq!((gzip, rig.handle.stats().points_rejected.total()), (1, 0));
}

/// What HTTP has for it, before the first body in gzip was taken or after.
#[test]
fn a_server_that_takes_no_gzip_any_more_is_sent_plain_text() {
    for taken in [0, 100] {
        let rig = HttpRig::with(FakeHttpTsd::start(), |builder| builder);
        rig.send(0..taken);
        rig.flush();
        let before = rig.tsd.log().request_count();
        rig.tsd.script(HttpFault::Answer(HttpAnswer::new(415)));
        rig.tsd.script(Action::Heal.after_lines(1));
        rig.send(taken..1000);
        rig.flush();
        rig.assert_stored(0..1000);
        let requests = rig.tsd.log().requests();
        let gzip = |it: &HttpRequest| it.header("content-encoding").is_some();
        assert_eq!(requests[before..].iter().filter(|it| gzip(it)).count(), 1);
        assert_eq!(rig.handle.stats().points_rejected.total(), 0);
    }
}

#[test]
fn a_body_that_is_too_large_is_halved() {
    for how in [TooLarge::NotSupported, TooLarge::Status(413), TooLarge::Close] {
        let rig = HttpRig::new();
        rig.tsd.script(HttpFault::Limit(3000, how));
        rig.send(0..2000);
        rig.flush();
        rig.assert_stored(0..2000);
        let stats = rig.handle.stats();
        assert_eq!(stats.points_rejected.total(), 0, "{how:?}");
        let refused = rig.tsd.log().requests().iter().filter(|it| it.wire_bytes > 3000).count();
        // An end without a word is suspected, tried again, and suspected again.
        assert!(refused <= 10, "{how:?}: {refused}");
    }
}

#[test]
fn a_point_that_is_too_large_alone_is_refused_and_the_next_are_sent() {
    let rig = HttpRig::new();
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(413)));
    rig.send(0..4);
    rig.flush();
    let stats = lawful(rig.handle.stats());
    assert_eq!((stats.points_rejected.illegal_argument, stats.points_confirmed), (4, 4));
    rig.tsd.heal();
    rig.send(4..10);
    rig.flush();
    rig.assert_stored(4..10);
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_asks() {
    let rig = HttpRig::new();
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(429).header("Retry-After", "1")));
    rig.tsd.script(Action::Heal.after_lines(1));
    rig.send(0..1);
    rig.flush();
    let requests = rig.tsd.log().requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].arrived - requests[0].arrived >= Duration::from_secs(1));
}

#[test]
fn with_stored_a_point_that_was_not_is_sent_again() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_confirmation(Confirmation::Stored)
    });
    rig.tsd.script(HttpFault::StorageFails);
    rig.send(0..100);
    eventually("it is tried again", || rig.handle.stats().points_resent >= 200);
    let stats = lawful(rig.handle.stats());
    assert_eq!((stats.points_confirmed, stats.points_rejected.total()), (0, 0));
    rig.tsd.heal();
    rig.flush();
    rig.assert_stored(0..100);
    assert_eq!(rig.handle.stats().points_rejected.total(), 0);
}

/// As a server does that does not know `details`, or behind a proxy that drops the query.
#[test]
fn with_stored_an_answer_that_does_not_say_so_confirms_nothing() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_confirmation(Confirmation::Stored)
    });
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(204).storing()));
    rig.send(0..10);
    eventually("it is left", || rig.handle.stats().disconnects > 0);
    assert_eq!(lawful(rig.handle.stats()).points_confirmed, 0);
    rig.tsd.heal();
    rig.flush();
    rig.assert_stored(0..10);
}

#[test]
fn a_shutdown_keeps_its_deadline_whatever_the_server_does() {
    let time = Duration::from_millis(200);
    let faults: [Step; 7] = [
        Fault::Mute.into(),
        Fault::StopReading.into(),
        Fault::Refuse.into(),
        HttpFault::Answer(HttpAnswer::new(503).header("Retry-After", "60")).into(),
        HttpFault::Answer(HttpAnswer::new(401)).into(),
        HttpFault::CloseUnanswered.into(),
        HttpFault::Cut(10).into(),
    ];
    let lateness = |fault: &Step| {
        let rig = HttpRig::new();
        rig.tsd.script(fault.clone());
        rig.send(0..10_000);
        let began = std::time::Instant::now();
        let report = rig.handle.shutdown(time).unwrap();
        let took = began.elapsed();
        assert_eq!(report.pending, 0);
        let stats = lawful(rig.handle.stats());
        assert_eq!(stats.points_dropped.shutdown + stats.points_confirmed, 10_000);
        took.saturating_sub(time)
    };
    for fault in faults {
        // A busy machine makes one late now and then; one that waits for the server is late each
        // time.
        assert!((0..4).any(|_| lateness(&fault) <= GRACE), "{fault:?}");
    }
}

#[test]
fn a_server_that_answers_nothing_is_given_up_after_the_timeout() {
    let tsd = FakeHttpTsd::start();
    tsd.script(Fault::Mute);
    let rig = HttpRig::with(tsd, |builder| builder.with_write_timeout(Duration::from_millis(100)));
    rig.send(0..10);
    eventually("it is given up", || rig.handle.stats().disconnects >= 2);
    assert_eq!(rig.handle.stats().points_confirmed, 0);
    rig.tsd.heal();
    rig.flush();
    rig.assert_stored(0..10);
}

#[test]
fn a_server_that_is_too_slow_for_a_request_is_sent_smaller_ones() {
    let tsd = FakeHttpTsd::start();
    tsd.script(Fault::Mute);
    let rig = HttpRig::with(tsd, |builder| {
        builder
            .with_write_timeout(Duration::from_millis(100))
            .with_http_compression(HttpCompression::Off)
    });
    rig.send(0..40);
    eventually("it is given up", || rig.handle.stats().disconnects >= 2);
    let sizes: Vec<_> =
        rig.tsd.log().requests().iter().map(|request| request.body.len()).take(2).collect();
    assert!(sizes[1] <= sizes[0] / 2, "{sizes:?}");
    rig.tsd.heal();
    rig.flush();
    rig.assert_stored(0..40);
}

#[test]
fn a_server_that_reads_on_is_waited_for() {
    let rig = HttpRig::new();
    rig.send(0..1);
    rig.flush();
    rig.tsd.script(Fault::StopReading);
    rig.send(1..5000);
    let _ = rig.handle.flush(Duration::from_millis(100));
    rig.tsd.heal();
    rig.flush();
    assert_eq!(rig.handle.stats().disconnects, 0);
}

/// A gateway's errors look a little like a TSD's.
#[test]
fn a_gateway_s_list_of_errors_confirms_nothing_that_was_not_stored() {
    let rig = HttpRig::new();
    let errors = r#"{"errors":[{"code":"x","message":"tenant missing"}]}"#;
    rig.tsd.script(HttpFault::Answer(HttpAnswer::new(400).body(errors)));
    rig.tsd.script(Action::Heal.after_lines(1));
    rig.send(0..100);
    rig.flush();
    rig.assert_stored(0..100);
    assert_eq!(rig.handle.stats().points_rejected.total(), 0);
}

#[test]
fn an_answer_before_the_end_of_the_request_confirms_nothing() {
    let is_left = || {
        let tsd = FakeHttpTsd::builder().max_body_bytes(1 << 26).start();
        let rig = HttpRig::with(tsd, |builder| {
            builder.with_http_compression(HttpCompression::Off).with_http_batch_bytes(1 << 23)
        });
        rig.send(0..1);
        rig.flush();
        let early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        rig.tsd.script(Action::Say(early).after_bytes(10_000));
        // More than the buffers of the kernel take.
        for n in 1..5000 {
            let point = Point::new("long", n).tag("n", n.to_string()).tag("x", "x".repeat(900));
            rig.handle.send(point.timestamp(1_700_000_000_000)).unwrap();
        }
        rig.flush();
        assert_eq!(rig.tsd.log().series_count(), 5000);
        rig.handle.stats().disconnects > 0
    };
    // A busy machine may make a request of the first few points, which the kernel takes whole.
    assert!((0..5).any(|_| is_left()), "no answer came before the end of its request");
}
