use std::collections::BTreeMap;

use super::model::is_line;
use crate::testing::parse;

/// What section 6 of the contract says a TSD finds first: how its reply begins.
fn first_fault(line: &[u8], most_tags: usize) -> Option<&'static str> {
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [_, metric, time, value, _, ..] = words[..] else {
        return Some("illegal argument: not enough arguments");
    };
    let tags = words[4..].iter().filter(|tag| !tag.is_empty());
    let tags: Vec<Vec<_>> = tags.map(|tag| tag.split(|&byte| byte == b'=').collect()).collect();
    let mut known = BTreeMap::new();
    let bad_tag = tags.iter().find_map(|tag| match tag[..] {
        [key, value] if !key.is_empty() && !value.is_empty() => {
            let is_other = known.insert(key, value).is_some_and(|other| other != value);
            is_other.then_some("illegal argument: duplicate tag: ")
        }
        _ => Some("illegal argument: invalid tag: "),
    });
    let text = String::from_utf8_lossy(value);
    let is_float = text.contains(['.', 'e', 'E']);
    let float = text.parse::<f64>().ok().filter(|_| is_float);
    let is_zero = time.iter().all(|byte| matches!(byte, b'0' | b'+'));
    // More than 13 digits, for C5.
    let is_late =
        String::from_utf8_lossy(time).parse().is_ok_and(|time: u64| time >= 10u64.pow(13));
    let faults = [
        (metric.is_empty(), "illegal argument: empty metric name"),
        (!is_integer(time), "invalid value: "),
        (is_zero || time.starts_with(b"-"), "illegal argument: invalid timestamp: "),
        (value.is_empty(), "illegal argument: empty value"),
        (bad_tag.is_some(), bad_tag.unwrap_or_default()),
        (float.is_none() && (is_float || !is_integer(value)), "invalid value: "),
        (float.is_some_and(f64::is_infinite), "illegal argument: value is NaN or Infinite: "),
        (is_late, "illegal argument: bad timestamp="),
        (known.is_empty(), "illegal argument: Need at least one tag "),
        (known.len() > most_tags, "illegal argument: Too many tags: "),
        (!is_name(metric), "illegal argument: Invalid metric name "),
    ];
    // The tags in the order in which they were sent, the key of each first.
    let parts = ["illegal argument: Invalid tag name ", "illegal argument: Invalid tag value "];
    let words = tags.iter().flat_map(|tag| tag.iter().zip(parts));
    let mut faults = faults.into_iter().chain(words.map(|(word, what)| (!is_name(word), what)));
    faults.find(|(is_there, _)| *is_there).map(|(_, what)| what)
}

/// Whether a TSD, which decodes ISO-8859-1 and takes the letters, takes the word.
fn is_name(word: &[u8]) -> bool {
    word.iter().all(|&byte| {
        char::from(byte).is_alphabetic() || byte.is_ascii_digit() || b"-_./".contains(&byte)
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
