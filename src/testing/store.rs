//! What was stored, series by series.
//!
//! Two values for one series and time make an OpenTSDB row unreadable, and nobody is told when they
//! are written. So the store keeps the value's text for each time of each series (`1` and `1.0` are
//! two values) and reports the second one. The same value again is what a careful client does after
//! a lost connection; it is counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::parse::{self, Put};
use crate::wire::value::Value;

/// How many times of a series are remembered when lines are not kept.
const SHORT_MEMORY: usize = 64;

/// The kinds of unique ids that a TSD assigns.
const METRIC: u8 = b'm';
const KEY: u8 = b'k';
const VALUE: u8 = b'v';

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// By metric and sorted tags.
    pub(super) series: HashMap<Box<[u8]>, Series>,
    /// Every metric, key and value that was seen, behind the byte of its kind.
    uids: HashSet<Vec<u8>>,
    /// Whether only the latest times of a series are remembered.
    forgets: bool,
    pub(super) poisoned: Vec<String>,
    pub(super) resent: usize,
    /// The key of the point at hand, reused.
    key: Vec<u8>,
}

/// The texts of the values by their times.
type Series = BTreeMap<u64, Box<[u8]>>;

impl Store {
    pub(super) fn new(forgets: bool) -> Self {
        Store { forgets, ..Store::default() }
    }

    /// Stores a point; `line` is where it came from.
    pub(super) fn insert(&mut self, mut put: Put<'_>, line: &[u8]) {
        put.tags.sort_unstable();
        write_key(&mut self.key, &put);
        if !self.series.contains_key(self.key.as_slice()) {
            self.uids.extend(uids(&put));
            self.series.insert(self.key.as_slice().into(), Series::new());
        }
        let Some(series) = self.series.get_mut(self.key.as_slice()) else { return };
        match series.entry(put.time) {
            Entry::Vacant(vacant) => drop(vacant.insert(put.text.into())),
            Entry::Occupied(before) if **before.get() == *put.text => self.resent += 1,
            Entry::Occupied(before) => {
                let (line, before) = (String::from_utf8_lossy(line), before.get());
                let before = String::from_utf8_lossy(before);
                self.poisoned.push(format!("{line} (before: {before})"));
            }
        }
        if self.forgets && series.len() > SHORT_MEMORY {
            series.pop_first();
        }
    }

    /// Whether the metric was seen before.
    pub(super) fn knows_metric(&self, metric: &[u8]) -> bool {
        self.uids.contains(&uid(METRIC, metric))
    }

    /// Whether metric, keys and values were all seen before.
    pub(super) fn knows_uids(&self, put: &Put<'_>) -> bool {
        uids(put).all(|uid| self.uids.contains(&uid))
    }

    /// The series of a metric that have at least these tags, as they are written in a line, each
    /// with the value of its latest time.
    pub(super) fn find(&self, metric: &str, tags: &[(&str, &str)]) -> Vec<(String, Option<Value>)> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let fits = |series: &[u8]| {
            let mut words = series.split(|&byte| byte == b' ');
            words.next() == Some(metric.as_bytes())
                && tags.iter().all(|tag| words.clone().any(|word| word == tag.as_bytes()))
        };
        let found = self.series.iter().filter(|(series, _)| fits(series));
        let found = found.filter_map(|(series, values)| {
            let (_, last) = values.last_key_value()?;
            Some((String::from_utf8_lossy(series).into_owned(), parse::accepted_number(last)))
        });
        found.collect()
    }
}

fn uids(put: &Put<'_>) -> impl Iterator<Item = Vec<u8>> {
    let tags = put.tags.iter().flat_map(|(key, value)| [uid(KEY, key), uid(VALUE, value)]);
    std::iter::once(uid(METRIC, put.metric)).chain(tags)
}

fn uid(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], name].concat()
}

/// One key for each series; words hold no space and no second `=`.
fn write_key(key: &mut Vec<u8>, put: &Put<'_>) {
    key.clear();
    key.extend_from_slice(put.metric);
    if put.value.is_none() {
        // No metric has a line feed, so a histogram is a series of its own.
        key.push(b'\n');
    }
    for (name, value) in &put.tags {
        for word in [b" ", *name, b"=", value] {
            key.extend_from_slice(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn store(forgets: bool, lines: &[&str]) -> Store {
        let mut store = Store::new(forgets);
        for line in lines {
            store.insert(parse::put(line.as_bytes(), Some(8)).unwrap(), line.as_bytes());
        }
        store
    }

    #[test]
    fn the_same_value_again_is_harmless() {
        let store = store(false, &["put m 5 1 a=1 b=2", "put m 6 1 a=1 b=2", "put m 5 1 b=2 a=1"]);
        assert_eq!((store.series.len(), store.resent, store.poisoned.len()), (1, 1, 0));
    }

    #[test]
    fn another_value_for_a_time_is_poison_in_any_order() {
        for (second, before) in [("put m 5 2 a=1", "1"), ("put m 6 1.0 a=1", "1")] {
            let store = store(false, &["put m 5 1 a=1", "put m 6 1 a=1", second]);
            assert_eq!(store.poisoned, [format!("{second} (before: {before})")]);
        }
    }

    #[test]
    fn other_series_and_times_are_no_poison() {
        let lines =
            ["put m 5 1 a=1", "put m 5 2 a=2", "put n 5 3 a=1", "put m 5 4 b=1", "put m 4 5 a=1"];
        let store = store(false, &lines);
        assert_eq!((store.series.len(), store.resent, store.poisoned.len()), (4, 0, 0));
    }

    #[test]
    fn the_last_value_is_that_of_the_latest_time() {
        let store = store(false, &["put m 6 1.5 a=1 b=2", "put m 5 2 a=1 b=2"]);
        let name = "m a=1 b=2".to_owned();
        assert_eq!(store.find("m", &[("b", "2")]), [(name, Some(Value::Float(1.5)))]);
    }

    #[test]
    fn a_series_is_found_by_some_of_its_tags() {
        let lines = ["put m 5 1 a=1 b=a", "put m 5 2 a=2 b=a", "put m.a 5 3 a=1", "put n 5 4 b=1"];
        let store = store(false, &lines);
        let find = |metric, tags: &[_]| -> Vec<String> {
            let found: BTreeMap<_, _> = store.find(metric, tags).into_iter().collect();
            found.into_keys().collect()
        };
        assert_eq!(find("m", &[]), ["m a=1 b=a", "m a=2 b=a"]);
        assert_eq!(find("m", &[("a", "2")]), ["m a=2 b=a"]);
        assert_eq!(find("m", &[("b", "a"), ("a", "1")]), ["m a=1 b=a"]);
        for (metric, tags) in
            [("m", [("a", "a")]), ("m", [("b", "1")]), ("n", [("a", "1")]), ("a", [("b", "a")])]
        {
            assert_eq!(find(metric, &tags), [""; 0], "{metric} {tags:?}");
        }
    }

    #[test]
    fn one_that_forgets_keeps_the_last_times() {
        let lines: Vec<_> = (1..=1000).map(|time| format!("put m {time} {time} a=1")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).chain(["put m 1000 0 a=1"]).collect();
        let store = store(true, &lines);
        assert!(store.series.values().all(|series| series.len() <= SHORT_MEMORY));
        assert_eq!(store.find("m", &[])[0].1, Some(Value::Integer(1000)));
        assert_eq!(store.poisoned.len(), 1);
    }
}
