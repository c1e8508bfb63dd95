//! Promises 2, 5 and 10 for long: an application with the series of a node_exporter dump through
//! faults by seed; its memory, threads and descriptors stay what they are, and the totals are
//! exact.
//!
//! A leak shows in the bytes that are allocated while nothing waits to be delivered. Resident
//! memory shows it too late: the system's allocator keeps what a backlog or an ended thread gave
//! back, and on a loaded machine backlogs are many. So it has a bound, and what is allocated may
//! not grow.

use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{Confirmation, Value};
use opentsdb_faults::rig::{PATIENCE, assert_law, builder};
use opentsdb_load::node_exporter;

use crate::Size;
use crate::app::{say, status};
use crate::child::{self, App};
use crate::live;
use crate::mixed::random_step;

/// The most that allocated memory may grow, in KiB for 10 minutes.
const SLOPE: f64 = 1024.0;
/// The most that may ever be resident, in KiB: of 3,000 series and the backlog of an outage.
const MOST_RESIDENT: u64 = 128 << 10;
/// How many threads there may be beside the lasting ones: the application's two that have just
/// ended, and a resolver for one query.
const PASSING_THREADS: u64 = 3;
/// How many descriptors there may be beside the lasting ones: a connection, and the eight that the
/// exporter keeps at most, for a minute each, when it has given them up.
const PASSING_DESCRIPTORS: u64 = 9;
/// Into how many windows of time the second half is divided, and how many of them must have a
/// moment at which nothing was pending.
const WINDOWS: usize = 30;
const FEWEST_WINDOWS: usize = 10;

/// `FAULTS_MINUTES`, or an hour.
pub(crate) fn run(size: Size) -> String {
    let minutes = std::env::var("FAULTS_MINUTES").ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = 60 * minutes.unwrap_or(60);
    let mut random = fastrand::Rng::with_seed(size.seed);
    let servers = [(); 2].map(|()| FakeTsd::builder().keep_lines(false).start());
    let addresses: Vec<_> = servers.iter().map(FakeTsd::address).collect();
    let time = seconds.to_string();
    let mut app = App::start(child::app(&["soak", &addresses[0], &addresses[1], time.as_str()]));
    let (end, mut faults) = (Instant::now() + Duration::from_secs(seconds), 0);
    app.await_word("started").expect("it has started");
    let (waiter, wait) = std::sync::mpsc::channel::<()>();
    while Instant::now() < end {
        let tsd = &servers[random.usize(0..servers.len())];
        tsd.script(random_step(&mut random));
        faults += 1;
        let _ = wait.recv_timeout(Duration::from_millis(random.u64(50..1_500)));
        if random.u8(0..3) == 0 {
            servers.iter().for_each(FakeTsd::heal);
        }
    }
    drop(waiter);
    servers.iter().for_each(FakeTsd::heal);
    app.await_word("settled").expect("it settles");
    let rendered = app.said["rendered"].clone();
    let lines = std::fs::read_to_string(&rendered).expect("it has written its values");
    let mut exact = 0;
    for line in lines.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let tags: Vec<_> = words[4..].iter().filter_map(|tag| tag.split_once('=')).collect();
        let of = |tsd: &FakeTsd| tsd.value(words[1], &tags);
        let values = servers.iter().filter_map(of);
        let is_exact = values.into_iter().any(|value| match value {
            Value::Integer(value) => value.to_string() == words[3],
            Value::Float(value) => words[3].parse() == Ok(value),
        });
        assert!(is_exact, "no server has {line}");
        exact += 1;
    }
    let (code, errors) = app.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:?}", app.said);
    let slope: f64 = app.said["slope"].parse().expect("a number");
    let counts =
        |what: &str| ["least", "late", "most"].map(|of| app.figure(&format!("{what}_{of}")));
    let (threads, descriptors) = (counts("threads"), counts("descriptors"));
    let windows = app.figure("windows") as usize;
    assert!(windows >= FEWEST_WINDOWS, "points were nearly always pending: {:?}", app.said);
    assert!(slope < SLOPE, "{slope} KiB in 10 minutes: {:?}", app.said);
    let resident = app.figure("resident_most");
    assert!(resident < MOST_RESIDENT, "{resident} KiB resident: {:?}", app.said);
    for ([least, late, most], lasting, passing) in
        [(threads, 0, PASSING_THREADS), (descriptors, 1, PASSING_DESCRIPTORS)]
    {
        assert!(late <= least + lasting && most <= least + passing, "{:?}", app.said);
    }
    format!(
        "{seconds} s, {faults} faults, {exact} series exact, {} points, {} KiB allocated, {slope:.0} more in 10 minutes, {} KiB resident, {resident} at the most, threads {threads:?}, descriptors {descriptors:?}",
        app.said["points"], app.said["allocated"], app.said["resident"]
    )
}

/// The application: records for so long, and says how its process has grown in the second half of
/// that.
pub(crate) fn application(first: &str, second: &str, seconds: u64) {
    const METADATA: Metadata<'static> = Metadata::new("soak", Level::INFO, None);
    let (recorder, handle) = builder(first, Confirmation::Auto)
        .add_endpoint(second)
        .with_flush_interval(Duration::from_secs(1))
        .with_queue_size(4_000_000)
        .build()
        .expect("no check");
    let corpus = node_exporter();
    let (counters, gauges): (Vec<_>, Vec<_>) = corpus.iter().partition(|series| series.is_counter);
    say("started", corpus.len());
    let (began, mut rounds) = (Instant::now(), 0_u64);
    // Large enough, so that it does not grow itself.
    let mut samples = Vec::with_capacity(seconds as usize);
    while began.elapsed() < Duration::from_secs(seconds) {
        // Threads come and go.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for series in &counters {
                    recorder.register_counter(&series.key(), &METADATA).increment(1);
                }
            });
            scope.spawn(|| {
                for series in &gauges {
                    recorder.register_gauge(&series.key(), &METADATA).set(rounds as f64);
                }
            });
            let time = Key::from_parts("soak_seconds", vec![Label::new("kind", "a b")]);
            recorder.register_histogram(&time, &METADATA).record(rounds as f64);
        });
        rounds += 1;
        let _ = handle.flush(Duration::from_millis(200));
        assert_law(&handle.stats());
        let at = began.elapsed().as_secs_f64();
        let last = samples.last().map_or(seconds as f64 / 2.0, |last: &Sample| last.at);
        if at - last > 1.0 {
            samples.push(Sample {
                at,
                allocated: (handle.stats().points_pending == 0).then(live::bytes),
                threads: status("Threads:"),
                descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64,
            });
        }
    }
    let quiet = least_of_windows(&samples, seconds as f64 / 2.0);
    say("windows", quiet.len());
    say("slope", 600.0 * slope(&quiet) / 1024.0);
    say("allocated", quiet.last().map_or(0.0, |last| last.1 / 1024.0).round());
    say("resident", status("VmRSS:"));
    say("resident_most", status("VmHWM:"));
    say_counts("threads", samples.iter().map(|sample| sample.threads));
    say_counts("descriptors", samples.iter().map(|sample| sample.descriptors));
    let end = Instant::now() + PATIENCE;
    while handle.flush(PATIENCE).expect("it runs").pending > 0 {
        assert!(Instant::now() < end, "{:?}", handle.stats());
    }
    let lines = handle.render();
    // Quantiles and extremes are those of an interval.
    let lines: Vec<_> = lines.lines().filter(|line| !line.contains("soak_seconds")).collect();
    let total = |kind: &str| {
        let values = lines.iter().filter(|line| line.contains(kind));
        let value = |line: &&&str| line.split(' ').nth(3).and_then(|text| text.parse::<u64>().ok());
        values.filter_map(|line| value(&line)).sum::<u64>()
    };
    assert_eq!(total("_total "), rounds * counters.len() as u64, "{rounds} rounds");
    let scratch = std::env::var_os("FAULTS_SCRATCH");
    let folder = scratch.map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let file = folder.join(format!("soak.{}", std::process::id()));
    std::fs::write(&file, lines.join("\n")).expect("a writable folder");
    let stats = handle.stats();
    assert_eq!((stats.points_dropped.total(), stats.restarts), (0, 0), "{stats:?}");
    say("points", stats.points_taken);
    say("rendered", file.display());
    say("settled", rounds);
    let report = handle.shutdown(PATIENCE).expect("the first");
    assert_eq!((report.pending, report.dropped), (0, 0), "{report:?}");
}

/// Says the least of all, the least of the last third, which a leak lifts, and the most.
fn say_counts(what: &str, counts: impl ExactSizeIterator<Item = u64> + Clone) {
    let late = counts.clone().skip(counts.len() * 2 / 3);
    say(&format!("{what}_least"), counts.clone().min().unwrap_or(0));
    say(&format!("{what}_late"), late.min().unwrap_or(0));
    say(&format!("{what}_most"), counts.max().unwrap_or(0));
}

/// The application at a moment.
struct Sample {
    /// Seconds since it began.
    at: f64,
    /// Bytes that are allocated; `None` while points are pending.
    allocated: Option<u64>,
    threads: u64,
    descriptors: u64,
}

/// Of each window of the second half in which nothing was pending for a moment: the least that was
/// allocated then, in bytes, and when. The least, since a snapshot may have begun a moment later.
fn least_of_windows(samples: &[Sample], half: f64) -> Vec<(f64, f64)> {
    let window = |at: f64| ((at - half) / half * WINDOWS as f64) as usize;
    let least = |of: &[Sample]| {
        let quiet = of.iter().filter_map(|sample| Some((sample.at, sample.allocated? as f64)));
        quiet.min_by(|left, right| left.1.total_cmp(&right.1))
    };
    let windows = samples.chunk_by(|left, right| window(left.at) == window(right.at));
    windows.filter_map(least).collect()
}

/// What is added a second, by least squares over points of time and value.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|it| it.0), mean(|it| it.1));
    let spread: f64 = points.iter().map(|it| (it.0 - time).powi(2)).sum();
    let product: f64 = points.iter().map(|it| (it.0 - time) * (it.1 - value)).sum();
    product / spread.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_no_growth_and_a_leak_is() {
        let samples = |leak: u64| -> Vec<_> {
            let sample = |second: u64| Sample {
                at: second as f64,
                allocated: (second % 7 != 0).then_some(1_000_000 + leak * second + second % 5),
                threads: 3,
                descriptors: 9,
            };
            (600..1_200).map(sample).collect()
        };
        for (leak, least, most) in [(0, -0.1, 0.1), (100, 99.0, 101.0)] {
            let quiet = least_of_windows(&samples(leak), 600.0);
            assert_eq!(quiet.len(), WINDOWS);
            assert!((least..most).contains(&slope(&quiet)), "{leak}: {}", slope(&quiet));
        }
    }

    #[test]
    fn a_window_in_which_points_were_always_pending_is_left_out() {
        let sample = |at, allocated| Sample { at, allocated, threads: 3, descriptors: 9 };
        let samples = [sample(600.0, Some(5)), sample(601.0, None), sample(650.0, None)];
        assert_eq!(least_of_windows(&samples, 600.0), [(600.0, 5.0)]);
    }
}
