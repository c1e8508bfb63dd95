//! What a TSD says of single points, when it is asked for details.
//!
//! An error names its point by content, and can name another than it means when the storage was too
//! slow. So it counts only where the request holds a point of its metric, time and tags.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::reply::Reply;

/// What a TSD answers, wherever it is asked for details.
#[derive(Debug, Deserialize)]
pub(crate) struct Details<'a> {
    #[serde(borrow)]
    errors: Vec<PointError<'a>>,
    /// Points that were refused or not stored.
    failed: usize,
    /// Points whose storing took too long.
    #[serde(default)]
    timeouts: usize,
}

#[derive(Debug, Deserialize)]
struct PointError<'a> {
    // Absent, unlike `null`, is an error with this: it is no answer of a TSD.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    datapoint: Option<DataPoint<'a>>,
    #[serde(borrow)]
    error: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct DataPoint<'a> {
    #[serde(borrow, default)]
    metric: Option<Cow<'a, str>>,
    #[serde(default)]
    timestamp: u64,
    #[serde(borrow, default)]
    tags: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Words in an error, and what it means (net.opentsdb.tsd.PutDataPointRpc and IncomingDataPoint).
/// The first that is found counts.
const KINDS: &[(&str, Reply)] = &[
    ("No such name for", Reply::UnknownMetric),
    ("Unknown metric", Reply::UnknownMetric),
    ("throttle", Reply::Throttled),
    ("Throttl", Reply::Throttled),
    ("Storage exception", Reply::Storage),
    ("HBase", Reply::Storage),
    ("timedout", Reply::Storage),
    ("Timeout exception", Reply::Storage),
    ("Unexpected exception", Reply::Other),
    ("Unable to parse value", Reply::InvalidValue),
    ("Empty value", Reply::InvalidValue),
];

impl<'a> Details<'a> {
    /// `None` when it is something else.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Whether any point was refused or not stored.
    pub(crate) fn has_failures(&self) -> bool {
        self.failed > 0 || self.timeouts > 0
    }

    /// Whether any point was not stored and may be at another time.
    pub(crate) fn has_storage_failures(&self) -> bool {
        let is_storage = |error: &PointError<'_>| {
            matches!(kind(&error.error), Reply::Storage | Reply::Throttled)
        };
        self.timeouts > 0 || self.failed > self.errors.len() || self.errors.iter().any(is_storage)
    }

    /// The first error.
    pub(crate) fn first(&self) -> &str {
        self.errors.first().map_or("it could not store every point", |error| &error.error)
    }

    /// Hands on the errors that are of one of these lines.
    pub(crate) fn each<'l>(
        &self,
        lines: impl Iterator<Item = &'l [u8]>,
        mut on_error: impl FnMut(Reply, &str),
    ) {
        if self.errors.is_empty() {
            return;
        }
        let mut errors: HashMap<_, Vec<&str>> = HashMap::new();
        for PointError { datapoint, error } in &self.errors {
            let key = datapoint.as_ref().map(identity).unwrap_or_default();
            errors.entry(key).or_default().push(error);
        }
        for line in lines {
            let of_line = errors.get_mut(&identity_of(line)).and_then(Vec::pop);
            if let Some(error) = of_line {
                on_error(kind(error), error);
            }
        }
    }
}

fn kind(error: &str) -> Reply {
    let found = KINDS.iter().find(|(words, _)| error.contains(words));
    found.map_or(Reply::IllegalArgument, |&(_, reply)| reply)
}

/// Metric, time and tags, these by key.
fn identity(point: &DataPoint<'_>) -> String {
    let metric = point.metric.as_deref().unwrap_or_default();
    let mut identity = format!("{metric} {}", point.timestamp);
    for (key, value) in point.tags.iter().flatten() {
        identity.extend([" ", key, "=", value]);
    }
    identity
}

/// The same of a line.
fn identity_of(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    let words: Vec<_> = line.split(' ').collect();
    let (Some(start), Some(tags)) = (words.get(1..3), words.get(4..)) else { return String::new() };
    let mut tags = tags.to_vec();
    tags.sort_unstable_by_key(|tag| tag.split('=').next());
    [start, &tags].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_by_kind_where_the_request_has_their_point() {
        let body = br#"{"errors":[
            {"datapoint":{"metric":"m","timestamp":1,"value":"2","tags":{"b":"y","a":"x"},"extra":{}},"error":"Unknown metric"},
            {"datapoint":{"metric":"m","timestamp":2,"value":"2","tags":{"a":"x"}},"error":"Unable to parse value to a number"},
            {"datapoint":{"metric":"m","timestamp":3,"value":"2","tags":{"a":"x"}},"error":"Invalid tag \"value\": illegal"},
            {"datapoint":null,"error":"Unexpected null datapoint encountered in set."}
        ],"failed":4,"success":0}"#;
        let details = Details::parse(body).unwrap();
        assert!(!details.has_storage_failures());
        assert_eq!(details.first(), "Unknown metric");
        let lines =
            ["put m 1 2 a=x b=y\n", "put m 2 2 a=x\n", "put m 2 3 a=x\n", "put m 4 2 a=x\n"];
        let mut found = Vec::new();
        details.each(lines.iter().map(|line| line.as_bytes()), |reply, text| {
            found.push((reply, text.to_owned()));
        });
        assert_eq!(
            found,
            [
                (Reply::UnknownMetric, "Unknown metric".to_owned()),
                (Reply::InvalidValue, "Unable to parse value to a number".to_owned()),
            ]
        );
    }

    #[test]
    fn what_may_be_stored_later_is_told_from_what_may_not() {
        for (body, expected) in [
            (r#"{"errors":[],"failed":0,"success":2}"#, false),
            (r#"{"errors":[],"failed":1,"success":1}"#, true),
            (r#"{"errors":[],"failed":0,"success":0,"timeouts":1}"#, true),
            (r#"{"errors":[{"datapoint":null,"error":"Storage exception: x"}],"failed":1}"#, true),
            (r#"{"errors":[{"datapoint":null,"error":"Please throttle"}],"failed":1}"#, true),
            (
                r#"{"errors":[{"datapoint":null,"error":"Storage exception: No such name for 'metrics': 'm'"}],"failed":1}"#,
                false,
            ),
        ] {
            assert_eq!(Details::parse(body.as_bytes()).unwrap().has_storage_failures(), expected);
        }
    }

    #[test]
    fn what_failed_or_took_too_long_is_a_failure_though_no_error_says_so() {
        for (body, expected) in [
            (r#"{"errors":[],"failed":0,"timeouts":0}"#, false),
            (r#"{"errors":[],"failed":1,"timeouts":0}"#, true),
            (r#"{"errors":[],"failed":0,"timeouts":1}"#, true),
        ] {
            let details = Details::parse(body.as_bytes()).unwrap();
            assert_eq!(details.has_failures(), expected, "{body}");
            assert_eq!(details.first(), "it could not store every point");
        }
    }

    #[test]
    fn another_server_s_errors_are_no_details() {
        for body in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"error":{"code":400,"message":"m"}}"#,
            r#"{"errors":[]}"#,
            r#"{"errors":[{"code":"x","message":"tenant missing"}]}"#,
            r#"{"errors":[{"code":"x","message":"tenant missing"}],"failed":1}"#,
            r#"{"errors":[{"error":"tenant missing"}],"failed":1}"#,
            r#"{"errors":[{"datapoint":null}],"failed":1}"#,
        ] {
            assert!(Details::parse(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn each_text_of_a_tsd_has_its_kind() {
        for (text, expected) in [
            ("Metric name was empty", Reply::IllegalArgument),
            ("Invalid timestamp", Reply::IllegalArgument),
            ("Empty value", Reply::InvalidValue),
            ("Unable to parse value to a number", Reply::InvalidValue),
            ("Invalid tag value (\"a:80\"): illegal character: :", Reply::IllegalArgument),
            ("Timeout exception", Reply::Storage),
            ("Write timedout", Reply::Storage),
            ("Unexpected exception", Reply::Other),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
