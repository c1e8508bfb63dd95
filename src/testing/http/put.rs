//! The points of a body are stored, as net.opentsdb.tsd.PutDataPointRpc does.
//!
//! serde_json reads what the exporter writes by hand, so that the two do not agree on a mistake.
//! Each point is kept as the `put` line that it would be.
//!
//! Not imitated, but refused: names with a space or `=`, which VictoriaMetrics takes; letters beyond
//! ASCII and times with a fraction, which a TSD takes here.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::fault::Mode;
use super::super::parse::{self, Put, Tag};
use super::super::rpc::Desk;

/// A point as it came.
#[derive(Debug)]
pub(super) struct DataPoint<'a> {
    /// The JSON that it was.
    pub(super) json: &'a str,
    metric: String,
    time: i64,
    value: String,
    tags: BTreeMap<String, String>,
}

/// The points of a body, or why it has none.
pub(super) fn points(body: &[u8]) -> Result<Vec<DataPoint<'_>>, &'static str> {
    const BAD: &str = "Unable to parse the given JSON";
    let body = std::str::from_utf8(body).map_err(|_| BAD)?.trim();
    let raw: Vec<&RawValue> = match body.as_bytes().first() {
        None => return Err("Missing request content"),
        Some(b'{') => vec![serde_json::from_str(body).map_err(|_| BAD)?],
        Some(b'[') => serde_json::from_str(body).map_err(|_| BAD)?,
        Some(_) => return Err("The JSON must start as an object or an array"),
    };
    let points: Option<Vec<_>> = raw.into_iter().map(|raw| DataPoint::read(raw.get())).collect();
    match points {
        None => Err(BAD),
        Some(points) if points.is_empty() => Err("No datapoints found in content"),
        Some(points) => Ok(points),
    }
}

impl<'a> DataPoint<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
        let scalar = |name: &str| fields.get(name).map_or(Some(String::new()), |raw| scalar(raw));
        let tags: BTreeMap<String, &RawValue> = match fields.get("tags") {
            None => BTreeMap::new(),
            Some(tags) => serde_json::from_str(tags.get()).ok()?,
        };
        let tag = |(key, value): (String, &RawValue)| Some((key, self::scalar(value)?));
        Some(DataPoint {
            json,
            metric: scalar("metric")?,
            time: match scalar("timestamp")?.as_str() {
                "" => 0,
                text => text.parse().ok()?,
            },
            value: scalar("value")?,
            tags: tags.into_iter().map(tag).collect::<Option<_>>()?,
        })
    }

    /// The line that it would be.
    pub(super) fn line(&self) -> String {
        let DataPoint { metric, time, value, tags, .. } = self;
        let tags: String = tags.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("put {metric} {time} {value}{tags}")
    }

    /// What a TSD takes it for, or its words for why it does not.
    pub(super) fn check(&self, desk: &Desk<'_>, mode: &Mode) -> Result<Put<'_>, String> {
        let missing = [
            (self.metric.is_empty(), "Metric name was empty"),
            (self.time <= 0, "Invalid timestamp"),
            (self.value.is_empty(), "Empty value"),
            (self.tags.is_empty() && desk.options.rules().is_some(), "Missing tags"),
        ];
        if let Some((_, what)) = missing.iter().find(|(is_missing, _)| *is_missing) {
            return Err((*what).to_owned());
        }
        let words = self.tags.iter().flat_map(|(key, value)| [key, value]);
        if let Some(word) = words.chain([&self.metric, &self.value]).find(|word| !is_word(word)) {
            return Err(format!("Invalid word (\"{word}\"): illegal character"));
        }
        let tags: Vec<Tag<'_>> =
            self.tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        let (metric, time) = (self.metric.as_bytes(), self.time.unsigned_abs());
        parse::point(metric, time, self.value.as_bytes(), tags, desk.options.rules())
            .and_then(|put| desk.admit(put, mode))
            .and_then(|put| mode.refusal.clone().map_or(Ok(put), Err))
            .map_err(|refusal| in_details(&refusal))
    }

    /// As it is named in `errors`.
    pub(super) fn error(&self, error: &str) -> Value {
        let DataPoint { metric, time, value, tags, .. } = self;
        let point = json!({ "metric": metric, "timestamp": time, "value": value, "tags": tags });
        json!({ "datapoint": point, "error": error })
    }
}

/// A string, or the text of a number; null is empty.
fn scalar(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => Some(String::new()),
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        text if text.starts_with(['{', '[']) => None,
        text => Some(text.to_owned()),
    }
}

/// Whether it can stand in a `put` line.
fn is_word(word: &str) -> bool {
    !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=')
}

/// How what is said to a `put` line is said in the details.
fn in_details(refusal: &str) -> String {
    let refusal = refusal.strip_prefix("put: ").unwrap_or(refusal);
    match refusal.split_once(": ") {
        Some(("invalid value", _)) => "Unable to parse value to a number".into(),
        Some(("unknown metric", _)) => "Unknown metric".into(),
        Some(("Please throttle writes", _)) => "Please throttle".into(),
        Some(("illegal argument", what)) => what.into(),
        _ => refusal.into(),
    }
}
