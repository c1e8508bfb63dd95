//! The calls that are measured, written as an application writes them.

use std::hint::black_box;
use std::sync::LazyLock;

use metrics::{
    Counter, Histogram, Key, Label, Level, Metadata, counter, gauge, histogram, with_recorder,
};

/// A call, done so many times.
pub type Run = fn(u64);

/// Something that an application does.
#[derive(Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    pub run: Run,
}

/// Values over three decades, as durations have them.
pub const SAMPLES: [f64; 8] = [0.0012, 0.0051, 0.018, 0.0034, 0.27, 0.044, 0.0097, 1.1];

/// Macro calls on counters.
pub const COUNTERS: &[Operation] = &[
    Operation { name: "counter! no label", run: counter_no_label },
    Operation { name: "counter! one label", run: counter_one_label },
    Operation { name: "counter! two labels", run: counter_two_labels },
    Operation { name: "counter! dynamic label", run: counter_dynamic_label },
    Operation { name: "gauge! two labels", run: gauge_two_labels },
];

/// Macro calls on histograms.
pub const HISTOGRAMS: &[Operation] =
    &[Operation { name: "histogram! two labels", run: histogram_two_labels }];

/// Updates of handles that were got once.
pub const HELD: &[Operation] = &[
    Operation { name: "held counter", run: held_counter },
    Operation { name: "held gauge", run: held_gauge },
    Operation { name: "held histogram", run: held_histogram },
];

/// The same of handles that threads share, as one in a `static` is.
pub const SHARED: &[Operation] = &[
    Operation { name: "held counter", run: shared_counter },
    Operation { name: "held histogram", run: shared_histogram },
];

/// All of them.
pub fn all() -> impl Iterator<Item = Operation> {
    COUNTERS.iter().chain(HISTOGRAMS).chain(HELD).copied()
}

pub fn counter_no_label(n: u64) {
    for _ in 0..n {
        counter!("requests").increment(black_box(1));
    }
}

fn counter_one_label(n: u64) {
    for _ in 0..n {
        counter!("requests", "method" => "get").increment(black_box(1));
    }
}

pub fn counter_two_labels(n: u64) {
    for _ in 0..n {
        counter!("requests", "method" => "get", "code" => "200").increment(black_box(1));
    }
}

/// Another metric, for a second thread.
pub fn counter_other(n: u64) {
    for _ in 0..n {
        counter!("responses", "method" => "get", "code" => "200").increment(black_box(1));
    }
}

fn counter_dynamic_label(n: u64) {
    for n in 0..n {
        let code = [200u16, 201, 304, 404, 500, 502, 503, 429][n as usize % 8];
        counter!("requests", "code" => black_box(code).to_string()).increment(black_box(1));
    }
}

fn gauge_two_labels(n: u64) {
    for _ in 0..n {
        gauge!("depth", "queue" => "in", "priority" => "high").set(black_box(1.5));
    }
}

pub fn histogram_two_labels(n: u64) {
    for n in 0..n {
        histogram!("latency", "method" => "get", "code" => "200")
            .record(black_box(SAMPLES[n as usize % SAMPLES.len()]));
    }
}

fn held_counter(n: u64) {
    let counter = counter!("held", "method" => "get");
    for _ in 0..n {
        counter.increment(black_box(1));
    }
}

fn shared_counter(n: u64) {
    static COUNTER: LazyLock<Counter> = LazyLock::new(|| counter!("shared", "method" => "get"));
    for _ in 0..n {
        COUNTER.increment(black_box(1));
    }
}

fn shared_histogram(n: u64) {
    static HISTOGRAM: LazyLock<Histogram> =
        LazyLock::new(|| histogram!("shared.latency", "method" => "get"));
    for n in 0..n {
        HISTOGRAM.record(black_box(SAMPLES[n as usize % SAMPLES.len()]));
    }
}

fn held_gauge(n: u64) {
    let gauge = gauge!("held.depth", "queue" => "in");
    for _ in 0..n {
        gauge.set(black_box(1.5));
    }
}

fn held_histogram(n: u64) {
    let histogram = histogram!("held.latency", "method" => "get");
    for n in 0..n {
        histogram.record(black_box(SAMPLES[n as usize % SAMPLES.len()]));
    }
}

/// The metadata that a macro makes.
pub static METADATA: Metadata<'static> = Metadata::new("bench", Level::INFO, None);

/// The key of one of many counters with two labels, as an application with many of them has.
pub fn key(n: usize) -> Key {
    const ROUTES: [&str; 4] = ["/cart", "/checkout", "/search", "/login"];
    let labels = vec![
        Label::from_static_parts("route", ROUTES[n % ROUTES.len()]),
        Label::new("shard", (n / ROUTES.len()).to_string()),
    ];
    Key::from_parts("requests.handled", labels)
}

/// The same with labels that are in the program, as those of a macro with literals are.
pub fn literal_key(n: usize) -> Key {
    let literal = |label: &Label| -> Label {
        let [key, value] = [label.key(), label.value()].map(|word| &*word.to_owned().leak());
        Label::from_static_parts(key, value)
    };
    let labels: Vec<Label> = key(n).labels().map(literal).collect();
    Key::from_static_parts("requests.handled", labels.leak())
}

/// A counter by its key.
pub fn counter_of(key: &Key) -> Counter {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA))
}
