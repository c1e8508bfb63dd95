//! Promises 8 and 9: the load on a server, and the fair share of each series under overload.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics::gauge;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, RateLimit, TimestampPrecision};

use crate::Size;
use crate::delivery::{pass, until};
use opentsdb_faults::rate::{capped, most_in_a_second};
use opentsdb_faults::rig::{App, PATIENCE, builder, connections};

/// The defaults of the crate where `rig::builder` is in a hurry.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Storage hangs, as under an OpenTSDB whose HBase is frozen: `version` stays unanswered behind a
/// new series.
pub(crate) fn frozen(size: Size) -> String {
    let time = Duration::from_secs(size.pick(8, 60));
    let mut told = Vec::new();
    let modes = [Confirmation::Version, Confirmation::Auto];
    for mode in modes.into_iter().take(size.pick(1, 2)) {
        let tsd = FakeTsd::start();
        let builder = builder(tsd.address(), mode)
            .with_flush_interval(Duration::from_millis(500))
            .with_backoff(BACKOFF.0, BACKOFF.1)
            .with_connect_timeout(Duration::from_secs(3))
            .with_write_timeout(Duration::from_secs(size.pick(1, 30)));
        // Of one counter, for the tag of each single series is a word that storage does not know
        // yet.
        let mut app = App::start(builder, 1);
        app.work();
        app.settle();
        tsd.script(Fault::FreezeStorage);
        let before = tsd.log().connection_count();
        let end = Instant::now() + time;
        while Instant::now() < end {
            app.work();
            pass(Duration::from_millis(100));
        }
        let connects = tsd.log().connection_count() - before;
        assert!(app.handle.stats().points_pending > 0, "nothing was frozen");
        assert!((1..=6).contains(&connects), "{connects} connects in {time:?}");
        tsd.heal();
        app.settle();
        app.assert_exact(&[&tsd]);
        app.assert_lawful(&[&tsd]);
        told.push(format!("{mode:?}: {connects} connects"));
    }
    format!("{} in {time:?}", told.join(", "))
}

pub(crate) fn cap(size: Size) -> String {
    let mut told = Vec::new();
    for (cap, points, resets) in
        [(1_000, size.pick(2_000, 20_000), 3), (50, size.pick(100, 1_000), 1)]
    {
        let (most, cap) = capped(cap, points, resets);
        // 5 %, and the burst of a tenth of a second.
        let allowed = cap as f64 * 1.05 + (cap as f64 / 10.0).max(1.0);
        assert!(most as f64 <= allowed, "{most} in a second, {allowed} allowed");
        told.push(format!("{most} of {cap} (allowed {allowed})"));
    }
    told.join("; ")
}

/// A server at its limit of connections: nothing is ever confirmed, so the wait goes on doubling.
pub(crate) fn envelope(size: Size) -> String {
    let mut told = Vec::new();
    let limits = [("accepts and closes", Fault::CloseNew), ("accepts and resets", Fault::ResetNew)];
    for (name, fault) in limits.into_iter().take(size.pick(1, 2)) {
        let tsd = FakeTsd::start();
        tsd.script(fault);
        let (min, max) =
            (Duration::from_millis(size.pick(100, 1_000)), Duration::from_secs(size.pick(1, 30)));
        let builder = builder(tsd.address(), Confirmation::Auto).with_backoff(min, max);
        let mut app = App::start(builder, 10);
        let end = Instant::now() + Duration::from_secs(size.pick(6, 120));
        while Instant::now() < end {
            app.count();
            pass(Duration::from_millis(50));
        }
        let opened: Vec<_> = connections(&tsd).map(|connection| connection.opened).collect();
        assert!(opened.len() >= 4, "{name}: {} attempts", opened.len());
        // Each wait is at most its ceiling, the sum of them about the sum of their halves.
        let mut ceilings = Duration::ZERO;
        for (n, pair) in opened.windows(2).enumerate() {
            let ceiling = min.saturating_mul(1 << n.min(20)).min(max);
            ceilings += ceiling;
            let gap = pair[1] - pair[0];
            // What a tick, a connect and this machine take.
            let slack = Duration::from_millis(250);
            assert!(gap <= ceiling + slack, "{name}: wait {n} was {gap:?} of {ceiling:?}");
        }
        let waited = opened[opened.len() - 1] - opened[0];
        let share = waited.as_secs_f64() / ceilings.as_secs_f64();
        assert!((0.1..=0.95).contains(&share), "{name}: waits of {share:.2} of their ceilings");
        tsd.heal();
        app.settle();
        app.assert_exact(&[&tsd]);
        told.push(format!("{name}: {} attempts, waits {share:.2} of their ceilings", opened.len()));
    }
    told.join("; ")
}

/// One server is lost to a hundred clients at one moment: while they are idle, with their next tick
/// at one moment too, and while they have something under way.
pub(crate) fn herd(_: Size) -> String {
    const CLIENTS: usize = 100;
    let mut told = Vec::new();
    for (name, fault, mode, span) in [
        ("idle", Action::Close, Confirmation::Version, Duration::from_millis(25)),
        ("idle", Action::Close, Confirmation::HalfClose, Duration::from_millis(25)),
        (
            "at work",
            Action::Crash { down: Duration::from_secs(1) },
            Confirmation::Version,
            Duration::from_millis(200),
        ),
    ] {
        let tsd = FakeTsd::start();
        let mut apps: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let builder = builder(tsd.address(), mode)
                    .with_flush_interval(Duration::from_secs(2))
                    .with_write_timeout(Duration::from_secs(10))
                    .with_backoff(Duration::from_secs(1), Duration::from_secs(30));
                App::start(builder, 1)
            })
            .collect();
        for app in &mut apps {
            app.count();
            app.settle();
        }
        if name == "at work" {
            tsd.script(Fault::Mute);
            let before = tsd.log().accepted_count();
            apps.iter_mut().for_each(App::count);
            assert!(tsd.wait_for(before + CLIENTS, PATIENCE));
        }
        let before = tsd.log().connection_count();
        tsd.script(fault);
        apps.iter_mut().for_each(App::count);
        until("all are there again", || tsd.log().connection_count() >= before + CLIENTS);
        let mut returns: Vec<_> = connections(&tsd)
            .skip(before)
            .take(CLIENTS)
            .map(|connection| connection.opened)
            .collect();
        returns.sort();
        let within = |from| returns.iter().filter(|&&at| at >= from && at < from + span).count();
        let most = returns.iter().map(|&from| within(from)).max().unwrap_or(0);
        let all = returns[CLIENTS - 1] - returns[0];
        // The waits fill 200 ms, and 1 s and more, so an even spread has some ten or twenty of them
        // within the span.
        assert!(most <= 35, "{name}, {mode:?}: {most} of {CLIENTS} within {span:?}");
        told.push(format!("{name}, {mode:?}: back over {all:.1?}, at most {most} within {span:?}"));
    }
    told.join("; ")
}

/// Complains of ten points, then takes all that comes.
pub(crate) fn throttle(_: Size) -> String {
    let tsd = FakeTsd::builder().keep_lines(false).start();
    let limit = RateLimit::PerSecond(NonZeroU32::new(2_000).expect("a number"));
    let builder = builder(tsd.address(), Confirmation::Version)
        .with_flush_interval(Duration::from_secs(1))
        .with_rate_limit(limit);
    let mut app = App::start(builder, 20_000);
    let rate = |app: &mut App, time: Duration| {
        let before = tsd.log().accepted_count();
        let end = Instant::now() + time;
        while Instant::now() < end {
            app.count();
            pass(Duration::from_millis(50));
        }
        (tsd.log().accepted_count() - before) as f64 / time.as_secs_f64()
    };
    // A snapshot takes ten seconds, and between two of them it is up to a second until the next
    // tick.
    let whole = Duration::from_secs(10);
    rate(&mut app, Duration::from_secs(2));
    let full = rate(&mut app, whole);
    tsd.script(Fault::Throttle);
    let before = tsd.log().rejected_count();
    tsd.script(Action::Heal.after_lines(10));
    until("ten complaints", || tsd.pending_step_count() == 0);
    let complaints = tsd.log().rejected_count() - before;
    rate(&mut app, Duration::from_millis(500));
    let slow = rate(&mut app, Duration::from_secs(3));
    for _ in 0..56 {
        rate(&mut app, Duration::from_secs(1));
    }
    let recovered = rate(&mut app, whole);
    assert!(
        slow <= full * 0.6,
        "{full:.0} a second before, {slow:.0} after {complaints} complaints"
    );
    assert!(recovered >= full * 0.9, "{full:.0} a second before, {recovered:.0} after a minute");
    format!(
        "{full:.0} points a second, {slow:.0} after {complaints} complaints, {recovered:.0} after a minute"
    )
}

/// Ten times more than the way takes: each series gets its tenth.
pub(crate) fn overload(size: Size) -> String {
    let tsd = FakeTsd::start();
    let (series, cap) = size.pick((2_000, 1_000), (10_000, 1_000));
    let limit = RateLimit::PerSecond(NonZeroU32::new(cap).expect("a number"));
    let (recorder, handle) = builder(tsd.address(), Confirmation::Version)
        .with_timestamp_precision(TimestampPrecision::Seconds)
        .with_flush_interval(Duration::from_secs(1))
        .with_rate_limit(limit)
        .build()
        .expect("no check");
    let gauges: Vec<_> = metrics::with_local_recorder(&recorder, || {
        (0..series).map(|n| gauge!("g", "n" => n.to_string())).collect()
    });
    let began = Instant::now();
    let time = Duration::from_secs(size.pick(8, 65));
    while began.elapsed() < time {
        let now = began.elapsed().as_secs_f64();
        gauges.iter().for_each(|gauge| gauge.set(now));
        pass(Duration::from_millis(100));
    }
    let points = tsd.points();
    let arrivals: Vec<_> = tsd
        .log()
        .arrivals()
        .into_iter()
        .flat_map(|(at, points)| std::iter::repeat_n(at, points))
        .collect();
    // The stretched interval, and two seconds for the tick and the way.
    let allowed = f64::from(series as u32) / f64::from(cap) + 2.0;
    let mut seen: HashMap<&str, (usize, Instant)> = HashMap::new();
    let (mut gap, mut age) = (0.0_f64, 0.0_f64);
    for (point, &at) in points.iter().zip(&arrivals) {
        let n = point.tags.iter().find(|(key, _)| key == "n").map_or("", |(_, n)| n);
        if let metrics_exporter_opentsdb::Value::Float(taken) = point.value {
            age = age.max((at - began).as_secs_f64() - taken);
        }
        let (count, last) = seen.entry(n).or_insert((0, at));
        gap = gap.max((at - *last).as_secs_f64());
        (*count, *last) = (*count + 1, at);
    }
    let counts = || seen.values().map(|(count, _)| *count);
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let stats = handle.stats();
    let rate = most_in_a_second(&tsd.log().arrivals());
    let _ = handle.shutdown(Duration::ZERO);
    assert_eq!(seen.len(), series as usize, "some series never came");
    assert!(stats.ticks_skipped > 0, "there was no overload: {stats:?}");
    assert!(most - least <= 2, "{least} to {most} points a series");
    assert!(gap <= allowed, "{gap:.1} s without a point of some series");
    assert!(age <= allowed, "a value was {age:.1} s old");
    format!(
        "{series} series, {least} to {most} points each, at most {gap:.1} s apart and {age:.1} s old, {rate} a second, {} ticks skipped",
        stats.ticks_skipped
    )
}
