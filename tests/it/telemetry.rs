//! The exporter's own series: few, none that was always zero, and true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault, Step};
use metrics_exporter_opentsdb::{Flavor, Point, Stats, TimestampPrecision, Value};

use crate::rig::{Rig, eventually};

/// What a fault is seen by.
type Count = fn(&Stats) -> u64;

const OWN: &str = "opentsdb.client.";

fn rig(tsd: FakeTsd) -> Rig {
    Rig::with(tsd, |builder| {
        builder.with_telemetry(true).with_timestamp_precision(TimestampPrecision::Milliseconds)
    })
}

fn own(tsd: &FakeTsd) -> Vec<Point> {
    let mut points = tsd.points();
    points.retain(|point| point.metric.starts_with(OWN));
    points.sort_by_key(|point| point.timestamp);
    points
}

/// The values of each series, in order of time, by its name and the tag that only it has.
fn series(tsd: &FakeTsd) -> BTreeMap<String, Vec<Value>> {
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for point in own(tsd) {
        let tags = point.tags.iter().filter(|(key, _)| key != "host");
        let tags: String = tags.map(|(key, value)| format!(" {key}={value}")).collect();
        series.entry(point.metric[OWN.len()..].to_owned() + &tags).or_default().push(point.value);
    }
    series
}

#[test]
fn in_good_days_there_are_few_and_none_was_always_zero() {
    let rig = rig(FakeTsd::start());
    for _ in 0..10 {
        rig.deliver(|| counter!("c").increment(1));
    }
    let series = series(&rig.tsd);
    let names: BTreeSet<_> = series.keys().map(String::as_str).collect();
    assert!(names.is_superset(&["points.confirmed", "connected", "series"].into()), "{names:?}");
    assert!(series.len() <= 7, "{names:?}");
    for (name, values) in &series {
        assert!(values[0] != Value::Integer(0) && values[0] != Value::Float(0.0), "{name:?}");
    }
}

#[test]
fn in_bad_days_they_say_what_happened() {
    let rig = rig(FakeTsd::start());
    rig.deliver(|| counter!("c").increment(1));
    let down = Duration::from_millis(50);
    let faults: [(Step, Count); 3] = [
        (Action::Reset.after_lines(1), |stats| stats.points_resent),
        (Action::Restart { down }.into(), |stats| stats.connect_failures),
        (Fault::ReadOnly.into(), |stats| stats.points_rejected.unknown_command),
    ];
    for (fault, count) in faults {
        rig.tsd.script(fault);
        rig.record(|| counter!("c").increment(1));
        rig.handle.flush(Duration::from_millis(1)).unwrap();
        eventually("the fault", || count(&rig.stats()) > 0);
        rig.tsd.heal();
        rig.deliver(|| counter!("c").increment(1));
        rig.deliver(|| counter!("c").increment(1));
    }
    let series = series(&rig.tsd);
    let names: BTreeSet<_> = series.keys().map(String::as_str).collect();
    let told = [
        "connect.failures",
        "disconnects",
        "points.rejected class=unknown_command",
        "points.resent",
    ];
    assert!(names.is_superset(&told.into()), "{names:?}");
    assert!(series.len() <= 12, "{names:?}");
}

/// By our half-close, or by a server that closes what is idle.
#[test]
fn connected_is_said_while_points_flow_on_a_connection_for_each_burst() {
    for flavor in [Flavor::VictoriaMetrics, Flavor::OpenTsdb] {
        let rig = Rig::with(FakeTsd::builder().replies(flavor).start(), |builder| {
            builder
                .with_flavor(flavor)
                .with_telemetry(true)
                .with_timestamp_precision(TimestampPrecision::Milliseconds)
        });
        for round in 1..=5 {
            rig.deliver(|| counter!("c").increment(1));
            if flavor == Flavor::OpenTsdb {
                rig.tsd.script(Action::Close);
                eventually("it is closed", || rig.stats().disconnects == round);
            }
            assert_eq!((rig.stats().connects, rig.stats().connected), (round, true));
        }
        let said = &series(&rig.tsd)["connected"];
        // Perhaps once: a flush in a used millisecond leaves out what has not changed.
        assert!(said.iter().all(|value| *value == Value::Float(1.0)), "{flavor:?}: {said:?}");
    }
}

#[test]
fn what_has_been_sent_once_is_sent_when_it_is_zero_again() {
    let rig = rig(FakeTsd::start());
    rig.tsd.script(Fault::Mute);
    rig.record(|| counter!("c").increment(1));
    rig.handle.flush(Duration::from_millis(1)).unwrap();
    rig.record(|| counter!("c").increment(1));
    rig.handle.flush(Duration::from_millis(1)).unwrap();
    rig.tsd.heal();
    rig.settle();
    rig.deliver(|| counter!("c").increment(1));
    let series = series(&rig.tsd);
    for name in ["points.pending", "pending.age"] {
        let values = &series[name];
        assert_eq!(values.last(), Some(&Value::Float(0.0)), "{name}: {values:?}");
    }
}
