//! The spool: processes that are killed, a disk that is full, two at a time, a backlog larger than
//! memory should be, and what a flush costs with it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{Action, FakeTsd, Fault};
use metrics_exporter_opentsdb::{Confirmation, Point, Spool};

use crate::Size;
use crate::child::{self, App};
use crate::delivery::{pass, until};
use opentsdb_faults::rig::{PATIENCE, assert_law, builder};

/// A name that nobody has; what is there goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let root =
            std::env::var_os("FAULTS_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = root.join(format!("spool-{name}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn text(&self) -> String {
        self.0.display().to_string()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| path.extension().is_some_and(|end| end == "spool")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The round of a line `put round TIME N host=a`.
fn round_of(line: &str) -> Option<u64> {
    line.strip_prefix("put round ")?.split(' ').nth(1)?.parse().ok()
}

/// The rounds in the lines of a segment's whole records.
fn rounds_on_disk(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap_or_default();
    let (mut rest, mut rounds) = (&bytes[..], Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(lines) = behind.get(4..4 + length) else { break };
        let lines = String::from_utf8_lossy(lines);
        rounds.extend(lines.lines().filter_map(round_of));
        rest = &behind[4 + length..];
    }
    rounds
}

/// Kills an application under load at random moments, with the server away and back.
pub(crate) fn kills(size: Size) -> String {
    let mut random = fastrand::Rng::with_seed(size.seed);
    let mut figures = Vec::new();
    for mode in ["behind", "ahead"] {
        let (kills, folder) = (size.pick(10, 200), Folder::new(mode));
        let tsd = FakeTsd::start();
        // What has to arrive: rounds that were on disk when the process was killed, and those that
        // it had seen confirmed or, written ahead, on disk.
        let mut due = HashSet::new();
        let mut round = 1_u64;
        for _ in 0..kills {
            if random.bool() {
                tsd.script(Fault::Refuse);
                tsd.script(Action::Reset);
            } else {
                tsd.heal();
            }
            let start = round.to_string();
            let arguments = ["rounds", &tsd.address(), &folder.text(), mode, &start];
            let mut app = App::start(child::app(&arguments));
            app.await_word("ready").expect("it starts");
            pass(Duration::from_millis(random.u64(0..size.pick(400, 800))));
            if random.u8(0..4) == 0 {
                tsd.heal();
            }
            let said = app.kill();
            let seen = said.iter().filter(|(key, _)| *key == "due");
            due.extend(seen.filter_map(|(_, value)| value.parse::<u64>().ok()));
            due.extend(folder.segments().iter().flat_map(|path| rounds_on_disk(path)));
            let last = said.iter().rev().find(|(key, _)| *key == "round");
            round = last.map_or(round, |(_, value)| value.parse().unwrap_or(round)) + 1;
        }
        tsd.heal();
        let mut app =
            App::start(child::app(&["rounds", &tsd.address(), &folder.text(), mode, "0"]));
        app.await_word("ready").expect("it starts");
        until("the backlog is delivered", || folder.segments().is_empty());
        drop(app);
        let log = tsd.log();
        assert_eq!(log.rejected(), [], "a line that is no point");
        assert_eq!(log.poisoned(), [""; 0]);
        let arrived: HashSet<u64> = log.lines().iter().filter_map(|line| round_of(line)).collect();
        let missing: Vec<_> = due.difference(&arrived).collect();
        assert!(missing.is_empty(), "{mode}: {missing:?} of {} are missing", due.len());
        let (due, resent) = (due.len(), log.resent_count());
        figures.push(format!(
            "{mode}: {kills} kills in {round} rounds, {due} due, none missing, {resent} lines twice"
        ));
    }
    figures.join("; ")
}

/// On a file system of 1 MiB.
pub(crate) fn full_disk(size: Size) -> String {
    let root = std::env::var("FAULTS_TMPFS").expect("set by the script");
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let queue = 10_000;
    let (recorder, handle) = builder(tsd.address(), Confirmation::Version)
        .with_queue_size(queue)
        .with_spool(Spool::new(Path::new(&root).join("spool")))
        .build()
        .expect("no check");
    let points = size.pick(100_000, 1_000_000);
    let send = |n: u64| handle.send(Point::new("m", n).timestamp(1_700_000_000_000 + n));
    send(0).expect("it runs");
    until("the link is known to be down", || handle.stats().connect_failures > 0);
    for n in 1..points {
        send(n).expect("it runs");
        if n % 1_000 == 0 {
            until("room, or no disk", || {
                let stats = handle.stats();
                stats.points_pending < queue as u64 / 2 || stats.spool_errors > 0
            });
        }
    }
    let stats = handle.stats();
    assert_law(&stats);
    assert!(stats.spool_errors > 0, "the disk was never full: {stats:?}");
    assert_eq!((stats.points_pending, stats.restarts), (queue as u64, 0), "{stats:?}");
    assert!(stats.points_spooled > 10_000, "{stats:?}");
    tsd.heal();
    let kept = (points - stats.points_dropped.queue_full) as usize;
    until("all that was kept arrives", || tsd.log().accepted_count() >= kept);
    let arrived: HashSet<_> = tsd.points().into_iter().map(|point| point.timestamp).collect();
    assert_eq!(arrived.len(), kept, "each once");
    assert_law(&handle.stats());
    let _ = handle.shutdown(PATIENCE);
    drop(recorder);
    format!("{points} points, {} on disk, {} failures", stats.points_spooled, stats.spool_errors)
}

/// The second is refused with the number of the first, whose death frees the directory.
pub(crate) fn two_processes(_: Size) -> String {
    let folder = Folder::new("two");
    let tsd = FakeTsd::start();
    let start = || {
        let arguments = ["rounds", &tsd.address(), &folder.text(), "ahead", "1"];
        App::start(child::app(&arguments))
    };
    let mut first = start();
    first.await_word("ready").expect("it starts");
    let mut second = start();
    let error = second.await_word("error").expect("it is refused");
    assert!(error.contains(&format!("process {} uses it", first.id())), "{error}");
    first.kill();
    let mut third = start();
    third.await_word("ready").expect("the directory is free");
    error
}

/// A backlog that is larger than what memory may take of it.
pub(crate) fn backlog(size: Size) -> String {
    let folder = Folder::new("backlog");
    let mebibytes = size.pick(64, 1024);
    {
        let tsd = FakeTsd::start();
        tsd.script(Fault::Refuse);
        let text = mebibytes.to_string();
        let app = child::run(child::app(&["fill", &tsd.address(), &folder.text(), &text]));
        assert!(app.figure("bytes") >= mebibytes << 20);
        assert_eq!(app.figure("dropped"), 0);
    }
    let tsd = FakeTsd::builder().keep_lines(false).start();
    let began = Instant::now();
    let app = child::run(child::app(&["drain", &tsd.address(), &folder.text()]));
    let took = began.elapsed().as_secs_f64();
    let points = tsd.log().accepted_count();
    assert!(folder.segments().is_empty() && app.figure("pending") == 0);
    let (before, peak) = (app.figure("before"), app.figure("peak"));
    assert!(peak - before < 32 * 1024, "{before} KiB before, {peak} at most");
    format!(
        "{mebibytes} MiB, {points} points in {took:.1} s, {:.1} MiB more memory at most",
        (peak - before) as f64 / 1024.0
    )
}
