//! A series and its line as `docs/contract.md` and the guide's chapter on identity have them,
//! written from these and as plainly as can be.

use std::collections::{BTreeMap, BTreeSet};

/// What an exporter adds to each series.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) is_unicode: bool,
    pub(super) max_tags: usize,
    pub(super) prefix: String,
    /// Host tag and global labels, clean, keys unique. Where the exporter's own tag makes two of
    /// one key, the first counts.
    pub(super) defaults: Vec<(String, String)>,
    pub(super) instance: Option<String>,
    pub(super) own_tag: Option<&'static str>,
}

impl Exporter {
    /// C3: every character that may not be sent becomes `_`; no word is empty (C4).
    pub(super) fn clean(&self, word: &str) -> String {
        let is_allowed = |c: char| match self.is_unicode {
            true => !c.is_whitespace() && !c.is_control() && !"=\"'\\".contains(c),
            false => c.is_ascii_alphanumeric() || "._/-".contains(c),
        };
        match word {
            "" => "_".to_owned(),
            word => word.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect(),
        }
    }

    /// C4: reserved keys get a `_` behind, and so does one that the exporter needs itself.
    pub(super) fn key(&self, key: &str) -> String {
        let key = self.clean(key);
        let is_taken = ["time", "__name__", "value"].contains(&&*key) || self.own_tag == Some(&key);
        if is_taken { self.key(&format!("{key}_")) } else { key }
    }

    /// The tags of a series with these labels, and the keys that were left out, the last first.
    pub(super) fn tags(
        &self,
        labels: &[(String, String)],
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let mut tags = BTreeMap::new();
        for (key, value) in &self.defaults {
            tags.entry(self.key(key)).or_insert(value.clone());
        }
        let kept: BTreeSet<_> = tags.keys().cloned().collect();
        // Where a key comes first is where it stands, and its last value counts.
        let mut order = Vec::new();
        for (key, value) in labels {
            let key = self.key(key);
            if tags.insert(key.clone(), self.clean(value)).is_none() {
                order.push(key);
            }
        }
        let instance = self.instance.iter().count();
        let most = self.max_tags.saturating_sub(instance + self.own_tag.iter().count());
        let mut dropped = Vec::new();
        while tags.len() > most {
            let Some(last) = order.pop() else { break };
            assert!(!kept.contains(&last));
            tags.remove(&last);
            dropped.push(last);
        }
        if let Some(instance) = &self.instance {
            let mut key = "instance".to_owned();
            while tags.contains_key(&key) {
                key.push('_');
            }
            tags.insert(key, instance.clone());
        }
        (tags, dropped)
    }

    /// C1: the line of a series.
    pub(super) fn line(
        &self,
        name: &str,
        tags: &BTreeMap<String, String>,
        (time, value): (&str, &str),
    ) -> String {
        let tags: String = tags.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("put {}{} {time} {value}{tags}\n", self.prefix, self.clean(name))
    }
}

/// Whether the text is a number as fact 6 has them: an integer of `i64`, or a float.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let Some((whole, rest)) = unsigned.split_once('.') else {
        return digits(unsigned) && unsigned.len() <= 19 && text.parse::<i64>().is_ok();
    };
    let (fraction, exponent) = rest.split_once('e').unwrap_or((rest, "0"));
    digits(whole) && digits(fraction) && digits(exponent.strip_prefix('-').unwrap_or(exponent))
}

/// Whether a line, with its line feed, has the form of C1, C3 and C4.
pub(super) fn is_line(line: &[u8], most_tags: usize) -> bool {
    let Some(Ok(line)) = line.strip_suffix(b"\n").map(std::str::from_utf8) else { return false };
    let is_word = |word: &str| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        !word.is_empty() && word.bytes().all(is_name)
    };
    let words: Vec<_> = line.split(' ').collect();
    let ["put", metric, time, value, tags @ ..] = &words[..] else { return false };
    let tags: Option<Vec<_>> = tags.iter().map(|tag| tag.split_once('=')).collect();
    let Some(tags) = tags else { return false };
    let keys: BTreeSet<_> = tags.iter().map(|(key, _)| key).collect();
    is_word(metric)
        && matches!(time.len(), 10 | 13)
        && time.bytes().all(|byte| byte.is_ascii_digit())
        && time.bytes().any(|byte| byte != b'0')
        && is_number(value)
        && (1..=most_tags).contains(&tags.len())
        && keys.len() == tags.len()
        && tags.iter().all(|(key, value)| is_word(key) && is_word(value))
        && ["time", "__name__", "value"].iter().all(|reserved| !keys.contains(reserved))
}
