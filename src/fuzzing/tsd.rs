use std::collections::BTreeMap;

use super::model::is_line;
use crate::testing::parse;

/// What section 6 of the contract says a TSD finds first: how its reply begins.
fn first_fault(line: &[u8], most_tags: usize) -> Option<&'static str> {
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [_, metric, time, value, tags @ ..] = &words[..] else {
        return Some("illegal argument: not enough arguments");
    };
    let tags: Vec<_> = tags.iter().filter(|tag| !tag.is_empty()).collect();
    if words.len() < 5 {
        return Some("illegal argument: not enough arguments");
    }
    if metric.is_empty() {
        return Some("illegal argument: empty metric name");
    }
    if !is_integer(time) {
        return Some("invalid value: ");
    }
    if time.starts_with(b"-") || time.iter().all(|byte| matches!(byte, b'0' | b'+')) {
        return Some("illegal argument: invalid timestamp: ");
    }
    if value.is_empty() {
        return Some("illegal argument: empty value");
    }
    let mut known = BTreeMap::new();
    for tag in &tags {
        let parts: Vec<_> = tag.split(|&byte| byte == b'=').collect();
        let [key, value] = parts[..] else { return Some("illegal argument: invalid tag: ") };
        if key.is_empty() || value.is_empty() {
            return Some("illegal argument: invalid tag: ");
        }
        if known.insert(key, value).is_some_and(|other| other != value) {
            return Some("illegal argument: duplicate tag: ");
        }
    }
    let is_float = value.iter().any(|byte| b".eE".contains(byte));
    let float = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
    match float {
        _ if !is_float && !is_integer(value) => return Some("invalid value: "),
        None if is_float => return Some("invalid value: "),
        Some(float) if is_float && !float.is_finite() => {
            return Some("illegal argument: value is NaN or Infinite: ");
        }
        _ => {}
    }
    // More than 13 digits, for C5.
    if String::from_utf8_lossy(time).parse::<u64>().is_ok_and(|time| time > 9_999_999_999_999) {
        return Some("illegal argument: bad timestamp=");
    }
    if known.is_empty() {
        return Some("illegal argument: Need at least one tag ");
    }
    if known.len() > most_tags {
        return Some("illegal argument: Too many tags: ");
    }
    let is_bad = |word: &[u8]| {
        // A TSD decodes ISO-8859-1, and takes the letters.
        let is_name = |&byte: &u8| {
            char::from(byte).is_alphabetic() || byte.is_ascii_digit() || b"-_./".contains(&byte)
        };
        !word.iter().all(is_name)
    };
    if is_bad(metric) {
        return Some("illegal argument: Invalid metric name ");
    }
    // The tags in the order in which they were sent, the key of each first.
    let faults = tags.iter().flat_map(|tag| tag.split(|&byte| byte == b'=').enumerate());
    faults.into_iter().find(|(_, word)| is_bad(word)).map(|(at, _)| match at {
        0 => "illegal argument: Invalid tag name ",
        _ => "illegal argument: Invalid tag value ",
    })
}

/// Whether a TSD reads the digits as a `long`.
fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let is_long = std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok());
    is_long && digits.len() <= 19
}

/// The parser of `FakeTsd` refuses what a TSD refuses, for what it would find first.
pub fn fake_tsd(data: &[u8]) {
    let line = data.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let found = parse::put(line, Some(8));
    let text = String::from_utf8_lossy(line);
    match (&found, first_fault(line, 8)) {
        (Ok(_), None) => {}
        (Err(refusal), Some(expected)) => {
            assert!(refusal.starts_with(expected), "{text:?}: {refusal}, not {expected}");
        }
        (found, expected) => panic!("{text:?}: {found:?}, not {expected:?}"),
    }
    // Without rules all is taken that is a line, and a histogram is one whatever its buckets are.
    assert!(parse::put(line, None).is_ok() || found.is_err());
    let _ = parse::histogram(line, Some(8));
    if is_line(&[line, b"\n"].concat(), 8) {
        let is_finite = !matches!(&found, Err(refusal) if refusal.contains("value is NaN"));
        assert!(found.is_ok() || !is_finite, "{text:?}");
    }
}

/// Checks that a server with room for so many tags takes the line.
pub(super) fn assert_taken(line: &[u8], most_tags: usize) {
    let line = line.strip_suffix(b"\n").expect("a line feed");
    let put = parse::put(line, Some(most_tags));
    assert!(put.is_ok(), "{:?}: {put:?}", String::from_utf8_lossy(line));
}
