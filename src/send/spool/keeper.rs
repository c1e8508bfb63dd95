//! What goes to disk and what comes back, and when.
//!
//! **Problem.** Memory has room for an outage of minutes. A disk may be slow, full or gone, and
//! must not cost the points that memory could have kept, nor hold up the flusher.
//!
//! **Idea.** Only the writer's thread touches the disk, in [`Keeper::turn`], and only for what
//! would be dropped. Lines are copied to disk first, and taken out of memory when they are there:
//! what fails is still in memory.
//!
//! **Mechanism.** In each turn:
//! 1. Shortly before a shutdown's deadline everything that is not confirmed goes to disk.
//! 2. With `write_ahead`, what was pushed since the last turn is copied; it is not sent before.
//! 3. While the server is away and the queue is more than half full, its older half goes to disk.
//!    With `write_ahead` it is there already, and the oldest copies become backlog.
//! 4. What is settled is deleted, and what is too old.
//! 5. While the server is there and nothing else waits to be sent, some lines of the backlog come
//!    back.
//!
//! After a failure 2 and 3 pause, for a second at first and for a minute at last.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::options::Spool;
use super::store::Store;
use crate::clock::{Clock, Instant};
use crate::log_limiter::LogLimiter;
use crate::queue::disk::{Disk, View};
use crate::queue::{Phase, Queue};
use crate::send::delivery::Keep;
use crate::send::window::Window;
use crate::stats::Counters;
use crate::wire::line::LineRules;

#[cfg(test)]
mod tests;

/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often copies are synced at most: once a snapshot, and not once a raw point.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The time before a shutdown's deadline in which everything goes to disk: this part of what there
/// is, and at most that.
const LAST_PART: (u32, Duration) = (4, Duration::from_secs(1));

/// See the module.
pub(crate) struct Keeper {
    store: Store,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    clock: Clock,
    /// Whether each snapshot is on disk before it is sent.
    is_ahead: bool,
    /// Whether something was sent that is not on disk, though it should be.
    has_gap: bool,
    /// The time of the next attempt and the pause before it, after a failure.
    failed: Option<(Instant, Duration)>,
    /// When the backlog is read again, after a failure.
    read_at: Option<Instant>,
    /// When copies were synced last.
    synced: Option<Instant>,
    /// When everything goes to disk, once there is a deadline.
    last_at: Option<Instant>,
    /// Lines on their way to disk, or from it.
    lines: Vec<u8>,
    log: LogLimiter,
}

impl Keeper {
    /// Opens the directory, for the points of this queue.
    pub(crate) fn open(
        spool: &Spool,
        rules: LineRules,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> io::Result<Self> {
        let store = Store::open(spool, rules)?;
        if store.has_backlog() {
            let (directory, bytes) = (store.directory.path.display(), store.bytes());
            tracing::info!(%directory, bytes, "the spool has points to deliver");
        }
        counters.spool_bytes.set(store.bytes());
        Ok(Keeper {
            store,
            queue,
            counters,
            clock,
            is_ahead: spool.write_ahead,
            has_gap: false,
            failed: None,
            read_at: None,
            synced: None,
            last_at: None,
            lines: Vec::new(),
            log: LogLimiter::default(),
        })
    }
}

impl Keep for Keeper {
    fn has_backlog(&self) -> bool {
        self.store.has_backlog()
    }

    fn turn(&mut self, window: &Window) -> Option<Instant> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let is_well = self.failed.is_none_or(|(retry_at, _)| now >= retry_at);
        let oldest = self.store.oldest(wall).map(|age| (age, now));
        let view = self.queue.view(Disk { is_well, is_ahead: self.is_ahead, oldest });
        let last_at = self.last_at(&view, now);
        let is_last = last_at.is_some_and(|at| now >= at);
        if is_last {
            self.keep_all(window);
            self.queue.abandon();
        }
        if is_last || view.phase >= Phase::Abandoned {
            return None;
        }
        let mut is_busy = false;
        if is_well {
            let kept = self.keep(&view, now, wall);
            is_busy = self.note(kept, now);
        }
        self.store.settle(view.settled);
        self.store.expire(wall);
        let is_connected = self.counters.connected.load(Ordering::Relaxed);
        let may_read = is_connected && window.ungranted() == 0 && view.room > 0;
        self.read_at = self.read_at.filter(|at| now < *at);
        if may_read && self.read_at.is_none() && self.store.has_unread() {
            self.read(view.room, now);
            is_busy = true;
        }
        self.count(now);
        let retry_at = self.failed.map(|(at, _)| at);
        let is_due = self.store.is_dirty && self.failed.is_none();
        let sync_at = self.synced.filter(|_| is_due).map(|at| at + SYNC_INTERVAL);
        let times = [is_busy.then_some(now), retry_at, self.read_at, sync_at, last_at];
        times.into_iter().flatten().min()
    }

    fn keep_all(&mut self, window: &Window) {
        let kept = self.try_keep_all(window, self.clock.wall());
        let now = self.clock.now();
        self.note(kept, now);
        self.count(now);
    }
}

impl Keeper {
    /// When everything goes to disk.
    fn last_at(&mut self, view: &View, now: Instant) -> Option<Instant> {
        let deadline = view.deadline.filter(|_| view.phase == Phase::Closing)?;
        let left = deadline.saturating_duration_since(now);
        Some(*self.last_at.get_or_insert(now + (left - (left / LAST_PART.0).min(LAST_PART.1))))
    }

    /// Writes what is to be written. Returns whether that may have changed what there is to do.
    fn keep(&mut self, view: &View, now: Instant, wall: Duration) -> io::Result<bool> {
        let (mut has_written, mut copied) = (false, Ok(()));
        if let Some(from) = view.unwritten {
            let below;
            (below, copied) = self.copy(from, usize::MAX, wall);
            self.queue.set_written(below);
            has_written = below > from;
        }
        if self.synced.is_none_or(|at| now >= at + SYNC_INTERVAL) && self.store.is_dirty {
            self.synced = Some(now);
            self.store.sync()?;
        }
        let Some(half) = view.spill else { return copied.map(|()| has_written) };
        // What was read is read again; it would be in the way.
        self.store.rewind();
        let below;
        if self.is_ahead {
            let released = self.store.release_copies()?;
            // The copies may have filled the disk; the backlog gives way to others.
            copied = if released.is_some() { Ok(()) } else { copied };
            below = released.unwrap_or_default();
        } else {
            (below, copied) = self.copy(0, half, wall);
        }
        self.store.sync()?;
        self.queue.spooled(below);
        copied.map(|()| true)
    }

    /// Copies batches to disk, from a number on, until it is so many points; returns below which
    /// number, and what kept it from more.
    fn copy(&mut self, from: u64, points: usize, wall: Duration) -> (u64, io::Result<()>) {
        let (mut below, mut copied) = (from, 0);
        while copied < points {
            let Some(numbers) = self.queue.copy(below, &mut self.lines) else { break };
            let copies_below = self.is_ahead.then_some(numbers.end);
            if let Err(error) = self.store.append(&self.lines, copies_below, wall) {
                return (below, Err(error));
            }
            copied += (numbers.end - numbers.start) as usize;
            below = numbers.end;
        }
        (below, Ok(()))
    }

    fn try_keep_all(&mut self, window: &Window, wall: Duration) -> io::Result<bool> {
        let written = self.queue.written().filter(|_| !self.has_gap);
        for lines in window.unconfirmed().filter(|_| written.is_none()) {
            self.store.append(lines, None, wall)?;
        }
        let mut below = written.unwrap_or_default();
        loop {
            let copied;
            (below, copied) = self.copy(below, usize::MAX, wall);
            copied?;
            // The system has them, however this process ends; the deadline may not wait for more.
            if self.queue.spooled_all(below) {
                return self.store.sync().map(|()| true);
            }
        }
    }

    /// Puts some lines of the backlog into the queue, at most this many.
    fn read(&mut self, room: usize, now: Instant) {
        match self.store.read(room, &mut self.lines) {
            Ok(0) => {}
            Ok(points) => self.store.read_below(self.queue.restore(&self.lines, points, now)),
            Err(error) => {
                self.counters.spool_errors.add(1);
                self.read_at = Some(now + PAUSE.0);
                if self.log.should_log("read", now) {
                    let directory = self.store.directory.path.display();
                    tracing::warn!(%directory, %error, retry_in = ?PAUSE.0, "cannot read the spool: its points stay there");
                }
            }
        }
    }

    /// Counts and logs a failure, or ends the pause after one. Returns whether there may be more to
    /// do now.
    fn note(&mut self, kept: io::Result<bool>, now: Instant) -> bool {
        let failed = self.failed.take();
        let Err(error) = kept else { return kept.unwrap_or_default() };
        self.counters.spool_errors.add(1);
        self.has_gap = true;
        let pause = failed.map_or(PAUSE.0, |(_, pause)| (2 * pause).min(PAUSE.1));
        self.failed = Some((now + pause, pause));
        self.queue.disk_failed();
        if self.log.should_log("write", now) {
            let directory = self.store.directory.path.display();
            tracing::warn!(%directory, %error, retry_in = ?pause, "cannot write to the spool: points stay in memory");
        }
        // What waited for the disk is to be sent now.
        true
    }

    /// Brings the counters up to date, and says what was lost.
    fn count(&mut self, now: Instant) {
        let dropped = std::mem::take(&mut self.store.dropped);
        let damaged = std::mem::take(&mut self.store.damaged);
        // Taken anew, as what is read back is.
        self.counters.points_taken.add(dropped);
        self.counters.points_dropped.spool.add(dropped);
        self.counters.spool_errors.add(damaged);
        self.counters.spool_bytes.set(self.store.bytes());
        if dropped + damaged > 0 && self.log.should_log("lost", now) {
            let directory = self.store.directory.path.display();
            tracing::warn!(%directory, points = dropped, parts = damaged, "points in the spool are lost: too old or too many, or in parts that cannot be read");
        }
    }
}
