//! What the servers of one exporter have read, together: the other half of every claim that the
//! exporter makes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// The longest line, its line feed included.
const MAX_LINE: usize = 1024;

#[derive(Default)]
pub(super) struct Evidence(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// The value of each series and time.
    values: HashMap<String, String>,
    /// The last time of each series, and its value.
    last: HashMap<String, (u64, String)>,
    /// The lines that an honest answer, or an orderly end, stands for.
    proven: HashSet<String>,
    /// What must never come.
    faults: Vec<String>,
    /// How many connections the client reset within a line.
    torn: u64,
}

impl Evidence {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something came that must never come.
    pub(super) fn fault(&self, fault: String) {
        self.with(|seen| seen.faults.push(fault));
    }

    /// The client has reset a connection within a line.
    pub(super) fn tear(&self) {
        self.with(|seen| seen.torn += 1);
    }

    pub(super) fn torn_count(&self) -> u64 {
        self.with(|seen| seen.torn)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.with(|seen| seen.faults.clone())
    }

    /// A line was read, given without its line feed.
    pub(super) fn line(&self, line: &[u8]) {
        let Some((series, time, value)) = parse(line) else {
            return self.fault(format!("no line: {:?}", String::from_utf8_lossy(line)));
        };
        self.with(|seen| {
            let place = format!("{series} {time}");
            if let Some(other) = seen.values.get(&place).filter(|other| **other != value) {
                let fault = format!("two values, {other} and {value}, of {place}");
                seen.faults.push(fault);
            }
            seen.values.insert(place, value.clone());
            let last = seen.last.entry(series).or_default();
            if time >= last.0 {
                *last = (time, value);
            }
        });
    }

    /// Whoever sent these lines is about to be told that they were read.
    pub(super) fn prove(&self, lines: impl Iterator<Item = String>) {
        self.with(|seen| seen.proven.extend(lines));
    }

    pub(super) fn proven_count(&self) -> u64 {
        self.with(|seen| seen.proven.len() as u64)
    }

    /// The last value of a series, by its metric and tags as they are sent.
    pub(super) fn last(&self, series: &str) -> Option<String> {
        self.with(|seen| seen.last.get(series).map(|(_, value)| value.clone()))
    }
}

/// Series, time and value, if the line is one of the rig's exporters, as strictly as the contract
/// has it: C1, C2, C3, C5.
fn parse(line: &[u8]) -> Option<(String, u64, String)> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.len() < MAX_LINE)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_name);
    let words: Vec<_> = line.split(' ').collect();
    let ["put", metric, time, value, tags @ ..] = &words[..] else { return None };
    let is_tag = |tag: &&str| tag.split_once('=').is_some_and(|(k, v)| is_word(k) && is_word(v));
    let is_whole = is_word(metric)
        && time.len() == 13
        && value.parse::<f64>().is_ok_and(f64::is_finite)
        && tags.iter().all(is_tag)
        && tags.contains(&"host=a");
    let time = time.parse().ok().filter(|_| is_whole)?;
    Some((format!("{metric} {}", tags.join(" ")), time, (*value).to_owned()))
}
