//! What outlives a connection: the lines that are not confirmed, and how fast they may be sent.

use std::sync::Arc;
use std::time::Duration;

use super::limiter::{Demand, Limiter};
use super::window::{Place, Window};
use crate::clock::Instant;
use crate::log_limiter::LogLimiter;
use crate::queue::{Phase, Queue};
use crate::stats::Counters;

pub(super) struct Delivery {
    pub(super) queue: Arc<Queue>,
    pub(super) counters: Arc<Counters>,
    pub(super) window: Window,
    pub(super) limiter: Limiter,
    pub(super) log: LogLimiter,
    /// How long a connection may make no progress.
    pub(super) write_timeout: Duration,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// The queue takes no more points.
    pub(super) is_closing: bool,
    /// Points that no write was granted for, in the queue and in the window.
    pub(super) demand: Demand,
}

impl Work {
    /// Whether a write was granted for everything there is.
    pub(super) fn is_sent(&self) -> bool {
        self.demand.unsent == 0
    }
}

impl Delivery {
    pub(super) fn work(&self) -> Work {
        // The phase first: what is pushed before it closes is then seen.
        let is_closing = self.queue.phase() >= Phase::Closing;
        let waiting = self.queue.waiting();
        let held = self.window.ungranted();
        let has_backlog = waiting.backlog > 0 || self.window.is_resending();
        let demand = Demand {
            unsent: waiting.fresh + waiting.backlog + held,
            fresh: if has_backlog { waiting.fresh } else { waiting.fresh + held },
            snapshot_points: waiting.snapshot_points,
            has_backlog,
            is_expedited: is_closing || self.queue.is_expedited(),
            is_filling: waiting.is_filling,
        };
        Work { is_closing, demand }
    }

    /// Whether anything is to be sent or to be confirmed.
    pub(super) fn has_work(&self) -> bool {
        !self.window.is_empty() || self.queue.has_unsent()
    }

    /// Takes the next batch into the window; answers whether there was one and room for it.
    pub(super) fn take_batch(&mut self) -> bool {
        let batch = if self.window.has_room() { self.queue.pop() } else { None };
        batch.map(|batch| self.window.push(batch)).is_some()
    }

    /// The kernel took so many bytes of the window; answers how many lines were completed by them.
    pub(super) fn wrote(&mut self, bytes: usize) -> u64 {
        let written = self.window.wrote(bytes);
        self.counters.points_sent.add(written.points);
        self.counters.points_resent.add(written.resent);
        written.points
    }

    /// Everything before `place` was parsed.
    pub(super) fn confirm(&mut self, place: Place) {
        let queue = &self.queue;
        let points = self.window.confirm(place, |batch| queue.recycle(batch));
        self.queue.confirm(points, self.window.batches());
    }

    /// The server complains about the rate.
    pub(super) fn slow_down(&mut self, now: Instant) {
        self.limiter.complained(self.window.confirmed(), self.window.written(), now);
    }
}
