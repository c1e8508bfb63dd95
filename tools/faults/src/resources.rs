//! Promises 1, 2 and 10: the application's time, its memory and its process, whatever the server
//! does.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, Value};

use crate::Size;
use crate::child::{self, App};
use crate::delivery::{pass, until};
use opentsdb_faults::outages;
use opentsdb_faults::rig::{self, PATIENCE, ended_by_server};

/// A server that never reads, with a buffer that is soon full.
fn stuck() -> FakeTsd {
    let tsd = FakeTsd::start();
    tsd.script(Fault::ReceiveBuffer(4096));
    tsd.script(Fault::StopReading);
    tsd
}

/// A file for one child's trace or clock.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::var_os("FAULTS_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("{name}.{}", std::process::id()))
}

// ---- 1 ----

/// Calls that `strace -e trace=network` shows, and the ones that write to a socket or wait for one.
const TRACED: &str = "trace=network,write,writev,poll,epoll_wait,epoll_pwait";
const NETWORK: &[&str] = &[
    "socket",
    "connect",
    "send",
    "recv",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "bind",
    "accept",
    "getpeername",
    "getsockname",
    "poll",
    "epoll",
    "writev",
];

pub(crate) fn no_network_call(size: Size) -> String {
    let mut told = Vec::new();
    for name in ["never reads", "healthy", "absent"] {
        let tsd = match name {
            "never reads" => stuck(),
            _ => FakeTsd::start(),
        };
        if name == "absent" {
            tsd.script(Fault::Refuse);
        }
        let trace = scratch("strace");
        let file = trace.display().to_string();
        let time = size.pick("1000", "20000");
        let front = ["strace", "-f", "-qq", "-o", &file, "-e", TRACED, "-e", "signal=none"];
        let app = child::run(child::under(&front, &["record", &tsd.address(), time]));
        let text = std::fs::read_to_string(&trace).expect("strace has written");
        let _ = std::fs::remove_file(&trace);
        let application: HashSet<&str> =
            ["thread0", "thread1", "main"].into_iter().map(|key| app.said[key].as_str()).collect();
        let (mut ours, mut calls) = (0, 0);
        for line in text.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if !NETWORK.iter().any(|name| call.starts_with(name)) {
                continue;
            }
            calls += 1;
            // The test's own report goes to a pipe by `write`, and the runtime polls 0 to 2 at its
            // start.
            let is_runtime = call.starts_with("poll([{fd=0");
            if application.contains(thread) && !is_runtime {
                ours += 1;
                assert!(ours == 0, "{name}: on an application thread: {line}");
            }
        }
        assert!(calls > 0, "strace saw nothing: the exporter never came to work");
        if name == "never reads" {
            assert!(app.figure("pending") > 0);
        }
        told.push(format!(
            "{name}: {} records, {calls} network calls, none theirs",
            app.said["records"]
        ));
    }
    told.join("; ")
}

pub(crate) fn latency(size: Size) -> String {
    let (records, seconds) = size.pick(("1000000", "1"), ("10000000", "60"));
    let run = |tsd: &FakeTsd| {
        let app = child::run(child::app(&["latency", &tsd.address(), records, seconds]));
        (app.figure("p999"), app.figure("p50"), app.figure("pending"))
    };
    // Of several rounds side by side the least is the program's, the rest is the machine's.
    let (mut healthy, mut sick) = ((u64::MAX, u64::MAX), (u64::MAX, u64::MAX));
    for _ in 0..size.pick(3, 2) {
        let (p999, p50, _) = run(&FakeTsd::builder().keep_lines(false).start());
        healthy = (healthy.0.min(p999), healthy.1.min(p50));
        let (p999, p50, pending) = run(&stuck());
        assert!(pending > 0, "the server has read");
        sick = (sick.0.min(p999), sick.1.min(p50));
    }
    let ratio = sick.0 as f64 / healthy.0 as f64;
    assert!(ratio <= 1.5, "p99.9 {} ns against {} ns: {ratio:.2}", sick.0, healthy.0);
    format!(
        "{records} records in {seconds} s, p99.9 {} ns against {} ns healthy ({ratio:.2}), p50 {} against {} ns",
        sick.0, healthy.0, sick.1, healthy.1
    )
}

// ---- 2 ----

/// KiB that the configuration allows: 100,000 points of some 40 bytes in the queue, and buffers of
/// 64 KiB for them; 128 spare buffers; a window of 4 MiB.
const BOUNDS: u64 = 8 * 1024 + 8 * 1024 + 4 * 1024;
const SLACK: u64 = 16 * 1024;

pub(crate) fn memory(size: Size) -> String {
    let time = size.pick("1000", "60000");
    let mut told = Vec::new();
    for (state, what) in [
        ("stuck", "stuck"),
        ("absent", "stuck"),
        ("mute", "stuck"),
        ("flood", "stuck"),
        ("stuck", "histogram"),
        ("stuck", "series"),
    ] {
        let tsd = match state {
            "stuck" => stuck(),
            _ => FakeTsd::builder().keep_lines(false).start(),
        };
        match state {
            "absent" => tsd.script(Fault::Refuse),
            "mute" => tsd.script(Fault::Mute),
            "flood" => tsd.script(Fault::Flood),
            _ => {}
        }
        let app = child::run(child::app(&["memory", &tsd.address(), what, time]));
        let grown = app.figure("peak") - app.figure("before");
        // A series that is taken is memory by configuration: 10,000 of some 300 bytes.
        let series = if what == "series" { 10_000 * 300 / 1024 } else { 0 };
        let allowed = BOUNDS + SLACK + series;
        assert!(grown <= allowed, "{state}, {what}: grown by {grown} KiB: {:?}", app.said);
        match (state, what) {
            ("stuck" | "mute", "stuck") => assert!(app.figure("pending") > 0, "{:?}", app.said),
            ("absent", _) => assert!(app.figure("dropped") > 0, "{:?}", app.said),
            (_, "series") => {
                assert_eq!(app.figure("done"), 300_000, "in {time} ms");
                assert!(app.figure("overflow") > 200_000, "{:?}", app.said);
                assert!(app.figure("series") <= 10_100, "{:?}", app.said);
            }
            _ => {}
        }
        told.push(format!(
            "{state}, {what}: {:.1} MiB after {}",
            grown as f64 / 1024.0,
            app.said["done"]
        ));
    }
    format!("{} (allowed {} MiB)", told.join("; "), (BOUNDS + SLACK) / 1024)
}

// ---- 10 ----

pub(crate) fn panics(_: Size) -> String {
    let tsd = FakeTsd::start();
    let mut app = App::start(child::app(&["panics", &tsd.address()]));
    let panicked = app.await_word("panicked").expect("the flusher has panicked");
    assert_ne!(panicked, "0");
    // Longer than an interval, so that an attempt to connect fails and is told of.
    tsd.script(Action::Crash { down: Duration::from_millis(1_200) });
    let (code, errors) = app.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    assert!(app.figure("restarts") >= 2, "{:?}", app.said);
    // Two intervals of a second, and what this machine takes to notice.
    assert!(app.figure("silent") <= 2_100, "{:?}", app.said);
    assert_eq!(app.figure("pending"), 0);
    format!("{} restarts, points again after {} ms", app.said["restarts"], app.said["silent"])
}

pub(crate) fn forks(size: Size) -> String {
    let children = size.pick("100", "1000");
    let tsd = FakeTsd::start();
    let app = child::run(child::app(&["fork", &tsd.address(), children]));
    assert_eq!((app.figure("hung"), app.figure("bad")), (0, 0), "{:?}", app.said);
    assert_eq!(app.figure("pending"), 0, "the parent has sent its own");
    assert_eq!(tsd.value("child.raw", &[("host", "a"), ("n", "1")]), None);
    // What the children counted is theirs.
    assert!(matches!(tsd.value("child", &[("host", "a")]), None | Some(Value::Integer(0))));
    assert!(tsd.log().rejected().is_empty() && tsd.log().poisoned().is_empty());
    format!("{children} children, {} records meanwhile", app.said["recorded"])
}

/// Which of the threads fails, counted from the first of the process.
pub(crate) fn failed_spawn(_: Size) -> String {
    let mut told = Vec::new();
    for which in [1, 2] {
        let tsd = FakeTsd::start();
        let trace = scratch("spawn");
        let file = trace.display().to_string();
        let inject = format!("inject=clone3,clone:error=EAGAIN:when={which}");
        let front = ["strace", "-f", "-qq", "-o", &file, "-e", "trace=clone3,clone", "-e", &inject];
        let app = child::run(child::under(&front, &["spawn", &tsd.address()]));
        let text = std::fs::read_to_string(&trace).expect("strace has written");
        let _ = std::fs::remove_file(&trace);
        assert!(text.contains("(INJECTED)"), "no clone has failed: {text}");
        let error = &app.said["error"];
        assert!(error.contains("could not be started"), "{error}");
        assert_eq!((app.figure("threads"), app.figure("descriptors")), (1, 0), "{:?}", app.said);
        assert_eq!(app.figure("confirmed"), 1, "the next one works");
        told.push(error.clone());
    }
    told.join("; ")
}

pub(crate) fn second_install(_: Size) -> String {
    let tsd = FakeTsd::start();
    let app = child::run(child::app(&["install", &tsd.address()]));
    assert_eq!(app.said["refused"], "true");
    assert_eq!((app.figure("before"), app.figure("after")), (2, 2));
    "2 threads before and after".into()
}

pub(crate) fn sigpipe(size: Size) -> String {
    let tsd = FakeTsd::start();
    let mut app = App::start(child::app(&["steady", &tsd.address(), "sigpipe"]));
    let resets = size.pick(50, 300);
    let mut random = fastrand::Rng::with_seed(size.seed);
    for n in 0..resets {
        let before = tsd.log().connection_count();
        // The client closes its own side first in no mode: it writes into what is gone.
        let fault = if n % 2 == 0 { Action::Reset } else { Action::CloseUnread };
        tsd.script(fault.after_bytes(random.usize(1..5_000)));
        until("the next connection", || {
            tsd.pending_step_count() == 0 && tsd.log().connection_count() > before
        });
    }
    let (code, errors) = app.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    assert_eq!((app.figure("pending"), app.figure("restarts")), (0, 0));
    assert_eq!(tsd.value("rounds", &[("host", "a")]), Some((app.figure("count") as i64).into()));
    format!("{resets} connections lost, {} points sent again", app.said["resent"])
}

pub(crate) fn leaks(size: Size) -> String {
    let count = |folder: &str| std::fs::read_dir(folder).expect("Linux").count();
    let seen = || (count("/proc/self/task"), count("/proc/self/fd"));
    outages::survive(Confirmation::Version, 2, outages::RESET, size.seed);
    let before = seen();
    let rounds = size.pick(20, 100);
    for round in 0..rounds {
        let mode = [Confirmation::Version, Confirmation::HalfClose][round % 2];
        outages::survive(mode, 2, outages::CRASH, size.seed + round as u64);
        // One that gives up: its threads end as soon as they can.
        let tsd = stuck();
        let mut app = rig::App::start(rig::builder(tsd.address(), mode), 2_000);
        app.work();
        let _ = app.handle.flush(Duration::from_millis(20));
        app.handle.shutdown(Duration::ZERO).expect("the first");
    }
    until("all threads and descriptors gone", || seen().0 <= before.0 && seen().1 <= before.1);
    let after = seen();
    format!(
        "{} exporters, threads {} → {}, descriptors {} → {}",
        rounds * 2,
        before.0,
        after.0,
        before.1,
        after.1
    )
}

/// The system fails calls of the writer that may fail.
pub(crate) fn injected_errors(_: Size) -> String {
    let mut told = Vec::new();
    for inject in [
        "inject=epoll_wait,epoll_pwait:error=EINTR:when=3+5",
        "inject=sendto,write:error=EINTR:when=30+11",
        "inject=recvfrom:error=EINTR:when=5+7",
        "inject=sendto:error=ENOBUFS:when=5+20",
        "inject=recvfrom:error=ECONNRESET:when=20+40",
        "inject=connect:error=ENETUNREACH:when=2+2",
        "inject=setsockopt:error=ENOPROTOOPT:when=10+50",
    ] {
        let tsd = FakeTsd::start();
        let trace = scratch("inject");
        let file = trace.display().to_string();
        let front = ["strace", "-f", "-qq", "-o", &file, "-e", inject, "-e", "signal=none"];
        // Only what fails is traced: the rest goes at its own speed.
        let traced = inject.trim_start_matches("inject=").split(':').next().unwrap_or_default();
        let trace_only = format!("trace={traced}");
        let mut front = front.to_vec();
        front.extend(["-e", &trace_only]);
        let mut app = App::start(child::under(&front, &["steady", &tsd.address(), ""]));
        for _ in 0..20 {
            let before = tsd.log().connection_count();
            assert!(
                tsd.wait_for(tsd.log().accepted_count() + 500, PATIENCE),
                "{inject}: nothing comes"
            );
            tsd.script(Action::Reset);
            until(inject, || tsd.log().connection_count() > before);
        }
        let (code, errors) = app.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{inject}: {:?}", app.said);
        let text = std::fs::read_to_string(&trace).expect("strace has written");
        let _ = std::fs::remove_file(&trace);
        let injected = text.matches("(INJECTED)").count();
        assert!(injected > 0, "{inject}: no call has failed");
        assert_eq!((app.figure("pending"), app.figure("restarts")), (0, 0), "{inject}");
        assert_eq!(
            tsd.value("rounds", &[("host", "a")]),
            Some((app.figure("count") as i64).into())
        );
        assert!(tsd.log().poisoned().is_empty() && tsd.log().rejected().is_empty(), "{inject}");
        told.push(format!("{} {injected}", &inject[7..inject.len()]));
    }
    told.join("; ")
}

pub(crate) fn emfile(_: Size) -> String {
    let tsd = FakeTsd::start();
    let mut app = App::start(child::app(&["emfile", &tsd.address()]));
    app.await_word("ready").expect("it runs");
    tsd.script(Action::Reset);
    until("the reset", || ended_by_server(&tsd) == 1);
    let (code, errors) = app.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    assert!(app.figure("failures") > 0 && app.figure("starved") > 0, "{:?}", app.said);
    assert_eq!((app.figure("pending"), app.figure("restarts")), (0, 0));
    assert_eq!(tsd.value("hits", &[("host", "a")]), Some(3.into()));
    format!("{} attempts without a descriptor", app.said["failures"])
}

// ---- also ----

/// Forward an hour, back, forward two: no time has two values, and no silence comes. A step to
/// before the first timestamp would be followed, so there is none.
pub(crate) fn clock(size: Size) -> String {
    let tsd = FakeTsd::start();
    let file = scratch("faketime");
    let set = |offset: &str| std::fs::write(&file, format!("{offset}\n")).expect("a file of ours");
    set("+0");
    let library = std::env::var("FAULTS_FAKETIME").expect("tools/faults/run has looked for it");
    let mut command = child::app(&["clock", &tsd.address()]);
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut app = App::start(command);
    app.await_word("ready").expect("it runs");
    let dwell = Duration::from_secs(size.pick(2, 15));
    let offsets = ["+0", "+3600", "+1", "+7200"];
    for offset in offsets {
        set(offset);
        pass(dwell);
    }
    let (code, errors) = app.end();
    let _ = std::fs::remove_file(&file);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    assert_eq!(tsd.log().poisoned(), [""; 0], "two values at one time");
    assert!(app.figure("steps") >= 3, "{:?}", app.said);
    assert_eq!((app.figure("pending"), app.figure("dropped")), (0, 0));
    let times: Vec<_> = tsd.points().iter().filter_map(|point| point.timestamp).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let arrivals = tsd.log().arrivals();
    let silence = arrivals.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
    assert!(silence <= Duration::from_millis(2_500), "silent for {silence:?}");
    let spread = times[times.len() - 1] - times[0];
    format!(
        "{} steps, {} points, times over {spread} s, silent for {silence:.1?} at most",
        app.said["steps"],
        times.len()
    )
}
