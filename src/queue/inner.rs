//! What the queue's lock guards.

use std::time::Duration;

use crate::clock::Instant;

use super::batch::{BATCH_BYTES, Batch};
use super::lane::Lane;
use super::states::{Demand, Link, Phase, Watermark};

/// Buffers kept for reuse, 8 MiB of them.
const SPARE_BUFFERS: usize = 128;
/// The longest that lines are on average in a full queue.
const BYTES_PER_POINT: usize = 128;

/// The most that may wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limit {
    pub(super) points: usize,
    bytes: usize,
}

impl Limit {
    /// A queue of so many points has room for one batch at least.
    pub(super) fn of(points: usize) -> Self {
        Limit { points, bytes: points.saturating_mul(BYTES_PER_POINT).max(BATCH_BYTES) }
    }
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) limit: Limit,
    /// Lines from before the connection was last lost; sent in turn with `fresh`.
    pub(super) backlog: Lane,
    /// Lines made since.
    pub(super) fresh: Lane,
    /// Whether the last batch that was sent was of the backlog: the other lane is next in turn.
    pub(super) was_backlog: bool,
    /// The number of the next point: how many were ever added.
    pub(super) next_point: u64,
    /// The number behind the last point of a snapshot: those from it on are raw points.
    pub(super) snapshot_end: u64,
    /// Lines of the last snapshot.
    pub(super) snapshot_points: usize,
    /// Points that the writer took and has not confirmed.
    pub(super) in_flight: usize,
    /// The lowest number among them, and when the oldest of them was taken.
    pub(super) oldest_in_flight: Option<(u64, Instant)>,
    /// Whether the flusher waits for room.
    pub(super) wants_room: bool,
    /// Whether the flusher is in the midst of a snapshot.
    pub(super) is_corked: bool,
    /// The lowest watermark that somebody waits for. Notifying on every confirmation instead cost
    /// 20 % of two cores.
    pub(super) awaited: Option<Watermark>,
    /// How many callers wait for points to arrive: until they return, sending is not spread.
    pub(super) expedites: usize,
    pub(super) link: Link,
    pub(super) phase: Phase,
    /// When the writer abandons the queue by itself, since nobody is left who could.
    pub(super) ends_at: Option<Instant>,
    /// When a shutdown abandons it.
    pub(super) deadline: Option<Instant>,
    /// What follows is for the spool. While the link is down: whether the writer moves the oldest
    /// points to disk, so that the flusher waits for room instead of dropping them.
    pub(super) spills: bool,
    /// Points from this number on have to be on disk before they are sent, if any have to.
    pub(super) written: Option<u64>,
    /// How old the oldest point on disk was, and at which time.
    pub(super) oldest_spooled: Option<(Duration, Instant)>,
    /// Buffers of confirmed batches, at most `SPARE_BUFFERS`.
    pub(super) spare: Vec<Vec<u8>>,
    /// What was given up. The writer frees it, which takes tens of milliseconds for millions of
    /// points; the caller of a shutdown has no time left.
    pub(super) given_up: Vec<Lane>,
}

impl Inner {
    /// Points that wait to be sent.
    pub(super) fn points(&self) -> usize {
        self.backlog.points() + self.fresh.points()
    }

    pub(super) fn bytes(&self) -> usize {
        self.backlog.bytes() + self.fresh.bytes()
    }

    /// Whether so much more has to wait for room.
    pub(super) fn must_wait(&self, points: usize, bytes: usize) -> bool {
        let is_overfull =
            self.points() + points > self.limit.points || self.bytes() + bytes > self.limit.bytes;
        let makes_room = self.link == Link::Up || self.spills;
        self.phase <= Phase::Closing && makes_room && self.points() > 0 && is_overfull
    }

    /// Whether more than half of what may wait does.
    pub(super) fn is_half_used(&self) -> bool {
        self.points() > self.limit.points / 2 || self.bytes() > self.limit.bytes / 2
    }

    /// Whether the oldest points are to be moved to disk, before the queue is full.
    pub(super) fn wants_spill(&self) -> bool {
        let is_full = self.wants_room || self.is_half_used();
        self.spills && self.link == Link::Down && self.points() > 0 && is_full
    }

    /// From which number on points have to be written to disk before they are sent, if there are
    /// any.
    pub(super) fn unwritten(&self) -> Option<u64> {
        self.written.filter(|written| *written < self.next_point)
    }

    pub(super) fn waiting(&self) -> Demand {
        let is_closing = self.phase >= Phase::Closing;
        Demand {
            is_closing,
            unsent: self.points(),
            fresh: self.fresh.points(),
            snapshot_points: self.snapshot_points,
            has_backlog: !self.backlog.is_empty(),
            is_expedited: is_closing || self.expedites > 0,
            is_filling: self.wants_room || self.is_half_used(),
        }
    }

    /// Adds lines to the fresh lane: to its youngest batch if they fit there, else as another one.
    pub(super) fn add(&mut self, lines: Vec<u8>, points: usize, taken: Instant) {
        let batch = Batch::new(lines, points, self.next_point, taken);
        self.next_point = batch.end();
        if let Some(joined) = self.fresh.add(batch) {
            self.keep_spare(joined);
        }
    }

    /// The connection is lost: what is fresh becomes the tail of the backlog.
    pub(super) fn shelve(&mut self) {
        while let Some(batch) = self.fresh.pop() {
            if let Some(joined) = self.backlog.add(batch) {
                self.keep_spare(joined);
            }
        }
    }

    /// The next batch to send, from each lane in turn.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let is_backlog = !self.backlog.is_empty() && (!self.was_backlog || self.fresh.is_empty());
        let lane = if is_backlog { &mut self.backlog } else { &mut self.fresh };
        let front = lane.front()?;
        if !front.is_from_disk && self.written.is_some_and(|written| front.end() > written) {
            return None;
        }
        self.was_backlog = is_backlog;
        let batch = lane.pop()?;
        self.in_flight += batch.points();
        self.oldest_in_flight = oldest_of(self.oldest_in_flight.into_iter().chain([key(&batch)]));
        Some(batch)
    }

    /// The lane with the oldest points that wait.
    pub(super) fn oldest_lane(&mut self) -> &mut Lane {
        if self.backlog.is_empty() { &mut self.fresh } else { &mut self.backlog }
    }

    /// Takes `points` off what is in flight; these batches still are.
    pub(super) fn confirm<'a>(&mut self, points: usize, held: impl Iterator<Item = &'a Batch>) {
        self.in_flight -= points;
        self.oldest_in_flight = oldest_of(held.map(key));
    }

    /// Number and time of the oldest point in each lane and in flight.
    pub(super) fn fronts(&self) -> impl Iterator<Item = (u64, Instant)> {
        let lanes = [&self.backlog, &self.fresh].into_iter().filter_map(Lane::front).map(key);
        lanes.chain(self.oldest_in_flight)
    }

    /// When the oldest point was taken that is neither confirmed nor dropped.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.fronts().map(|(_, taken)| taken).min()
    }

    /// Whether lines of a snapshot wait in this lane.
    pub(super) fn has_snapshot(&self, lane: &Lane) -> bool {
        lane.front().is_some_and(|batch| batch.first < self.snapshot_end)
    }

    pub(super) fn is_settled(&self, watermark: Watermark) -> bool {
        self.phase >= Phase::Abandoned || self.fronts().all(|(first, _)| first >= watermark.0)
    }

    /// Whether what somebody waits for is settled. Says so once: who waits on asks again.
    pub(super) fn settles_awaited(&mut self) -> bool {
        let is_settled = self.awaited.is_some_and(|watermark| self.is_settled(watermark));
        if is_settled {
            self.awaited = None;
        }
        is_settled
    }

    /// Drops the oldest points, those of the backlog first, until the limit holds. The youngest
    /// point stays, however long it is. Returns how many were dropped.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let before = self.points();
        loop {
            let points = self.points().saturating_sub(self.limit.points);
            let bytes = self.bytes().saturating_sub(self.limit.bytes);
            if (points == 0 && bytes == 0) || self.points() <= 1 {
                break;
            }
            let next_point = self.next_point;
            let lane = self.oldest_lane();
            let Some(front) = lane.front() else { break };
            let is_whole = front.points() <= points.max(1) || front.lines().len() <= bytes;
            let is_last = front.end() == next_point;
            if !is_whole || is_last {
                lane.drop_of_front(points, bytes);
            } else if let Some(batch) = lane.pop() {
                self.keep_spare(batch);
            }
        }
        before - self.points()
    }

    /// Gives up everything that is not confirmed. Returns how many points that is.
    pub(super) fn give_up(&mut self) -> usize {
        let points = self.points() + std::mem::take(&mut self.in_flight);
        self.oldest_in_flight = None;
        self.given_up.extend([&mut self.backlog, &mut self.fresh].map(std::mem::take));
        points
    }

    /// Keeps the buffer of a batch that is done with, if it has room for another batch.
    pub(super) fn keep_spare(&mut self, batch: Batch) {
        let bytes = batch.into_buffer();
        if self.spare.len() < SPARE_BUFFERS && bytes.capacity() >= BATCH_BYTES {
            self.spare.push(bytes);
        }
    }
}

fn key(batch: &Batch) -> (u64, Instant) {
    (batch.first, batch.taken)
}

/// The lowest number and the earliest time.
fn oldest_of(batches: impl Iterator<Item = (u64, Instant)>) -> Option<(u64, Instant)> {
    batches.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
}
