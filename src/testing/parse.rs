//! A line becomes a point, or the reply that a TSD would give.
//!
//! A test double that is kinder than the server hides bugs, so this parser is as strict as OpenTSDB
//! 2.4 and makes its checks in the same order (net.opentsdb.tsd.PutDataPointRpc, core.Tags,
//! core.IncomingDataPoints), with the same words up to where a client could tell. It shares nothing
//! with the exporter's encoder: two ends written by one hand agree on their mistakes too.
//!
//! Not imitated: times with a dot, hexadecimal floats and `1.5f`, which a TSD reads and this
//! refuses, and the texts of Java's own exceptions on numbers.

use std::fmt::Display;

use crate::wire::value::Value;

/// The most tags of a point and only the characters that a TSD takes; `None` for servers that take
/// any number and any character but a space.
pub(crate) type Rules = Option<usize>;

/// A line that was understood. Names and tags are as they were sent.
#[derive(Debug)]
pub(crate) struct Put<'a> {
    pub(crate) metric: &'a [u8],
    /// Seconds or milliseconds, as they were sent.
    pub(crate) time: u64,
    /// The value's text; of a histogram all of it.
    pub(crate) text: &'a [u8],
    /// `None` for a histogram.
    pub(crate) value: Option<Value>,
    /// Keys are unique.
    pub(crate) tags: Vec<Tag<'a>>,
}

/// A key and its value.
pub(crate) type Tag<'a> = (&'a [u8], &'a [u8]);

/// Why a line was refused: a TSD's reply without the command before it.
pub(crate) type Refusal = String;

/// Reads a `put` line, given without its line feed.
pub(crate) fn put<'a>(line: &'a [u8], rules: Rules) -> Result<Put<'a>, Refusal> {
    let (mut words, metric, time) = head(line, 4)?;
    let text = words.next().unwrap_or_default();
    if text.is_empty() {
        return illegal("empty value");
    }
    let tags = tags(words)?;
    let value = number(text, metric, time)?;
    if time > MAX_TIME {
        return illegal(format!("bad timestamp={time}"));
    }
    check_names(metric, &tags, rules)?;
    Ok(Put { metric, time, text, value: Some(value), tags })
}

/// Reads a `histogram` line. Of its value only that it is there is checked: a TSD answers a
/// malformed bucket with nothing.
pub(crate) fn histogram<'a>(line: &'a [u8], rules: Rules) -> Result<Put<'a>, Refusal> {
    let (mut words, metric, time) = head(line, 5)?;
    let mut text = words.next().unwrap_or_default();
    if std::str::from_utf8(text).is_ok_and(|text| text.parse::<i32>().is_ok()) {
        text = words.next().unwrap_or_default();
    }
    if text.is_empty() {
        return illegal("empty histogram value");
    }
    let tags = tags(words)?;
    check_names(metric, &tags, rules)?;
    Ok(Put { metric, time, text, value: None, tags })
}

/// The number that `text` is, which was accepted before.
pub(crate) fn accepted_number(text: &[u8]) -> Option<Value> {
    number(text, b"", 0).ok()
}

/// The largest time that a TSD takes: milliseconds of 13 digits.
const MAX_TIME: u64 = 9_999_999_999_999;

type Words<'a> = std::slice::Split<'a, u8, fn(&u8) -> bool>;

/// The words behind the timestamp, the metric and the timestamp; `claimed` is how many arguments
/// the reply says are needed.
fn head(line: &[u8], claimed: usize) -> Result<(Words<'_>, &[u8], u64), Refusal> {
    let is_space: fn(&u8) -> bool = |&byte| byte == b' ';
    let mut words = line.split(is_space);
    let [_, metric, time] = [(); 3].map(|()| words.next().unwrap_or_default());
    // A value and at least one tag have to follow.
    if words.clone().nth(1).is_none() {
        let given = line.split(is_space).count() - 1;
        return illegal(format!("not enough arguments (need least {claimed}, got {given})"));
    }
    if metric.is_empty() {
        return illegal("empty metric name");
    }
    match parse_long(time)? {
        time if time > 0 => Ok((words, metric, time.unsigned_abs())),
        time => illegal(format!("invalid timestamp: {time}")),
    }
}

fn tags<'a>(words: Words<'a>) -> Result<Vec<Tag<'a>>, Refusal> {
    let mut tags: Vec<Tag<'_>> = Vec::with_capacity(8);
    for word in words.filter(|word| !word.is_empty()) {
        let mut parts = word.split(|&byte| byte == b'=');
        let (key, value) = match (parts.next(), parts.next(), parts.next()) {
            (Some(key), Some(value), None) if !key.is_empty() && !value.is_empty() => (key, value),
            _ => return illegal(format!("invalid tag: {}", latin1(word))),
        };
        match tags.iter().find(|tag| tag.0 == key) {
            None => tags.push((key, value)),
            Some(tag) if tag.1 == value => {}
            Some(_) => {
                let (word, tags) = (latin1(word), map(&tags));
                return illegal(format!("duplicate tag: {word}, tags={tags}"));
            }
        }
    }
    Ok(tags)
}

fn number(text: &[u8], metric: &[u8], time: u64) -> Result<Value, Refusal> {
    if !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return parse_long(text).map(Value::Integer);
    }
    let float = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    let Some(float) = float else {
        return Err(format!("invalid value: For input string: \"{}\"", latin1(text)));
    };
    if float.is_infinite() {
        let sign = if float < 0.0 { "-" } else { "" };
        return illegal(format!(
            "value is NaN or Infinite: {sign}Infinity for metric={} timestamp={time}",
            latin1(metric)
        ));
    }
    Ok(Value::Float(float))
}

fn check_names(metric: &[u8], tags: &[Tag<'_>], rules: Rules) -> Result<(), Refusal> {
    let Some(most) = rules else { return Ok(()) };
    if tags.is_empty() {
        let metric = latin1(metric);
        return illegal(format!("Need at least one tag (metric={metric}, tags={{}})"));
    }
    if tags.len() > most {
        let (count, tags) = (tags.len(), map(tags));
        return illegal(format!("Too many tags: {count} maximum allowed: {most}, tags: {tags}"));
    }
    check_word(metric, || "metric name".into())?;
    for (key, value) in tags {
        check_word(key, || format!("tag name with value [{}]", latin1(value)))?;
        check_word(value, || format!("tag value with key [{}]", latin1(key)))?;
    }
    Ok(())
}

fn check_word(word: &[u8], what: impl Fn() -> String) -> Result<(), Refusal> {
    match word.iter().find(|&&byte| !is_name(byte)) {
        None => Ok(()),
        Some(&byte) => {
            let (word, character) = (latin1(word), char::from(byte));
            illegal(format!("Invalid {} (\"{word}\"): illegal character: {character}", what()))
        }
    }
}

/// `Tags.parseLong`, or what it says is wrong.
fn parse_long(text: &[u8]) -> Result<i64, Refusal> {
    let digits = text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text);
    if digits.is_empty() {
        return Err("invalid value: Empty string".into());
    }
    if digits.len() > 19 {
        return Err(format!("invalid value: Value too long: {}", latin1(text)));
    }
    if let Some(&strange) = digits.iter().find(|digit| !digit.is_ascii_digit()) {
        let strange = char::from(strange);
        return Err(format!("invalid value: Invalid character '{strange}' in {}", latin1(text)));
    }
    let integer = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    integer.ok_or_else(|| format!("invalid value: Overflow in {}", latin1(text)))
}

/// The tags as Java prints a map, but in the order in which they were sent.
fn map(tags: &[Tag<'_>]) -> String {
    let tag = |(key, value): &Tag<'_>| format!("{}={}", latin1(key), latin1(value));
    format!("{{{}}}", tags.iter().map(tag).collect::<Vec<_>>().join(", "))
}

/// The text of bytes that a TSD decodes as ISO-8859-1.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Whether a TSD, which decodes bytes as ISO-8859-1, allows the byte in a name.
/// `Character.isLetter` knows the letters beyond ASCII.
fn is_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/'
        | 0xaa | 0xb5 | 0xba | 0xc0..=0xd6 | 0xd8..=0xf6 | 0xf8..=0xff)
}

fn illegal<T>(text: impl Display) -> Result<T, Refusal> {
    Err(format!("illegal argument: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        line: &'static str,
        result: Expected,
    }

    #[derive(Debug)]
    enum Expected {
        Reply(&'static str),
        Value(Value),
    }

    use Expected::{Reply, Value as Is};
    use Value::{Float, Integer};

    /// In the order of a TSD's checks, and then what it takes.
    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { line: "put", result: Reply("put: illegal argument: not enough arguments (need least 4, got 0)") },
        Case { line: "put m 1700000000 1", result: Reply("put: illegal argument: not enough arguments (need least 4, got 3)") },
        Case { line: "put  0 x y", result: Reply("put: illegal argument: empty metric name") },
        Case { line: "put  1700000000 1 host=a", result: Reply("put: illegal argument: empty metric name") },
        Case { line: "put m abc 1 host", result: Reply("put: invalid value: Invalid character 'a' in abc") },
        Case { line: "put m  1 host=a", result: Reply("put: invalid value: Empty string") },
        Case { line: "put m - 1 host=a", result: Reply("put: invalid value: Empty string") },
        Case { line: "put m 0  host=a", result: Reply("put: illegal argument: invalid timestamp: 0") },
        Case { line: "put m -5 1 host=a", result: Reply("put: illegal argument: invalid timestamp: -5") },
        Case { line: "put m 1700000000  host", result: Reply("put: illegal argument: empty value") },
        Case { line: "put m 1700000000 x host", result: Reply("put: illegal argument: invalid tag: host") },
        Case { line: "put m 1700000000 1 host=", result: Reply("put: illegal argument: invalid tag: host=") },
        Case { line: "put m 1700000000 1 =a", result: Reply("put: illegal argument: invalid tag: =a") },
        Case { line: "put m 1700000000 1 host=a=b", result: Reply("put: illegal argument: invalid tag: host=a=b") },
        Case { line: "put m 1700000000 x host=a host=b", result: Reply("put: illegal argument: duplicate tag: host=b, tags={host=a}") },
        Case { line: "put m 1700000000 abc host=a", result: Reply("put: invalid value: Invalid character 'a' in abc") },
        Case { line: "put m 1700000000 NaN host=a", result: Reply("put: invalid value: Invalid character 'N' in NaN") },
        Case { line: "put m 1700000000 18446744073709551615 host=a", result: Reply("put: invalid value: Value too long: 18446744073709551615") },
        Case { line: "put m 1700000000 9223372036854775808 host=a", result: Reply("put: invalid value: Overflow in 9223372036854775808") },
        Case { line: "put m 1700000000 -9223372036854775809 host=a", result: Reply("put: invalid value: Overflow in -9223372036854775809") },
        Case { line: "put m 1700000000 1.2.3 host=a", result: Reply("put: invalid value: For input string: \"1.2.3\"") },
        Case { line: "put m 1700000000 1e5.5 host=a", result: Reply("put: invalid value: For input string: \"1e5.5\"") },
        Case { line: "put m 1700000000 1e host=a", result: Reply("put: invalid value: For input string: \"1e\"") },
        Case { line: "put m 1700000000 . host=a", result: Reply("put: invalid value: For input string: \".\"") },
        Case { line: "put m 1700000000 1e999 host=a", result: Reply("put: illegal argument: value is NaN or Infinite: Infinity for metric=m timestamp=1700000000") },
        Case { line: "put m 1700000000 -1e999 ho:st=a", result: Reply("put: illegal argument: value is NaN or Infinite: -Infinity for metric=m timestamp=1700000000") },
        Case { line: "put m 17000000000000 300 host=a", result: Reply("put: illegal argument: bad timestamp=17000000000000") },
        Case { line: "put m 1700000000 1 ", result: Reply("put: illegal argument: Need at least one tag (metric=m, tags={})") },
        Case { line: "put m 1700000000 1 t1=v1 t2=v2 t3=v3 t4=v4 t5=v5 t6=v6 t7=v7 t8=v8 t9=v9", result: Reply("put: illegal argument: Too many tags: 9 maximum allowed: 8, tags: {t1=v1, t2=v2, t3=v3, t4=v4, t5=v5, t6=v6, t7=v7, t8=v8, t9=v9}") },
        Case { line: "put a:b 1700000000 1 host=a:80", result: Reply("put: illegal argument: Invalid metric name (\"a:b\"): illegal character: :") },
        Case { line: "put m 1700000000 1 ho*st=a:80", result: Reply("put: illegal argument: Invalid tag name with value [a:80] (\"ho*st\"): illegal character: *") },
        Case { line: "put m 1700000000 1 host=a:80", result: Reply("put: illegal argument: Invalid tag value with key [host] (\"a:80\"): illegal character: :") },
        // 'ö' is 'Ã' and '¶' to a TSD; the first is a letter.
        Case { line: "put m\u{f6} 1700000000 1 host=a", result: Reply("put: illegal argument: Invalid metric name (\"m\u{c3}\u{b6}\"): illegal character: \u{b6}") },
        Case { line: "put m 1700000000 1 host=a\t", result: Reply("put: illegal argument: Invalid tag value with key [host] (\"a\t\"): illegal character: \t") },

        Case { line: "put m 1700000000 1 host=a", result: Is(Integer(1)) },
        Case { line: "put a.b_c/d-9 1700000000 -9223372036854775808 host=a", result: Is(Integer(i64::MIN)) },
        Case { line: "put m 1700000000 9223372036854775807 host=a", result: Is(Integer(i64::MAX)) },
        Case { line: "put m 1700000000 +5 host=a", result: Is(Integer(5)) },
        Case { line: "put m 1700000000123 1.0 host=a", result: Is(Float(1.0)) },
        Case { line: "put m 1700000000123 1e16 host=a", result: Is(Float(1e16)) },
        Case { line: "put m 1700000000 .5 host=a", result: Is(Float(0.5)) },
        Case { line: "put m 1700000000 -1.8446744073709552E19 host=a", result: Is(Float(-1.8446744073709552e19)) },
        Case { line: "put m 1700000000 1 host=a  host=a ", result: Is(Integer(1)) },
        // 'Ã' and 'ª' are letters.
        Case { line: "put \u{ea} 1700000000 1 host=a", result: Is(Integer(1)) },
        Case { line: "put m 1700000000 1 t1=v1 t2=v2 t3=v3 t4=v4 t5=v5 t6=v6 t7=v7 t8=v8", result: Is(Integer(1)) },
    ];

    const TSD: Rules = Some(8);

    #[test]
    fn a_line_is_what_a_tsd_takes_it_for() {
        for Case { line, result } in CASES {
            match (put(line.as_bytes(), TSD), result) {
                (Ok(put), Is(value)) => assert_eq!(put.value, Some(*value), "{line}"),
                (Err(refusal), Reply(reply)) => {
                    assert_eq!(format!("put: {refusal}"), *reply, "{line}");
                }
                (put, _) => panic!("{line}: {put:?} is not {result:?}"),
            }
        }
    }

    #[test]
    fn a_point_has_all_the_words_of_its_line() {
        let put = put(b"put m 1700000000 1 z=1 a=2 z=1", TSD).unwrap();
        assert_eq!((put.metric, put.time, put.text), (&b"m"[..], 1_700_000_000, &b"1"[..]));
        assert_eq!(put.tags, [(&b"z"[..], &b"1"[..]), (b"a", b"2")]);
    }

    #[test]
    fn other_servers_take_any_character_and_number_of_tags() {
        let any = None;
        let line = "put größe 1700000000 1 t1=ä t2=: t3=v t4=v t5=v t6=v t7=v t8=v t9=v";
        assert_eq!(put(line.as_bytes(), any).unwrap().tags.len(), 9);
        assert_eq!(put(b"put m 1700000000 1 ", any).unwrap().tags.len(), 0);
        assert!(put(b"put m 1700000000 x host=a", any).is_err());
    }

    #[test]
    fn a_histogram_may_name_its_codec() {
        for line in
            ["histogram m 1700000000 0 u=0:1,2=3 host=a", "histogram m 1700000000 1,2=3 host=a"]
        {
            let put = histogram(line.as_bytes(), TSD).unwrap();
            assert_eq!((put.tags.len(), put.value), (1, None), "{line}");
        }
        for (line, reply) in [
            ("histogram m 1700000000 1,2=3", "not enough arguments (need least 5, got 3)"),
            ("histogram m 1700000000 0  host=a", "empty histogram value"),
            ("histogram m 1700000000 1,2=3 host", "invalid tag: host"),
        ] {
            let refusal = histogram(line.as_bytes(), TSD).unwrap_err();
            assert_eq!(refusal, format!("illegal argument: {reply}"));
        }
    }
}
