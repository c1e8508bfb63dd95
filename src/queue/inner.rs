//! What the queue's lock guards.

use std::collections::VecDeque;

use super::batch::Batch;
use super::states::{Link, Phase, Ticket};
use super::{BATCH_BYTES, SPARE_BUFFERS};
use crate::clock::Instant;

pub(super) struct Inner {
    /// Lines from before the connection was last lost; sent in turn with `fresh`.
    pub(super) backlog: VecDeque<Batch>,
    /// Lines made since.
    pub(super) fresh: VecDeque<Batch>,
    /// Whether the backlog is next in turn.
    pub(super) backlog_turn: bool,
    /// Points in both lanes; at most `limit`.
    pub(super) points: usize,
    /// Those of them in `backlog`.
    pub(super) backlog_points: usize,
    /// The order of the next batch.
    pub(super) next_order: u64,
    /// The order behind the last batch of a snapshot: batches from it on hold raw points alone.
    pub(super) snapshot_end: u64,
    /// Lines of the last snapshot.
    pub(super) snapshot_points: usize,
    /// The lowest order that the writer holds unconfirmed, and when its oldest point was taken.
    pub(super) in_flight: Option<(u64, Instant)>,
    /// Whether the flusher waits for room.
    pub(super) wants_room: bool,
    /// The lowest ticket that somebody waits for. Woken for each batch, who waits takes a fifth of two processors from the flusher and the writer.
    pub(super) awaited: Option<Ticket>,
    /// How many calls wait for points to arrive: until they return, nothing is spread over the interval.
    pub(super) hurries: usize,
    pub(super) link: Link,
    pub(super) phase: Phase,
    /// When the writer gives up by itself, since nobody is left who could.
    pub(super) ends_at: Option<Instant>,
    /// Buffers of settled batches, at most `SPARE_BUFFERS`.
    pub(super) spare: Vec<Vec<u8>>,
    /// What was given up. It is for the writer to free, which takes tens of milliseconds for millions of points: who gives up has no
    /// time left.
    pub(super) given_up: Vec<VecDeque<Batch>>,
}

impl Inner {
    pub(super) fn new() -> Self {
        Inner {
            backlog: VecDeque::new(),
            fresh: VecDeque::new(),
            backlog_turn: true,
            points: 0,
            backlog_points: 0,
            next_order: 0,
            snapshot_end: 0,
            snapshot_points: 0,
            in_flight: None,
            wants_room: false,
            awaited: None,
            hurries: 0,
            link: Link::Up,
            phase: Phase::Open,
            ends_at: None,
            spare: Vec::new(),
            given_up: Vec::new(),
        }
    }

    /// Whether so many more points have to wait for room.
    pub(super) fn must_wait(&self, points: usize, limit: usize) -> bool {
        self.phase <= Phase::Closing
            && self.link == Link::Up
            && self.overfull(points, limit)
            && self.points > 0
    }

    pub(super) fn overfull(&self, more: usize, limit: usize) -> bool {
        self.points + more > limit
    }

    /// The oldest batch of each lane.
    pub(super) fn fronts(&self) -> impl Iterator<Item = &Batch> {
        [&self.backlog, &self.fresh].into_iter().filter_map(VecDeque::front)
    }

    pub(super) fn is_settled(&self, ticket: Ticket) -> bool {
        let lanes = self.fronts().map(|batch| batch.order);
        lanes.chain(self.in_flight.map(|(order, _)| order)).all(|order| order >= ticket.0)
    }

    /// Whether what somebody waits for is settled; told once, for who still waits says so again.
    pub(super) fn settles_awaited(&mut self) -> bool {
        let is_settled = self.awaited.is_some_and(|ticket| self.is_settled(ticket));
        if is_settled {
            self.awaited = None;
        }
        is_settled
    }

    pub(super) fn drop_oldest(&mut self, mut excess: usize) {
        self.points -= excess;
        self.backlog_points -= excess.min(self.backlog_points);
        while excess > 0 {
            let lane = if self.backlog.is_empty() { &mut self.fresh } else { &mut self.backlog };
            let Some(batch) = lane.front_mut() else { return };
            if batch.points > excess {
                batch.drop_oldest(excess);
                return;
            }
            excess -= batch.points;
            if let Some(batch) = lane.pop_front() {
                self.keep_spare(batch.bytes);
            }
        }
    }

    /// Keeps a buffer that has room for a batch.
    pub(super) fn keep_spare(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && bytes.capacity() >= BATCH_BYTES {
            self.spare.push(bytes);
        }
    }
}
