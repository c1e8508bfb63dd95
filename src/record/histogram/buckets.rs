//! Which bucket a value falls into, and what a bucket stands for.
//!
//! **Problem.** A quantile within 1 % needs buckets whose width follows the value, over 617
//! decades, without a logarithm per sample.
//!
//! **Idea.** A float already is its logarithm: the exponent is the octave, and the top bits of the
//! mantissa cut it evenly. With six of them a bucket is at most 1/64 of its lower edge wide, and
//! its middle at most 1/128 = 0.78 % from any value inside.
//!
//! **Mechanism.** For a normal number the bits above the lower 46, with an offset, *are* the
//! bucket. A subnormal one is shifted up until its leading bit stands where a normal number has its
//! hidden one, so that it has octaves as well.
//!
//! | value | bucket |
//! |---|---|
//! | `±0.0` | 0 |
//! | `2^-1074 ..= MAX` | `64 * (octave + 1) + sixty-fourth of the octave`; the octave of `2^-1074` is 0 |
//! | negative | the complement (`!`) of its mirror's, so that the order of buckets is the order of values |
//! | NaN, infinities | none |
//!
//! Where the bounds are given by the user (or by VictoriaMetrics) no log bucket will do, since a
//! bound in its midst could not be answered exactly: there the bucket is the place of the value
//! among the bounds, found when the value is recorded.

use std::sync::Arc;

/// Buckets of an octave, as a power of two.
const SPLIT_BITS: u32 = 6;
/// Bits of a mantissa that tell values of one bucket apart.
const REST_BITS: u32 = f64::MANTISSA_DIGITS - 1 - SPLIT_BITS;
/// The sign of a float.
const SIGN: u64 = 1 << 63;
/// The bits of the least normal number.
const LEAST_NORMAL: u64 = 1 << (f64::MANTISSA_DIGITS - 1);
/// The bits of infinity.
const INFINITY: u64 = f64::INFINITY.to_bits();
/// What is added to the top bits of a normal number: 52 octaves of subnormal ones and one of zero
/// lie below, and the exponent of the least normal number is 1.
const OFFSET: i32 = 52 << SPLIT_BITS;

/// A bucket; ordered as the values in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket(pub(crate) i32);

impl Bucket {
    /// The log bucket of a value; `None` for NaN and infinities.
    #[inline]
    pub(crate) fn of(value: f64) -> Option<Self> {
        let magnitude = value.to_bits() & !SIGN;
        let index = if magnitude.wrapping_sub(LEAST_NORMAL) < INFINITY - LEAST_NORMAL {
            (magnitude >> REST_BITS) as i32 + OFFSET
        } else if magnitude >= INFINITY {
            return None;
        } else if magnitude == 0 {
            return Some(Bucket(0));
        } else {
            of_subnormal(magnitude)
        };
        Some(Bucket(if value.is_sign_negative() { !index } else { index }))
    }

    /// The value that stands for all in a log bucket: its middle.
    pub(crate) fn middle(self) -> f64 {
        let (low, width) = self.magnitudes();
        self.signed(low + width / 2)
    }

    /// The edges of a log bucket, the lower one first. Of a positive bucket the lower edge lies in
    /// it and the upper one does not; of a negative one it is the other way round. The outermost
    /// edges are infinite.
    pub(crate) fn edges(self) -> (f64, f64) {
        let (low, width) = self.magnitudes();
        let edges = (self.signed(low), self.signed(low + width));
        if self.0 < 0 { (edges.1, edges.0) } else { edges }
    }

    /// The bits of the inner edge without a sign, and how many bit patterns lie in the bucket.
    fn magnitudes(self) -> (u64, u64) {
        let index = if self.0 < 0 { !self.0 } else { self.0 };
        let leading = index >> SPLIT_BITS;
        let split = (index & ((1 << SPLIT_BITS) - 1)) as u64;
        if index == 0 {
            (0, 0)
        } else if leading > OFFSET >> SPLIT_BITS {
            (((index - OFFSET) as u64) << REST_BITS, 1 << REST_BITS)
        } else {
            // The octave of a subnormal number is the place of its leading bit.
            let octave = leading as u32 - 1;
            let bits = (1 << SPLIT_BITS) | split;
            match octave.checked_sub(SPLIT_BITS) {
                Some(up) => (bits << up, 1 << up),
                None => (bits >> (SPLIT_BITS - octave), 1),
            }
        }
    }

    fn signed(self, magnitude: u64) -> f64 {
        f64::from_bits(if self.0 < 0 { magnitude | SIGN } else { magnitude })
    }
}

#[cold]
fn of_subnormal(magnitude: u64) -> i32 {
    let octave = u64::BITS - 1 - magnitude.leading_zeros();
    // The leading bit goes to the place above the split, where it counts as 1 << SPLIT_BITS: the
    // octave of zero.
    let bits = match octave.checked_sub(SPLIT_BITS) {
        Some(down) => magnitude >> down,
        None => magnitude << (SPLIT_BITS - octave),
    };
    (octave << SPLIT_BITS) as i32 + bits as i32
}

/// How a histogram divides the values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scheme {
    /// By log buckets, counted anew from each drain on.
    Log,
    /// By upper bounds, each part of its bucket, finite and ascending; bucket `n` is all that is
    /// above the last of `n` bounds. Counted from the beginning on, since that is how they are
    /// sent.
    Bounds(Arc<[f64]>),
}

impl Scheme {
    /// The bucket of a value; `None` for NaN and infinities.
    #[inline]
    pub(crate) fn bucket(&self, value: f64) -> Option<Bucket> {
        match self {
            Scheme::Log => Bucket::of(value),
            Scheme::Bounds(bounds) => value
                .is_finite()
                .then(|| Bucket(bounds.partition_point(|&bound| bound < value) as i32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By definition instead of by bits: the octave by halving and doubling, the split by division.
    fn naive(value: f64) -> i32 {
        if value == 0.0 {
            return 0;
        }
        let (mut mantissa, mut exponent) = (value.abs(), 0);
        while mantissa >= 2.0 {
            (mantissa, exponent) = (mantissa / 2.0, exponent + 1);
        }
        while mantissa < 1.0 {
            (mantissa, exponent) = (mantissa * 2.0, exponent - 1);
        }
        let index = 64 * (exponent + 1074 + 1) + ((mantissa - 1.0) * 64.0).floor() as i32;
        if value < 0.0 { !index } else { index }
    }

    const EDGES: &[f64] = &[
        0.0,
        5e-324,
        1e-323,
        3.2e-322,
        1e-310,
        2.225_073_858_507_201e-308,
        f64::MIN_POSITIVE,
        1e-9,
        0.999_999_999_999_999_9,
        1.0,
        1.015_625,
        2.0,
        1e18,
        f64::MAX,
    ];

    fn check(value: f64) {
        let bucket = Bucket::of(value).unwrap();
        assert_eq!(bucket.0, naive(value), "{value:e}");
        let (lower, upper) = bucket.edges();
        assert!(lower <= value && value <= upper, "{lower:e} {value:e} {upper:e}");
        let error = (bucket.middle() - value).abs();
        assert!(error <= value.abs() / 128.0, "{value:e} is answered by {:e}", bucket.middle());
        assert_eq!(Bucket::of(-value).unwrap().middle().abs(), bucket.middle().abs());
    }

    #[test]
    fn the_edges_of_f64_have_buckets() {
        for &value in EDGES {
            check(value);
            check(-value);
            check(f64::from_bits(value.to_bits() + 1).min(f64::MAX));
        }
        assert_eq!(Bucket::of(-0.0), Bucket::of(0.0));
    }

    #[test]
    fn what_is_not_finite_has_none() {
        let bounds = Scheme::Bounds(Arc::from([1.0]));
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Bucket::of(value), None);
            assert_eq!(bounds.bucket(value), None);
        }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let scheme = Scheme::Bounds(Arc::from([-1.0, 0.5, 2.0]));
        let cases =
            [(-2.0, 0), (-1.0, 0), (0.0, 1), (0.5, 1), (0.500_000_1, 2), (2.0, 2), (9.0, 3)];
        for (value, bucket) in cases {
            assert_eq!(scheme.bucket(value), Some(Bucket(bucket)), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_near_the_middle_of_its_bucket(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            check(value);
        }

        #[test]
        fn buckets_are_ordered_as_values(a: f64, b: f64) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(Bucket::of(low) <= Bucket::of(high));
            prop_assert!(Bucket::of(low).unwrap().middle() <= Bucket::of(high).unwrap().middle());
        }
    }
}
