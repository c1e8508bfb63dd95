//! The data sets of the unit tests of `src/record/histogram.rs`, and one of three decades that is
//! long.

/// Each with its name.
pub(crate) fn all() -> Vec<(&'static str, Vec<f64>)> {
    let bimodal = |p: f64| if p < 0.4 { 1e-4 * (1.0 + p) } else { 150.0 * (0.5 + p) };
    vec![
        ("lognormal", samples(|p| (2.0 * normal(p)).exp())),
        ("bimodal over six decades", samples(bimodal)),
        ("uniform", samples(|p| 1000.0 * p)),
        ("three decades", samples(|p| 10f64.powf(3.0 * p))),
        ("Pareto, index 0.8", samples(|p| (1.0 - p).powf(-1.0 / 0.8))),
        ("negative", samples(|p| -(normal(p).exp()))),
        ("mixed sign", samples(|p| 10.0 * normal(p))),
        ("with zeros", samples(|p| (p - 0.5).max(0.0))),
        ("constant", samples(|_| 0.1)),
        ("subnormal", samples(|p| 2e-308 * p.powi(8))),
        ("whole range", samples(|p| f64::from_bits(((p * 2046.9) as u64) << 52 | 12_345_678))),
    ]
}

/// A million of them.
pub(crate) fn three_decades() -> Vec<f64> {
    const N: usize = 1_000_003;
    let inverse = |k: usize| 10f64.powf(3.0 * ((k * 7919 % N) as f64 + 0.5) / N as f64);
    (0..N).map(inverse).collect()
}

/// Samples of a distribution: its inverse at many even steps, in a shuffled order.
fn samples(inverse: impl Fn(f64) -> f64) -> Vec<f64> {
    const N: usize = 20_011;
    // 7919 and N are prime: each step comes once.
    (0..N).map(|k| inverse(((k * 7919 % N) as f64 + 0.5) / N as f64)).collect()
}

/// A normal variate, near enough (Tukey's lambda of 0.1349).
fn normal(p: f64) -> f64 {
    5.06 * (p.powf(0.1349) - (1.0 - p).powf(0.1349))
}
