//! Whatever happens to the connection, no point is lost or changed.

use std::collections::HashSet;
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::testing::{Action, End, FakeTsd, Fault, Step};
use metrics_exporter_opentsdb::{Confirmation, OpenTsdbBuilder, Point, TimestampPrecision};

use crate::rig::{CONFIRMATIONS, PATIENCE, Rig};

/// Under the eyes of the fault: in each round all counters are updated and one series is seen for
/// the only time.
struct Load {
    rig: Rig,
    rounds: u32,
}

const COUNTERS: u64 = 50;

impl Load {
    fn new(rig: Rig) -> Load {
        Load { rig, rounds: 0 }
    }

    fn round(&mut self) {
        self.rounds += 1;
        let round = self.rounds;
        self.rig.record(|| {
            (0..COUNTERS).for_each(|n| counter!("c", "n" => n.to_string()).increment(n + 1));
        });
        self.rig.handle.send(Point::new("once", round).tag("round", round.to_string())).unwrap();
    }

    /// After all is over and confirmed, the last value of each counter is the truth, and each
    /// one-shot series is there.
    fn check(self, what: &str) {
        let Load { rig, rounds } = self;
        rig.deliver(|| ());
        for n in 0..COUNTERS {
            let tags = [("host", "a"), ("n", &n.to_string())];
            let truth = (n + 1) * u64::from(rounds);
            assert_eq!(rig.tsd.value("c", &tags), Some(truth.into()), "{what} {n}");
        }
        for round in 1..=rounds {
            let tags = [("host", "a"), ("round", &round.to_string())];
            assert_eq!(rig.tsd.value("once", &tags), Some(round.into()), "{what} {round}");
        }
        let stats = rig.stats();
        assert_eq!(
            (stats.points_dropped.total(), rig.tsd.log().rejected_count()),
            (0, 0),
            "{what} {stats:?}"
        );
        assert_eq!(stats.points_confirmed, stats.points_taken, "{what} {stats:?}");
        let distinct: HashSet<_> = rig.tsd.lines().into_iter().collect();
        assert_eq!(distinct.len() as u64, stats.points_taken, "{what}: each line, and no other");
        assert_eq!(
            rig.tsd.log().accepted_count() - rig.tsd.log().resent_count(),
            distinct.len(),
            "{what}"
        );
        assert_eq!(rig.tsd.log().poisoned(), [""; 0], "{what}");
    }
}

/// A rig that may flush as often as it likes: in seconds every other flush waits for its second.
fn rig(options: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder) -> Rig {
    let precision = TimestampPrecision::Milliseconds;
    Rig::with(FakeTsd::start(), |builder| options(builder.with_timestamp_precision(precision)))
}

#[test]
fn fifty_restarts_under_load_lose_and_change_no_point() {
    for confirmation in CONFIRMATIONS {
        let rig = rig(|builder| builder.with_confirmation(confirmation));
        let mut load = Load::new(rig);
        for restart in 0..50 {
            let down = Duration::from_millis(restart % 7);
            load.rig.tsd.script(Action::Restart { down }.after_lines(20 + restart as usize));
        }
        while load.rig.tsd.pending_step_count() > 0 {
            load.round();
            load.rig.handle.flush(PATIENCE).unwrap();
        }
        let connects = load.rig.stats().connects;
        assert!(connects >= 50, "{connects} {confirmation:?}");
        load.check(&format!("{confirmation:?}"));
    }
}

#[test]
fn two_hundred_resets_after_random_bytes_lose_and_change_no_point() {
    for (seed, confirmation) in CONFIRMATIONS.into_iter().enumerate() {
        let mut random = Random(seed as u64 + 7);
        let rig = rig(|builder| builder.with_confirmation(confirmation));
        let mut load = Load::new(rig);
        for _ in 0..200 {
            load.rig.tsd.script(Action::Reset.after_bytes(random.below(4_000) as usize + 1));
        }
        while load.rig.tsd.pending_step_count() > 0 {
            load.round();
            load.rig.handle.flush(PATIENCE).unwrap();
        }
        assert!(load.rig.tsd.log().connection_count() > 100);
        load.check(&format!("{confirmation:?} seed {seed}"));
    }
}

#[test]
fn any_mixture_of_faults_loses_and_changes_no_point() {
    for seed in 0..4 {
        let confirmation = CONFIRMATIONS[seed as usize % 2];
        let mut random = Random(seed);
        let rig = rig(|builder| {
            builder.with_confirmation(confirmation).with_write_timeout(Duration::from_millis(100))
        });
        let mut load = Load::new(rig);
        for _ in 0..40 {
            let down = Duration::from_millis(random.below(10));
            let step: Step = match random.below(9) {
                0 => Action::Reset.into(),
                1 => Action::Close.into(),
                // After its FIN a server that throws away what it reads looks to a half-close like
                // one that has handled it.
                2 if confirmation == Confirmation::Version => Action::CloseUnread.into(),
                2 => Action::Reset.into(),
                3 => Action::Crash { down }.into(),
                4 => Fault::StopReading.into(),
                5 => Fault::Mute.into(),
                6 => Action::Say(b"what\n".to_vec()).into(),
                7 => Fault::ResetNew.into(),
                _ => Fault::HoldOpen.into(),
            };
            load.rig.tsd.script(step.after_bytes(random.below(3_000) as usize + 1));
            load.round();
            let _ = load.rig.handle.flush(Duration::from_millis(150)).unwrap();
            load.rig.tsd.heal();
            load.round();
        }
        // A step that is left would strike while the result is awaited.
        while load.rig.tsd.pending_step_count() > 0 {
            load.round();
            load.rig.handle.flush(Duration::from_millis(150)).unwrap();
            load.rig.tsd.heal();
        }
        // The last one may have struck since.
        load.rig.tsd.heal();
        load.check(&format!("seed {seed} {confirmation:?}"));
    }
}

#[test]
fn a_server_that_discards_after_its_fin_has_confirmed_nothing() {
    let rig =
        Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(Confirmation::Version));
    rig.tsd.script(Action::CloseUnread.after_lines(10));
    rig.deliver(|| (0..100).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
    assert_eq!(rig.tsd.log().connection(0).unwrap().end, End::ByServer);
    assert_eq!((rig.tsd.log().series_count(), rig.tsd.log().resent_count()), (100, 10));
}

#[test]
fn a_server_that_closes_before_it_has_read_everything_has_confirmed_nothing() {
    for confirmation in CONFIRMATIONS {
        let rig = Rig::with(FakeTsd::start(), |builder| builder.with_confirmation(confirmation));
        rig.tsd.script(Fault::StopReading.after_bytes(1_000));
        rig.tsd.script(Action::Close.after(Duration::from_millis(20)));
        rig.tsd.script(Action::Heal.after(Duration::from_millis(20)));
        rig.deliver(|| (0..500).for_each(|n| counter!("c", "n" => n.to_string()).increment(1)));
        assert_eq!(
            (rig.tsd.pending_step_count(), rig.tsd.log().series_count()),
            (0, 500),
            "{confirmation:?}"
        );
        assert!(rig.tsd.log().resent_count() > 0, "{confirmation:?}");
    }
}

#[test]
fn a_connection_that_makes_no_progress_is_given_up_and_its_lines_are_sent_again() {
    let tsd = FakeTsd::start();
    let rig = Rig::with(tsd, |builder| builder.with_write_timeout(Duration::from_millis(200)));
    rig.deliver(|| counter!("c").increment(1));
    rig.tsd.script(Fault::StopReading.for_open_connections());
    rig.deliver(|| counter!("c").increment(1));
    assert_eq!((rig.tsd.log().connection_count(), rig.tsd.log().accepted_count()), (2, 2));
    assert_eq!(rig.stats().points_resent, 1);
}

#[test]
fn there_is_one_connection_at_a_time() {
    let rig = Rig::with(FakeTsd::start(), |builder| {
        builder
            .with_confirmation(Confirmation::Version)
            .with_write_timeout(Duration::from_millis(50))
    });
    rig.tsd.script(Fault::Mute);
    rig.tsd.script(Fault::HoldOpen);
    rig.record(|| counter!("c").increment(1));
    rig.handle.flush(Duration::ZERO).unwrap();
    assert!(rig.tsd.wait_until(PATIENCE, |log| {
        assert!(log.open_connection_count() <= 1);
        log.connection_count() >= 3
    }));
}

#[test]
fn the_next_endpoint_takes_over_what_the_first_has_not_confirmed() {
    let second = FakeTsd::start();
    let rig = Rig::with(FakeTsd::start(), |builder| builder.add_endpoint(second.address()));
    rig.deliver(|| counter!("c").increment(1));
    rig.tsd.script(Fault::StopReading);
    rig.record(|| counter!("c").increment(1));
    rig.handle.flush(Duration::from_millis(100)).unwrap();
    rig.tsd.script(Fault::Refuse);
    rig.tsd.script(Action::Reset);
    rig.settle();
    assert_eq!((rig.tsd.log().accepted_count(), second.log().accepted_count()), (1, 1));
    assert_eq!(second.value("c", &[("host", "a")]), Some(2.into()));
}

/// SplitMix64: the same faults for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
