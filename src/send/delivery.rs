//! What outlives a connection: the lines that are not confirmed, and how fast they may be sent.

use std::sync::Arc;
use std::time::Duration;

use super::limiter::{Demand, Limiter};
use super::status::Status;
use super::window::{Place, Window};
use crate::clock::Instant;
use crate::queue::{Phase, Queue};
use crate::stats::Counters;

pub(super) struct Delivery {
    pub(super) queue: Arc<Queue>,
    pub(super) counters: Arc<Counters>,
    pub(super) window: Window,
    pub(super) limiter: Limiter,
    pub(super) status: Status,
    /// How long a connection may make no progress.
    pub(super) write_timeout: Duration,
}

impl Delivery {
    /// What there is to send, in the queue and in the window.
    pub(super) fn demand(&self) -> Demand {
        // The phase first: what is pushed before it closes is then seen.
        let is_closing = self.queue.phase() >= Phase::Closing;
        let waiting = self.queue.waiting();
        let held = self.window.ungranted();
        let has_backlog = waiting.backlog > 0 || self.window.is_resending();
        Demand {
            is_closing,
            unsent: waiting.fresh + waiting.backlog + held,
            fresh: if has_backlog { waiting.fresh } else { waiting.fresh + held },
            snapshot_points: waiting.snapshot_points,
            has_backlog,
            is_expedited: is_closing || self.queue.is_expedited(),
            is_filling: waiting.is_filling,
        }
    }

    /// Lets at most so many lines be written, of the next batch.
    pub(super) fn grant(&mut self, points: usize) {
        if self.window.ungranted() == 0 {
            self.queue.pop().into_iter().for_each(|batch| self.window.push(batch));
        }
        self.window.grant(points);
    }

    /// The kernel took so many bytes of the window; answers how many lines they completed.
    pub(super) fn wrote(&mut self, bytes: usize, now: Instant) -> usize {
        let written = self.window.wrote(bytes);
        self.counters.points_sent.add(written.points as u64);
        self.counters.points_resent.add(written.resent as u64);
        self.limiter.spend(written.points, now);
        written.points
    }

    /// Everything before `place` was parsed; answers how many points that confirmed.
    pub(super) fn confirm(&mut self, place: Place) -> usize {
        let queue = &self.queue;
        let points = self.window.confirm(place, |batch| queue.recycle(batch));
        self.queue.confirm(points, self.window.batches());
        points
    }
}
