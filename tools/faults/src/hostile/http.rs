//! The same by HTTP: a `FakeHttpTsd`, or two, with faults by seed. A *liar* also answers what was
//! never asked, which confirms what is on its way. Some others are behind slow proxies.

use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{
    Action, FakeHttpTsd, FakeTsd, Fault, HttpAnswer, HttpFault, Step, TooLarge,
};
use metrics_exporter_opentsdb::{Confirmation, Flavor, HttpCompression, OpenTsdbHandle};

use super::proxy::SlowProxy;
use super::{SLACK, Told};
use crate::rig::{App, PATIENCE, assert_law, builder};

/// Whether points may be refused for good, though nothing is wrong with them.
fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 413 | 422 | 500)
}

/// What a liar says at any time.
fn lie(random: &mut fastrand::Rng) -> Step {
    let good: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    let twice = [good, good].concat();
    let refusal: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let answers = [good, &twice, refusal, &good[..random.usize(1..good.len())], b"\0\xff\r\n\r\n"];
    Action::Say(answers[random.usize(0..answers.len())].to_vec()).into()
}

fn trouble(random: &mut fastrand::Rng, statuses: &[u16]) -> Step {
    let down = Duration::from_millis(random.u64(0..200));
    let bytes = random.usize(1..6_000);
    let status = random.choice(statuses).copied().unwrap_or(503);
    let answer = HttpAnswer::new(status).body("no \u{1b}[31m\r\n");
    let answer = match random.u8(0..4) {
        0 => answer.header("Retry-After", random.u8(0..2)),
        // It has stored them: they come again.
        1 if status > 500 => answer.storing(),
        _ => answer,
    };
    match random.u8(0..20) {
        0 | 1 => Action::Reset.into(),
        2 => Action::Close.into(),
        3 => Action::Restart { down }.into(),
        4 => Action::Crash { down }.into(),
        5 => Action::CloseUnread.into(),
        6 => Fault::StopReading.into(),
        7 => Fault::Delay(Duration::from_millis(random.u64(1..700))).into(),
        8 => Fault::Trickle { bytes, every: Duration::from_millis(5) }.into(),
        9 => Fault::BreakAfter(bytes).into(),
        10 => [Fault::Refuse, Fault::ResetNew, Fault::CloseNew, Fault::IgnoreNew]
            [random.usize(0..4)]
        .clone()
        .into(),
        11 => HttpFault::Chunked.into(),
        12 => HttpFault::UntilClose.into(),
        13 => HttpFault::Cut(random.usize(0..300)).into(),
        // With a length of nothing, a 200 that stores nothing would be a lie.
        14 if !statuses.contains(&200) => HttpFault::WrongLength(random.isize(-20..20)).into(),
        15 => HttpFault::CloseUnanswered.into(),
        16 => [HttpFault::CloseAfter, HttpFault::CloseSilently][random.usize(0..2)].clone().into(),
        17 => HttpFault::Limit(500 + bytes, TooLarge::NotSupported).into(),
        _ => HttpFault::Answer(answer).into(),
    }
}

fn flush(handle: &OpenTsdbHandle, milliseconds: u64) {
    let (began, timeout) = (Instant::now(), Duration::from_millis(milliseconds));
    handle.flush(timeout).expect("it runs");
    assert!(began.elapsed() < timeout + SLACK, "{timeout:?}: {:?}", began.elapsed());
}

/// What holds at any moment.
fn check(app: &App, servers: &[&FakeTsd], is_liar: bool) {
    let stats = app.handle.stats();
    assert_law(&stats);
    let stored = |tsd: &&FakeTsd| tsd.log().accepted_count() - tsd.log().resent_count();
    let known = servers.iter().map(stored).sum::<usize>() as u64 + stats.points_rejected.total();
    assert!(is_liar || stats.points_confirmed <= known, "{known} are known: {stats:?}");
    assert_eq!((stats.restarts, stats.points_dropped.total()), (0, 0), "{stats:?}");
    for tsd in servers {
        assert_eq!(tsd.log().poisoned(), [""; 0], "two values for one time");
        let mut violations = tsd.log().violations();
        // Who takes a lie for the answer may go on.
        violations.retain(|violation| !is_liar || violation != "two requests in flight");
        assert_eq!(violations, [""; 0]);
    }
}

/// One exporter against one or two servers; panics with the seed where a promise is broken.
pub(super) fn run(seed: u64) -> Told {
    let mut random = fastrand::Rng::with_seed(seed);
    let flavor = [Flavor::OpenTsdb, Flavor::VictoriaMetrics][random.usize(0..2)];
    let servers: Vec<_> = (0..random.usize(1..3))
        .map(|_| FakeHttpTsd::builder().replies(flavor).keep_lines(false).start())
        .collect();
    let all: Vec<&FakeTsd> = servers.iter().map(|server| &**server).collect();
    let statuses: &[u16] = match random.bool() {
        true => &[302, 401, 404, 408, 429, 502, 503, 504],
        false => &[200, 400, 413, 422, 429, 500, 503],
    };
    let is_liar = random.u8(0..5) == 0;
    // Then each point has to arrive; else the last values of those that go on.
    let is_lossless = !is_liar && !statuses.iter().any(|&status| is_refusal(status));
    let flushers = random.usize(0..3);
    let compression = [HttpCompression::Gzip, HttpCompression::Off][random.usize(0..2)];
    let is_slow = !is_liar && random.u8(0..3) == 0;
    let proxies: Vec<_> = (servers.iter().filter(|_| is_slow))
        .map(|server| (**server).address().parse().expect("an address"))
        .map(|address| SlowProxy::start(address, random.fork()).expect("a port and a thread"))
        .collect();
    let mut addresses: Vec<_> = match is_slow {
        true => proxies.iter().map(|it| format!("http://{}", it.address)).collect(),
        false => servers.iter().map(FakeHttpTsd::address).collect(),
    };
    let mut made = builder(addresses.remove(0), Confirmation::Auto)
        .with_flavor(flavor)
        // Flushes alone: twenty ticks a second are more than a server is done with that is sent
        // small bodies.
        .with_flush_interval(Duration::from_secs(3_600))
        .with_queue_size(super::AMPLE)
        .with_http_compression(compression)
        // What a server takes longer for than the timeout is sent again as it was: bodies are
        // small.
        .with_http_batch_bytes(random.choice([1_500, 8_000]).unwrap_or(8_000));
    for other in addresses {
        made = made.add_endpoint(other);
    }
    let mut app = App::start(made, random.usize(1..200));
    let mut script = format!(
        "seed {seed}: {flavor:?}, {compression:?}, {} servers, {flushers} flushers, liar: {is_liar}, slow: {is_slow}",
        all.len()
    );
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..random.usize(2..8) {
            let tsd = all[random.usize(0..all.len())];
            for _ in 0..random.usize(1..3) {
                let step = match is_liar && random.bool() {
                    true => lie(&mut random),
                    false => trouble(&mut random, statuses),
                };
                script += &format!("; {step:?}");
                tsd.script(match random.u8(0..3) {
                    0 => step.after(Duration::from_millis(random.u64(0..100))),
                    // One of several may never get a line.
                    1 if all.len() == 1 => step.after_lines(random.usize(0..3)),
                    _ => step,
                });
            }
            let until = Instant::now() + Duration::from_millis(random.u64(10..300));
            std::thread::scope(|scope| {
                for _ in 0..flushers {
                    let (handle, mut random) = (app.handle.clone(), random.fork());
                    scope.spawn(move || {
                        while Instant::now() < until {
                            flush(&handle, random.u64(0..60));
                            std::thread::park_timeout(Duration::from_millis(random.u64(0..60)));
                        }
                    });
                }
                while Instant::now() < until {
                    // On a thread that ends, with what it owns of the cells.
                    std::thread::scope(|scope| {
                        let is_more = is_lossless && random.u8(0..10) == 0;
                        let work = if is_more { App::work } else { App::count };
                        let app = &mut app;
                        scope.spawn(move || work(app));
                    });
                    flush(&app.handle, random.u64(1..50));
                }
            });
            if random.bool() {
                all.iter().for_each(|tsd| tsd.heal());
            }
            check(&app, &all, is_liar);
        }
        // What waits for a moment has it while nothing else is wrong.
        let end = Instant::now() + PATIENCE;
        while all.iter().any(|tsd| tsd.pending_step_count() > 0) {
            assert!(Instant::now() < end, "faults wait yet: {:?}", app.handle.stats());
            all.iter().for_each(|tsd| tsd.heal());
            app.count();
            app.handle.flush(Duration::from_millis(10)).expect("it runs");
        }
        all.iter().for_each(|tsd| tsd.heal());
        proxies.iter().for_each(SlowProxy::heal);
        if is_liar {
            // What it said may be taken for the answer to the next request, and so on.
            all.iter().for_each(|tsd| tsd.script(Action::Reset));
        }
        app.settle();
        app.count();
        app.settle();
        app.assert_last_values(&all);
        check(&app, &all, is_liar);
        let report = app.handle.shutdown(PATIENCE).expect("the first");
        assert_eq!((report.pending, report.dropped), (0, 0), "{report:?}");
    }));
    let stats = app.handle.stats();
    if let Err(panic) = outcome {
        println!("{script}\n{stats:?}");
        std::panic::resume_unwind(panic)
    }
    Told {
        points: stats.points_taken,
        confirmed: stats.points_confirmed,
        resent: stats.points_resent,
        connects: stats.connects,
        disconnects: stats.disconnects,
        torn: 0,
    }
}
