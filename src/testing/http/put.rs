//! The points of a body are stored, as net.opentsdb.tsd.PutDataPointRpc does.
//!
//! serde_json reads what the exporter writes by hand, so that the two do not agree on a mistake.
//! Each point is kept as the `put` line that it would be.
//!
//! Not imitated, but refused: names with a space or `=` and points without a tag, which
//! VictoriaMetrics takes; letters beyond ASCII, times with a fraction or as a string, and tags that
//! are numbers, which a TSD takes here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::parse::{self, Put};
use super::super::rpc::Desk;

/// A point as it came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DataPoint<'a> {
    /// The JSON that it was.
    #[serde(skip)]
    pub(super) json: &'a str,
    /// The line that it would be.
    #[serde(skip)]
    pub(super) line: String,
    metric: String,
    timestamp: i64,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    tags: BTreeMap<String, String>,
}

/// The points of a body, or why it has none.
pub(super) fn points(body: &[u8]) -> Result<Vec<DataPoint<'_>>, &'static str> {
    let body = body.trim_ascii();
    let points: serde_json::Result<Vec<_>> = match body.first() {
        None => return Err("Missing request content"),
        Some(b'{') => serde_json::from_slice(body).and_then(|one| Ok(vec![DataPoint::read(one)?])),
        Some(b'[') => serde_json::from_slice::<Vec<_>>(body)
            .and_then(|raw| raw.into_iter().map(DataPoint::read).collect()),
        Some(_) => return Err("The JSON must start as an object or an array"),
    };
    match points {
        Err(_) => Err("Unable to parse the given JSON"),
        Ok(points) if points.is_empty() => Err("No datapoints found in content"),
        Ok(points) => Ok(points),
    }
}

impl<'a> DataPoint<'a> {
    /// What a TSD takes it for, or its words for why it does not.
    pub(super) fn check(&self, desk: &Desk<'_>) -> Result<Put<'_>, String> {
        let rules = desk.options.rules();
        let missing = [
            (self.metric.is_empty(), "Metric name was empty"),
            (self.timestamp <= 0, "Invalid timestamp"),
            (self.value().is_empty(), "Empty value"),
            (self.tags.is_empty() && rules.is_some(), "Missing tags"),
        ];
        if let Some((_, what)) = missing.iter().find(|(is_missing, _)| *is_missing) {
            return Err((*what).to_owned());
        }
        let line = &self.line;
        let put = parse::put(line.as_bytes(), rules).and_then(|put| desk.admit(put));
        match (put, &desk.mode.refusal) {
            (Ok(put), _) if put.tags.len() > self.tags.len() => Err(format!("a space in {line}")),
            (Ok(put), None) => Ok(put),
            (Ok(_), Some(refusal)) => Err(in_details(refusal)),
            (Err(refusal), _) => Err(in_details(&refusal)),
        }
    }

    /// As it is named in `errors`.
    pub(super) fn error(&self, error: &str) -> Value {
        let DataPoint { metric, timestamp, tags, .. } = self;
        let value = self.value();
        json!({
            "datapoint": { "metric": metric, "timestamp": timestamp, "value": value, "tags": tags },
            "error": error,
        })
    }

    fn read(raw: &'a RawValue) -> serde_json::Result<Self> {
        let mut point: DataPoint<'_> = serde_json::from_str(raw.get())?;
        let tags = point.tags.iter().map(|(key, value)| format!(" {key}={value}"));
        let (value, tags) = (point.value(), tags.collect::<String>());
        point.line = format!("put {} {} {value}{tags}", point.metric, point.timestamp);
        Ok(DataPoint { json: raw.get(), ..point })
    }

    /// A string's characters, or the text of a number.
    fn value(&self) -> &str {
        self.value.map_or("", |raw| raw.get().trim_matches('"'))
    }
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
