//! All promises at once, for long: faults by seed, several at a time, of the server and of the
//! network; after each spell everything heals and everything has to be exact.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault, Step};

use crate::Size;
use crate::delivery::until;
use crate::net::{Filter, port};
use opentsdb_faults::hostile::run_seeds;
use opentsdb_faults::outages::counting;
use opentsdb_faults::rig::{App, assert_law, builder};

/// How long spells go on in all.
const LONG: Duration = Duration::from_secs(30 * 60);
const SHORT: Duration = Duration::from_secs(8);
/// How many seeds of hostile servers run side by side: most of their time they wait.
const SEEDS_AT_A_TIME: usize = 16;

/// What is done to a server.
#[derive(Debug)]
enum Trouble {
    Once(Action),
    Lasting(Fault),
}

use Trouble::{Lasting, Once};

impl From<Trouble> for Step {
    fn from(trouble: Trouble) -> Step {
        match trouble {
            Once(action) => action.into(),
            Lasting(fault) => fault.into(),
        }
    }
}

fn random_trouble(random: &mut fastrand::Rng) -> Trouble {
    let down = Duration::from_millis(random.u64(0..300));
    match random.u8(0..17) {
        0 | 1 => Once(Action::Reset),
        2 => Once(Action::Close),
        3 | 4 => Once(Action::Restart { down }),
        5 | 6 => Once(Action::Crash { down }),
        7 => Lasting(Fault::StopReading),
        8 => Lasting(Fault::Mute),
        9 => Lasting(Fault::Flood),
        10 => Lasting(Fault::FreezeStorage),
        11 => Lasting(Fault::Trickle {
            bytes: random.usize(100..5_000),
            every: Duration::from_millis(5),
        }),
        12 => Lasting(Fault::CloseNew),
        13 => Lasting(Fault::IgnoreNew),
        14 => Once(Action::CloseUnread),
        15 => Lasting(Fault::Delay(Duration::from_millis(random.u64(1..400)))),
        _ => Once(Action::Say((0..random.usize(1..20_000)).map(|_| random.u8(..)).collect())),
    }
}

pub(crate) fn random_step(random: &mut fastrand::Rng) -> Step {
    random_trouble(random).into()
}

fn random_filter(random: &mut fastrand::Rng, port: u16) -> Option<Filter> {
    match random.u8(0..8) {
        0 => Some(Filter::blackhole(port)),
        1 => Some(Filter::loss(port, random.u32(5..40))),
        2 => Some(Filter::reset(port)),
        _ => None,
    }
}

pub(crate) fn run(size: Size) -> String {
    let minutes = std::env::var("FAULTS_MINUTES").ok().and_then(|text| text.parse::<u64>().ok());
    let time = minutes.map_or(size.pick(SHORT, LONG), |minutes| Duration::from_secs(60 * minutes));
    let end = Instant::now() + time;
    let mut random = fastrand::Rng::with_seed(size.seed);
    let (mut spells, mut faults, mut filtered, mut lines, mut resent) = (0, 0, 0, 0, 0);
    while Instant::now() < end {
        let seed = random.u64(..);
        let told = spell(seed);
        (spells, faults, filtered) = (spells + 1, faults + told.faults, filtered + told.filtered);
        (lines, resent) = (lines + told.lines, resent + told.resent);
    }
    assert!(faults > 0 && resent > 0);
    format!(
        "seed {}, {spells} spells, {faults} faults, {filtered} packets filtered, {lines} lines, {resent} sent again",
        size.seed
    )
}

#[derive(Default)]
struct Told {
    faults: usize,
    filtered: u64,
    lines: usize,
    resent: u64,
}

/// One exporter and two servers through some twenty faults.
fn spell(seed: u64) -> Told {
    let mut random = fastrand::Rng::with_seed(seed);
    let servers = [counting(), counting()];
    let servers = if random.bool() { &servers[..] } else { &servers[..1] };
    let all: Vec<_> = servers.iter().collect();
    let mode =
        [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose][random.usize(0..3)];
    let mut made = builder(servers[0].address(), mode).with_queue_size(4_000_000);
    for other in &servers[1..] {
        made = made.add_endpoint(other.address());
    }
    let mut app = App::start(made, random.usize(1..500));
    let mut told = Told::default();
    if mode == Confirmation::Auto {
        introduce(&mut app, &all);
    }
    // A server that is stopped while its storage hangs closes in good order what it has read and
    // not handled: to a client that confirms by half-close this looks like the end of work done,
    // and no client can tell. So never both in that mode.
    let is_stopped_politely = mode != Confirmation::HalfClose || random.bool();
    let is_frozen = mode != Confirmation::HalfClose || !is_stopped_politely;
    let mut has_fallen_back = mode == Confirmation::HalfClose;
    let mut script = vec![format!("spell {seed}, {mode:?}, {} servers", all.len())];
    for _ in 0..20 {
        let tsd = all[random.usize(0..all.len())];
        let filter = random_filter(&mut random, port(&tsd.address()));
        for _ in 0..random.usize(1..3) {
            // After enough lost connections in a row `Auto` confirms by half-close for a while.
            has_fallen_back |= app.handle.stats().confirmation == Some(Confirmation::HalfClose);
            let trouble = random_trouble(&mut random);
            let is_polite = matches!(
                trouble,
                Once(Action::Close | Action::CloseUnread | Action::Restart { .. })
            );
            let trouble = match trouble {
                Once(Action::CloseUnread) if has_fallen_back => Once(Action::Reset),
                _ if is_polite && !is_stopped_politely => Once(Action::Reset),
                _ if is_polite && is_frozen && has_fallen_back => Once(Action::Reset),
                Lasting(Fault::FreezeStorage) if !is_frozen => Lasting(Fault::Mute),
                trouble => trouble,
            };
            script.push(match &trouble {
                Once(Action::Say(garbage)) => format!("Say({} bytes)", garbage.len()),
                trouble => format!("{trouble:?}"),
            });
            let step = Step::from(trouble);
            // In `Auto` a polite end comes now or never: by a later moment it may have fallen back.
            if random.bool() && !(is_polite && mode == Confirmation::Auto) {
                tsd.script(step.after(Duration::from_millis(random.u64(0..100))));
            } else {
                tsd.script(step);
            }
            told.faults += 1;
        }
        let until = Instant::now() + Duration::from_millis(random.u64(10..1_000));
        // Each series is in each flush, so many single ones would be more than the queue holds, and
        // drops are none of this.
        while Instant::now() < until {
            if random.u8(0..10) == 0 {
                app.work();
            }
            app.count();
            app.handle.flush(Duration::from_millis(random.u64(1..50))).expect("it runs");
        }
        told.filtered += filter.as_ref().map_or(0, Filter::packets);
        drop(filter);
        if random.bool() {
            all.iter().for_each(|tsd| tsd.heal());
        }
        check_law(&app, &all, seed);
    }
    while all.iter().any(|tsd| tsd.pending_step_count() > 0) {
        app.count();
        app.handle.flush(Duration::from_millis(10)).expect("it runs");
    }
    all.iter().for_each(|tsd| tsd.heal());
    app.settle();
    let exact = catch_unwind(AssertUnwindSafe(|| app.assert_exact(&all)));
    if let Err(panic) = exact {
        println!("{}; {:?}", script.join("; "), app.handle.stats());
        resume_unwind(panic);
    }
    check_law(&app, &all, seed);
    let report = app.handle.shutdown(Duration::from_secs(10)).expect("the first");
    assert_eq!((report.pending, report.dropped), (0, 0), "seed of the spell {seed}: {report:?}");
    told.lines = all.iter().map(|tsd| tsd.log().accepted_count()).sum();
    told.resent = app.handle.stats().points_resent;
    told
}

/// Lets each server answer `version` once: of one that never did, `Auto` takes a close in silence
/// for a confirmation.
fn introduce(app: &mut App, servers: &[&FakeTsd]) {
    for (index, tsd) in servers.iter().enumerate() {
        app.work();
        app.settle();
        assert_eq!(app.handle.stats().confirmation, Some(Confirmation::Version));
        assert!(tsd.log().accepted_count() > 0, "it is its turn");
        if index + 1 < servers.len() {
            tsd.script(Fault::Refuse);
            tsd.script(Action::Reset);
        }
    }
    servers.iter().for_each(|tsd| tsd.heal());
}

/// As `App::assert_lawful`, but for what a filter in the middle tears.
fn check_law(app: &App, servers: &[&FakeTsd], seed: u64) {
    let stats = app.handle.stats();
    assert_law(&stats);
    let known: usize =
        servers.iter().map(|tsd| tsd.log().accepted_count() - tsd.log().resent_count()).sum();
    assert!(stats.points_confirmed <= known as u64, "spell {seed}: {stats:?}, {known} in the logs");
    for tsd in servers {
        assert!(tsd.log().poisoned().is_empty() && tsd.log().rejected_count() == 0, "spell {seed}");
    }
    assert_eq!(stats.restarts, 0, "spell {seed}");
}

/// Seeds of hostile servers, `HOSTILE_SEEDS` of them if it is set, on several threads; afterwards
/// all threads and descriptors are gone.
pub(crate) fn hostile(size: Size) -> String {
    let count = std::env::var("HOSTILE_SEEDS").ok().and_then(|text| text.parse().ok());
    let count = count.unwrap_or(size.pick(200, 2_000));
    let seen = || {
        let count = |folder: &str| std::fs::read_dir(folder).expect("Linux").count();
        (count("/proc/self/task"), count("/proc/self/fd"))
    };
    run_seeds(size.seed, 2, 2);
    let before = seen();
    let told = run_seeds(size.seed, count, SEEDS_AT_A_TIME);
    until("all threads and descriptors gone", || seen().0 <= before.0 && seen().1 <= before.1);
    format!("seeds {} to {}, {told:?}", size.seed, size.seed + count)
}
