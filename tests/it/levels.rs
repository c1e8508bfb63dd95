//! Which metrics are recorded, by the level and the target of their call sites.

use metrics::{Level, counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{BuildError, OpenTsdbBuilder, Value};

use crate::rig::{self, PATIENCE, Rig};

fn exporter(options: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder) -> Rig {
    Rig::with(FakeTsd::start(), options)
}

#[test]
fn below_the_least_level_every_kind_does_nothing_and_makes_no_series() {
    let rig = exporter(|builder| builder.with_min_level(Level::INFO));
    rig.deliver(|| {
        counter!(level: Level::DEBUG, "debug").increment(1);
        gauge!(level: Level::DEBUG, "debug.gauge").set(1.0);
        histogram!(level: Level::TRACE, "debug.histogram").record(1.0);
        counter!("info").increment(1);
        gauge!(level: Level::ERROR, "error").set(1.0);
    });
    assert_eq!(rig.delivered(), ["put error 1.0 host=a", "put info 1 host=a"]);
    assert_eq!(rig.stats().series, 2);
}

#[test]
fn the_longest_prefix_of_the_target_counts() {
    let rig = exporter(|builder| {
        builder
            .with_min_level(Level::WARN)
            .with_min_level_for_target("db::pool", Level::ERROR)
            .with_min_level_for_target("db", Level::INFO)
            .with_min_level_for_target("db", Level::DEBUG)
            .with_min_level_for_target("db::pool::idle", Level::TRACE)
    });
    macro_rules! count {
        ($($target:literal $level:ident $name:literal,)*) => {
            $(counter!(target: $target, level: Level::$level, $name).increment(1);)*
        };
    }
    rig.deliver(|| {
        count! {
            "web" INFO "no.1", "web" WARN "yes.1",
            "db" TRACE "no.2", "db" DEBUG "yes.2", "db::query" DEBUG "yes.3",
            "db::pool" WARN "no.3", "db::pool" ERROR "yes.4",
            "db::pool::idle::age" TRACE "yes.5",
        }
    });
    let sent = [1, 2, 3, 4, 5].map(|n| format!("put yes.{n} 1 host=a"));
    assert_eq!(rig.delivered(), sent);
}

/// A thread's cache knows a metric by its key alone.
#[test]
fn call_sites_of_one_key_are_told_apart() {
    let rig = exporter(|builder| {
        builder.with_min_level(Level::INFO).with_min_level_for_target("noisy", Level::ERROR)
    });
    rig.deliver(|| {
        for _ in 0..1_000 {
            counter!(level: Level::DEBUG, "calls", "k" => "v").increment(1);
            counter!("calls", "k" => "v").increment(10);
            counter!(target: "noisy::part", "calls", "k" => "v").increment(100);
            counter!(target: "noisy::part", level: Level::ERROR, "calls", "k" => "v").increment(20);
        }
    });
    assert_eq!(rig.tsd.value("calls", &[("k", "v")]), Some(Value::Integer(30_000)));
}

#[test]
fn unset_every_level_is_recorded_and_an_empty_prefix_is_refused() {
    let rig = exporter(|builder| builder);
    rig.deliver(|| counter!(level: Level::TRACE, "traced").increment(1));
    assert_eq!(rig.delivered(), ["put traced 1 host=a"]);
    rig.handle.shutdown(PATIENCE).unwrap();
    let builder = rig::builder(&rig.tsd).with_min_level_for_target("", Level::WARN);
    let error = builder.build().unwrap_err();
    assert!(
        matches!(&error, BuildError::InvalidConfiguration { option, .. } if *option == "with_min_level_for_target"),
        "{error}"
    );
}
