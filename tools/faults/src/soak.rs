//! Promises 2, 5 and 10 for long: an application with the series of a node_exporter dump through
//! faults by seed; its memory, threads and descriptors stay what they are, and the totals are exact.

use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{Confirmation, Value};
use opentsdb_faults::rig::{PATIENCE, assert_law, builder};
use opentsdb_load::node_exporter;

use crate::Size;
use crate::app::{say, status};
use crate::child::{self, App};
use crate::mixed::random_step;

/// The most that memory may grow, in KiB for 10 minutes.
const SLOPE: f64 = 1024.0;

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
    let same =
        |what: &str| (app.figure(&format!("{what}_least")), app.figure(&format!("{what}_most")));
    let (threads, descriptors) = (same("threads"), same("descriptors"));
    assert!(slope < SLOPE, "{slope} KiB in 10 minutes: {:?}", app.said);
    // A resolver for one query; a connection that was given up beside the one that took its place.
    assert!(threads.1 - threads.0 <= 1 && descriptors.1 - descriptors.0 <= 4, "{:?}", app.said);
    format!(
        "{seconds} s, {faults} faults, {exact} series exact, {} points, {slope:.0} KiB in 10 minutes, threads {threads:?}, descriptors {descriptors:?}",
        app.said["points"]
    )
}

/// The application: records for so long, and says how its process has grown in the second half of that.
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
    let mut samples: Vec<(f64, [u64; 3])> = Vec::new();
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
        if at > seconds as f64 / 2.0 && samples.last().is_none_or(|last| at - last.0 > 1.0) {
            let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64;
            samples.push((at, [status("VmRSS:"), status("Threads:"), descriptors]));
        }
    }
    say("slope", 600.0 * slope(&samples));
    for (at, name) in [(1, "threads"), (2, "descriptors")] {
        let of = samples.iter().map(|sample| sample.1[at]);
        say(&format!("{name}_least"), of.clone().min().unwrap_or(0));
        say(&format!("{name}_most"), of.max().unwrap_or(0));
    }
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

/// KiB a second, by least squares.
fn slope(samples: &[(f64, [u64; 3])]) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = |of: fn(&(f64, [u64; 3])) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, memory) = (mean(|it| it.0), mean(|it| it.1[0] as f64));
    let spread: f64 = samples.iter().map(|it| (it.0 - time).powi(2)).sum();
    let product: f64 = samples.iter().map(|it| (it.0 - time) * (it.1[0] as f64 - memory)).sum();
    product / spread.max(f64::MIN_POSITIVE)
}
