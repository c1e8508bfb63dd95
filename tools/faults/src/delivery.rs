//! Promises 3 to 7: what arrives, and what the exporter reports of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd};

use crate::net::{Filter, SlowLink, port};
use opentsdb_faults::rig::{App, PATIENCE, assert_law, builder};
use opentsdb_faults::shutdown::{self, STATES};
use opentsdb_faults::{odd_servers, outages};

use crate::{Size, child};

const MODES: [Confirmation; 3] =
    [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose];
const PROVING: [Confirmation; 2] = [Confirmation::Version, Confirmation::HalfClose];
/// What a shutdown may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(100);

fn timeouts(size: Size) -> [Duration; 3] {
    [0, 100, size.pick(500, 2_000)].map(Duration::from_millis)
}

/// Lets time pass: nobody ever sends.
pub(crate) fn pass(time: Duration) {
    let (_silent, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(time);
}

fn port_of(tsd: &FakeTsd) -> u16 {
    port(&tsd.address())
}

// ---- 3 ----

/// Each state of a server, each way to confirm, each time.
pub(crate) fn shutdown_matrix(size: Size) -> String {
    let rounds = size.pick(1, 5);
    let cases: Vec<_> = (0..rounds)
        .flat_map(|_| STATES)
        .flat_map(|state| MODES.into_iter().map(move |mode| (state, mode)))
        .flat_map(|(state, mode)| timeouts(size).map(move |timeout| (state, mode, timeout)))
        .collect();
    let next = AtomicUsize::new(0);
    let worst = Mutex::new((Duration::ZERO, String::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&(state, mode, timeout)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    // A machine that is busy with something else is late itself; an exporter that
                    // is late is so again.
                    let try_it = || shutdown::shut_down(state, mode, timeout);
                    let first = try_it();
                    let outcome = if first.late > GRACE { try_it() } else { first };
                    let what = format!("{}, {mode:?}, {timeout:?}", state.name);
                    let mut worst = worst.lock().expect("no panic so far");
                    *worst = worst.clone().max((outcome.late, what));
                }
            });
        }
    });
    let (late, what) = worst.into_inner().expect("no panic");
    assert!(late <= GRACE, "{late:?} late: {what}");
    format!("{} shutdowns, at most {late:.1?} late ({what})", cases.len())
}

/// Shuts down after `prepare` has broken the network under a working exporter.
fn broken<T>(size: Size, prepare: impl Fn(&FakeTsd) -> T, happened: impl Fn(&T) -> bool) -> String {
    let mut worst = Duration::ZERO;
    let mut shutdowns = 0;
    for mode in MODES {
        for timeout in timeouts(size) {
            let tsd = FakeTsd::start();
            let builder = builder(tsd.address(), mode).with_write_timeout(Duration::from_secs(30));
            let mut app = App::start(builder, 2_000);
            app.count();
            app.settle();
            let fault = prepare(&tsd);
            app.count();
            app.handle.flush(Duration::from_millis(100)).expect("it runs");
            app.count();
            let began = Instant::now();
            let report = app.handle.shutdown(timeout).expect("the first");
            worst = worst.max(began.elapsed().saturating_sub(timeout));
            assert_eq!(report.points, report.confirmed + report.pending + report.dropped);
            let stats = app.handle.stats();
            assert_law(&stats);
            assert!(report.pending + report.dropped > 0, "{mode:?} {timeout:?}: {report:?}");
            assert!(
                stats.points_confirmed
                    <= (tsd.log().accepted_count() - tsd.log().resent_count()) as u64
            );
            assert!(happened(&fault), "the fault did not happen");
            shutdowns += 1;
        }
    }
    assert!(worst <= GRACE, "{worst:?} late");
    format!("{shutdowns} shutdowns, at most {worst:.1?} late")
}

pub(crate) fn shutdown_blackhole(size: Size) -> String {
    broken(size, |tsd| Filter::blackhole(port_of(tsd)), |filter| filter.packets() > 0)
}

pub(crate) fn shutdown_slow_link(size: Size) -> String {
    broken(size, |_| SlowLink::new("64kbit"), |link| link.overlimits() > 0)
}

pub(crate) fn shutdown_resolver(size: Size) -> String {
    // Nobody reads this socket: a question is taken and never answered.
    let resolver = std::net::UdpSocket::bind("127.0.0.53:53").expect("the namespace is ours");
    let mut worst = Duration::ZERO;
    for timeout in timeouts(size) {
        let mut app = App::start(builder("tsd.example:4242", Confirmation::Auto), 100);
        app.count();
        app.handle.flush(Duration::from_millis(200)).expect("it runs");
        let began = Instant::now();
        let report = app.handle.shutdown(timeout).expect("the first");
        worst = worst.max(began.elapsed().saturating_sub(timeout));
        assert_eq!((report.confirmed, report.points), (0, report.pending + report.dropped));
    }
    resolver.set_nonblocking(true).expect("a socket");
    let mut questions = 0;
    while resolver.recv(&mut [0; 512]).is_ok() {
        questions += 1;
    }
    assert!(questions > 0, "nobody asked");
    assert!(worst <= GRACE, "{worst:?} late");
    format!("3 shutdowns, {questions} questions unanswered, at most {worst:.1?} late")
}

// ---- 4 ----

/// Processes that count and end at once.
pub(crate) fn exits(size: Size) -> String {
    let tsd = FakeTsd::start();
    let ways = ["guard", "shutdown", "panic"];
    let runs = size.pick(60, 1_000);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    let way = ways[run % ways.len()];
                    let mut app = child::App::start(child::app(&[
                        "exit",
                        &tsd.address(),
                        way,
                        &run.to_string(),
                    ]));
                    let (code, errors) = app.end();
                    let expected = if way == "panic" { 101 } else { 0 };
                    assert_eq!(code, Some(expected), "{way} {run}: {errors}");
                    if way != "panic" {
                        assert_eq!(errors, "", "{way} {run}");
                    }
                    let last = tsd.value("exits", &[("host", "a"), ("run", &run.to_string())]);
                    assert_eq!(last, Some((run as i64 + 1).into()), "{way} {run}");
                }
            });
        }
    });
    format!("{runs} of {runs} exits")
}

// ---- 5, 6, 7 ----

/// Each in both ways to confirm.
fn both(size: Size, survive: impl Fn(Confirmation, u64) -> outages::Sum) -> String {
    let sums = PROVING.map(|mode| survive(mode, size.seed));
    let told = sums.iter().zip(PROVING).map(|(sum, mode)| {
        format!(
            "{mode:?}: {} outages, {} lines, {} sent again, {} confirmed",
            sum.outages, sum.accepted, sum.resent, sum.confirmed
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

pub(crate) fn resets(size: Size) -> String {
    both(size, |mode, seed| outages::survive(mode, size.pick(50, 200), outages::RESET, seed))
}

pub(crate) fn restarts(size: Size) -> String {
    let outages = size.pick(20, 50);
    both(size, |mode, seed| {
        outages::survive(mode, outages, outages::CRASH, seed);
        outages::survive(mode, outages, outages::RESTART, seed)
    })
}

pub(crate) fn failovers(size: Size) -> String {
    both(size, |mode, seed| outages::fail_over(mode, size.pick(10, 50), seed))
}

/// Everything vanishes for 6 s, with the server's restart within, or without.
pub(crate) fn blackhole(size: Size) -> String {
    let dark = Duration::from_secs(size.pick(2, 6));
    let mut told = Vec::new();
    for mode in PROVING {
        for restarts in size.pick(&[true][..], &[false, true]).iter().copied() {
            let tsd = outages::counting();
            let mut app = App::start(builder(tsd.address(), mode), 200);
            app.work();
            app.settle();
            let filter = Filter::blackhole(port_of(&tsd));
            let end = Instant::now() + dark;
            let mut restarted = false;
            while Instant::now() < end {
                app.work();
                app.handle.flush(Duration::from_millis(50)).expect("it runs");
                if restarts && !restarted && Instant::now() + dark / 2 > end {
                    tsd.script(Action::Crash { down: Duration::from_millis(100) });
                    restarted = true;
                }
            }
            let packets = filter.packets();
            assert!(packets > 0, "nothing fell into it");
            drop(filter);
            app.work();
            app.settle();
            app.assert_exact(&[&tsd]);
            let stats = app.assert_lawful(&[&tsd]);
            told.push(format!(
                "{mode:?}{}: {packets} packets lost, {} points sent again",
                if restarts { " with a restart" } else { "" },
                stats.points_resent
            ));
        }
    }
    told.join("; ")
}

/// A firewall between both: the server hears nothing of the reset that the client gets.
pub(crate) fn resets_on_the_way(size: Size) -> String {
    let mut told = Vec::new();
    for mode in PROVING {
        let tsd = outages::counting();
        let mut app = App::start(builder(tsd.address(), mode), 200);
        let mut packets = 0;
        for _ in 0..size.pick(10, 50) {
            app.work();
            app.handle.flush(Duration::from_millis(10)).expect("it runs");
            let filter = Filter::reset(port_of(&tsd));
            while filter.packets() == 0 {
                app.work();
                app.handle.flush(Duration::from_millis(10)).expect("it runs");
            }
            packets += filter.packets();
        }
        app.settle();
        app.assert_exact(&[&tsd]);
        app.assert_lawful(&[&tsd]);
        told.push(format!("{mode:?}: {packets} resets"));
    }
    told.join("; ")
}

/// A million lines through resets, crashes and closes.
pub(crate) fn million(size: Size) -> String {
    let lines = size.pick(200_000, 1_000_000);
    let mut told = Vec::new();
    for mode in PROVING {
        let mut random = fastrand::Rng::with_seed(size.seed);
        let tsd = outages::counting();
        let mut app = App::start(builder(tsd.address(), mode), 2_000);
        let mut faults = 0;
        while tsd.log().accepted_count() < lines {
            let fault = match random.u8(0..4) {
                0 => Action::Reset,
                1 => Action::Close,
                2 => Action::Crash { down: Duration::from_millis(10) },
                _ => Action::Restart { down: Duration::from_millis(10) },
            };
            tsd.script(fault.after_bytes(random.usize(1..500_000)));
            while tsd.pending_step_count() > 0 {
                app.count();
                app.handle.flush(Duration::from_millis(20)).expect("it runs");
                app.assert_lawful(&[&tsd]);
            }
            faults += 1;
        }
        // Ended, so that no tick comes between the two readings below.
        app.handle.shutdown(PATIENCE).expect("the first");
        app.assert_exact(&[&tsd]);
        let stats = app.assert_lawful(&[&tsd]);
        let distinct = (tsd.log().accepted_count() - tsd.log().resent_count()) as u64;
        assert_eq!((stats.points_confirmed, distinct), (stats.points_taken, stats.points_taken));
        told.push(format!("{mode:?}: {} lines, {faults} faults", tsd.log().accepted_count()));
    }
    told.join("; ")
}

// ---- also ----

pub(crate) fn idle(size: Size) -> String {
    let times = size.pick(20, 200);
    MODES.into_iter().for_each(|mode| odd_servers::idle_closes(mode, times));
    format!("{times} closes in each mode")
}

pub(crate) fn garbage(size: Size) -> String {
    PROVING.into_iter().for_each(|mode| odd_servers::garbage(mode, size.seed));
    "a megabyte in each mode".into()
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        pass(Duration::from_millis(10));
    }
}
