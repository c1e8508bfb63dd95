//! A line becomes a point, or the reply that a TSD would give.
//!
//! A test double that is kinder than the server hides bugs, so this parser is as strict as OpenTSDB 2.4 and makes its checks in the
//! same order, with the same words (net.opentsdb.tsd.PutDataPointRpc, core.Tags, core.IncomingDataPoints). It shares nothing with
//! the exporter's encoder: two ends written by one hand agree on their mistakes too.
//!
//! Not imitated: hexadecimal floats, which Java reads and this refuses.

use super::java;
use crate::wire::value::Value;

/// What a server accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The most tags of a point, if there is such a limit.
    pub(super) max_tags: Option<usize>,
    /// Whether names may have any character but a space.
    pub(super) any_character: bool,
}

/// A line that was understood. Names and tags are as they were sent.
#[derive(Debug)]
pub(super) struct Put<'a> {
    pub(super) metric: &'a [u8],
    /// Seconds or milliseconds, as they were sent.
    pub(super) time: u64,
    /// The value's text; of a histogram all of it.
    pub(super) text: &'a [u8],
    /// `None` for a histogram.
    pub(super) value: Option<Value>,
    /// Keys are unique.
    pub(super) tags: Vec<Tag<'a>>,
}

/// A key and its value.
pub(super) type Tag<'a> = (&'a [u8], &'a [u8]);

/// Why a line was refused; the text is Java's exception.
#[derive(Debug)]
pub(super) enum Refusal {
    IllegalArgument(String),
    InvalidValue(String),
    UnknownMetric(String),
}

impl Refusal {
    /// The reply to `command`, without its line feed.
    pub(super) fn reply(&self, command: &str) -> String {
        match self {
            Refusal::IllegalArgument(text) => format!("{command}: illegal argument: {text}"),
            Refusal::InvalidValue(text) => format!("{command}: invalid value: {text}"),
            Refusal::UnknownMetric(metric) => {
                format!("{command}: unknown metric: No such name for 'metrics': '{metric}'")
            }
        }
    }
}

/// Reads a `put` line, given without its line feed.
pub(super) fn put<'a>(line: &'a [u8], rules: Rules) -> Result<Put<'a>, Refusal> {
    let (mut words, metric, time) = head(line, 4)?;
    let text = words.next().unwrap_or_default();
    if text.is_empty() {
        return illegal("empty value");
    }
    let tags = tags(words)?;
    let value = number(text, metric, time)?;
    if time > u64::from(u32::MAX) && time > MAX_TIME {
        let (bytes, flags) = java::stored(value);
        return illegal(format!(
            "bad timestamp={time} when trying to add value={bytes:?}/{flags} to metric={}, tags={}",
            java::latin1(metric),
            java::map(&tags)
        ));
    }
    check_names(metric, &tags, rules)?;
    Ok(Put { metric, time, text, value: Some(value), tags })
}

/// Reads a `histogram` line. Of its value only that it is there is checked: a TSD answers a malformed bucket with nothing.
pub(super) fn histogram<'a>(line: &'a [u8], rules: Rules) -> Result<Put<'a>, Refusal> {
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
pub(super) fn accepted_number(text: &[u8]) -> Option<Value> {
    number(text, b"", 0).ok()
}

/// The largest time that a TSD takes: milliseconds of 13 digits.
const MAX_TIME: u64 = 9_999_999_999_999;

type Words<'a> = std::slice::Split<'a, u8, fn(&u8) -> bool>;

/// The words behind the timestamp, the metric and the timestamp; `claimed` is how many arguments the reply says are needed.
fn head(line: &[u8], claimed: usize) -> Result<(Words<'_>, &[u8], u64), Refusal> {
    let arguments = line.iter().filter(|&&byte| byte == b' ').count();
    if arguments < 4 {
        return illegal(format!("not enough arguments (need least {claimed}, got {arguments})"));
    }
    let is_space: fn(&u8) -> bool = |&byte| byte == b' ';
    let mut words = line.split(is_space);
    let [_, metric, time] = [(); 3].map(|()| words.next().unwrap_or_default());
    if metric.is_empty() {
        return illegal("empty metric name");
    }
    let time = match time.contains(&b'.') {
        true => time.iter().copied().filter(|&byte| byte != b'.').collect::<Vec<_>>().into(),
        false => std::borrow::Cow::Borrowed(time),
    };
    match java::parse_long(&time).map_err(Refusal::InvalidValue)? {
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
            _ => return illegal(format!("invalid tag: {}", java::latin1(word))),
        };
        match tags.iter().find(|tag| tag.0 == key) {
            None => tags.push((key, value)),
            Some(tag) if tag.1 == value => {}
            Some(_) => {
                let (word, tags) = (java::latin1(word), java::map(&tags));
                return illegal(format!("duplicate tag: {word}, tags={tags}"));
            }
        }
    }
    Ok(tags)
}

fn number(text: &[u8], metric: &[u8], time: u64) -> Result<Value, Refusal> {
    if !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return java::parse_long(text).map(Value::Integer).map_err(Refusal::InvalidValue);
    }
    let float = java::parse_double(text).map_err(Refusal::InvalidValue)?;
    if float.is_infinite() {
        let sign = if float < 0.0 { "-" } else { "" };
        return illegal(format!(
            "value is NaN or Infinite: {sign}Infinity for metric={} timestamp={time}",
            java::latin1(metric)
        ));
    }
    Ok(Value::Float(float))
}

fn check_names(metric: &[u8], tags: &[Tag<'_>], rules: Rules) -> Result<(), Refusal> {
    if tags.is_empty() && !rules.any_character {
        let metric = java::latin1(metric);
        return illegal(format!("Need at least one tag (metric={metric}, tags={{}})"));
    }
    if let Some(most) = rules.max_tags.filter(|&most| tags.len() > most) {
        let (count, tags) = (tags.len(), java::map(tags));
        return illegal(format!("Too many tags: {count} maximum allowed: {most}, tags: {tags}"));
    }
    let clean = |word: &[u8]| word.iter().copied().all(java::is_ascii_name);
    let all_clean = || clean(metric) && tags.iter().all(|(key, value)| clean(key) && clean(value));
    if rules.any_character || all_clean() {
        return Ok(());
    }
    check_word(metric, || "metric name".into())?;
    for (key, value) in java::in_map_order(tags) {
        check_word(key, || format!("tag name with value [{}]", java::latin1(value)))?;
        check_word(value, || format!("tag value with key [{}]", java::latin1(key)))?;
    }
    Ok(())
}

fn check_word(word: &[u8], what: impl Fn() -> String) -> Result<(), Refusal> {
    match word.iter().find(|&&byte| !java::is_name(byte)) {
        None => Ok(()),
        Some(&byte) => {
            let (word, character) = (java::latin1(word), char::from(byte));
            illegal(format!("Invalid {} (\"{word}\"): illegal character: {character}", what()))
        }
    }
}

fn illegal<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::IllegalArgument(text.into()))
}
