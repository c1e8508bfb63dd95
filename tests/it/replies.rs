//! What a server says is counted by its kind, and never stops the way of a point.

use std::thread;
use std::time::{Duration, Instant};

use metrics::counter;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault, Replies};
use metrics_exporter_opentsdb::{Confirmation, Flavor, Rejections};

use crate::rig::{CONFIRMATIONS, PATIENCE, Rig};

struct Case {
    refusal: &'static str,
    of: fn(&Rejections) -> u64,
}

const REFUSALS: &[Case] = &[
    Case {
        refusal: "put: illegal argument: not enough arguments (need least 4, got 3)",
        of: |rejections| rejections.illegal_argument,
    },
    Case {
        refusal: "put: invalid value: Overflow in 9223372036854775808",
        of: |rejections| rejections.invalid_value,
    },
    Case {
        refusal: "put: unknown metric: No such name for 'metrics': 'm'",
        of: |rejections| rejections.unknown_metric,
    },
    Case {
        refusal: "put: HBase error: RegionServer \u{fe0f} gone",
        of: |rejections| rejections.storage,
    },
    Case { refusal: "put: Request timed out: 10000 ms", of: |rejections| rejections.storage },
    Case {
        refusal: "put: Please throttle writes: 10000 RPCs waiting",
        of: |rejections| rejections.throttled,
    },
    Case { refusal: "put: Throttling exception: slow down", of: |rejections| rejections.throttled },
    Case {
        refusal: "unknown command: put.  Try `help'.",
        of: |rejections| rejections.unknown_command,
    },
    Case { refusal: "put: waiting for cache: what is this", of: |rejections| rejections.other },
];

#[test]
fn each_kind_of_refusal_is_counted_and_the_points_count_as_parsed() {
    for Case { refusal, of } in REFUSALS {
        let rig = Rig::new();
        rig.tsd.script(Fault::Refusal((*refusal).into()));
        rig.deliver(|| (0..20).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
        let stats = rig.stats();
        assert_eq!(
            (rig.tsd.log().accepted_count(), rig.tsd.log().rejected_count()),
            (0, 20),
            "{refusal}"
        );
        assert_eq!((stats.points_confirmed, stats.points_dropped.total()), (20, 0), "{refusal}");
        assert_eq!(of(&stats.points_rejected), 20, "{refusal}: {:?}", stats.points_rejected);
        assert_eq!(stats.points_rejected.total(), 20, "{refusal}: {:?}", stats.points_rejected);
    }
}

#[test]
fn metrics_that_the_server_does_not_know_are_told_from_those_it_does() {
    let rig = Rig::new();
    rig.deliver(|| counter!("known").increment(1));
    rig.tsd.script(Fault::UnknownMetrics);
    rig.deliver(|| {
        counter!("known").increment(1);
        counter!("unknown").increment(1);
    });
    assert_eq!(
        (rig.tsd.log().accepted_count(), rig.stats().points_rejected.unknown_metric),
        (2, 1)
    );
}

#[test]
fn a_read_only_server_is_counted_as_one() {
    let rig = Rig::new();
    rig.tsd.script(Fault::ReadOnly);
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!(
        (rig.tsd.log().accepted_count(), rig.stats().points_rejected.unknown_command),
        (0, 1)
    );
}

#[test]
fn a_million_refused_lines_stop_nothing() {
    // Small enough for a debug build; the replies are some 70 times what a socket's buffers hold.
    let rig = Rig::with(FakeTsd::builder().keep_lines(false).start(), |builder| builder);
    rig.tsd.script(Fault::Refusal(format!("put: HBase error: {}", "x".repeat(1_000))));
    let series: Vec<_> = (0..2_000).map(|n| n.to_string()).collect();
    for _ in 0..10 {
        rig.deliver(|| series.iter().for_each(|n| counter!("c", "n" => n.clone()).increment(1)));
    }
    assert_eq!((rig.tsd.log().rejected_count(), rig.tsd.log().connection_count()), (20_000, 1));
    assert_eq!(rig.stats().points_confirmed, 20_000);
}

#[test]
fn a_megabyte_of_garbage_in_front_of_an_answer_is_skipped() {
    let rig = Rig::new();
    rig.deliver(|| counter!("c").increment(1));
    let mut garbage = vec![b'\xff'; 1 << 20];
    garbage.push(b'\n');
    rig.tsd.script(Action::Say(garbage));
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!((rig.stats().connects, rig.tsd.log().accepted_count()), (1, 2));
}

#[test]
fn garbage_without_an_end_hides_no_answer() {
    let rig = Rig::new();
    rig.deliver(|| counter!("c").increment(1));
    rig.tsd.script(Action::Say(b"no line feed".to_vec()));
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!(rig.tsd.value("c", &[("host", "a")]), Some(2.into()));
    assert_eq!((rig.stats().connects, rig.stats().points_resent), (1, 0));
}

#[test]
fn answers_that_come_late_still_confirm() {
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        let late = Duration::from_millis(150);
        rig.tsd.script(Fault::Delay(late));
        let began = Instant::now();
        rig.deliver(|| counter!("c").increment(1));
        assert!(began.elapsed() >= late);
        assert_eq!(
            (rig.tsd.log().accepted_count(), rig.tsd.log().resent_count(), rig.stats().connects),
            (1, 0, 1)
        );
    }
}

#[test]
fn each_server_is_understood_without_being_told_how_it_confirms() {
    let version = Confirmation::Version;
    let silent = Replies::from(Flavor::VictoriaMetrics);
    let cases = [
        (Flavor::OpenTsdb, Flavor::OpenTsdb.into(), version),
        (Flavor::OpenTsdb, silent.clone(), Confirmation::HalfClose),
        (Flavor::VictoriaMetrics, silent.clone(), Confirmation::HalfClose),
        (Flavor::OpenTsdb, Flavor::InfluxDb.into(), version),
        (Flavor::InfluxDb, Flavor::InfluxDb.into(), Confirmation::HalfClose),
        (Flavor::KairosDb, Flavor::KairosDb.into(), version),
        (Flavor::OpenTsdb, Replies::from(Flavor::OpenTsdb).with_version("1"), version),
    ];
    // Side by side: each waits for seconds and for its server's silence.
    thread::scope(|scope| {
        for (flavor, replies, expected) in cases {
            scope.spawn(move || assert_understood(flavor, &replies, expected));
        }
    });
}

#[track_caller]
fn assert_understood(flavor: Flavor, replies: &Replies, expected: Confirmation) {
    let tsd = FakeTsd::builder().replies(replies.clone()).start();
    let rig = Rig::with(tsd, |builder| builder.with_flavor(flavor));
    for value in 1..=3 {
        rig.deliver(|| counter!("c", "ü" => "ö").absolute(value));
    }
    let stats = rig.stats();
    assert_eq!(stats.confirmation, Some(expected), "{flavor:?} {replies:?}");
    assert_eq!(
        (rig.tsd.log().accepted_count(), rig.tsd.log().resent_count()),
        (3, 0),
        "{flavor:?} {replies:?}"
    );
    for index in 0..rig.tsd.log().connection_count() {
        let first = rig.tsd.log().connection(index).unwrap().first_bytes;
        assert!(first.starts_with(b"put "), "{flavor:?} {replies:?}");
    }
    let most_questions = if expected == Confirmation::HalfClose { 1 } else { 3 };
    assert!(rig.tsd.log().version_count() <= most_questions, "{flavor:?} {replies:?}");
    assert!(rig.handle.shutdown(PATIENCE).is_ok());
}
