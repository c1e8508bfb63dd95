//! The sending side of `compat/run`: series whose every value is known, and a list of what a reader
//! must find afterwards.
//!
//! ```text
//! load ADDRESS [--flavor opentsdb] [--confirmation auto] [--compression off] [--prefix load] [--series 5000] [--corpus node_exporter] [--snapshots 4] [--raw 10000] [--instance off] [--until FILE | --quantiles vmrange | --quantiles native]
//! ```
//!
//! It takes `--snapshots` snapshots by hand and sends `--raw` raw points between them; or, with
//! `--until`, it flushes every second, and by hand in between, until that file is there; or, with
//! `--quantiles`, it sends one snapshot of histograms in that form. With `--instance auto` it is
//! one of several at once, and sends no series whose tags leave no room for one more. What it
//! prints:
//!
//! | line | a reader must find |
//! |---|---|
//! | `put NAME 1700000000 VALUE KEY=VALUE…` | this point |
//! | `put NAME #3 VALUE KEY=VALUE…` | this value at the time of the third snapshot, which is the same for all series |
//! | `put NAME last VALUE KEY=VALUE…` | this value at the newest time of the series |
//! | `quantile NAME 0.99 VALUE KEY=VALUE…` | this, within 15 %, from its own quantile function over the histogram |
//! | `stats points_taken=… …` | the exporter's own tally |
//! | `moment 1700000000.125 connects=… …` | nothing: with `--until`, the tally so far, ten times a second |
//!
//! A value `~12.5` is within 1 %, a value `*` is any. The exit status is 0 when nothing was left
//! pending or dropped.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};
use metrics_exporter_opentsdb::{
    Confirmation, Distribution, Flavor, HostTag, HttpCompression, InstanceTag, Matcher,
    OpenTsdbBuilder, OpenTsdbHandle, Point, RateLimit, SendError, Stats,
};

use opentsdb_load::node_exporter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Long enough for a server to start again.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two moments.
const MOMENT: Duration = Duration::from_millis(100);
/// The most bytes of a line, its line feed included: of a TSD and KairosDB, and of the others.
const LINE_LIMITS: [usize; 2] = [1024, 16 * 1024];

fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    let interval = if options.until.is_some() { 1 } else { interval_without_ticks() };
    let mut builder = OpenTsdbBuilder::new(&options.address)
        .with_flavor(options.flavor)
        .with_confirmation(options.confirmation)
        .with_http_compression(options.compression)
        .with_flush_interval(Duration::from_secs(interval))
        .with_rate_limit(RateLimit::Unlimited)
        .with_queue_size(2_000_000)
        .with_host_tag(HostTag::Value("load".into()))
        .with_instance_tag(options.instance.clone())
        .with_telemetry(false)
        .set_distribution_for_metric(
            Matcher::Full(format!("{}.buckets", options.prefix)),
            Distribution::Buckets,
        );
    if let Some(distribution) = options.quantiles {
        builder = builder.set_distribution(distribution);
    }
    let handle = builder.install()?;

    let mut out = BufWriter::new(std::io::stdout().lock());
    let started = Instant::now();
    match &options.until {
        None if options.quantiles.is_some() => send_quantiles(&options, &mut out)?,
        None => send_known(&options, &handle, &mut out)?,
        Some(file) => {
            let mut series = all_series(&options);
            let own = instance_tag(&handle);
            series.iter_mut().for_each(|one| one.tags += &own);
            send_until(file, &handle, &mut series, &mut out)?;
        }
    }
    let report = handle.shutdown(PATIENCE);
    let stats = handle.stats();
    writeln!(out, "stats prefix={} {}", options.prefix, tally(&stats))?;
    out.flush()?;

    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{}: {report:?} after {seconds:.1} s, {:.0} points/s",
        options.prefix,
        stats.points_confirmed as f64 / seconds
    );
    let clean = report.is_ok_and(|report| report.pending == 0)
        && stats.points_taken == stats.points_confirmed;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tag that this process has beside others of its kind, with a space before it; empty for the
/// first of them.
fn instance_tag(handle: &OpenTsdbHandle) -> String {
    let lines = handle.render();
    let mut words = lines.split_whitespace();
    words
        .find(|word| word.starts_with("instance="))
        .map(|tag| format!(" {tag}"))
        .unwrap_or_default()
}

/// A known number of snapshots with raw points between them, each flushed by hand; the last by the
/// shutdown that follows.
fn send_known(options: &Options, handle: &OpenTsdbHandle, out: &mut impl Write) -> Result<()> {
    let mut series = all_series(options);
    let mut raw = Raw::new(options);
    send_limits(options, handle, out)?;
    for snapshot in 1..=options.snapshots {
        for one in &mut series {
            one.update(snapshot);
            for line in one.expected(&format!("#{snapshot}"), true) {
                writeln!(out, "{line}")?;
            }
        }
        for _ in 0..raw.share(snapshot, options.snapshots) {
            raw.send(handle, out)?;
        }
        if snapshot < options.snapshots {
            let report = handle.flush(PATIENCE)?;
            if report.pending > 0 {
                return Err(format!("snapshot {snapshot} was not confirmed: {report:?}").into());
            }
        }
    }
    Ok(())
}

/// Updates every series some 200 times a second, while a flusher works by the clock and flushes by
/// hand fall into its seconds.
fn send_until(
    until: &Path,
    handle: &OpenTsdbHandle,
    series: &mut [Series],
    out: &mut impl Write,
) -> Result<()> {
    let (_never, tick) = std::sync::mpsc::channel::<()>();
    let mut by_hand = Instant::now();
    let mut told = Instant::now();
    for round in 1.. {
        series.iter_mut().for_each(|one| one.update(round));
        let _ = tick.recv_timeout(Duration::from_millis(5));
        if by_hand.elapsed() > Duration::from_millis(700) {
            // The deadline passes while the server is away: the points stay on their way.
            let _ = handle.flush(Duration::from_millis(20));
            by_hand = Instant::now();
        }
        if told.elapsed() > MOMENT {
            writeln!(out, "{}", moment(&handle.stats()))?;
            told = Instant::now();
        }
        if until.exists() {
            break;
        }
    }
    for one in series {
        for line in one.expected("last", false) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// One snapshot of histograms of very different sizes.
fn send_quantiles(options: &Options, out: &mut impl Write) -> Result<()> {
    for (size, scale) in [("small", 0.001), ("medium", 1.0), ("large", 1000.0)] {
        let name = format!("{}.histogram", options.prefix);
        let histogram = histogram!(name.clone(), "size" => size);
        (1..=1000).for_each(|sample| histogram.record(f64::from(sample) * scale));
        for quantile in [0.5, 0.9, 0.99] {
            let value = quantile * 1000.0 * scale;
            writeln!(out, "quantile {name} {quantile} {value} host=load size={size}")?;
        }
    }
    Ok(())
}

/// Raw points of just the longest line, one byte less and, refused, one byte more.
fn send_limits(options: &Options, handle: &OpenTsdbHandle, out: &mut impl Write) -> Result<()> {
    let limit = LINE_LIMITS[usize::from(To::Unicode.is_for(options.flavor))];
    for length in [limit - 1, limit, limit + 1] {
        let metric = format!("{}.limit", options.prefix);
        let timestamp = now();
        let empty = format!("put {metric} {timestamp} {length} a={length} b= host=load\n");
        let long = "x".repeat(length - empty.len());
        let point = Point::new(&metric, length as i64).tag("a", length.to_string()).tag("b", &long);
        match handle.send(point.timestamp(timestamp)) {
            Ok(()) if length <= limit => {
                writeln!(out, "put {metric} {timestamp} {length} a={length} b={long} host=load")?;
            }
            Err(SendError::TooLong) if length > limit => {}
            result => return Err(format!("a line of {length} bytes: {result:?}").into()),
        }
    }
    Ok(())
}

/// One key of the recorder, and what was recorded under it.
struct Series {
    name: String,
    /// The tags that must arrive, in any order.
    tags: String,
    /// Sets it apart from the others.
    number: u64,
    cell: Cell,
}

enum Cell {
    Counter {
        handle: Counter,
        total: u64,
    },
    /// Begins at `total` and moves in steps that a double can hold.
    Absolute {
        handle: Counter,
        total: u64,
        step: u64,
    },
    Gauge {
        handle: Gauge,
        value: f64,
        scale: f64,
    },
    Histogram {
        handle: Histogram,
        count: u64,
        sum: f64,
        last: [f64; 3],
    },
    Buckets {
        handle: Histogram,
        rounds: u64,
    },
}

impl Series {
    fn update(&mut self, round: u64) {
        match &mut self.cell {
            Cell::Counter { handle, total } => {
                *total += (self.number + 1) * round;
                handle.increment((self.number + 1) * round);
            }
            Cell::Absolute { handle, total, step } => {
                *total += *step;
                handle.absolute(*total);
            }
            Cell::Gauge { handle, value, scale } => {
                let sign = if self.number % 2 == 0 { 1.0 } else { -1.0 };
                *value = sign * *scale * (self.number as f64 * 0.1 + round as f64 / 3.0);
                handle.set(*value);
            }
            Cell::Histogram { handle, count, sum, last } => {
                // Halves and quarters: their sum is exact in any order.
                let low = self.number as f64 + round as f64 * 0.5;
                *last = [low, low + 100.25, low + 4000.75];
                last.iter().for_each(|sample| handle.record(*sample));
                *count += 3;
                *sum += last.iter().sum::<f64>();
            }
            Cell::Buckets { handle, rounds } => {
                *rounds += 1;
                BUCKET_SAMPLES.iter().for_each(|sample| handle.record(*sample));
            }
        }
    }

    /// What must be found now. A histogram's quantiles are known only of a snapshot that saw one
    /// update.
    fn expected(&self, at: &str, one_update: bool) -> Vec<String> {
        let Series { name, tags, .. } = self;
        let line = |suffix: &str, value: String| format!("put {name}{suffix} {at} {value} {tags}");
        match &self.cell {
            Cell::Counter { total, .. } | Cell::Absolute { total, .. } => {
                vec![line("", total.to_string())]
            }
            Cell::Gauge { value, .. } => vec![line("", format!("{value:?}"))],
            Cell::Histogram { count, sum, last: [low, middle, high], .. } => {
                let known = |value: String| if one_update { value } else { "*".into() };
                vec![
                    line(".count", count.to_string()),
                    line(".sum", format!("{sum:?}")),
                    line(".min", known(format!("{low:?}"))),
                    line(".max", known(format!("{high:?}"))),
                    line(".p50", known(format!("~{middle:?}"))),
                    line(".p95", known(format!("~{high:?}"))),
                    line(".p99", known(format!("~{high:?}"))),
                ]
            }
            Cell::Buckets { rounds, .. } => BUCKETS
                .iter()
                .map(|(bound, count)| {
                    format!("put {name}.bucket {at} {} le={bound} {tags}", count * rounds)
                })
                .chain([
                    line(".count", (rounds * BUCKET_SAMPLES.len() as u64).to_string()),
                    line(
                        ".sum",
                        format!("{:?}", *rounds as f64 * BUCKET_SAMPLES.iter().sum::<f64>()),
                    ),
                ])
                .collect(),
        }
    }
}

/// What a histogram in buckets records at each update …
const BUCKET_SAMPLES: [f64; 5] = [0.00390625, 0.5, 0.75, 7.5, 20.0];
/// … and how many of these are at most as large as each of the default bounds.
#[rustfmt::skip]
const BUCKETS: &[(&str, u64)] = &[
    ("0.005", 1), ("0.01", 1), ("0.025", 1), ("0.05", 1), ("0.1", 1), ("0.25", 1), ("0.5", 2), ("1.0", 3), ("2.5", 3), ("5.0", 3), ("10.0", 4), ("Inf", 5),
];

/// The series that each histogram becomes.
const LINES_OF_A_HISTOGRAM: usize = 7;
/// How many series share a name.
const SERIES_OF_A_NAME: usize = 100;

/// `--series` series as the server sees them: a fifth from histograms, three tenths gauges, the
/// awkward ones, counters the rest.
fn all_series(options: &Options) -> Vec<Series> {
    let mut all = if options.corpus { corpus(options) } else { Vec::new() };
    if options.series == 0 {
        return all;
    }
    if options.instance == InstanceTag::Off {
        all.extend(awkward_series(options));
    }
    let histograms = options.series / 5 / LINES_OF_A_HISTOGRAM;
    let gauges = options.series * 3 / 10;
    let counters =
        options.series.saturating_sub(all.len() + gauges + histograms * LINES_OF_A_HISTOGRAM);
    for (kind, amount) in [("counter", counters), ("gauge", gauges), ("histogram", histograms)] {
        for number in 0..amount {
            let name = format!("{}.{kind}.m{}", options.prefix, number / SERIES_OF_A_NAME);
            let id = format!("{}", number % SERIES_OF_A_NAME);
            let zone = ["eu-1", "us/2", "ap_3"][number % 3];
            let labels = vec![Label::new("zone", zone), Label::new("id", id.clone())];
            let tags = format!("host=load id={id} zone={zone}");
            let cell = match kind {
                "counter" => Cell::Counter { handle: counter!(name.clone(), labels), total: 0 },
                "gauge" => {
                    Cell::Gauge { handle: gauge!(name.clone(), labels), value: 0.0, scale: 1.0 }
                }
                _ => Cell::Histogram {
                    handle: histogram!(name.clone(), labels),
                    count: 0,
                    sum: 0.0,
                    last: [0.0; 3],
                },
            };
            all.push(Series { name, tags, number: number as u64, cell });
        }
    }
    all
}

/// The series of [`node_exporter`], with what becomes of their labels.
fn corpus(options: &Options) -> Vec<Series> {
    let takes_unicode = To::Unicode.is_for(options.flavor);
    let is_sent = |c: char| match takes_unicode {
        true => !" =\"".contains(c),
        false => c.is_ascii_alphanumeric() || "._/-".contains(c),
    };
    let clean = |text: &str| text.replace(|c| !is_sent(c), "_");
    // The host tag stays, and takes one of the eight places.
    let most = if To::EightTags.is_for(options.flavor) { 7 } else { usize::MAX };
    let series = |(number, series): (usize, opentsdb_load::Series)| {
        let tags = series.labels.iter().take(most);
        let tags: String = tags.map(|(key, value)| format!("{key}={} ", clean(value))).collect();
        let name = format!("{}.{}", options.prefix, series.name);
        let labels = series.labels.into_iter().map(|(key, value)| Label::new(key, value));
        let labels: Vec<_> = labels.collect();
        let cell = if series.is_counter {
            Cell::Counter { handle: counter!(name.clone(), labels), total: 0 }
        } else {
            Cell::Gauge { handle: gauge!(name.clone(), labels), value: 0.0, scale: 1.0 }
        };
        Series { name, tags: tags + "host=load", number: number as u64, cell }
    };
    node_exporter().into_iter().enumerate().map(series).collect()
}

/// A key that cannot be sent as it is, and what it becomes.
struct Awkward {
    to: To,
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// Name and tags on the wire.
    wire: &'static str,
}

/// The servers that a case is for.
#[derive(Clone, Copy)]
enum To {
    All,
    Ascii,
    Unicode,
    EightTags,
    ManyTags,
}

impl To {
    fn is_for(self, flavor: Flavor) -> bool {
        let takes_unicode = matches!(flavor, Flavor::VictoriaMetrics | Flavor::InfluxDb);
        match self {
            To::All => true,
            To::Unicode => takes_unicode,
            To::Ascii => !takes_unicode,
            To::EightTags => flavor == Flavor::OpenTsdb,
            To::ManyTags => flavor != Flavor::OpenTsdb,
        }
    }
}

/// The most that VictoriaMetrics takes.
const MANY_TAGS: usize = 29;
const EIGHT: &[(&str, &str)] = &[
    ("a", "1"),
    ("b", "2"),
    ("c", "3"),
    ("d", "4"),
    ("e", "5"),
    ("f", "6"),
    ("g", "7"),
    ("h", "8"),
];
const NINE: &[(&str, &str)] = &[
    ("a", "1"),
    ("b", "2"),
    ("c", "3"),
    ("d", "4"),
    ("e", "5"),
    ("f", "6"),
    ("g", "7"),
    ("h", "8"),
    ("i", "9"),
];

#[rustfmt::skip]
const AWKWARD: &[Awkward] = &[
    Awkward { to: To::All, name: "plain", labels: &[], wire: "plain host=load" },
    Awkward { to: To::All, name: "spaces in it", labels: &[("a key", "a value ")], wire: "spaces_in_it a_key=a_value_ host=load" },
    Awkward { to: To::All, name: "injected\nput x 1 1 a=b\n", labels: &[("k", "1\ndiediedie\n")], wire: "injected_put_x_1_1_a_b_ k=1_diediedie_ host=load" },
    Awkward { to: To::All, name: "equals=sign", labels: &[("k=1", "v=2")], wire: "equals_sign k_1=v_2 host=load" },
    Awkward { to: To::All, name: "control\0\r\t", labels: &[("k", "\u{7f}\u{85}\u{2028}")], wire: "control___ k=___ host=load" },
    Awkward { to: To::All, name: "empty", labels: &[("k", "")], wire: "empty k=_ host=load" },
    Awkward { to: To::All, name: "reserved", labels: &[("time", "1"), ("__name__", "x"), ("value", "2")], wire: "reserved time_=1 __name___=x value_=2 host=load" },
    Awkward { to: To::All, name: "own.host", labels: &[("host", "other")], wire: "own.host host=other" },
    Awkward { to: To::Ascii, name: "größe", labels: &[("stadt", "Köln (東京)"), ("a:b", "{c,d}*|#%\"")], wire: "gr__e stadt=K_ln_____ a_b=_c_d______ host=load" },
    Awkward { to: To::Unicode, name: "größe", labels: &[("stadt", "Köln (東京)"), ("a:b", "{c,d}*|#%\"")], wire: "größe stadt=Köln_(東京) a:b={c,d}*|#%_ host=load" },
    Awkward { to: To::EightTags, name: "tags.8", labels: EIGHT, wire: "tags.8 a=1 b=2 c=3 d=4 e=5 f=6 g=7 host=load" },
    Awkward { to: To::EightTags, name: "tags.9", labels: NINE, wire: "tags.9 a=1 b=2 c=3 d=4 e=5 f=6 g=7 host=load" },
    Awkward { to: To::ManyTags, name: "tags.8", labels: EIGHT, wire: "tags.8 a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8 host=load" },
    Awkward { to: To::ManyTags, name: "tags.9", labels: NINE, wire: "tags.9 a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8 i=9 host=load" },
];

/// Keys that need cleaning, and values at the ends of their range.
fn awkward_series(options: &Options) -> Vec<Series> {
    let mut all = Vec::new();
    for (number, case) in AWKWARD.iter().filter(|case| case.to.is_for(options.flavor)).enumerate() {
        let labels: Vec<_> =
            case.labels.iter().map(|(key, value)| Label::new(*key, *value)).collect();
        let handle = counter!(format!("{}.{}", options.prefix, case.name), labels);
        let (name, tags) = case.wire.split_once(' ').unwrap_or_default();
        let name = format!("{}.{name}", options.prefix);
        all.push(Series {
            name,
            tags: tags.into(),
            number: number as u64,
            cell: Cell::Counter { handle, total: 0 },
        });
    }
    if To::ManyTags.is_for(options.flavor) {
        let pairs: Vec<_> =
            (1..MANY_TAGS).map(|tag| (format!("t{tag}"), format!("v{tag}"))).collect();
        let name = format!("{}.tags.{MANY_TAGS}", options.prefix);
        let tags: String = pairs.iter().map(|(key, value)| format!("{key}={value} ")).collect();
        let labels: Vec<_> = pairs.into_iter().map(|(key, value)| Label::new(key, value)).collect();
        all.push(Series {
            name: name.clone(),
            tags: tags + "host=load",
            number: 0,
            cell: Cell::Counter { handle: counter!(name, labels), total: 0 },
        });
    }
    for (name, total, step) in [
        ("beyond.2.53", 1 << 53, 1),
        ("up.to.i64.max", i64::MAX as u64 - 100_000_000, 1),
        ("beyond.i64", 1 << 63, 1 << 12),
    ] {
        let name = format!("{}.{name}", options.prefix);
        let cell = Cell::Absolute { handle: counter!(name.clone()), total, step };
        all.push(Series { name, tags: "host=load".into(), number: 0, cell });
    }
    for (name, scale) in [("tiny", 1e-250), ("huge", 1e250)] {
        let name = format!("{}.{name}", options.prefix);
        let cell = Cell::Gauge { handle: gauge!(name.clone()), value: 0.0, scale };
        all.push(Series { name, tags: "host=load".into(), number: 0, cell });
    }
    let name = format!("{}.buckets", options.prefix);
    let cell = Cell::Buckets { handle: histogram!(name.clone()), rounds: 0 };
    all.push(Series { name, tags: "host=load".into(), number: 0, cell });
    all
}

/// Raw points with times of their own, whole numbers and fractions, over a hundred series.
struct Raw {
    metric: String,
    /// The time of each series' first point: long ago, so that it is not what a snapshot would
    /// choose.
    first: u64,
    sent: usize,
    amount: usize,
}

impl Raw {
    const SERIES: usize = 100;

    fn new(options: &Options) -> Raw {
        Raw {
            metric: format!("{}.raw", options.prefix),
            first: now() - 100_000,
            sent: 0,
            amount: options.raw,
        }
    }

    /// How many to send before this snapshot.
    fn share(&self, snapshot: u64, snapshots: u64) -> usize {
        self.amount * snapshot as usize / snapshots as usize - self.sent
    }

    fn send(&mut self, handle: &OpenTsdbHandle, out: &mut impl Write) -> Result<()> {
        let (id, step) = (self.sent % Self::SERIES, self.sent / Self::SERIES);
        let timestamp = self.first + step as u64;
        let metric = format!("{}.{}", self.metric, if id % 2 == 0 { "whole" } else { "fraction" });
        let point = if id % 2 == 0 {
            let value = 1000 * step as i64 - id as i64;
            writeln!(out, "put {metric} {timestamp} {value} host=load id={id}")?;
            Point::new(metric, value)
        } else {
            let value = step as f64 / 7.0 - id as f64;
            writeln!(out, "put {metric} {timestamp} {value:?} host=load id={id}")?;
            Point::new(metric, value)
        };
        handle.send(point.tag("id", id.to_string()).timestamp(timestamp))?;
        self.sent += 1;
        Ok(())
    }
}

fn tally(stats: &Stats) -> String {
    let (dropped, rejected) = (stats.points_dropped, stats.points_rejected);
    let mut text = String::new();
    for (name, value) in [
        ("points_taken", stats.points_taken),
        ("points_confirmed", stats.points_confirmed),
        ("points_pending", stats.points_pending),
        ("points_resent", stats.points_resent),
        ("dropped", dropped.total()),
        ("rejected", rejected.total()),
        ("illegal_argument", rejected.illegal_argument),
        ("invalid_value", rejected.invalid_value),
        ("unknown_metric", rejected.unknown_metric),
        ("storage", rejected.storage),
        ("throttled", rejected.throttled),
        ("unknown_command", rejected.unknown_command),
        ("other", rejected.other),
        ("bytes_sent", stats.bytes_sent),
        ("connects", stats.connects),
        ("connect_failures", stats.connect_failures),
        ("ticks_skipped", stats.ticks_skipped),
    ] {
        let _ = write!(text, "{name}={value} ");
    }
    let _ = write!(text, "confirmation={:?}", stats.confirmation);
    text
}

/// What of the tally tells how a server is treated that does not answer.
fn moment(stats: &Stats) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    format!(
        "moment {at:.3} connects={} points_confirmed={} points_resent={} oldest_pending={:.3}",
        stats.connects,
        stats.points_confirmed,
        stats.points_resent,
        stats.oldest_pending.unwrap_or_default().as_secs_f64(),
    )
}

/// An interval with no multiple in the next hour, so that snapshots are those by hand.
fn interval_without_ticks() -> u64 {
    let now = now();
    (60_000..=86_400).rev().find(|interval| interval - now % interval > 3600).unwrap_or(86_400)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Options {
    address: String,
    flavor: Flavor,
    confirmation: Confirmation,
    compression: HttpCompression,
    /// Begins every name.
    prefix: String,
    series: usize,
    /// Whether the series of [`node_exporter`] are sent too.
    corpus: bool,
    snapshots: u64,
    raw: usize,
    instance: InstanceTag,
    until: Option<PathBuf>,
    quantiles: Option<Distribution>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            address: args.next().ok_or("load ADDRESS [--flavor …] [--confirmation …] [--prefix …] [--series …] [--snapshots …] [--raw …] [--until FILE]")?,
            flavor: Flavor::OpenTsdb,
            confirmation: Confirmation::Auto,
            compression: HttpCompression::Gzip,
            prefix: "load".into(),
            series: 5000,
            corpus: false,
            snapshots: 4,
            raw: 10_000,
            instance: InstanceTag::Off,
            until: None,
            quantiles: None,
        };
        while let Some(option) = args.next() {
            let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
            match (option.as_str(), value.as_str()) {
                ("--flavor", "opentsdb") => options.flavor = Flavor::OpenTsdb,
                ("--flavor", "victoria") => options.flavor = Flavor::VictoriaMetrics,
                ("--flavor", "influxdb") => options.flavor = Flavor::InfluxDb,
                ("--flavor", "kairosdb") => options.flavor = Flavor::KairosDb,
                ("--confirmation", "auto") => options.confirmation = Confirmation::Auto,
                ("--confirmation", "version") => options.confirmation = Confirmation::Version,
                ("--confirmation", "half-close") => options.confirmation = Confirmation::HalfClose,
                ("--confirmation", "written") => options.confirmation = Confirmation::Written,
                ("--confirmation", "response") => options.confirmation = Confirmation::Response,
                ("--confirmation", "stored") => options.confirmation = Confirmation::Stored,
                ("--compression", "off") => options.compression = HttpCompression::Off,
                ("--quantiles", "vmrange") => options.quantiles = Some(Distribution::VmRange),
                ("--quantiles", "native") => options.quantiles = Some(Distribution::Native),
                ("--instance", "auto") => options.instance = InstanceTag::Auto,
                ("--corpus", "node_exporter") => options.corpus = true,
                ("--prefix", _) => options.prefix = value,
                ("--series", _) => options.series = value.parse()?,
                ("--snapshots", _) => options.snapshots = value.parse()?,
                ("--raw", _) => options.raw = value.parse()?,
                ("--until", _) => options.until = Some(value.into()),
                _ => return Err(format!("what is {option} {value}?").into()),
            }
        }
        Ok(options)
    }
}
