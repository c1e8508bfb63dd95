//! What the application says of its metrics: unit and description.
//!
//! The put protocol carries neither; they are kept for whoever asks, and for names that are to end
//! with their unit. The macros may say them at each call, so what is known already costs a read
//! lock and a look-up. The first word on a metric stands; at most [`MOST`] metrics are remembered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use metrics::{KeyName, SharedString, Unit};
use metrics_util::MetricKind;

/// Names are the application's own words, so this is only a guard against names made of data.
const MOST: usize = 10_000;

/// What is known of a metric, for whoever exports it to a catalogue; see
/// [`OpenTsdbHandle::describe`](crate::OpenTsdbHandle::describe).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The name as the application has it.
    pub name: String,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// The unit of its values.
    pub unit: Option<Unit>,
    /// What it means.
    pub text: String,
}

/// What was told of a metric of one kind.
type Told = (MetricKind, Option<Unit>, SharedString);

/// All descriptions, by name.
#[derive(Debug, Default)]
pub(crate) struct Descriptions {
    known: RwLock<HashMap<KeyName, Vec<Told>>>,
    /// Whether it was logged that there are too many.
    is_full_logged: AtomicBool,
}

impl Descriptions {
    /// Remembers what is said of a metric, unless something is known already.
    pub(crate) fn note(
        &self,
        kind: MetricKind,
        name: &KeyName,
        unit: Option<Unit>,
        text: SharedString,
    ) {
        if self.unit(kind, name.as_str()).is_some() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST || known.contains_key(name.as_str()) {
            let described = known.entry(name.to_retained()).or_default();
            if described.iter().all(|(known, ..)| *known != kind) {
                described.push((kind, unit, text));
            }
            return;
        }
        drop(known);
        if !self.is_full_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                metric = name.as_str(),
                limit = MOST,
                "too many metric names are described; the units and descriptions of this one and of later ones are not kept"
            );
        }
    }

    /// The name with its unit's word, as in `latency_seconds`, if the unit is known and the name
    /// does not say it already.
    pub(crate) fn with_unit<'a>(&self, kind: MetricKind, name: &'a str) -> Cow<'a, str> {
        let word = self.unit(kind, name).flatten().map(|unit| unit.as_str());
        // A count has no unit to speak of: `requests_count` would say nothing.
        match word.filter(|&word| word != Unit::Count.as_str() && !says(name, word)) {
            Some(word) => Cow::Owned(format!("{name}_{word}")),
            None => Cow::Borrowed(name),
        }
    }

    /// All that is known, by name.
    pub(crate) fn all(&self) -> Vec<Description> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let described = known.iter().flat_map(|(name, described)| {
            described.iter().map(|(kind, unit, text)| Description {
                name: name.as_str().to_owned(),
                kind: *kind,
                unit: *unit,
                text: text.to_string(),
            })
        });
        let mut all: Vec<_> = described.collect();
        all.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        all
    }

    /// The unit of a metric, if one was given; `None` for a metric that is not known.
    fn unit(&self, kind: MetricKind, name: &str) -> Option<Option<Unit>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(name)?.iter().find(|(known, ..)| *known == kind)?;
        Some(found.1)
    }
}

/// Whether a name has this word at its end, or before the `_total` of a counter.
fn says(name: &str, word: &str) -> bool {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let before = name.strip_suffix(word);
    before.is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use opentsdb_faults::log::lines_of;

    use super::*;

    fn note(
        descriptions: &Descriptions,
        kind: MetricKind,
        name: &'static str,
        unit: Unit,
        text: &'static str,
    ) {
        descriptions.note(kind, &name.into(), Some(unit), text.into());
    }

    #[test]
    fn the_first_word_on_a_metric_stands() {
        let descriptions = Descriptions::default();
        note(&descriptions, MetricKind::Histogram, "latency", Unit::Seconds, "how long");
        note(&descriptions, MetricKind::Histogram, "latency", Unit::Bytes, "how many");
        note(&descriptions, MetricKind::Counter, "latency", Unit::Count, "how often");
        let all = descriptions.all();
        let texts: Vec<_> =
            all.iter().map(|description| (description.kind, description.text.as_str())).collect();
        assert_eq!(
            texts,
            [(MetricKind::Counter, "how often"), (MetricKind::Histogram, "how long")]
        );
    }

    #[test]
    fn that_there_are_too_many_is_logged_once() {
        let descriptions = Descriptions::default();
        let lines = lines_of(|| {
            for n in 0..MOST + 2 {
                let name = format!("m{n}").into();
                descriptions.note(MetricKind::Counter, &name, Some(Unit::Bytes), "".into());
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("WARN") && lines[0].contains("m10000"), "{lines:?}");
        assert_eq!(descriptions.with_unit(MetricKind::Counter, "m9999"), "m9999_bytes");
        assert_eq!(descriptions.with_unit(MetricKind::Counter, "m10001"), "m10001");
    }

    #[test]
    fn a_name_gets_the_word_of_its_unit() {
        let descriptions = Descriptions::default();
        note(&descriptions, MetricKind::Histogram, "latency", Unit::Seconds, "");
        note(&descriptions, MetricKind::Counter, "requests", Unit::Count, "");
        for name in [
            "wait_seconds",
            "wait.seconds",
            "wait_milliseconds",
            "seconds",
            "cpu_seconds_total",
            "cpu_total",
        ] {
            note(&descriptions, MetricKind::Histogram, name, Unit::Seconds, "");
        }
        for (kind, name, expected) in [
            (MetricKind::Histogram, "latency", "latency_seconds"),
            (MetricKind::Counter, "latency", "latency"),
            (MetricKind::Counter, "requests", "requests"),
            (MetricKind::Gauge, "unknown", "unknown"),
            (MetricKind::Histogram, "wait_seconds", "wait_seconds"),
            (MetricKind::Histogram, "wait.seconds", "wait.seconds"),
            (MetricKind::Histogram, "wait_milliseconds", "wait_milliseconds_seconds"),
            (MetricKind::Histogram, "seconds", "seconds"),
            (MetricKind::Histogram, "cpu_seconds_total", "cpu_seconds_total"),
            (MetricKind::Histogram, "cpu_total", "cpu_total_seconds"),
        ] {
            assert_eq!(descriptions.with_unit(kind, name), expected);
        }
    }

    #[test]
    fn names_made_of_data_do_not_pile_up() {
        let descriptions = Descriptions::default();
        for n in 0..MOST + 100 {
            descriptions.note(MetricKind::Counter, &format!("m{n}").into(), None, "".into());
        }
        assert_eq!(descriptions.all().len(), MOST);
    }
}
