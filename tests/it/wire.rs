//! The rules C1 to C13 of `docs/contract.md`, each by name, as a strict TSD sees them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::{Action, End, FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    BuildError, Confirmation, ConnectivityCheck, HostTag, Point, RateLimit, SendError,
    TimestampPrecision,
};

use crate::rig::{CONFIRMATIONS, PATIENCE, Rig, builder};

/// Names and labels that try to break a line.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "\n",
    "\r\n",
    "a b",
    "a\nput evil 1700000000 1 host=x",
    "x\ndiediedie\n",
    "\0",
    "\t",
    "=",
    "a=b=c",
    "größe",
    "東京",
    "\u{2028}",
    "\"quoted\"",
    "back\\slash",
    "ümläut=\n",
    "%",
    "{}",
    "a:b",
    "\u{feff}",
];

#[test]
fn c1_a_connection_begins_with_a_whole_put_line_of_single_spaces() {
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        for name in HOSTILE {
            rig.record(|| counter!(*name, "k" => *name).increment(1));
        }
        rig.deliver(|| histogram!("h", "path" => "/a b").record(0.5));
        rig.tsd.script(Action::Reset);
        rig.deliver(|| gauge!("g").set(2.0));
        rig.handle.shutdown(PATIENCE).unwrap();
        assert_eq!(rig.tsd.log().rejected(), []);
        for index in 0..rig.tsd.log().connection_count() {
            let connection = rig.tsd.log().connection(index).unwrap();
            assert!(connection.first_bytes.starts_with(b"put "), "{connection:?}");
            assert_eq!(connection.unterminated, b"");
            for line in connection.lines {
                let words: Vec<_> = line.split(' ').collect();
                assert!(line.is_ascii() && words.iter().all(|word| !word.is_empty()), "{line:?}");
                assert!(words.len() >= 5 && words[0] == "put", "{line:?}");
            }
        }
    }
}

#[test]
fn c2_a_line_of_1024_bytes_is_sent_and_a_longer_one_dropped_and_counted() {
    let rig = Rig::new();
    let length = |length: usize| "m".repeat(length - "put  1700000000 1 host=a\n".len());
    rig.deliver(|| {
        counter!(length(1024)).increment(1);
        counter!(length(1025)).increment(1);
        counter!("k", "v" => "x".repeat(10 * 1024)).increment(1);
        counter!("short").increment(1);
    });
    assert_eq!(rig.tsd.log().rejected(), []);
    assert_eq!(rig.tsd.lines().iter().map(String::len).max(), Some(1023));
    assert_eq!((rig.tsd.log().accepted_count(), rig.stats().points_dropped.too_long), (2, 2));
    let raw = Point::new(length(1025), 1).tag("host", "a").timestamp(1_700_000_000);
    assert_eq!(rig.handle.send(raw), Err(SendError::TooLong));
}

#[test]
fn c3_every_character_that_a_tsd_does_not_take_becomes_an_underscore() {
    let rig = Rig::new();
    rig.deliver(|| {
        counter!("größe: a b", "ключ" => "значение", "ok.a_b/c-9" => "x\ny").increment(1);
    });
    let cleaned = "put gr__e__a_b 1 ____=________ host=a ok.a_b/c-9=x_y";
    assert_eq!(rig.delivered(), [cleaned]);
}

#[test]
fn c3_no_hostile_name_or_label_makes_two_lines_or_a_bad_one() {
    let rig = Rig::new();
    rig.deliver(|| {
        for (index, hostile) in HOSTILE.iter().enumerate() {
            counter!(*hostile, "n" => index.to_string()).increment(1);
            gauge!("g", *hostile => index.to_string()).set(1.0);
            gauge!("v", "n" => index.to_string(), "k" => *hostile).set(1.0);
        }
    });
    assert_eq!((rig.tsd.log().rejected_count(), rig.tsd.log().version_count()), (0, 1));
    assert_eq!(rig.tsd.log().accepted_count() as u64, rig.stats().points_confirmed);
    assert!(rig.tsd.log().accepted_count() >= 2 * HOSTILE.len());
}

#[test]
fn c4_a_series_has_one_to_eight_tags_and_its_own_host_wins() {
    let rig = Rig::with(FakeTsd::start(), |builder| builder.add_global_label("dc", "x"));
    let many = |n: usize| {
        let labels = (0..n).map(|index| (format!("k{index}"), index.to_string()));
        labels.collect::<Vec<_>>()
    };
    rig.deliver(|| {
        counter!("none").increment(1);
        counter!("six", &many(6)).increment(1);
        counter!("seven", &many(7)).increment(1);
        counter!("twelve", &many(12)).increment(1);
        counter!("own", "host" => "b", "dc" => "y").increment(1);
        counter!("reserved", "time" => "1", "value" => "2", "__name__" => "3").increment(1);
        counter!("twice", "a b" => "1", "a_b" => "2").increment(1);
    });
    assert_eq!(rig.tsd.log().rejected(), []);
    let lines = rig.delivered();
    let expected = [
        "put none 1 dc=x host=a",
        "put own 1 dc=y host=b",
        "put reserved 1 __name___=3 dc=x host=a time_=1 value_=2",
        "put seven 1 dc=x host=a k0=0 k1=1 k2=2 k3=3 k4=4 k5=5",
        "put six 1 dc=x host=a k0=0 k1=1 k2=2 k3=3 k4=4 k5=5",
        "put twelve 1 dc=x host=a k0=0 k1=1 k2=2 k3=3 k4=4 k5=5",
        "put twice 1 a_b=2 dc=x host=a",
    ];
    assert_eq!(lines, expected);
    assert_eq!(rig.stats().tags_dropped, 1 + 6);
    let none = builder(&rig.tsd).with_host_tag(HostTag::None).build();
    assert!(matches!(none, Err(BuildError::InvalidConfiguration { .. })));
}

#[test]
fn c5_times_are_ten_digits_or_thirteen_when_asked_for_and_one_per_snapshot() {
    for (precision, range) in [
        (TimestampPrecision::Seconds, 1_000_000_000..10_000_000_000),
        (TimestampPrecision::Milliseconds, 1_000_000_000_000..10_000_000_000_000),
    ] {
        let rig =
            Rig::with(FakeTsd::start(), |builder| builder.with_timestamp_precision(precision));
        rig.deliver(|| (0..100).for_each(|n| counter!("c", "n" => n.to_string()).increment(n)));
        let mut times: Vec<_> =
            rig.tsd.points().iter().map(|point| point.timestamp.unwrap()).collect();
        times.dedup();
        assert_eq!(times.len(), 1);
        assert!(range.contains(&times[0]), "{times:?}");
        let other = times[0] ^ 1 << 43;
        let raw = Point::new("raw", 1).timestamp(other);
        assert_eq!(rig.handle.send(raw), Err(SendError::InvalidTimestamp));
    }
}

#[test]
fn c6_times_of_a_series_strictly_increase_also_within_a_second() {
    let rig = Rig::new();
    for value in 1..=4 {
        rig.deliver(|| {
            gauge!("g").set(f64::from(value));
            counter!("unchanged").absolute(1);
        });
    }
    rig.handle.shutdown(PATIENCE).unwrap();
    for metric in ["g", "unchanged"] {
        let points = rig.tsd.points().into_iter().filter(|point| point.metric == metric);
        let times: Vec<_> = points.map(|point| point.timestamp.unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{metric} {times:?}");
        assert!(metric != "g" || times.len() == 4, "{times:?}");
    }
    assert_eq!(rig.tsd.value("g", &[("host", "a")]), Some(4.0.into()));
    assert_eq!(rig.tsd.log().poisoned(), [""; 0]);
}

#[test]
fn c7_numbers_have_the_form_of_their_kind() {
    let rig = Rig::new();
    rig.deliver(|| {
        counter!("c.max").absolute(i64::MAX as u64);
        counter!("c.over").absolute(u64::MAX);
        counter!("c.zero").increment(0);
        gauge!("g.whole").set(1.0);
        gauge!("g.negative").set(-0.0);
        gauge!("g.large").set(1e16);
        gauge!("g.small").set(5e-324);
        gauge!("g.nan").set(f64::NAN);
        gauge!("g.infinite").set(f64::INFINITY);
    });
    assert_eq!(rig.tsd.log().rejected(), []);
    let lines = rig.delivered();
    for line in [
        "put c.max 9223372036854775807 host=a",
        "put c.over 1.8446744073709552e19 host=a",
        "put c.zero 0 host=a",
        "put g.whole 1.0 host=a",
        "put g.negative -0.0 host=a",
        "put g.large 1.0e16 host=a",
        "put g.small 5.0e-324 host=a",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
    }
    assert_eq!((lines.len(), rig.stats().points_dropped.not_finite), (7, 2));
    assert_eq!(rig.handle.send(Point::new("nan", f64::NAN)), Err(SendError::NotFinite));
}

#[test]
fn c8_replies_without_end_or_meaning_change_nothing() {
    // Flushes of one second would wait for the next.
    let precision = TimestampPrecision::Milliseconds;
    let rig = Rig::with(FakeTsd::start(), |builder| builder.with_timestamp_precision(precision));
    rig.tsd.script(Fault::Flood);
    for value in 1..=20 {
        rig.deliver(|| counter!("c").absolute(value));
    }
    rig.tsd.heal();
    assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(20.into()));
    assert_eq!(rig.stats().connects, 1);
}

#[test]
fn c9_a_reader_that_trickles_gets_whole_lines_and_no_second_connection() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::ReceiveBuffer(4096));
    tsd.script(Fault::Trickle { bytes: 3_001, every: Duration::from_millis(1) });
    let rig = Rig::with(tsd, |builder| builder);
    rig.deliver(|| (0..5_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(n)));
    assert_eq!(
        (
            rig.tsd.log().accepted_count(),
            rig.tsd.log().resent_count(),
            rig.tsd.log().rejected_count()
        ),
        (5_000, 0, 0)
    );
    assert_eq!(rig.tsd.log().connection_count(), 1);
}

#[test]
fn c9_after_a_reset_the_same_bytes_come_again_from_a_line_boundary() {
    let rig = Rig::new();
    rig.deliver(|| counter!("before").increment(1));
    rig.tsd.script(Action::Reset.after_bytes(1_234));
    rig.deliver(|| (0..200).for_each(|n| counter!("c", "n" => n.to_string()).increment(n)));
    assert_eq!(rig.tsd.pending_step_count(), 0);
    let (first, second) =
        (rig.tsd.log().connection(0).unwrap(), rig.tsd.log().connection(1).unwrap());
    assert_eq!(first.end, End::ByServer);
    assert!(first.lines.len() > 1 && second.lines.len() >= 200);
    assert_eq!(first.lines[1..], second.lines[..first.lines.len() - 1]);
    assert_eq!((rig.tsd.log().series_count(), rig.tsd.log().poisoned().len()), (201, 0));
    assert_eq!(rig.tsd.log().resent_count(), first.lines.len() - 1);
}

#[test]
fn c10_a_connection_that_the_server_closed_while_idle_costs_no_point() {
    for confirmation in CONFIRMATIONS.into_iter().chain([Confirmation::Written]) {
        // Flushes of one second would wait for the next.
        let precision = TimestampPrecision::Milliseconds;
        let rig = Rig::with(FakeTsd::start(), |builder| {
            builder.with_confirmation(confirmation).with_timestamp_precision(precision)
        });
        for value in 1..=20 {
            rig.deliver(|| counter!("c").absolute(value));
            assert!(rig.tsd.wait_for(value as usize, PATIENCE), "{confirmation:?}");
            rig.tsd.script(Action::Close);
        }
        assert_eq!(
            (rig.tsd.log().accepted_count(), rig.tsd.log().resent_count()),
            (20, 0),
            "{confirmation:?}"
        );
    }
}

#[test]
fn c11_the_start_up_check_connects_and_closes_without_a_byte() {
    let tsd = FakeTsd::start();
    let check = |tsd: &FakeTsd| builder(tsd).with_connectivity_check(ConnectivityCheck::Connect);
    let (_recorder, handle) = check(&tsd).build().unwrap();
    assert!(tsd.wait_until(PATIENCE, |log| log.connection_count() == 1
        && log.open_connection_count() == 0));
    assert_eq!(tsd.log().connection(0).unwrap().bytes, 0);
    handle.shutdown(PATIENCE).unwrap();

    tsd.script(Fault::Refuse);
    let Err(BuildError::Unreachable { address, source }) = check(&tsd).build() else {
        panic!("a server that refuses is not there")
    };
    assert_eq!(address, tsd.address());
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn c11_a_server_that_accepts_and_closes_is_tried_again_after_a_pause() {
    let tsd = FakeTsd::start();
    tsd.script(Fault::CloseNew);
    let pause = Duration::from_millis(200);
    let rig = Rig::with(tsd, |builder| builder.with_backoff(pause, pause));
    rig.record(|| counter!("c").increment(1));
    let began = Instant::now();
    let report = rig.handle.flush(Duration::from_millis(600)).unwrap();
    assert_eq!((report.points, report.pending), (1, 1));
    // Full jitter: the pauses are between nothing and twice the mean of 100 ms.
    let attempts = rig.tsd.log().connection_count();
    assert!((2..60).contains(&attempts), "{attempts} in {:?}", began.elapsed());
    rig.tsd.heal();
    rig.settle();
    assert_eq!(rig.tsd.log().accepted_count(), 1);
}

#[test]
fn c12_shutdown_sends_the_last_snapshot_and_finishes_in_good_order() {
    for confirmation in CONFIRMATIONS.into_iter().chain([Confirmation::Auto, Confirmation::Written])
    {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        rig.deliver(|| counter!("c").increment(1));
        rig.record(|| counter!("c").increment(1));
        let report = rig.handle.shutdown(PATIENCE).unwrap();
        assert_eq!((report.points, report.confirmed), (1, 1), "{confirmation:?}");
        assert!(rig.tsd.wait_until(PATIENCE, |log| log.open_connection_count() == 0));
        assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(2.into()), "{confirmation:?}");
        let last = rig.tsd.log().connection(rig.tsd.log().connection_count() - 1).unwrap();
        assert_eq!((last.end, last.unterminated), (End::ByClient, vec![]), "{confirmation:?}");
    }
}

#[test]
fn c13_throttling_slows_down_and_counts() {
    let rate = NonZeroU32::new(2_000).unwrap();
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_rate_limit(RateLimit::PerSecond(rate)));
    rig.tsd.script(Fault::Throttle);
    rig.deliver(|| (0..1_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    assert_eq!(rig.tsd.log().accepted_count(), 0);
    assert_eq!(rig.stats().points_rejected.throttled, 1_000);
    // At the full rate 1,000 points take half a second; at half of it, or less, more than 0.9.
    rig.tsd.heal();
    let began = Instant::now();
    rig.deliver(|| (0..1_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
}

#[test]
fn an_idle_exporter_has_no_connection_and_says_nothing() {
    let rig = Rig::new();
    rig.deliver(|| ());
    assert_eq!((rig.tsd.log().connection_count(), rig.stats().connects), (0, 0));
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!(rig.tsd.log().connection_count(), 1);
}
