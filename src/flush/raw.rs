//! Points past the aggregation: potsdb's `send`.
//!
//! A raw point is checked and rendered on the thread that sends it and joins the queue at once. What the aggregation rules out by
//! itself has to be looked after here: two values of one series at one time. The last [`REMEMBERED`] points are remembered, so a
//! second one for the same series and time is dropped and counted; and a series that the recorder writes too is refused.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use super::schedule::TimestampPrecision;
use crate::clock::Clock;
use crate::error::SendError;
use crate::queue::Queue;
use crate::record::registry::{RawClaim, Registry};
use crate::stats::Counters;
use crate::wire::line::{Lines, Unsendable, Variant};
use crate::wire::point::Point;
use crate::wire::series::Rules;
use crate::wire::series::{Line, LineBuf};

/// Points remembered to know a second one for the same series and time; 2 MiB of them at the most.
const REMEMBERED: usize = 65_536;

/// The way of raw points.
pub(crate) struct RawPoints {
    pub(crate) rules: Rules,
    pub(crate) precision: TimestampPrecision,
    pub(crate) registry: Arc<Registry>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) recent: Recent,
}

impl RawPoints {
    /// Checks a point and queues it.
    pub(crate) fn send(&self, point: &Point) -> Result<(), SendError> {
        let line = self.line(point)?;
        let timestamp = point.timestamp.unwrap_or_else(|| self.precision.of(self.clock.wall()));
        if !self.precision.fits(timestamp) {
            return Err(SendError::InvalidTimestamp);
        }
        let mut lines = Lines::default();
        lines.set_time(timestamp);
        lines.push(line.line(), Variant::default(), point.value).map_err(|unsendable| {
            match unsendable {
                Unsendable::TooLong => SendError::TooLong,
                Unsendable::NotFinite => SendError::NotFinite,
            }
        })?;
        if self.registry.claim_raw(&point.metric, &point.tags) != RawClaim::Granted {
            return Err(SendError::Recorded);
        }
        if !self.recent.is_new(line.line(), timestamp) {
            self.counters.points_taken.add(1);
            self.counters.dropped_duplicate.add(1);
            return Ok(());
        }
        if !self.queue.append(lines.bytes(), self.clock.now()) {
            return Err(SendError::AlreadyShutdown);
        }
        Ok(())
    }

    fn line(&self, point: &Point) -> Result<LineBuf, SendError> {
        let charset = self.rules.charset;
        if !charset.is_clean(&point.metric) {
            return Err(SendError::InvalidMetric);
        }
        if !point.tags.iter().all(|(key, value)| charset.is_clean(key) && charset.is_clean(value)) {
            return Err(SendError::InvalidTag);
        }
        let keys: HashSet<_> = point.tags.iter().map(|(key, _)| key).collect();
        if keys.len() < point.tags.len() || keys.len() > self.rules.max_tags {
            return Err(SendError::TooManyTags);
        }
        let tags = point.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(self.rules.identify(&point.metric, tags, None).line())
    }
}

/// The series and times of the last raw points, by hash.
#[derive(Default)]
pub(crate) struct Recent {
    hasher: RandomState,
    points: Mutex<RecentPoints>,
}

#[derive(Default)]
struct RecentPoints {
    known: HashSet<u64>,
    /// The same, oldest first.
    order: VecDeque<u64>,
}

impl Recent {
    fn is_new(&self, line: Line<'_>, timestamp: u64) -> bool {
        let hash = self.hasher.hash_one((line.parts(), timestamp));
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        if !points.known.insert(hash) {
            return false;
        }
        points.order.push_back(hash);
        if points.order.len() > REMEMBERED {
            let oldest = points.order.pop_front();
            oldest.map(|hash| points.known.remove(&hash));
        }
        true
    }
}
