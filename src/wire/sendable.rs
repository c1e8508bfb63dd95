//! Whether a line that was kept elsewhere may be sent as it is.
//!
//! A file can be cut, damaged or planted: half a line is a point of its own to some servers, and
//! `diediedie` stops a TSD. So nothing is sent from one that this crate would not have made: a
//! `put` or `histogram` line of clean words, single spaces and numbers in the forms of
//! [`value`](super::value).

use super::line::LineRules;

impl LineRules {
    /// Whether these bytes are one line that may be sent, its line feed included.
    pub(crate) fn allow(&self, line: &[u8]) -> bool {
        let is_short = line.len() <= self.max_line;
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        text.is_some_and(|text| is_short && self.is_point(text))
    }

    fn is_point(&self, text: &str) -> bool {
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (command, metric, time, value) = (next(), next(), next(), next());
        let is_value = match command {
            "put" => is_integer(value) || is_float(value),
            "histogram" => self.has_histograms && is_histogram(value),
            _ => false,
        };
        let is_time = is_time(time) && (time.len() == 10 || self.has_millis);
        is_value && self.charset.is_clean(metric) && is_time && self.are_tags(words)
    }

    /// At least one, no more than it takes, each key once.
    fn are_tags<'a>(&self, tags: impl Iterator<Item = &'a str> + Clone) -> bool {
        let keys = tags.clone().map(|tag| tag.split('=').next());
        let is_tag = |(n, tag): (usize, &str)| {
            let (key, value) = tag.split_once('=').unwrap_or_default();
            let is_new = keys.clone().take(n).all(|other| other != Some(key));
            self.charset.is_clean(key) && self.charset.is_clean(value) && is_new
        };
        (1..=self.max_tags).contains(&tags.clone().count()) && tags.enumerate().all(is_tag)
    }
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Seconds or milliseconds.
fn is_time(text: &str) -> bool {
    are_digits(text) && matches!(text.len(), 10 | 13) && !text.starts_with('0')
}

fn is_integer(text: &str) -> bool {
    are_digits(text.strip_prefix('-').unwrap_or(text)) && text.parse::<i64>().is_ok()
}

/// With digits on both sides of the dot, and no plus.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or_default();
    are_digits(whole.strip_prefix('-').unwrap_or(whole))
        && are_digits(fraction)
        && are_digits(exponent.strip_prefix('-').unwrap_or(exponent))
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The characters that buckets are made of.
fn is_histogram(text: &str) -> bool {
    let is_of_buckets = |byte: u8| byte.is_ascii_digit() || b".,:=-euo".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_buckets)
}

#[cfg(test)]
mod tests {
    use super::super::charset::Charset;
    use super::super::line::{Lines, TSD_LINE, Variant};
    use super::super::series::Rules;
    use super::super::value::Value;
    use super::*;
    use proptest::prelude::*;

    const TSD: LineRules = LineRules {
        charset: Charset::Tsd,
        max_line: TSD_LINE,
        max_tags: 8,
        has_millis: true,
        has_histograms: true,
    };
    const LENIENT: LineRules = LineRules {
        charset: Charset::Unicode,
        max_line: 2 * TSD_LINE,
        max_tags: 8,
        has_millis: false,
        has_histograms: false,
    };

    #[test]
    fn only_whole_lines_of_points_may_be_sent() {
        let long = |n: usize| format!("put m 1700000000 1 host={}\n", "a".repeat(n - 25));
        assert!(TSD.allow(long(1024).as_bytes()) && !TSD.allow(long(1025).as_bytes()));
        for good in [
            "put m 1700000000 1 host=a\n",
            "put a.b/c-d_e 1700000000123 -9223372036854775808 host=a k=v\n",
            "put m 1700000000 1.8446744073709552e19 host=a\n",
            "put m 1700000000 -5.0e-324 host=a\n",
            "histogram m 1700000000 u=1:-1.5,2e9=3:o=2 host=a\n",
        ] {
            assert!(TSD.allow(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "\n",
            "put m 1700000000 1 host=a",
            "put m 1700000000 1 host=a\nput m 1700000000 2 host=a\n",
            "put m 1700000000 1 host=a\r\n",
            "ut m 1700000000 1 host=a\n",
            "put  1700000000 1 host=a\n",
            "put m 1700000000 1  host=a\n",
            "put m 1700000000 1 host=a \n",
            "put m 1700000000 1\n",
            "put m 1700000000 1 \n",
            "put m 1700000000 1 host=\n",
            "put m 1700000000 1 =a\n",
            "put m 1700000000 1 host\n",
            "put m 1700000000 1 host=a=b\n",
            "put m 1700000000 1 host=a host=b\n",
            "put m 1700000000 1 a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1\n",
            "put m 170000000 1 host=a\n",
            "put m 0170000000 1 host=a\n",
            "put m -170000000 1 host=a\n",
            "put m 1700000000 +1 host=a\n",
            "put m 1700000000 9223372036854775808 host=a\n",
            "put m 1700000000 1e16 host=a\n",
            "put m 1700000000 .5 host=a\n",
            "put m 1700000000 5. host=a\n",
            "put m 1700000000 1.5e+3 host=a\n",
            "put m 1700000000 NaN host=a\n",
            "put m 1700000000 1.0e999 host=a\n",
            "put m\u{e4} 1700000000 1 host=a\n",
            "histogram m 1700000000 x host=a\n",
            "histogram m 1700000000  host=a\n",
            "diediedie\n",
            "version\n",
            "put diediedie\n",
            "dropcaches\n",
        ] {
            assert!(!TSD.allow(bad.as_bytes()), "{bad:?}");
            assert!(bad.contains('\u{e4}') || !LENIENT.allow(bad.as_bytes()), "{bad:?}");
        }
        assert!(LENIENT.allow(b"put m 1700000000 1 host=a\n"));
        assert!(!LENIENT.allow(b"put m 1700000000123 1 host=a\n"), "it takes seconds alone");
        assert!(!LENIENT.allow(b"histogram m 1700000000 u=1:-1.5,2e9=3:o=2 host=a\n"));
        assert!(LENIENT.allow("put m\u{e4} 1700000000 1 host=a\n".as_bytes()));
        assert!(!LENIENT.allow(b"put m\xff 1700000000 1 host=a\n"));
    }

    proptest! {
        #[test]
        fn every_line_that_is_made_may_be_sent(
            name in ".{1,20}",
            tags in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..9),
            integer: i64,
            float: f64,
            time in 1_000_000_000..9_999_999_999u64,
        ) {
            let rules = Rules::of_a_test();
            let tags = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let line = rules.identify(&name, tags, None).line();
            for value in [Value::Integer(integer), Value::Float(float)] {
                let mut lines = Lines::new(Vec::new(), TSD_LINE);
                lines.set_time(time);
                if lines.push(line.line(), Variant::default(), value).is_ok() {
                    prop_assert!(TSD.allow(lines.bytes()), "{:?}", String::from_utf8_lossy(lines.bytes()));
                }
            }
        }
    }
}
