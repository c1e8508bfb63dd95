//! What is compared, each as its users would set it up.

use crate::record::histogram::HistogramCell;
use crate::record::readout::{Readout, Take};
use metrics_util::storage::{AtomicBucket, Summary};
use sketches_ddsketch::{Config, DDSketch};

/// Something that samples are recorded in, and quantiles read from.
pub(crate) trait Peer {
    /// Records a sample; answers whether it can.
    fn record(&mut self, sample: f64) -> bool;
    fn read(&mut self, quantiles: &[f64]) -> Vec<f64>;
    /// Begins anew.
    fn clear(&mut self);
}

pub(crate) struct Maker {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> Box<dyn Peer>,
}

pub(crate) const MAKERS: &[Maker] = &[
    Maker { name: "this crate", make: || Box::new(Ours::default()) },
    Maker { name: "metrics-util `Summary`", make: || Box::new(Summed(Summary::with_defaults())) },
    Maker {
        name: "metrics-util `AtomicBucket`, sorted",
        make: || Box::new(Sorted(AtomicBucket::new())),
    },
    Maker { name: "hdrhistogram, 2 digits", make: || Box::new(Hdr::new()) },
    Maker {
        name: "sketches-ddsketch",
        make: || Box::new(Sketch(DDSketch::new(Config::defaults()))),
    },
];

/// A readout serves all histograms of a flush, so it is not part of one; it is left out of the bytes by growing at the first read.
#[derive(Default)]
struct Ours {
    cell: HistogramCell,
    readout: Readout,
}

impl Peer for Ours {
    fn record(&mut self, sample: f64) -> bool {
        self.cell.record(sample);
        true
    }

    fn read(&mut self, quantiles: &[f64]) -> Vec<f64> {
        self.cell.collect(Take::Drain, &mut self.readout);
        quantiles.iter().map(|&q| self.readout.quantile(q)).collect()
    }

    fn clear(&mut self) {}
}

/// What metrics-exporter-prometheus and others make summaries of.
struct Summed(Summary);

impl Peer for Summed {
    fn record(&mut self, sample: f64) -> bool {
        self.0.add(sample);
        true
    }

    fn read(&mut self, quantiles: &[f64]) -> Vec<f64> {
        quantiles.iter().map(|&q| self.0.quantile(q).unwrap_or(f64::NAN)).collect()
    }

    fn clear(&mut self) {
        self.0 = Summary::with_defaults();
    }
}

/// All samples are kept, and sorted when they are read.
struct Sorted(AtomicBucket<f64>);

impl Peer for Sorted {
    fn record(&mut self, sample: f64) -> bool {
        self.0.push(sample);
        true
    }

    fn read(&mut self, quantiles: &[f64]) -> Vec<f64> {
        let mut samples = Vec::new();
        self.0.clear_with(|block| samples.extend_from_slice(block));
        samples.sort_unstable_by(f64::total_cmp);
        let rank = |q: f64| ((q * samples.len() as f64).ceil() as usize).clamp(1, samples.len());
        quantiles.iter().map(|&q| samples[rank(q) - 1]).collect()
    }

    fn clear(&mut self) {}
}

/// Whole numbers only: in millionths, as of a time in seconds. What is less than one of them, or negative, has no place.
struct Hdr(hdrhistogram::Histogram<u64>);

const MILLION: f64 = 1e6;

impl Hdr {
    fn new() -> Self {
        Hdr(hdrhistogram::Histogram::new(2).expect("two digits are possible"))
    }
}

impl Peer for Hdr {
    fn record(&mut self, sample: f64) -> bool {
        let millionths = (sample * MILLION).round();
        let fits = sample == 0.0 || (1.0..1.8e19).contains(&millionths);
        fits && self.0.record(millionths as u64).is_ok()
    }

    fn read(&mut self, quantiles: &[f64]) -> Vec<f64> {
        quantiles.iter().map(|&q| self.0.value_at_quantile(q) as f64 / MILLION).collect()
    }

    fn clear(&mut self) {
        self.0.reset();
    }
}

/// As its authors set it up: 1 %, from a billionth on, in 2,048 bins.
struct Sketch(DDSketch);

impl Peer for Sketch {
    fn record(&mut self, sample: f64) -> bool {
        self.0.add(sample);
        true
    }

    fn read(&mut self, quantiles: &[f64]) -> Vec<f64> {
        let quantile = |&q: &f64| self.0.quantile(q).ok().flatten().unwrap_or(f64::NAN);
        quantiles.iter().map(quantile).collect()
    }

    fn clear(&mut self) {
        self.0 = DDSketch::new(Config::defaults());
    }
}
