//! Which of several endpoints is used, and for how long.

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::testing::{End, FakeTsd, Fault};
use metrics_exporter_opentsdb::{
    BuildError, Confirmation, ConnectivityCheck, EndpointOrder, OpenTsdbHandle, Point, RateLimit,
};

use crate::rig::{PATIENCE, Rig, builder, eventually};

const DAY: Duration = Duration::from_secs(86_400);

fn connections(tsd: &FakeTsd) -> usize {
    tsd.log().connection_count()
}

#[test]
fn the_preferred_endpoint_is_used_again_after_the_age() {
    let (preferred, other) = (FakeTsd::start(), FakeTsd::start());
    preferred.script(Fault::Refuse);
    let rig = Rig::with(preferred, |builder| {
        builder
            .add_endpoint(other.address())
            .with_max_connection_age(Some(Duration::from_millis(200)))
    });
    let mut sent = 0;
    let mut send = || {
        sent += 1;
        rig.handle.send(Point::new("m", sent).tag("n", sent.to_string())).unwrap();
        rig.settle();
    };
    send();
    assert_eq!(other.points().len(), 1);
    rig.tsd.heal();
    eventually("it is used again", || {
        send();
        !rig.tsd.points().is_empty()
    });
    let stats = rig.stats();
    assert_eq!((stats.points_confirmed, stats.points_resent, stats.disconnects), (sent, 0, 0));
}

#[test]
fn an_old_connection_is_left_when_a_flush_has_ended() {
    for (age, expected) in [(Some(Duration::from_millis(1)), 2), (None, 1)] {
        let rig = Rig::with(FakeTsd::start(), |builder| {
            builder.with_confirmation(Confirmation::Version).with_max_connection_age(age)
        });
        for _ in 0..2 {
            rig.deliver(|| {
                (0..20_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(1));
            });
            let ended = || {
                (0..connections(&rig.tsd))
                    .all(|n| rig.tsd.log().connection(n).unwrap().end != End::Open)
            };
            if age.is_some() {
                eventually("it is left", ended);
            }
        }
        assert_eq!(connections(&rig.tsd), expected, "{age:?}");
        assert_eq!(rig.stats().points_resent, 0);
    }
}

/// However often everything so far is confirmed while the rate holds the rest back.
#[test]
fn a_connection_is_never_left_within_a_flush() {
    for confirmation in [Confirmation::Version, Confirmation::Written] {
        let rig = Rig::with(FakeTsd::start(), |builder| {
            builder
                .with_confirmation(confirmation)
                .with_max_connection_age(Some(Duration::from_millis(1)))
                .with_rate_limit(RateLimit::PerSecond(NonZeroU32::new(200).unwrap()))
        });
        rig.record(|| (0..300).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
        let halves = thread::scope(|scope| {
            let flush = scope.spawn(|| rig.handle.flush(PATIENCE).unwrap());
            let mut halves = 0;
            while !flush.is_finished() {
                let stats = rig.stats();
                halves += u64::from((1..300).contains(&stats.points_confirmed));
                thread::park_timeout(Duration::from_millis(1));
            }
            halves
        });
        assert!(halves > 10, "{confirmation:?}: it was confirmed at once");
        let with_points = |n: &usize| rig.tsd.log().connection(*n).unwrap().bytes > 0;
        assert_eq!((0..connections(&rig.tsd)).filter(with_points).count(), 1, "{confirmation:?}");
        assert_eq!(rig.stats().points_confirmed, 300);
    }
}

/// What a check has connected to.
#[test]
fn the_check_at_the_start_asks_in_the_order_that_is_set() {
    for (order, has_other) in [(EndpointOrder::Preferred, false), (EndpointOrder::Spread, true)] {
        let (first, second) = (FakeTsd::start(), FakeTsd::start());
        for _ in 0..20 {
            builder(&first)
                .add_endpoint(second.address())
                .with_endpoint_order(order)
                .with_connectivity_check(ConnectivityCheck::Connect)
                .build()
                .unwrap();
        }
        eventually("the checks have been seen", || {
            connections(&first) + connections(&second) == 20
        });
        assert!(connections(&first) > 0 && (connections(&second) > 0) == has_other, "{order:?}");
    }
}

#[test]
fn spread_exporters_share_the_endpoints_and_others_prefer_the_first() {
    for (order, has_other) in [(EndpointOrder::Preferred, false), (EndpointOrder::Spread, true)] {
        let (first, second) = (FakeTsd::start(), FakeTsd::start());
        let exporters: Vec<_> = (0..20)
            .map(|n| {
                let builder = builder(&first).add_endpoint(second.address());
                let (_, handle) = builder.with_endpoint_order(order).build().unwrap();
                handle.send(Point::new("m", 1).tag("n", n.to_string())).unwrap();
                handle
            })
            .collect();
        exporters.iter().for_each(OpenTsdbHandle::wait);
        let (first, second) = (first.points().len(), second.points().len());
        assert_eq!(first + second, 20);
        assert!(first > 0 && (second > 0) == has_other, "{order:?}: {first} {second}");
    }
}

#[test]
fn an_age_of_nothing_or_of_more_than_a_day_is_refused() {
    let tsd = FakeTsd::start();
    for age in [Duration::ZERO, DAY + Duration::from_secs(1)] {
        let error = builder(&tsd).with_max_connection_age(Some(age)).build().unwrap_err();
        let option = "with_max_connection_age";
        assert!(
            matches!(&error, BuildError::InvalidConfiguration { option: o, .. } if *o == option),
            "{error}"
        );
    }
}
