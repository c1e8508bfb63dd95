//! OpenTSDB 2.4's own histograms: the value of a `histogram` line.
//!
//! `1,1.015625=3:1.03125,1.046875=12` is the buckets of the interval that hold something,
//! `lower,upper=count`. What the reader of the TSD (`HistogramDataPointRpc`, `SimpleHistogram`)
//! makes of it decides the rest:
//!
//! | there | here |
//! |---|---|
//! | a bound is a 32-bit float | a log bucket's edge has 6 bits of mantissa and is exact as one; values nearer to zero than 2^-126 share one bucket on their side of zero, zero is with the positive ones |
//! | a percentile is `(lower + upper) / 2` in 32 bits | values of 2^127 and above are counted in `o`, of -2^127 and below in `u`, which no percentile looks at |
//! | counts are added up in 32 bits | from 2^30 samples on, all counts are halved until they are fewer |
//! | buckets of several points are one only with the same bounds | buckets are merged in aligned groups of 2, 4, 8, …, all alike, so those of two points are the same, or one holds the other |
//! | a line has 1024 bytes | the groups are the smallest that fit: 40 to 80 buckets, so over three decades a percentile is at most 6 to 12.5 % off |
//! | a malformed bucket is taken silently | see the tests |

use crate::record::histogram::buckets::Bucket;
use crate::record::histogram::readout::Readout;

/// The bucket of the least magnitude that is normal in 32 bits, 2^-126.
const TINY: i32 = (1075 - 126) * 64;
/// The bucket of the least magnitude whose middle would not be finite in 32 bits, 2^127.
const HUGE: i32 = (1075 + 127) * 64;
/// Counts are halved until their sum has no bit from this one on.
const COUNT_BITS: u32 = 30;
/// Groups of so many bits of bucket are all there is: one of each sign.
const WIDEST: u32 = 17;

/// Appends the value of a line for the interval, at most `room` bytes; `false`, and nothing, when
/// there is no sample or no room.
pub(crate) fn write(readout: &Readout, room: usize, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    let fits = (0..=WIDEST).any(|bits| {
        to.truncate(start);
        write_groups(readout, bits, start + room, to)
    });
    if !fits {
        to.truncate(start);
    }
    fits && to.len() > start
}

/// Appends the buckets in groups of `1 << bits`; `false` as soon as there are more than `limit`
/// bytes.
fn write_groups(readout: &Readout, bits: u32, limit: usize, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    let halvings = u64::BITS - (readout.count >> COUNT_BITS).leading_zeros();
    let mut buckets = readout.buckets.iter().peekable();
    while let Some(&(bucket, mut count)) = buckets.next() {
        let group = Group::of(bucket, bits);
        while let Some(&(_, more)) = buckets.next_if(|(next, _)| Group::of(*next, bits) == group) {
            count = count.saturating_add(more);
        }
        if to.len() > start {
            to.push(b':');
        }
        group.write(bits, to);
        to.push(b'=');
        let count = (count >> halvings).max(1);
        to.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
        if to.len() > limit {
            return false;
        }
    }
    true
}

/// Neighbouring buckets that are sent as one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Below all bounds.
    Under,
    /// Negative, by the shifted bucket of the mirror.
    Negative(i32),
    /// Zero or positive, by the shifted bucket.
    Positive(i32),
    /// Above all bounds.
    Over,
}

impl Group {
    fn of(Bucket(index): Bucket, bits: u32) -> Self {
        match index {
            HUGE.. => Group::Over,
            0.. => Group::Positive(index.max(TINY - 1) >> bits),
            _ if !index >= HUGE => Group::Under,
            _ => Group::Negative((!index).max(TINY - 1) >> bits),
        }
    }

    fn write(self, bits: u32, to: &mut Vec<u8>) {
        let (group, sign) = match self {
            Group::Under => return to.push(b'u'),
            Group::Over => return to.push(b'o'),
            Group::Negative(group) => (group, -1.0),
            Group::Positive(group) => (group, 1.0),
        };
        let (inner, outer) = (edge(group << bits), edge((group + 1) << bits));
        let (lower, upper) = if sign < 0.0 { (-outer, -inner) } else { (inner, outer) };
        write_bound(lower, to);
        to.push(b',');
        write_bound(upper, to);
    }
}

/// As short as it can be: every byte is resolution.
fn write_bound(bound: f32, to: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    // Plus zero: -0.0 is another bound there.
    let digits = buffer.format_finite(bound + 0.0);
    to.extend_from_slice(digits.strip_suffix(".0").unwrap_or(digits).as_bytes());
}

/// The lower edge of a positive bucket, as far as bounds go.
fn edge(index: i32) -> f32 {
    match index {
        ..TINY => 0.0,
        TINY..HUGE => Bucket(index).edges().0 as f32,
        _ => 2f32.powi(127),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::record::histogram::cell::HistogramCell;
    use crate::record::locals::Take;
    use proptest::prelude::*;

    fn readout(samples: impl IntoIterator<Item = f64>) -> Readout {
        let (cell, mut readout) = (HistogramCell::default(), Readout::default());
        samples.into_iter().for_each(|sample| cell.record(sample));
        cell.collect(Take::Drain, &mut readout);
        readout
    }

    fn written(readout: &Readout, room: usize) -> Option<String> {
        let mut bytes = b"before ".to_vec();
        let fits = write(readout, room, &mut bytes);
        let text = String::from_utf8(bytes).unwrap().strip_prefix("before ").unwrap().to_owned();
        assert!(fits || text.is_empty());
        fits.then_some(text)
    }

    /// What a TSD reads, strictly: underflow, overflow, and buckets ascending without overlap.
    #[derive(Debug, Default, PartialEq)]
    struct Parsed {
        underflow: u64,
        overflow: u64,
        buckets: Vec<(f32, f32, u64)>,
    }

    fn parse(text: &str) -> Parsed {
        let mut parsed = Parsed::default();
        for word in text.split(':') {
            let (key, count) = word.split_once('=').unwrap();
            assert!(count.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
            let count = count.parse().unwrap();
            assert!(count > 0, "{text}");
            match key {
                "u" => parsed.underflow = count,
                "o" => parsed.overflow = count,
                _ => {
                    let (lower, upper) = key.split_once(',').unwrap();
                    let bounds = [lower, upper].map(|bound| bound.parse::<f32>().unwrap());
                    assert!(bounds[0] < bounds[1], "{text}");
                    assert!(((bounds[0] + bounds[1]) / 2.0).is_finite(), "{text}");
                    let minus_zero = |bound: &f32| bound.to_bits() == (-0f32).to_bits();
                    assert!(!bounds.iter().any(minus_zero) && !text.contains(' '), "{text}");
                    let above = parsed.buckets.last().is_none_or(|last| last.1 <= bounds[0]);
                    assert!(above, "{text}");
                    parsed.buckets.push((bounds[0], bounds[1], count));
                }
            }
        }
        parsed
    }

    #[test]
    fn samples_become_buckets() {
        let cases: &[(&[f64], &str)] = &[
            (&[1.0, 1.0], "1.0,1.015625=2"),
            (&[0.5, 300.0], "0.5,0.5078125=1:300.0,304.0=1"),
            (&[0.0, -0.0], "0.0,1.1754944e-38=2"),
            (&[-1.0, 5e-324], "-1.015625,-1.0=1:0.0,1.1754944e-38=1"),
            (&[-5e-324], "-1.1754944e-38,0.0=1"),
            (&[f64::MAX, f64::MIN, 2.0], "u=1:2.0,2.03125=1:o=1"),
        ];
        for &(samples, expected) in cases {
            let text = written(&readout(samples.iter().copied()), 900).unwrap();
            assert_eq!(parse(&text), parse(expected), "{text}");
        }
    }

    #[test]
    fn without_samples_there_is_no_line() {
        assert_eq!(written(&readout([]), 900), None);
    }

    #[test]
    fn three_decades_fit_into_a_line_and_keep_their_counts() {
        let samples = || (0..30_000).map(|k| 10f64.powf(f64::from(k) / 10_000.0));
        let text = written(&readout(samples()), 930).unwrap();
        let buckets = parse(&text).buckets;
        assert!((40..=80).contains(&buckets.len()), "{}", buckets.len());
        assert_eq!(buckets.iter().map(|&(.., n)| n).sum::<u64>(), 30_000);
        for &(lower, upper, n) in &buckets {
            let inside = |sample: &f64| f64::from(lower) <= *sample && *sample < f64::from(upper);
            assert_eq!(samples().filter(inside).count() as u64, n);
            assert!(f64::from(upper / lower) <= 1.25);
        }
    }

    #[test]
    fn more_than_a_tsd_can_add_up_is_halved() {
        let (cell, mut readout) = (HistogramCell::default(), Readout::default());
        cell.record_many(1.0, 1 << 40);
        cell.record_many(2.0, 3 << 40);
        cell.record(3.0);
        cell.collect(Take::Drain, &mut readout);
        let counts = parse(&written(&readout, 900).unwrap()).buckets;
        let counts: Vec<_> = counts.iter().map(|bucket| bucket.2).collect();
        assert_eq!((counts[1], counts[2]), (3 * counts[0], 1));
        assert!(counts.iter().sum::<u64>() <= i32::MAX as u64);
    }

    proptest! {
        #[test]
        fn any_samples_give_well_formed_buckets_that_fit(
            samples in proptest::collection::vec(proptest::num::f64::ANY, 1..300),
            room in 60usize..950,
        ) {
            let readout = readout(samples.iter().copied());
            let Some(text) = written(&readout, room) else {
                prop_assert_eq!(readout.count, 0);
                return Ok(());
            };
            prop_assert!(text.len() <= room);
            let parsed = parse(&text);
            let inside: u64 = parsed.buckets.iter().map(|bucket| bucket.2).sum();
            prop_assert_eq!(parsed.underflow + inside + parsed.overflow, readout.count);
        }

        #[test]
        fn buckets_of_two_points_are_nested_or_apart(
            one in proptest::collection::vec(-1e3..1e3, 1..200),
            other in proptest::collection::vec(-1e3..1e3, 1..200),
            rooms in (60usize..950, 60usize..950),
        ) {
            let one = parse(&written(&readout(one), rooms.0).unwrap()).buckets;
            let other = parse(&written(&readout(other), rooms.1).unwrap()).buckets;
            for a in &one {
                for b in &other {
                    let apart = a.1 <= b.0 || b.1 <= a.0;
                    let nested = (a.0 <= b.0 && b.1 <= a.1) || (b.0 <= a.0 && a.1 <= b.1);
                    prop_assert!(apart || nested, "{a:?} {b:?}");
                }
            }
        }
    }
}
