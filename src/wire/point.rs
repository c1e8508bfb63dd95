//! A raw point: what potsdb's `send(name, value, **tags, timestamp=…)` takes.

use super::value::Value;

/// One value of one series at one time, for [`OpenTsdbHandle::send`](crate::OpenTsdbHandle::send).
///
/// ```
/// use metrics_exporter_opentsdb::Point;
///
/// let point = Point::new("backup.bytes", 1_048_576)
///     .tag("volume", "home")
///     .timestamp(1_700_000_000);
/// assert_eq!(point.tags, [("volume".to_string(), "home".to_string())]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// The name of the metric.
    pub metric: String,
    /// The number.
    pub value: Value,
    /// The tags, in the order in which they were given.
    pub tags: Vec<(String, String)>,
    /// Seconds since the Unix epoch, or milliseconds for an exporter with
    /// [`TimestampPrecision::Milliseconds`](crate::TimestampPrecision::Milliseconds). `None` is the
    /// time of sending.
    pub timestamp: Option<u64>,
}

impl Point {
    /// A point without tags, at the time of sending.
    pub fn new(metric: impl Into<String>, value: impl Into<Value>) -> Self {
        Point { metric: metric.into(), value: value.into(), tags: Vec::new(), timestamp: None }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Sets the time in seconds since the Unix epoch, or in milliseconds if the exporter that sends
    /// it has that precision.
    #[must_use]
    pub fn timestamp(mut self, timestamp: u64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}
