//! What is compared, each as its users would set it up.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Histogram, histogram, with_local_recorder};
use metrics_exporter_opentsdb::{
    ConnectivityCheck, HostTag, OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder,
};
use metrics_util::storage::{AtomicBucket, Summary};
use sketches_ddsketch::{Config, DDSketch};

/// Something that records samples and answers quantiles.
pub(crate) trait Peer {
    /// Records a sample, or returns false where this kind cannot hold it.
    fn record(&mut self, sample: f64) -> bool;
    /// The quantiles that it was made for.
    fn read(&mut self) -> Vec<f64>;
    /// Forgets all samples, where reading does not depend on it being empty.
    fn clear(&mut self) {}
    /// Another one, empty, that shares what one process has once.
    fn another(&self) -> Box<dyn Peer>;
}

pub(crate) struct Maker {
    pub(crate) name: &'static str,
    /// Makes one that answers these quantiles.
    pub(crate) make: fn(&[f64]) -> Box<dyn Peer>,
}

pub(crate) const MAKERS: &[Maker] = &[
    Maker { name: "this crate", make: |quantiles| Box::new(Ours::start(quantiles)) },
    Maker { name: "metrics-util `Summary`", make: |quantiles| Box::new(Summed::new(quantiles)) },
    Maker {
        name: "metrics-util `AtomicBucket`, sorted",
        make: |quantiles| Box::new(Sorted::new(quantiles)),
    },
    Maker { name: "hdrhistogram, 2 digits", make: |quantiles| Box::new(Hdr::new(quantiles)) },
    Maker { name: "sketches-ddsketch", make: |quantiles| Box::new(Sketch::new(quantiles)) },
];

/// A series of an exporter that sends nothing.
struct Ours {
    exporter: Arc<(OpenTsdbRecorder, OpenTsdbHandle)>,
    name: &'static str,
    /// How each quantile's line begins.
    prefixes: Vec<String>,
    histogram: Histogram,
}

impl Ours {
    fn start(quantiles: &[f64]) -> Self {
        let exporter = OpenTsdbBuilder::new("127.0.0.1")
            .with_connectivity_check(ConnectivityCheck::Off)
            .with_flush_interval(Duration::from_secs(86_400))
            .with_host_tag(HostTag::Value("a".into()))
            .with_telemetry(false)
            .set_quantiles(quantiles)
            .build();
        // `p999` is 0.999, and `p50` is 0.5.
        let digits = |q: &f64| q.to_string().split_off(2);
        let prefixes = quantiles.iter().map(|q| format!("put first.p{:0<2} ", digits(q)));
        Ours::named("first", Arc::new(exporter.expect("nothing is connected")), prefixes.collect())
    }

    fn named(
        name: &'static str,
        exporter: Arc<(OpenTsdbRecorder, OpenTsdbHandle)>,
        prefixes: Vec<String>,
    ) -> Self {
        let histogram = with_local_recorder(&exporter.0, || histogram!(name));
        Ours { exporter, name, prefixes, histogram }
    }
}

impl Peer for Ours {
    fn record(&mut self, sample: f64) -> bool {
        self.histogram.record(sample);
        true
    }

    fn read(&mut self) -> Vec<f64> {
        assert_eq!(self.name, "first");
        let text = self.exporter.1.render();
        let mut lines = text.lines();
        let value = |prefix: &String| {
            let line = lines.find(|line| line.starts_with(prefix)).expect("in this order");
            line.split(' ').nth(3).and_then(|word| word.parse().ok()).expect("a number")
        };
        self.prefixes.iter().map(value).collect()
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Ours::named("another", Arc::clone(&self.exporter), Vec::new()))
    }
}

/// What metrics-exporter-prometheus and others make summaries of.
struct Summed(Summary, Vec<f64>);

impl Summed {
    fn new(quantiles: &[f64]) -> Self {
        Summed(Summary::with_defaults(), quantiles.to_vec())
    }
}

impl Peer for Summed {
    fn record(&mut self, sample: f64) -> bool {
        self.0.add(sample);
        true
    }

    fn read(&mut self) -> Vec<f64> {
        self.1.iter().map(|&q| self.0.quantile(q).unwrap_or(f64::NAN)).collect()
    }

    fn clear(&mut self) {
        self.0 = Summary::with_defaults();
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Summed::new(&[]))
    }
}

/// All samples are kept, and sorted when they are read.
struct Sorted(AtomicBucket<f64>, Vec<f64>);

impl Sorted {
    fn new(quantiles: &[f64]) -> Self {
        Sorted(AtomicBucket::new(), quantiles.to_vec())
    }
}

impl Peer for Sorted {
    fn record(&mut self, sample: f64) -> bool {
        self.0.push(sample);
        true
    }

    fn read(&mut self) -> Vec<f64> {
        let mut samples = Vec::new();
        self.0.clear_with(|block| samples.extend_from_slice(block));
        samples.sort_unstable_by(f64::total_cmp);
        let rank = |q: f64| ((q * samples.len() as f64).ceil() as usize).clamp(1, samples.len());
        self.1.iter().map(|&q| samples[rank(q) - 1]).collect()
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Sorted::new(&[]))
    }
}

/// Whole numbers only: in millionths, as for a time in seconds. It cannot hold less than one of
/// them, nor negative samples.
struct Hdr(hdrhistogram::Histogram<u64>, Vec<f64>);

const MILLION: f64 = 1e6;

impl Hdr {
    fn new(quantiles: &[f64]) -> Self {
        let histogram = hdrhistogram::Histogram::new(2).expect("two digits are possible");
        Hdr(histogram, quantiles.to_vec())
    }
}

impl Peer for Hdr {
    fn record(&mut self, sample: f64) -> bool {
        let millionths = (sample * MILLION).round();
        let fits = sample == 0.0 || (1.0..1.8e19).contains(&millionths);
        fits && self.0.record(millionths as u64).is_ok()
    }

    fn read(&mut self) -> Vec<f64> {
        self.1.iter().map(|&q| self.0.value_at_quantile(q) as f64 / MILLION).collect()
    }

    fn clear(&mut self) {
        self.0.reset();
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Hdr::new(&[]))
    }
}

/// With its authors' defaults: 1 %, from a billionth on, in 2,048 bins.
struct Sketch(DDSketch, Vec<f64>);

impl Sketch {
    fn new(quantiles: &[f64]) -> Self {
        Sketch(DDSketch::new(Config::defaults()), quantiles.to_vec())
    }
}

impl Peer for Sketch {
    fn record(&mut self, sample: f64) -> bool {
        self.0.add(sample);
        true
    }

    fn read(&mut self) -> Vec<f64> {
        let quantile = |&q: &f64| self.0.quantile(q).ok().flatten().unwrap_or(f64::NAN);
        self.1.iter().map(quantile).collect()
    }

    fn clear(&mut self) {
        self.0 = DDSketch::new(Config::defaults());
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Sketch::new(&[]))
    }
}
