//! What outlives a connection: the lines that are not confirmed, and how fast they may be sent.

use std::sync::Arc;
use std::time::Duration;

use super::limiter::Limiter;
use super::status::Status;
use super::window::{Place, Window};
use crate::clock::Instant;
use crate::queue::{Demand, Queue};
use crate::stats::Counters;

pub(super) struct Delivery {
    pub(super) queue: Arc<Queue>,
    pub(super) counters: Arc<Counters>,
    pub(super) window: Window,
    pub(super) limiter: Limiter,
    pub(super) status: Status,
    /// When the endpoint that is connected is to be left, once everything is confirmed, so that a
    /// preferred one can be tried.
    pub(super) leave_at: Option<Instant>,
    /// How long a connection may make no progress.
    pub(super) write_timeout: Duration,
    pub(super) keeper: Option<Box<dyn Keep>>,
}

/// What keeps points on disk; only the feature `spool` has it.
pub(crate) trait Keep: Send {
    /// Whether there are points on disk alone.
    fn has_backlog(&self) -> bool;

    /// Does what is to be done; returns when there will be more, should nothing happen until then.
    fn turn(&mut self, window: &Window) -> Option<Instant>;

    /// Everything that is not confirmed goes to disk, whatever failed before.
    fn keep_all(&mut self, window: &Window);
}

impl Delivery {
    /// What there is to send, in the queue and in the window.
    pub(super) fn demand(&self) -> Demand {
        let (mut demand, held) = (self.queue.waiting(), self.window.ungranted());
        demand.has_backlog |= self.window.is_resending() || self.has_backlog_on_disk();
        demand.unsent += held;
        if !demand.has_backlog {
            demand.fresh += held;
        }
        demand
    }

    /// Whether there is nothing to send, and nothing to confirm.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.queue.waiting().unsent == 0
    }

    /// Keeps on disk what memory has no room for, if it may; returns when to do so again.
    pub(super) fn keep(&mut self) -> Option<Instant> {
        self.keeper.as_mut()?.turn(&self.window)
    }

    pub(super) fn has_backlog_on_disk(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.has_backlog())
    }

    /// Gives up what is not confirmed, on disk if it may.
    pub(super) fn abandon(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.keep_all(&self.window);
        }
        self.queue.abandon();
    }

    /// Nothing more is sent.
    pub(super) fn finish(&mut self) {
        self.keep();
        // The directory is free when somebody is told that this is over.
        self.keeper = None;
        self.queue.finish();
    }

    /// Lets at most so many lines be written, of the next batch.
    pub(super) fn grant(&mut self, points: usize) {
        if self.window.ungranted() == 0 {
            self.queue.pop().into_iter().for_each(|batch| self.window.push(batch));
        }
        self.window.grant(points);
    }

    /// The kernel took so many bytes of the window, or they are in a request; returns how many
    /// lines they completed.
    pub(super) fn wrote(&mut self, bytes: usize) -> usize {
        let written = self.window.wrote(bytes);
        self.counters.points_sent.add(written.points as u64);
        self.counters.points_resent.add(written.resent as u64);
        written.points
    }

    /// Drops the next line, before which everything is confirmed: no request has room for it.
    #[cfg(feature = "http")]
    pub(super) fn drop_too_long(&mut self) {
        let places = self.window.written()..self.window.granted_place();
        let bytes = self.window.lines(places).next().map_or(0, <[u8]>::len);
        self.window.wrote(bytes);
        let queue = &self.queue;
        let points = self.window.confirm(self.window.written(), |batch| queue.recycle(batch));
        self.queue.drop_too_long(points, self.window.batches());
    }

    /// Everything before `place` was parsed; returns how many points that confirmed.
    pub(super) fn confirm(&mut self, place: Place) -> usize {
        let queue = &self.queue;
        let points = self.window.confirm(place, |batch| queue.recycle(batch));
        self.queue.confirm(points, self.window.batches());
        points
    }
}

/// Whether to end a connection once everything is confirmed: at the shutdown, or after `leave_at`.
/// Not for its age while a flush waits: there may be more at any moment, and connecting takes time.
pub(super) fn is_leaving(demand: Demand, leave_at: Option<Instant>, now: Instant) -> bool {
    let is_old = leave_at.is_some_and(|at| now >= at);
    demand.is_closing || (is_old && !demand.is_expedited)
}
