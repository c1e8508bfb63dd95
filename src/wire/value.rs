//! How a number is written.
//!
//! The forms that every server reads: integers `-?[0-9]{1,19}` within `i64`, floats with digits on both sides of the dot and an
//! exponent without a plus sign. Without the dot KairosDB takes `1e16` for an integer and drops it; a TSD refuses an integer above
//! `i64::MAX`. A float stays a float even when it is whole, since a TSD cannot read a row in which one series has both kinds at one
//! time.

/// A number to store: an integer or a float.
///
/// Made from any number with `into()`. An unsigned integer above `i64::MAX`, which no TSD takes, becomes the nearest float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Written without a dot.
    Integer(i64),
    /// Written with a dot, always; NaN and infinities cannot be sent.
    Float(f64),
}

impl Value {
    /// Whether there is a way to write it.
    pub(crate) fn is_finite(self) -> bool {
        match self {
            Value::Integer(_) => true,
            Value::Float(float) => float.is_finite(),
        }
    }

    /// Appends the shortest digits that read back as the same number.
    #[inline]
    pub(crate) fn write(self, to: &mut Vec<u8>) {
        match self {
            Value::Integer(integer) => {
                to.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
            }
            Value::Float(float) => write_float(float, to),
        }
    }
}

#[inline(never)]
fn write_float(float: f64, to: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format_finite(float).as_bytes();
    let exponent = digits.iter().position(|&byte| byte == b'e').unwrap_or(digits.len());
    let (mantissa, exponent) = digits.split_at(exponent);
    to.extend_from_slice(mantissa);
    if !mantissa.contains(&b'.') {
        to.extend_from_slice(b".0");
    }
    if let Some(exponent) = exponent.strip_prefix(b"e") {
        to.push(b'e');
        to.extend_from_slice(exponent.strip_prefix(b"+").unwrap_or(exponent));
    }
}

macro_rules! from_small_integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                Value::Integer(value.into())
            }
        }
    )*};
}

from_small_integers!(i8, i16, i32, i64, u8, u16, u32);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or_else(|_| Value::Float(value as f64), Value::Integer)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        (value as u64).into()
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Value::Float(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: impl Into<Value>) -> String {
        let mut bytes = Vec::new();
        value.into().write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// The form that every server reads, by hand: no regular expression needed for it.
    fn is_legal_float(text: &str) -> bool {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let Some((whole, fraction)) = mantissa.split_once('.') else { return false };
        let exponent = exponent.strip_prefix('-').unwrap_or(exponent);
        digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction) && digits(exponent)
    }

    #[test]
    fn a_number_has_one_form() {
        let cases: &[(Value, &str)] = &[
            (0u64.into(), "0"),
            ((i64::MAX as u64).into(), "9223372036854775807"),
            ((i64::MAX as u64 + 1).into(), "9.223372036854775808e18"),
            (u64::MAX.into(), "1.8446744073709552e19"),
            (i64::MIN.into(), "-9223372036854775808"),
            (1.0.into(), "1.0"),
            ((-0.0).into(), "-0.0"),
            (1e16.into(), "1.0e16"),
            (1e-7.into(), "1.0e-7"),
            (0.1.into(), "0.1"),
            (1.5f32.into(), "1.5"),
            (1e21.into(), "1.0e21"),
            (5e-324.into(), "5.0e-324"),
            (f64::MAX.into(), "1.7976931348623157e308"),
        ];
        for &(value, expected) in cases {
            // The digits of a float are compared as numbers: only their form is fixed, not how many of them there are.
            let text = written(value);
            match value {
                Value::Integer(_) => assert_eq!(text, expected),
                Value::Float(float) => {
                    assert!(is_legal_float(&text), "{text}");
                    assert_eq!(text.parse::<f64>().unwrap().to_bits(), float.to_bits(), "{text}");
                    assert_eq!(text.parse::<f64>().unwrap(), expected.parse::<f64>().unwrap());
                }
            }
        }
        assert_eq!(written(1.0), "1.0");
        assert_eq!(written(1e16), "1.0e16");
    }

    proptest! {
        #[test]
        fn any_finite_float_reads_back_bit_for_bit(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            let text = written(float);
            prop_assert!(is_legal_float(&text), "{}", text);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
