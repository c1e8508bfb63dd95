//! The buckets of VictoriaMetrics' own histograms.
//!
//! Eighteen a decade from 1e-9 to 1e18, one for all below and one for all above; the tag `vmrange`
//! says `<lower>...<upper>` in the digits that its Go client prints
//! (github.com/VictoriaMetrics/metrics, `histogram.go`), so that series of both are one series to
//! `histogram_quantile` and `prometheus_buckets`. Its `+` is no character that a TSD takes: this is
//! for VictoriaMetrics alone.
//!
//! The lower edge is not part of a range and the upper one is. That is what the client documents;
//! its arithmetic puts the two outermost edges themselves, 1e-9 and 1e18, one range higher.
//! Negative values, which it leaves out, count as not above 1e-9, which is true.

use std::sync::Arc;

/// The exponents of the outermost edges.
const DECADES: std::ops::Range<i32> = -9..18;
/// Ranges of a decade.
const PER_DECADE: i32 = 18;

/// The edges, ascending; the ranges are between, below and above them.
pub(super) fn edges() -> Arc<[f64]> {
    let of_decade = |decade: i32| {
        // Powers of ten are exact, as the values that users record are.
        let base = format!("1e{decade}").parse().unwrap_or(f64::NAN);
        (0..PER_DECADE)
            .map(move |step| f64::powf(10.0, f64::from(step) / f64::from(PER_DECADE)) * base)
    };
    DECADES.flat_map(of_decade).chain([1e18]).collect()
}

/// The tag of each range: one more than there are edges.
pub(super) fn tags(edges: &[f64]) -> Vec<String> {
    let texts = || edges.iter().map(|&edge| text(edge));
    let lower = std::iter::once("0".to_owned()).chain(texts());
    let upper = texts().chain(["+Inf".to_owned()]);
    lower.zip(upper).map(|(lower, upper)| format!("vmrange={lower}...{upper}")).collect()
}

/// As Go's `%.3e`: a sign and two digits in the exponent.
fn text(edge: f64) -> String {
    let text = format!("{edge:.3e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_are_those_of_the_go_client() {
        // Its arithmetic: an edge is the one before times the eighteenth root of ten.
        let (mut value, root) = (1e-9, f64::powf(10.0, 1.0 / 18.0));
        let mut expected = vec!["vmrange=0...1.000e-09".to_owned()];
        for _ in 0..486 {
            let next = value * root;
            expected.push(format!("vmrange={}...{}", text(value), text(next)));
            value = next;
        }
        expected.push("vmrange=1.000e+18...+Inf".to_owned());
        assert_eq!(tags(&edges()), expected);
        // Copied from its tests and docs.
        for known in ["1.000e+00...1.136e+00", "8.799e-01...1.000e+00", "6.813e+00...7.743e+00"] {
            assert!(expected.contains(&format!("vmrange={known}")), "{known}");
        }
    }

    #[test]
    fn the_edges_ascend_and_powers_of_ten_are_exact() {
        let edges = edges();
        assert_eq!(edges.len(), 487);
        assert!(edges.is_sorted_by(|a, b| a < b));
        for (decade, edge) in (-9..=18).zip(edges.iter().step_by(18)) {
            assert_eq!(*edge, format!("1e{decade}").parse::<f64>().unwrap());
        }
    }
}
