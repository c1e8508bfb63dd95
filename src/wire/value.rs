//! How a number is written.
//!
//! The forms that every server reads: integers `-?[0-9]{1,19}` within `i64`, floats with digits on
//! both sides of the dot and an exponent without a plus sign. KairosDB takes `1e16` for an integer
//! and drops it; a TSD refuses an integer above `i64::MAX`. A float stays a float even when it is
//! whole, since a TSD cannot read a row in which one series has both kinds at one time.

/// A number to store: an integer or a float.
///
/// Made from any number with `into()`. An unsigned integer above `i64::MAX`, which no TSD takes,
/// becomes the nearest float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Written without a dot.
    Integer(i64),
    /// Written with a dot, always; NaN and infinities cannot be sent.
    Float(f64),
}

impl Value {
    /// The number as it is written; empty for NaN and infinities.
    pub(crate) fn to_text(self) -> String {
        let mut digits = [0; LONGEST_NUMBER];
        let length = self.write(&mut digits).unwrap_or_default();
        String::from_utf8_lossy(&digits[..length]).into_owned()
    }

    /// Writes the number to the front of `to`; returns how many bytes it takes, `None` for NaN and
    /// infinities. The bytes behind it have no meaning afterwards.
    #[inline(always)]
    pub(super) fn write(self, to: &mut [u8; LONGEST_NUMBER]) -> Option<usize> {
        match self {
            Value::Integer(value) => Some(write_parts(&[itoa::Buffer::new().format(value)], to)),
            Value::Float(value) if value.is_finite() => Some(write_float(value, to)),
            Value::Float(_) => None,
        }
    }
}

/// More than 17 digits, two signs, a dot, `e` and three digits of an exponent.
pub(super) const LONGEST_NUMBER: usize = 32;

/// Writes the shortest digits that read back as the same finite float, with a dot and without a
/// plus.
#[inline(never)]
fn write_float(value: f64, to: &mut [u8; LONGEST_NUMBER]) -> usize {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    // What has no exponent has its dot. To split the text at once takes three times as long.
    if !text.as_bytes().contains(&b'e') {
        return write_parts(&[text], to);
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    write_parts(&[mantissa, point, "e", exponent.trim_start_matches('+')], to)
}

fn write_parts(parts: &[&str], to: &mut [u8; LONGEST_NUMBER]) -> usize {
    let mut length = 0;
    for part in parts {
        to[length..length + part.len()].copy_from_slice(part.as_bytes());
        length += part.len();
    }
    length
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
        i64::try_from(value).map_or_else(|_| beyond_i64(value), Value::Integer)
    }
}

// Not inlined: otherwise the float is computed for each integer.
#[cold]
fn beyond_i64(value: u64) -> Value {
    Value::Float(value as f64)
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        (value as u64).into()
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Self {
        Value::Integer(value as i64)
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
        value.into().to_text()
    }

    /// Whether every server reads it.
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
            (7usize.into(), "7"),
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
            // Only the form of a float is fixed, not how many digits it has.
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
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(written), ["", "", ""]);
    }

    proptest! {
        #[test]
        fn any_integer_has_its_digits(value: i64, short: i32) {
            prop_assert_eq!(written(value), value.to_string());
            prop_assert_eq!(written(short), short.to_string());
        }

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
