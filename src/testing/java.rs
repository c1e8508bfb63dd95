//! How Java reads numbers and prints maps, where a TSD's replies show it.

use super::parse::Tag;
use crate::wire::value::Value;

/// The text of bytes that a TSD decodes as ISO-8859-1.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes that a TSD, which decodes them as ISO-8859-1, allows in a name. A table, for a debug build spends most of its time on
/// this otherwise.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'/' => true,
            // `Character.isLetter` knows the letters beyond ASCII.
            0xaa | 0xb5 | 0xba | 0xc0..=0xd6 | 0xd8..=0xf6 | 0xf8..=0xff => true,
            _ => false,
        };
        byte += 1;
    }
    table
};

/// Whether a TSD allows the byte in a name.
pub(super) fn is_name(byte: u8) -> bool {
    NAME[usize::from(byte)]
}

/// `Tags.parseLong`, or the message of its `NumberFormatException`.
pub(super) fn parse_long(text: &[u8]) -> Result<i64, String> {
    let (digits, limit) = match text {
        [] => return Err("Empty string".into()),
        [b'+' | b'-'] => return Err(format!("Just a sign, no value: {}", latin1(text))),
        [b'-', digits @ ..] => (digits, i64::MIN.unsigned_abs()),
        [b'+', digits @ ..] => (digits, i64::MAX.unsigned_abs()),
        digits => (digits, i64::MAX.unsigned_abs()),
    };
    // 19 digits are at most 10^19 - 1, which u64 holds.
    if digits.len() > 19 {
        return Err(format!("Value too long: {}", latin1(text)));
    }
    let mut sum = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            let character = char::from(digit);
            return Err(format!("Invalid character '{character}' in {}", latin1(text)));
        }
        sum = sum * 10 + u64::from(digit - b'0');
    }
    match sum {
        sum if sum > limit => Err(format!("Overflow in {}", latin1(text))),
        sum if text[0] == b'-' => Ok(0i64.wrapping_sub_unsigned(sum)),
        sum => Ok(sum as i64),
    }
}

/// `Double.parseDouble` of decimal text, or the message of its `NumberFormatException`.
pub(super) fn parse_double(text: &[u8]) -> Result<f64, String> {
    let trimmed = text.trim_ascii();
    let number = match trimmed {
        [number @ .., b'f' | b'F' | b'd' | b'D'] => number,
        number => number,
    };
    if let Some(float) = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()) {
        return Ok(float);
    }
    let unsigned = trimmed.strip_prefix(b"-").or(trimmed.strip_prefix(b"+")).unwrap_or(trimmed);
    let mantissa = unsigned.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    Err(match mantissa.filter(|&&byte| byte == b'.').count() {
        0 | 1 => format!("For input string: \"{}\"", latin1(text)),
        _ => "multiple points".into(),
    })
}

/// The bytes that a TSD stores for a value, as Java prints them, and the flags beside them.
pub(super) fn stored(value: Value) -> (Vec<i8>, u8) {
    let signed = |bytes: &[u8]| bytes.iter().map(|&byte| byte as i8).collect::<Vec<_>>();
    let bytes = match value {
        Value::Integer(integer) => {
            let width = match integer {
                -0x80..=0x7f => 1,
                -0x8000..=0x7fff => 2,
                -0x8000_0000..=0x7fff_ffff => 4,
                _ => 8,
            };
            signed(&integer.to_be_bytes()[8 - width..])
        }
        Value::Float(float) if f64::from(float as f32) == float => {
            signed(&(float as f32).to_be_bytes())
        }
        Value::Float(float) => signed(&float.to_be_bytes()),
    };
    let is_float = matches!(value, Value::Float(_));
    let flags = bytes.len() as u8 - 1 + if is_float { 8 } else { 0 };
    (bytes, flags)
}

/// The tags in the order of a `HashMap<String, String>`.
pub(super) fn in_map_order<'a>(tags: &[Tag<'a>]) -> Vec<Tag<'a>> {
    let mut buckets = 16;
    while tags.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let bucket = |key: &[u8]| {
        let hash =
            key.iter().fold(0u32, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        (hash ^ (hash >> 16)) as usize % buckets
    };
    let mut tags = tags.to_vec();
    tags.sort_by_key(|(key, _)| bucket(key));
    tags
}

/// A `HashMap<String, String>` of the tags as Java prints it.
pub(super) fn map(tags: &[Tag<'_>]) -> String {
    let tags: Vec<_> = in_map_order(tags)
        .into_iter()
        .map(|(key, value)| format!("{}={}", latin1(key), latin1(value)))
        .collect();
    format!("{{{}}}", tags.join(", "))
}
