//! Points past the aggregation: potsdb's `send`.
//!
//! A raw point is checked and rendered on the thread that sends it and joins the queue at once.
//! What the aggregation rules out by itself is checked here: two values of one series at one time.
//! A series that the recorder writes too is refused; of the others [`SentTimes`] remembers which
//! times they have had, by the recorder too where it wrote them once.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::exporter::Exporter;
use crate::error::SendError;
use crate::record::registry::RawClaim;
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::point::Point;
use crate::wire::series::{LineBuf, Rules};

/// Checks a point and queues it.
pub(crate) fn send(exporter: &Exporter, sent: &SentTimes, point: &Point) -> Result<(), SendError> {
    let Exporter { rules, precision, registry, queue, counters, clock, .. } = exporter;
    let line = line(rules, point)?;
    let timestamp = point.timestamp.unwrap_or_else(|| precision.of(clock.wall()));
    if !precision.fits(timestamp) {
        return Err(SendError::InvalidTimestamp);
    }
    let mut lines = Lines::new(Vec::new(), exporter.max_line);
    lines.set_time(timestamp);
    let pushed = lines.push(line.line(), Variant::default(), point.value);
    pushed.map_err(|unsendable| match unsendable {
        Unsendable::TooLong => SendError::TooLong,
        Unsendable::NotFinite => SendError::NotFinite,
    })?;
    match registry.claim_raw(&point.metric, &point.tags) {
        RawClaim::Granted => {}
        RawClaim::Recorded => return Err(SendError::Recorded),
        RawClaim::Full => return Err(SendError::SeriesLimit),
    }
    let free_from = || registry.free_from(line.line());
    if !sent.admit(line.line().parts(), timestamp, free_from) {
        counters.points_taken.add(1);
        counters.points_dropped.duplicate.add(1);
        return Err(SendError::Duplicate);
    }
    let (line, _) = lines.take(Vec::new());
    if queue.append(line, clock.now()) { Ok(()) } else { Err(SendError::AlreadyShutdown) }
}

fn line(rules: &Rules, point: &Point) -> Result<LineBuf, SendError> {
    let is_clean = |text: &String| rules.charset.is_clean(text);
    if !is_clean(&point.metric) {
        return Err(SendError::InvalidMetric);
    }
    if !point.tags.iter().all(|(key, value)| is_clean(key) && is_clean(value)) {
        return Err(SendError::InvalidTag);
    }
    let tags = point.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let keys: HashSet<_> = tags.clone().map(|(key, _)| rules.clean_key(key, None)).collect();
    let identity = rules.identify(&point.metric, tags, None);
    // Without one of its tags it may be a point of another series.
    if keys.len() < point.tags.len() || !identity.dropped.is_empty() {
        return Err(SendError::TooManyTags);
    }
    Ok(identity.line())
}

/// Which times the raw points of each series had. As many series as
/// [`claim_raw`](crate::record::registry::Registry::claim_raw) grants, told apart by a keyed hash.
#[derive(Default)]
pub(crate) struct SentTimes {
    hasher: RandomState,
    series: Mutex<HashMap<u64, Times>>,
}

/// The times of one series.
#[derive(Default)]
struct Times {
    last: u64,
    /// The 64 times up to the last; the lowest bit is the last itself.
    seen: u64,
}

impl SentTimes {
    /// Whether a point of this series is certainly the first of its time; from now on it is not.
    /// No point is before `free_from`, which is asked for with the first of a series.
    fn admit(&self, series: (&[u8], &[u8]), time: u64, free_from: impl FnOnce() -> u64) -> bool {
        let mut known = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = known.entry(self.hasher.hash_one(series));
        series.or_insert_with(|| Times::from(free_from())).admit(time)
    }
}

impl Times {
    /// Those before this one are taken.
    fn from(time: u64) -> Self {
        let taken = |last| Times { last, seen: u64::MAX };
        time.checked_sub(1).map_or_else(Times::default, taken)
    }

    fn admit(&mut self, time: u64) -> bool {
        let ahead = u32::try_from(time.saturating_sub(self.last)).unwrap_or(u32::MAX);
        self.seen = self.seen.checked_shl(ahead).unwrap_or(0);
        self.last = self.last.max(time);
        let back = u32::try_from(self.last - time).unwrap_or(u32::MAX);
        // A time that is forgotten counts as seen.
        let Some(bit) = 1u64.checked_shl(back) else { return false };
        let is_first = self.seen & bit == 0;
        self.seen |= bit;
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::Options;
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;

    const T: u64 = 1_700_000_000;

    fn admit(sent: &SentTimes, series: &str, time: u64) -> bool {
        sent.admit((b"put m", series.as_bytes()), time, || 0)
    }

    /// Two points that differ in the lost tag would be of one series.
    #[test]
    fn a_point_that_would_lose_a_tag_is_refused() {
        let exporter = Exporter::of_a_test(Options::of_a_test(), Clock::default());
        let with_tags = |tags: usize| {
            let tagged = |point: Point, n| point.tag(format!("t{n}"), "v");
            let point = (0..tags).fold(Point::new("m", 1), tagged);
            send(&exporter, &SentTimes::default(), &point)
        };
        let renamed = Point::new("m", 1).tag("time", "a").tag("time_", "b");
        let found = send(&exporter, &SentTimes::default(), &renamed);
        assert_eq!(found, Err(SendError::TooManyTags), "`time` is sent as `time_`");
        // With the host tag these are eight, nine and ten.
        let expected = [Ok(()), Err(SendError::TooManyTags), Err(SendError::TooManyTags)];
        assert_eq!([7, 8, 9].map(with_tags), expected);
    }

    #[test]
    fn a_time_is_admitted_once_and_not_when_that_cannot_be_known() {
        let sent = SentTimes::default();
        let cases = [
            ("a", T, true),
            ("a", T, false),
            ("b", T, true),
            ("a", T + 1, true),
            // In any order within 64 seconds.
            ("a", T + 60, true),
            ("a", T + 30, true),
            ("a", T + 30, false),
            ("a", T + 1, false),
            ("a", T - 3, true),
            ("a", T - 4, false),
            ("a", T + 1_000, true),
            ("a", T + 60, false),
            ("a", u64::MAX, true),
            ("a", u64::MAX, false),
            ("b", T - 63, true),
            ("b", T - 64, false),
        ];
        for (series, time, is_new) in cases {
            assert_eq!(admit(&sent, series, time), is_new, "{series} {time}");
        }
    }

    #[test]
    fn no_time_is_admitted_before_the_series_was_free() {
        let sent = SentTimes::default();
        let cases = [(T - 1, false), (T - 64, false), (T, true), (T - 1, false), (T + 9, true)];
        for (time, is_new) in cases {
            assert_eq!(sent.admit((b"put m", b"a"), time, || T), is_new, "{time}");
        }
    }

    proptest! {
        #[test]
        fn no_time_is_admitted_twice_and_each_of_the_last_64_once(
            points in proptest::collection::vec(("[ab]", 0u64..200), 1..300),
        ) {
            let (times, mut sent) = (SentTimes::default(), HashSet::new());
            for (series, time) in points {
                let last = sent.iter().filter(|(other, _)| *other == series).map(|(_, time)| *time).max();
                let is_new = last.is_none_or(|last| time + 64 > last) && !sent.contains(&(series.clone(), time));
                prop_assert_eq!(admit(&times, &series, time), is_new);
                if is_new {
                    sent.insert((series, time));
                }
            }
        }
    }
}
