//! What a histogram becomes on the wire.
//!
//! **Problem.** There are four ways to send a distribution, quantiles and bounds differ by metric,
//! and a flush of a hundred thousand histograms has no time to match names, format bounds or decide
//! anything.
//!
//! **Idea.** Everything that does not depend on the samples is made when the series is: a [`Plan`]
//! has the suffixes and tags as text. There is one for each different setting, shared by all series
//! that follow it.
//!
//! **Mechanism.** The builder's settings become [`Plans`], validated. [`Plans::plan`] matches a
//! metric's name once. The plan's [`spec`](Plan::spec) tells the cell how to count: where the
//! bounds are fixed, samples are counted by them as they are recorded, since no bucket of another
//! kind could be divided exactly later. At a flush [`Plan::digest`] keeps of a reading what the
//! lines will say, and [`Plan::lines`] hands them out.
//!
//! | | lines |
//! |---|---|
//! | `Summary` | `.count` `.sum`, and for an interval with samples `.min` `.max` and the quantiles in the order they were given |
//! | `Buckets` | `.bucket` with `le=` each bound and `le=Inf`, then `.count` `.sum`; all since the start |
//! | `VmRange` | `_bucket` with `vmrange=` each range that has samples, then `_count` `_sum`; all since the start |
//! | `Native` | a `histogram` line, for an interval with samples |

use std::fmt::Debug;
use std::sync::Arc;

use super::{native, vmrange};
use crate::error::BuildError;
use crate::record::histogram::HistogramSpec;
use crate::record::histogram::buckets::{Bucket, Scheme};
use crate::record::histogram::readout::Readout;
use crate::wire::charset::Charset;
use crate::wire::line::Variant;
use crate::wire::value::Value;

/// The quantiles of a [`Summary`](Distribution::Summary) when none are set.
const DEFAULT_QUANTILES: &[f64] = &[0.5, 0.95, 0.99];
/// The bounds of [`Buckets`](Distribution::Buckets) when none are set: those of the Prometheus
/// client libraries, made for the seconds that a request takes.
const DEFAULT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The most digits of a quantile: an `f64` near 1 has no more, and a name has to fit in a line.
const MAX_DIGITS: usize = 17;
/// The bucket of everything above the last bound; `+Inf`, as Prometheus has it, holds a character
/// that a TSD refuses.
const ABOVE_ALL: &str = "Inf";

/// How histograms are sent.
///
/// Whatever is chosen, a histogram keeps fixed memory, and its count and sum are exact.
///
/// | distribution | sends for `name` | accuracy |
/// |---|---|---|
/// | `Summary` | `name.count`, `name.sum` since the start; of the last interval `name.min`, `name.max`, `name.p50`, `name.p95`, `name.p99` | quantiles within 0.8 % |
/// | `Buckets` | `name.bucket` with the tag `le`, `name.count`, `name.sum`, all since the start | exact at each bound |
/// | `VmRange` | `name_bucket` with the tag `vmrange`, `name_count`, `name_sum`, all since the start | exact at each edge, 18 a decade |
/// | `Native` | a `histogram` line with the buckets of the last interval | as fine as fits in the 1024 bytes of a line |
///
/// How far off the quantiles are on data of many shapes, beside other crates, is in
/// `benches/NOTES.md` of the repository.
///
/// An interval without samples sends count and sum alone (`Summary`), or nothing (`Native`): a
/// minimum of nothing is no number.
///
/// The quantiles of `Summary` belong to one series and interval; no server can combine them to
/// those of two hosts or of a day. The others can be added up over hosts and time, at the price of
/// more lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// Count, sum, minimum, maximum and quantiles, told apart by suffixes. The default.
    ///
    /// Suffixes and not tags: a query that does not name a tag adds up or averages over it, and an
    /// average of quantiles means nothing.
    ///
    /// The suffix is `p` and the digits behind the quantile's point, at least two, so that no two
    /// quantiles share one:
    ///
    /// | quantile | 0 | 0.005 | 0.05 | 0.1 | 0.25 | 0.5 | 0.95 | 0.99 | 0.999 | 0.9999 | 1 |
    /// |---|---|---|---|---|---|---|---|---|---|---|---|
    /// | suffix | `.p0` | `.p005` | `.p05` | `.p10` | `.p25` | `.p50` | `.p95` | `.p99` | `.p999` | `.p9999` | `.p100` |
    #[default]
    Summary,
    /// How many samples were at most as large as each bound, as Prometheus counts them: `le=0.5`,
    /// `le=1.0`, and `le=Inf` for all.
    Buckets,
    /// The buckets of VictoriaMetrics' own client, for `histogram_quantile` and
    /// `prometheus_buckets` there.
    ///
    /// Only VictoriaMetrics takes it: the tag holds a `+`, as in `vmrange=1.000e+00...1.136e+00`.
    /// Negative values count in `0...1.000e-09`, so that the ranges add up to the count.
    VmRange,
    /// The `histogram` command of OpenTSDB 2.4 and later, which must have
    /// `tsd.core.histograms.config` set.
    ///
    /// A server computes percentiles from it with the middle of a bucket. Neighbouring buckets are
    /// merged until the line fits in 1024 bytes: values within one octave keep 0.8 %, over three
    /// decades it is 6 to 12.5 %. Only values between -2^127 and 2^127 enter a percentile.
    Native,
}

/// Which metrics a setting is for, by the name as it is sent: cleaned, and with the global prefix.
///
/// Where several match, `Full` wins over `Prefix` and `Prefix` over `Suffix`, a longer text over a
/// shorter one, and of equal matchers the one set last. Characters that cannot be sent are replaced
/// in the text as they are in the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matcher {
    /// The whole name.
    Full(String),
    /// How the name begins.
    Prefix(String),
    /// How the name ends.
    Suffix(String),
}

/// How well a matcher describes a name; the greater one wins.
pub(super) type Rank = (u8, usize);
/// The rank of a setting for all metrics.
const GENERAL: Rank = (0, 0);

impl Matcher {
    /// The rank of a match, `None` for no match.
    fn rank(&self, name: &str) -> Option<Rank> {
        let (precedence, text, is_match) = match self {
            Matcher::Full(text) => (3, text, name == text),
            Matcher::Prefix(text) => (2, text, name.starts_with(text.as_str())),
            Matcher::Suffix(text) => (1, text, name.ends_with(text.as_str())),
        };
        is_match.then_some((precedence, text.len()))
    }

    fn clean(&self, charset: Charset) -> Self {
        let mut matcher = self.clone();
        let (Matcher::Full(text) | Matcher::Prefix(text) | Matcher::Suffix(text)) = &mut matcher;
        // An empty prefix or suffix is one of every name.
        if !text.is_empty() {
            *text = charset.clean(text).into_owned();
        }
        matcher
    }
}

/// A setting for all metrics, and others for some of them, in the order in which they were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting<T, G = T> {
    pub(crate) general: G,
    pub(crate) special: Vec<(Matcher, T)>,
}

impl<T> Setting<T, Option<T>> {
    /// What `make` makes of the values, or what to change in one. The names are those of the
    /// methods that set them, for all metrics and for some.
    fn make<U>(
        &self,
        (general, special): (&'static str, &'static str),
        default: &T,
        charset: Charset,
        make: impl Fn(&T) -> Result<U, String>,
    ) -> Result<Setting<U>, BuildError>
    where
        T: Debug,
    {
        let make =
            |option, value: &T| make(value).map_err(|fix| BuildError::invalid(option, value, fix));
        let specials = self.special.iter().map(|(matcher, value)| {
            make(special, value).map(|made| (matcher.clean(charset), made))
        });
        Ok(Setting {
            special: specials.collect::<Result<_, _>>()?,
            general: make(general, self.general.as_ref().unwrap_or(default))?,
        })
    }
}

impl<T, G> Setting<T, G> {
    /// The value whose matcher describes the name best, of equal ones the last.
    pub(super) fn special(&self, name: &str) -> Option<(Rank, &T)> {
        let special = self.special.iter();
        let special = special.filter_map(|(matcher, value)| Some((matcher.rank(name)?, value)));
        special.max_by_key(|&(rank, _)| rank)
    }

    /// With the texts of the matchers as they are in names.
    pub(crate) fn cleaned(mut self, charset: Charset) -> Self {
        self.special.iter_mut().for_each(|(matcher, _)| *matcher = matcher.clean(charset));
        self
    }
}

impl<T> Setting<T> {
    fn best(&self, name: &str) -> (Rank, &T) {
        self.special(name).unwrap_or((GENERAL, &self.general))
    }
}

/// The settings of the builder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) distribution: Setting<Distribution, Option<Distribution>>,
    pub(crate) quantiles: Setting<Vec<f64>, Option<Vec<f64>>>,
    pub(crate) buckets: Setting<Vec<f64>, Option<Vec<f64>>>,
}

/// What every histogram becomes.
#[derive(Debug)]
pub(crate) struct Plans {
    kinds: Setting<Distribution>,
    summaries: Setting<Arc<Plan>>,
    buckets: Setting<Arc<Plan>>,
    vmrange: Arc<Plan>,
    native: Arc<Plan>,
}

impl Plans {
    /// The plans of these options, or what to change in them.
    pub(crate) fn new(options: &Options, charset: Charset) -> Result<Self, BuildError> {
        let Options { distribution, quantiles, buckets } = options;
        let implied = match buckets.general {
            Some(_) => Distribution::Buckets,
            None => Distribution::Summary,
        };
        Ok(Plans {
            kinds: distribution.make(
                ("set_distribution", "set_distribution_for_metric"),
                &implied,
                charset,
                |&kind| Ok(kind),
            )?,
            summaries: quantiles.make(
                ("set_quantiles", "set_quantiles_for_metric"),
                &DEFAULT_QUANTILES.to_vec(),
                charset,
                |quantiles| Plan::summary(quantiles).map(Arc::new),
            )?,
            buckets: buckets.make(
                ("set_buckets", "set_buckets_for_metric"),
                &DEFAULT_BUCKETS.to_vec(),
                charset,
                |bounds| Plan::buckets(bounds).map(Arc::new),
            )?,
            vmrange: Arc::new(Plan::vmrange()),
            native: Arc::new(Plan::Native),
        })
    }

    /// Whether any metric may be sent in this way.
    pub(crate) fn uses(&self, distribution: Distribution) -> bool {
        let by_bounds = distribution == Distribution::Buckets && !self.buckets.special.is_empty();
        by_bounds
            || self.kinds.general == distribution
            || self.kinds.special.iter().any(|(_, kind)| *kind == distribution)
    }

    /// The plan for a metric, by its name as it is sent.
    ///
    /// Quantiles or buckets that are set for a metric say how it is sent, unless a distribution is
    /// set for it by a matcher that describes it as well or better.
    pub(crate) fn plan(&self, name: &str) -> Arc<Plan> {
        let (quantiles, summary) = self.summaries.best(name);
        let (bounds, buckets) = self.buckets.best(name);
        let (rank, &kind) = self.kinds.best(name);
        let plan = match kind {
            _ if bounds > rank && bounds >= quantiles => buckets,
            _ if quantiles > rank => summary,
            Distribution::Summary => summary,
            Distribution::Buckets => buckets,
            Distribution::VmRange => &self.vmrange,
            Distribution::Native => &self.native,
        };
        Arc::clone(plan)
    }
}

/// How the histograms of some metrics are sent; made once.
#[derive(Debug)]
pub(crate) enum Plan {
    /// `.count`, `.sum`, `.min` and `.max`, then each quantile: their suffixes.
    Summary { quantiles: Vec<f64>, suffixes: Vec<String> },
    /// Buckets with fixed bounds.
    Buckets {
        bounds: Arc<[f64]>,
        /// The tag of each bucket, one more than there are bounds, and their key.
        tags: Vec<String>,
        key: &'static str,
        /// The suffixes of buckets, count and sum.
        suffixes: [&'static str; 3],
        /// Whether a bucket has the samples of those below it as well, and is sent when it has
        /// none.
        is_cumulative: bool,
    },
    /// A `histogram` line.
    Native,
}

impl Plan {
    fn summary(quantiles: &[f64]) -> Result<Self, String> {
        let mut suffixes = [".count", ".sum", ".min", ".max"].map(str::to_owned).to_vec();
        for (at, &quantile) in quantiles.iter().enumerate() {
            if !(0.0..=1.0).contains(&quantile) {
                return Err(format!("the quantile {quantile} is not a number from 0 to 1"));
            }
            if quantiles[..at].contains(&quantile) {
                return Err(format!("the quantile {quantile} is there twice"));
            }
            suffixes.push(suffix(quantile)?);
        }
        Ok(Plan::Summary { quantiles: quantiles.to_vec(), suffixes })
    }

    fn buckets(bounds: &[f64]) -> Result<Self, String> {
        if bounds.is_empty() {
            return Err("there is no bucket's bound".to_owned());
        }
        if let Some(bound) = bounds.iter().find(|bound| !bound.is_finite()) {
            return Err(format!(
                "the bucket's bound {bound} is not finite; the bucket above all bounds is always there"
            ));
        }
        if let Some(pair) = bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("the bucket's bound {} is not above {}", pair[1], pair[0]));
        }
        let texts = bounds.iter().map(|&bound| text(bound)).chain([ABOVE_ALL.to_owned()]);
        Ok(Plan::Buckets {
            bounds: bounds.into(),
            tags: texts.map(|text| format!("le={text}")).collect(),
            key: "le",
            suffixes: [".bucket", ".count", ".sum"],
            is_cumulative: true,
        })
    }

    fn vmrange() -> Self {
        let bounds = vmrange::edges();
        Plan::Buckets {
            tags: vmrange::tags(&bounds),
            bounds,
            key: "vmrange",
            suffixes: ["_bucket", "_count", "_sum"],
            is_cumulative: false,
        }
    }

    /// What the registration of such a histogram has to know: how its cell counts, the key of the
    /// tag that its lines have besides the series' own, and their suffixes.
    pub(crate) fn spec(&self) -> HistogramSpec {
        let (scheme, own_tag, suffixes) = match self {
            Plan::Summary { suffixes, .. } => (Scheme::Log, None, suffixes.clone()),
            Plan::Buckets { bounds, key, suffixes, .. } => {
                let suffixes = suffixes.map(str::to_owned).to_vec();
                (Scheme::Bounds(Arc::clone(bounds)), Some(*key), suffixes)
            }
            Plan::Native => (Scheme::Log, None, Vec::new()),
        };
        HistogramSpec { scheme, own_tag, suffixes }
    }

    /// Keeps of a reading what the lines will say. `room` is for the value of a `histogram` line,
    /// in bytes.
    pub(crate) fn digest(&self, readout: &Readout, room: usize, into: &mut Digest) {
        into.samples = readout.count;
        into.values.clear();
        into.values.extend([Value::from(readout.total_count), Value::Float(readout.total_sum)]);
        into.buckets.clear();
        into.native.clear();
        into.is_too_long = false;
        match self {
            Plan::Summary { quantiles, .. } if readout.count > 0 => {
                let quantiles = quantiles.iter().map(|&quantile| readout.quantile(quantile));
                let values = [readout.min, readout.max].into_iter().chain(quantiles);
                into.values.extend(values.map(Value::Float));
            }
            Plan::Buckets { tags, is_cumulative: true, .. } => {
                let mut found = readout.buckets.iter().peekable();
                let mut at_most = 0u64;
                into.buckets.extend((0..).zip(tags).map(|(at, _)| {
                    let more = found.next_if(|(next, _)| next.0 == at).map_or(0, |&(_, n)| n);
                    at_most = at_most.saturating_add(more);
                    (Bucket(at), at_most)
                }));
            }
            Plan::Buckets { .. } => into.buckets.extend_from_slice(&readout.buckets),
            Plan::Native if readout.count > 0 => {
                into.is_too_long = !native::write(readout, room, &mut into.native);
            }
            Plan::Summary { .. } | Plan::Native => {}
        }
    }

    /// Hands out the lines of a digest, in an order that is always the same.
    pub(crate) fn lines(&self, digest: &Digest, line: &mut impl FnMut(Variant<'_>, Value)) {
        match self {
            Plan::Summary { suffixes, .. } => {
                for (suffix, &value) in suffixes.iter().zip(&digest.values) {
                    line(Variant { suffix, tag: "" }, value);
                }
            }
            Plan::Buckets { tags, suffixes: [bucket, totals @ ..], .. } => {
                for &(Bucket(at), n) in &digest.buckets {
                    if let Some(tag) = tags.get(at as usize) {
                        line(Variant { suffix: bucket, tag }, n.into());
                    }
                }
                for (suffix, &value) in totals.iter().zip(&digest.values) {
                    line(Variant { suffix, tag: "" }, value);
                }
            }
            Plan::Native => {}
        }
    }
}

/// What is kept of a reading until its lines are made; reused.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    /// Samples of the interval.
    pub(crate) samples: u64,
    /// Count and sum since the start; minimum, maximum and quantiles of a `Summary`.
    values: Vec<Value>,
    /// What the lines of buckets say.
    buckets: Vec<(Bucket, u64)>,
    /// The value of a `histogram` line; empty for none.
    pub(crate) native: Vec<u8>,
    /// Whether there was no room for that value.
    pub(crate) is_too_long: bool,
}

/// `p` and the digits behind the point, at least two.
fn suffix(quantile: f64) -> Result<String, String> {
    // `Display` never writes an exponent.
    let text = quantile.to_string();
    match text.split_once('.') {
        None => Ok(if quantile == 1.0 { ".p100" } else { ".p0" }.to_owned()),
        Some((_, digits)) if digits.len() > MAX_DIGITS => {
            Err(format!("the quantile {quantile:e} has more than {MAX_DIGITS} digits"))
        }
        Some((_, digits)) => Ok(format!(".p{digits:0<2}")),
    }
}

/// A bound as any other float on the wire, whose characters are all legal in a tag.
fn text(bound: f64) -> String {
    // Plus zero: -0.0 is no other bound.
    Value::Float(bound + 0.0).to_text()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::record::histogram::cell::HistogramCell;
    use crate::record::locals::Take;
    use crate::wire::charset::Charset::Tsd;
    use proptest::prelude::*;

    fn general<T>(value: T) -> Setting<T, Option<T>> {
        Setting { general: Some(value), special: Vec::new() }
    }

    fn special<T>(special: Vec<(Matcher, T)>) -> Setting<T, Option<T>> {
        Setting { general: None, special }
    }

    fn plan(options: &Options, name: &str) -> Arc<Plan> {
        Plans::new(options, Tsd).unwrap().plan(name)
    }

    fn distribution(distribution: Distribution) -> Arc<Plan> {
        plan(&Options { distribution: general(distribution), ..Options::default() }, "m")
    }

    fn lines(plan: &Plan, readout: &Readout) -> Vec<String> {
        let (mut lines, mut digest) = (Vec::new(), Digest::default());
        plan.digest(readout, 100, &mut digest);
        plan.lines(&digest, &mut |variant, value| {
            let words = [variant.suffix, &value.to_text(), variant.tag];
            lines.push(words.join(" ").trim_end().to_owned());
        });
        lines
    }

    /// The lines of each interval.
    fn intervals(plan: &Plan, intervals: &[&[f64]]) -> Vec<Vec<String>> {
        let (cell, mut readout) = (HistogramCell::new(plan.spec().scheme), Readout::default());
        let of_interval = |samples: &&[f64]| {
            samples.iter().for_each(|&sample| cell.record(sample));
            cell.collect(Take::Drain, &mut readout);
            lines(plan, &readout)
        };
        intervals.iter().map(of_interval).collect()
    }

    #[test]
    fn a_summary_is_of_the_interval_and_its_count_and_sum_of_all_time() {
        let found = intervals(&distribution(Distribution::Summary), &[&[2.0, 4.0], &[], &[-8.0]]);
        assert_eq!(
            found[0],
            [".count 2", ".sum 6.0", ".min 2.0", ".max 4.0", ".p50 2.0", ".p95 4.0", ".p99 4.0"]
        );
        assert_eq!(found[1], [".count 2", ".sum 6.0"]);
        assert_eq!(
            found[2],
            [
                ".count 3",
                ".sum -2.0",
                ".min -8.0",
                ".max -8.0",
                ".p50 -8.0",
                ".p95 -8.0",
                ".p99 -8.0"
            ]
        );
    }

    #[test]
    fn buckets_are_cumulative_over_bounds_and_time() {
        let options =
            Options { buckets: general(vec![-1.0, 0.5, 1e-7 + 1.0]), ..Options::default() };
        let found = intervals(&plan(&options, "m"), &[&[0.5, 9.0], &[], &[-1.0]]);
        let tags = ["le=-1.0", "le=0.5", "le=1.0000001", "le=Inf"];
        for (found, (counts, count, sum)) in found.iter().zip([
            ([0, 1, 1, 2], 2, "9.5"),
            ([0, 1, 1, 2], 2, "9.5"),
            ([1, 2, 2, 3], 3, "8.5"),
        ]) {
            let mut expected: Vec<_> =
                counts.iter().zip(tags).map(|(n, tag)| format!(".bucket {n} {tag}")).collect();
            expected.extend([format!(".count {count}"), format!(".sum {sum}")]);
            assert_eq!(*found, expected);
        }
    }

    #[test]
    fn vmrange_shows_the_ranges_that_have_samples() {
        let samples: &[f64] = &[1.0, 1.0, 1.05, 0.0, -3.0, 1e18, 1e19, 1e-9];
        let found = intervals(&distribution(Distribution::VmRange), &[samples, &[1.0]]);
        assert_eq!(found[0][0], "_bucket 3 vmrange=0...1.000e-09");
        assert_eq!(found[0][1], "_bucket 2 vmrange=8.799e-01...1.000e+00");
        assert_eq!(found[0][2], "_bucket 1 vmrange=1.000e+00...1.136e+00");
        assert_eq!(found[0][3], "_bucket 1 vmrange=8.799e+17...1.000e+18");
        assert_eq!(found[0][4], "_bucket 1 vmrange=1.000e+18...+Inf");
        assert_eq!(found[0][5..], ["_count 8", "_sum 1.1e19"]);
        assert_eq!(found[1][1], "_bucket 3 vmrange=8.799e-01...1.000e+00");
    }

    #[test]
    fn a_native_histogram_has_a_line_of_its_own_for_an_interval_with_samples() {
        let native = distribution(Distribution::Native);
        assert_eq!(intervals(&native, &[&[1.0]]), [Vec::<String>::new()]);
        let (cell, mut readout, mut digest) =
            (HistogramCell::default(), Readout::default(), Digest::default());
        cell.record(1.0);
        cell.collect(Take::Drain, &mut readout);
        native.digest(&readout, 3, &mut digest);
        assert!(digest.is_too_long && digest.native.is_empty());
        native.digest(&readout, 99, &mut digest);
        assert!(!digest.is_too_long && digest.native.ends_with(b"=1"));
        distribution(Distribution::Summary).digest(&readout, 99, &mut digest);
        assert!(digest.native.is_empty());
        cell.collect(Take::Drain, &mut readout);
        native.digest(&readout, 99, &mut digest);
        assert!(!digest.is_too_long && digest.native.is_empty());
    }

    #[test]
    fn names_and_tags_of_the_lines_are_known_beforehand() {
        for (kind, key) in [
            (Distribution::Summary, None),
            (Distribution::Buckets, Some("le")),
            (Distribution::VmRange, Some("vmrange")),
            (Distribution::Native, None),
        ] {
            let plan = distribution(kind);
            let spec = plan.spec();
            assert_eq!(spec.own_tag, key);
            let mut known = spec.suffixes;
            for line in &intervals(&plan, &[&[1.0]])[0] {
                let words: Vec<_> = line.split(' ').collect();
                let tag = words.get(2).map(|tag| tag.split_once('=').unwrap().0);
                assert!(tag.is_none() || tag == key, "{line}");
                known.retain(|suffix| suffix != words[0]);
            }
            assert!(known.is_empty(), "no line is called {known:?}");
        }
    }

    #[test]
    fn the_matcher_that_describes_a_name_best_wins() {
        use Matcher::{Full, Prefix, Suffix};
        let options = Options {
            quantiles: special(vec![
                (Suffix("_seconds".into()), vec![0.1]),
                (Prefix("http.".into()), vec![0.2]),
                (Prefix("http.server.".into()), vec![0.3]),
                (Prefix("http.".into()), vec![0.4]),
                (Full("http.a_seconds".into()), vec![0.6]),
                (Full("größe".into()), vec![0.7]),
            ]),
            ..Options::default()
        };
        let rules = Plans::new(&options, Tsd).unwrap();
        for (name, suffix) in [
            ("db_seconds", ".p10"),
            ("http.b_seconds", ".p40"),
            ("http.server.x", ".p30"),
            ("http.a_seconds", ".p60"),
            ("gr__e", ".p70"),
            ("other", ".p50"),
        ] {
            let Plan::Summary { suffixes, .. } = &*rules.plan(name) else { panic!("{name}") };
            assert_eq!(suffixes[4], suffix, "{name}");
        }
        assert!(Arc::ptr_eq(&rules.plan("http.b"), &rules.plan("http.c")));
    }

    #[test]
    fn what_is_set_for_a_metric_says_how_it_is_sent() {
        let all = || Matcher::Prefix(String::new());
        let full = || Matcher::Full("m".into());
        let buckets = |bounds: &[f64]| general(bounds.to_vec());
        let cases = [
            (Options::default(), "summary"),
            (Options { buckets: buckets(&[1.0]), ..Options::default() }, "le=1.0"),
            (
                Options { distribution: general(Distribution::Buckets), ..Options::default() },
                "le=0.005",
            ),
            (
                Options {
                    buckets: buckets(&[1.0]),
                    distribution: general(Distribution::Summary),
                    ..Options::default()
                },
                "summary",
            ),
            (
                Options {
                    buckets: buckets(&[1.0]),
                    quantiles: special(vec![(full(), vec![0.5])]),
                    ..Options::default()
                },
                "summary",
            ),
            (
                Options {
                    distribution: special(vec![(all(), Distribution::Native)]),
                    ..Options::default()
                },
                "native",
            ),
            (
                Options {
                    distribution: special(vec![(all(), Distribution::Native)]),
                    buckets: special(vec![(full(), vec![2.0])]),
                    ..Options::default()
                },
                "le=2.0",
            ),
            (
                Options {
                    distribution: special(vec![(full(), Distribution::Native)]),
                    buckets: special(vec![(full(), vec![2.0])]),
                    ..Options::default()
                },
                "native",
            ),
        ];
        for (options, expected) in cases {
            let found = match &*plan(&options, "m") {
                Plan::Summary { .. } => "summary".to_owned(),
                Plan::Buckets { tags, .. } => tags[0].clone(),
                Plan::Native => "native".to_owned(),
            };
            assert_eq!(found, expected, "{options:?}");
        }
    }

    #[test]
    fn a_distribution_is_in_use_where_one_metric_may_be_sent_so() {
        use Distribution::{Buckets, Native, Summary, VmRange};
        let full = || Matcher::Full("m".into());
        let cases = [
            (Options::default(), &[Summary][..]),
            (Options { distribution: general(Native), ..Options::default() }, &[Native]),
            (Options { buckets: general(vec![1.0]), ..Options::default() }, &[Buckets]),
            (
                Options { buckets: special(vec![(full(), vec![1.0])]), ..Options::default() },
                &[Summary, Buckets],
            ),
            (
                Options { distribution: special(vec![(full(), VmRange)]), ..Options::default() },
                &[Summary, VmRange],
            ),
        ];
        for (options, expected) in cases {
            let plans = Plans::new(&options, Tsd).unwrap();
            let mut kinds = vec![Summary, Buckets, VmRange, Native];
            kinds.retain(|&kind| plans.uses(kind));
            assert_eq!(kinds, expected, "{options:?}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_words() {
        let quantiles: &[(&[f64], &str)] = &[
            (&[0.5, 1.5], "the quantile 1.5 is not a number from 0 to 1"),
            (&[-0.1], "the quantile -0.1 is not a number from 0 to 1"),
            (&[f64::NAN], "the quantile NaN is not a number from 0 to 1"),
            (&[0.5, 0.9, 0.5], "the quantile 0.5 is there twice"),
            (&[0.0, -0.0], "the quantile -0 is there twice"),
            (&[1e-20], "the quantile 1e-20 has more than 17 digits"),
        ];
        for (quantiles, expected) in quantiles {
            assert_eq!(Plan::summary(quantiles).unwrap_err(), *expected);
        }
        let bounds: &[(&[f64], &str)] = &[
            (&[], "there is no bucket's bound"),
            (&[1.0, 1.0], "the bucket's bound 1 is not above 1"),
            (&[2.0, 1.0], "the bucket's bound 1 is not above 2"),
            (&[-0.0, 0.0], "the bucket's bound 0 is not above -0"),
        ];
        for (bounds, expected) in bounds {
            assert_eq!(Plan::buckets(bounds).unwrap_err(), *expected);
        }
        for bound in [f64::NAN, f64::INFINITY] {
            assert!(Plan::buckets(&[1.0, bound]).unwrap_err().contains("not finite"));
        }
    }

    #[test]
    fn an_error_names_the_method_that_set_the_value() {
        let for_all = Setting { general: Some(vec![2.0]), special: Vec::new() };
        let for_some = special(vec![(Matcher::Full("m".into()), vec![2.0])]);
        for (quantiles, method) in
            [(for_all, "set_quantiles"), (for_some, "set_quantiles_for_metric")]
        {
            let options = Options { quantiles, ..Options::default() };
            let error = Plans::new(&options, Tsd).unwrap_err().to_string();
            let expected = format!("{method}([2.0]): the quantile 2 is not a number from 0 to 1");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_quantile_has_one_suffix() {
        for (quantile, expected) in [
            (0.0, ".p0"),
            (-0.0, ".p0"),
            (0.000_1, ".p0001"),
            (0.005, ".p005"),
            (0.05, ".p05"),
            (0.1, ".p10"),
            (0.25, ".p25"),
            (0.5, ".p50"),
            (0.95, ".p95"),
            (0.99, ".p99"),
            (0.999, ".p999"),
            (0.9999, ".p9999"),
            (0.12345678901234568, ".p12345678901234568"),
            (1.0, ".p100"),
        ] {
            assert_eq!(suffix(quantile).unwrap(), expected);
        }
    }

    #[test]
    fn tags_and_suffixes_are_legal_on_a_tsd() {
        let bounds = [-f64::MAX, -1.5, 5e-324, 1e-7, 1.0, 1e16, 1e300];
        let Plan::Buckets { tags, .. } = Plan::buckets(&bounds).unwrap() else { panic!() };
        assert!(tags.iter().all(|tag| Tsd.is_clean(tag.split_once('=').unwrap().1)), "{tags:?}");
        assert_eq!((text(0.0), text(-0.0)), ("0.0".into(), "0.0".into()));
    }

    proptest! {
        #[test]
        fn a_suffix_tells_its_quantile(quantile in 0.0f64..=1.0, digits in 0i32..6) {
            let scale = 10f64.powi(digits);
            for quantile in [quantile, (quantile * scale).round() / scale] {
                let Ok(suffix) = suffix(quantile) else { continue };
                prop_assert!(Tsd.is_clean(&suffix));
                let told: f64 = match &*suffix {
                    ".p0" => 0.0,
                    ".p100" => 1.0,
                    _ => format!("0.{}", &suffix[2..]).parse().unwrap(),
                };
                prop_assert_eq!(told, quantile);
            }
        }

        #[test]
        fn any_buckets_agree_with_counting(
            mut bounds in proptest::collection::vec(-10i32..10, 1..8),
            samples in proptest::collection::vec(-24i32..24, 0..60),
        ) {
            bounds.sort_unstable();
            bounds.dedup();
            let bounds: Vec<_> = bounds.into_iter().map(f64::from).collect();
            let samples: Vec<_> = samples.into_iter().map(|half| f64::from(half) / 2.0).collect();
            let found = intervals(&Plan::buckets(&bounds).unwrap(), &[&samples]);
            for (line, bound) in found[0].iter().zip(bounds.iter().chain([&f64::INFINITY])) {
                let naive = samples.iter().filter(|sample| *sample <= bound).count();
                prop_assert!(line.starts_with(&format!(".bucket {naive} ")), "{}", line);
            }
        }

        #[test]
        fn any_vmrange_agrees_with_counting(
            samples in proptest::collection::vec((-10.0..20.0).prop_map(|e| 10f64.powf(e)), 0..60),
        ) {
            let edges = vmrange::edges();
            let found = intervals(&distribution(Distribution::VmRange), &[&samples]);
            let mut expected = Vec::new();
            for (at, tag) in vmrange::tags(&edges).iter().enumerate() {
                let lower = at.checked_sub(1).map_or(f64::NEG_INFINITY, |below| edges[below]);
                let upper = edges.get(at).copied().unwrap_or(f64::INFINITY);
                let n = samples.iter().filter(|&&sample| lower < sample && sample <= upper).count();
                if n > 0 { expected.push(format!("_bucket {n} {tag}")) }
            }
            prop_assert_eq!(&found[0][..found[0].len() - 2], expected);
        }
    }
}
