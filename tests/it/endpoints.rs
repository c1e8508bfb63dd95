//! Which of several endpoints is used, and for how long.

use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::testing::{End, FakeTsd, Fault};
use metrics_exporter_opentsdb::{BuildError, Confirmation, EndpointOrder, OpenTsdbHandle, Point};

use crate::rig::{Rig, builder, eventually};

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
