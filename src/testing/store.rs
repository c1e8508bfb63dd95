//! What was stored, series by series.
//!
//! Two values for one series and time make an OpenTSDB row unreadable, and nobody is told when they are written. So the store keeps a
//! fingerprint of the value's text for each time of each series (`1` and `1.0` are two values) and reports the second one. The same
//! value again is what a careful client does after a lost connection; it is counted.

use std::collections::{HashMap, HashSet};

use super::parse::{Put, Tag, accepted_number};
use crate::wire::value::Value;

/// How many times of a series are remembered when lines are not kept.
const SHORT_MEMORY: usize = 64;

/// The kinds of unique ids that a TSD assigns.
const METRIC: u8 = b'm';
const KEY: u8 = b'k';
const VALUE: u8 = b'v';

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Metric and sorted tags, as the index of the series.
    ids: HashMap<Box<[u8]>, usize>,
    series: Vec<Series>,
    /// Every metric, key and value that was seen, behind the byte of its kind.
    uids: HashSet<Box<[u8]>>,
    /// Whether only the latest times of a series are remembered.
    forgets: bool,
    pub(super) poisoned: Vec<String>,
    pub(super) resent: usize,
    /// The key of the point at hand, reused.
    key: Vec<u8>,
}

#[derive(Debug, Default)]
struct Series {
    /// Times and the fingerprints of their values, sorted by time.
    past: Vec<(u64, u64)>,
    /// The text of the value at the latest time.
    latest: Vec<u8>,
}

impl Store {
    pub(super) fn new(forgets: bool) -> Self {
        Store { forgets, ..Store::default() }
    }

    /// Stores a point; `line` is where it came from.
    pub(super) fn insert(&mut self, mut put: Put<'_>, line: &[u8]) {
        put.tags.sort_unstable();
        write_key(&mut self.key, put.metric, put.value.is_none(), &put.tags);
        let id = match self.ids.get(self.key.as_slice()) {
            Some(&id) => id,
            None => self.begin(&put),
        };
        let Store { series, forgets, poisoned, resent, .. } = self;
        let series = &mut series[id];
        let entry = (put.time, fingerprint(put.text));
        match series.place(put.time) {
            Ok(at) if series.past[at].1 == entry.1 => *resent += 1,
            Ok(at) => {
                let line = String::from_utf8_lossy(line);
                let is_latest = at + 1 == series.past.len();
                let before = if is_latest { series.latest.as_slice() } else { b"another value" };
                poisoned.push(format!("{line} (before: {})", String::from_utf8_lossy(before)));
            }
            Err(at) => {
                if at == series.past.len() {
                    series.latest.clear();
                    series.latest.extend_from_slice(put.text);
                }
                series.past.insert(at, entry);
                if *forgets && series.past.len() > 2 * SHORT_MEMORY {
                    series.past.drain(..SHORT_MEMORY);
                }
            }
        }
    }

    /// Whether the metric was seen before.
    pub(super) fn knows_metric(&self, metric: &[u8]) -> bool {
        self.uids.contains(&uid(METRIC, metric))
    }

    /// Makes the metric known, as `tsdb mkmetric` does.
    pub(super) fn make_metric(&mut self, metric: &[u8]) {
        self.uids.insert(uid(METRIC, metric));
    }

    /// Whether metric, keys and values were all seen before.
    pub(super) fn knows_uids(&self, put: &Put<'_>) -> bool {
        let knows = |kind, name: &[u8]| self.uids.contains(&uid(kind, name));
        knows(METRIC, put.metric)
            && put.tags.iter().all(|(key, value)| knows(KEY, key) && knows(VALUE, value))
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// The value of the latest time.
    pub(super) fn last(&self, metric: &str, tags: &[(&str, &str)]) -> Option<Value> {
        let mut tags: Vec<_> =
            tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        tags.sort_unstable();
        let mut key = Vec::new();
        write_key(&mut key, metric.as_bytes(), false, &tags);
        let id = *self.ids.get(key.as_slice())?;
        accepted_number(&self.series[id].latest)
    }

    fn begin(&mut self, put: &Put<'_>) -> usize {
        self.make_metric(put.metric);
        for (key, value) in &put.tags {
            self.uids.insert(uid(KEY, key));
            self.uids.insert(uid(VALUE, value));
        }
        let id = self.series.len();
        self.series.push(Series::default());
        self.ids.insert(self.key.as_slice().into(), id);
        id
    }
}

impl Series {
    /// Where the time is, or where it belongs.
    fn place(&self, time: u64) -> Result<usize, usize> {
        match self.past.last() {
            Some(&(last, _)) if last >= time => {
                self.past.binary_search_by_key(&time, |&(time, _)| time)
            }
            _ => Err(self.past.len()),
        }
    }
}

fn uid(kind: u8, name: &[u8]) -> Box<[u8]> {
    let mut uid = Vec::with_capacity(name.len() + 1);
    uid.push(kind);
    uid.extend_from_slice(name);
    uid.into()
}

/// One key for each series; words hold no space and no second `=`.
fn write_key(key: &mut Vec<u8>, metric: &[u8], is_histogram: bool, tags: &[Tag<'_>]) {
    key.clear();
    key.extend_from_slice(metric);
    if is_histogram {
        key.push(b' ');
    }
    for (name, value) in tags {
        key.push(b' ');
        key.extend_from_slice(name);
        key.push(b'=');
        key.extend_from_slice(value);
    }
}

/// FNV-1a.
fn fingerprint(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::{self, Rules};
    use super::*;

    fn store(forgets: bool, lines: &[&str]) -> Store {
        let mut store = Store::new(forgets);
        for line in lines {
            let rules = Rules { max_tags: Some(8), any_character: false };
            store.insert(parse::put(line.as_bytes(), rules).unwrap(), line.as_bytes());
        }
        store
    }

    #[test]
    fn the_same_value_again_is_harmless() {
        let store = store(false, &["put m 5 1 a=1 b=2", "put m 6 1 a=1 b=2", "put m 5 1 b=2 a=1"]);
        assert_eq!((store.len(), store.resent, store.poisoned.len()), (1, 1, 0));
    }

    #[test]
    fn another_value_for_a_time_is_poison_in_any_order() {
        for (second, before) in [("put m 5 2 a=1", "another value"), ("put m 6 1.0 a=1", "1")] {
            let store = store(false, &["put m 5 1 a=1", "put m 6 1 a=1", second]);
            assert_eq!(store.poisoned, [format!("{second} (before: {before})")]);
        }
    }

    #[test]
    fn other_series_and_times_are_no_poison() {
        let lines =
            ["put m 5 1 a=1", "put m 5 2 a=2", "put n 5 3 a=1", "put m 5 4 b=1", "put m 4 5 a=1"];
        let store = store(false, &lines);
        assert_eq!((store.len(), store.resent, store.poisoned.len()), (4, 0, 0));
    }

    #[test]
    fn the_last_value_is_that_of_the_latest_time() {
        let store = store(false, &["put m 6 1.5 a=1 b=2", "put m 5 2 a=1 b=2"]);
        assert_eq!(store.last("m", &[("b", "2"), ("a", "1")]), Some(Value::Float(1.5)));
        assert_eq!(store.last("m", &[("a", "1")]), None);
    }

    #[test]
    fn one_that_forgets_keeps_the_last_times() {
        let lines: Vec<_> = (1..=1000).map(|time| format!("put m {time} {time} a=1")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).chain(["put m 1000 0 a=1"]).collect();
        let store = store(true, &lines);
        assert!(store.series[0].past.len() <= 2 * SHORT_MEMORY);
        assert_eq!(store.last("m", &[("a", "1")]), Some(Value::Integer(1000)));
        assert_eq!(store.poisoned.len(), 1);
    }
}
