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
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::options::Spool;
use super::store::{Store, Tally};
use crate::clock::{Clock, Instant};
use crate::log_limiter::LogLimiter;
use crate::queue::disk::{Disk, View};
use crate::queue::{Phase, Queue};
use crate::send::window::Window;
use crate::stats::Counters;
use crate::wire::sendable::LineRules;

/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often copies are synced: once a snapshot, and not once a raw point.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The time before a shutdown's deadline in which everything goes to disk: this part of what there
/// is, and at most that.
const LAST_PART: (u32, Duration) = (4, Duration::from_secs(1));

/// More points and bytes than there are.
const ALL: (usize, usize) = (usize::MAX, usize::MAX);

/// See the module.
pub(crate) struct Keeper {
    store: Store,
    /// Whether each snapshot is on disk before it is sent.
    is_ahead: bool,
    /// Whether something was sent that is not on disk, though it should be.
    has_gap: bool,
    /// The time of the next attempt and the pause before it, after a failure.
    failed: Option<(Instant, Duration)>,
    /// When copies are synced next.
    sync_at: Option<Instant>,
    /// When everything goes to disk, once there is a deadline.
    last_at: Option<Instant>,
    /// Lines that were read from disk, and how many.
    read: (Vec<u8>, usize),
    /// A batch on its way to disk.
    lines: Vec<u8>,
    log: LogLimiter,
}

impl Keeper {
    pub(crate) fn open(spool: &Spool, rules: LineRules) -> io::Result<Self> {
        Ok(Keeper {
            store: Store::open(spool, rules)?,
            is_ahead: spool.write_ahead,
            has_gap: false,
            failed: None,
            sync_at: None,
            last_at: None,
            read: (Vec::new(), 0),
            lines: Vec::new(),
            log: LogLimiter::default(),
        })
    }

    /// Whether there are points on disk alone.
    pub(in crate::send) fn has_backlog(&self) -> bool {
        self.store.has_backlog()
    }

    /// Does what is to be done; answers when there will be more, should nothing happen until then.
    pub(in crate::send) fn turn(
        &mut self,
        queue: &Queue,
        window: &Window,
        counters: &Counters,
        clock: &Clock,
    ) -> Option<Instant> {
        let (now, wall) = (clock.now(), clock.wall());
        let is_well = self.failed.is_none_or(|(retry_at, _)| now >= retry_at);
        let oldest = self.store.oldest(wall).and_then(|age| now.checked_sub(age));
        let view = queue.view(Disk { is_well, is_ahead: self.is_ahead, oldest });
        if view.phase >= Phase::Abandoned {
            return None;
        }
        let last_at = if view.phase == Phase::Closing { self.last_at(&view, now) } else { None };
        if last_at.is_some_and(|at| now >= at) {
            self.keep_all(queue, window, counters, clock);
            queue.abandon();
            return None;
        }
        let kept = if is_well { self.keep(queue, &view, now, wall) } else { Ok(false) };
        let has_written = *kept.as_ref().unwrap_or(&false);
        self.note(kept.map(drop), counters, now);
        self.store.settle(view.settled);
        self.store.expire(wall);
        let is_connected = counters.connected.load(Ordering::Relaxed);
        let may_read = is_connected && window.ungranted() == 0 && view.room > 0;
        let has_read = may_read && self.read(queue, view.room, now, wall);
        self.count(counters, now);
        let next = (has_written || has_read).then_some(now);
        let retry_at = self.failed.map(|(at, _)| at);
        [next, retry_at, self.sync_at, last_at].into_iter().flatten().min()
    }

    /// When everything goes to disk.
    fn last_at(&mut self, view: &View, now: Instant) -> Option<Instant> {
        let deadline = view.deadline?;
        let left = deadline.saturating_duration_since(now);
        Some(*self.last_at.get_or_insert(now + (left - (left / LAST_PART.0).min(LAST_PART.1))))
    }

    /// Writes what is to be written; answers whether that lets something be sent.
    fn keep(
        &mut self,
        queue: &Queue,
        view: &View,
        now: Instant,
        wall: Duration,
    ) -> io::Result<bool> {
        let mut has_written = false;
        if let Some(from) = view.unwritten {
            let below = self.copy(queue, from, ALL, wall)?;
            has_written = below > from;
            queue.set_written(below);
            self.sync_at.get_or_insert(now);
        }
        if view.spill.is_none() && self.sync_at.is_some_and(|at| now >= at) {
            let was_dirty = self.store.is_dirty();
            self.store.sync()?;
            self.sync_at = was_dirty.then(|| now + SYNC_INTERVAL);
        }
        if let Some(goal) = view.spill {
            self.unread();
            let below = if self.is_ahead {
                self.store.release_copies()?.unwrap_or_default()
            } else {
                self.copy(queue, 0, goal, wall)?
            };
            self.store.sync()?;
            queue.spooled(below);
        }
        Ok(has_written)
    }

    /// Copies batches to disk, from a number on, until it is so many points and bytes; answers
    /// below which number.
    fn copy(
        &mut self,
        queue: &Queue,
        from: u64,
        (points, bytes): (usize, usize),
        wall: Duration,
    ) -> io::Result<u64> {
        let (mut below, mut copied) = (from, (0, 0));
        while copied.0 < points || copied.1 < bytes {
            let Some(numbers) = queue.copy(below, &mut self.lines) else { break };
            below = numbers.end;
            self.store.append(&self.lines, self.is_ahead.then_some(below), wall)?;
            copied.0 += (numbers.end - numbers.start) as usize;
            copied.1 += self.lines.len();
        }
        Ok(below)
    }

    /// Everything that is not confirmed goes to disk, whatever failed before.
    pub(in crate::send) fn keep_all(
        &mut self,
        queue: &Queue,
        window: &Window,
        counters: &Counters,
        clock: &Clock,
    ) {
        let kept = self.try_keep_all(queue, window, clock.wall());
        self.note(kept, counters, clock.now());
        self.count(counters, clock.now());
    }

    fn try_keep_all(&mut self, queue: &Queue, window: &Window, wall: Duration) -> io::Result<()> {
        let is_covered = self.is_ahead && !self.has_gap;
        for lines in window.unconfirmed().filter(|_| !is_covered) {
            self.store.append(lines, None, wall)?;
        }
        let mut below = if is_covered { queue.written() } else { 0 };
        loop {
            below = self.copy(queue, below, ALL, wall)?;
            self.store.sync()?;
            while self.store.release_copies()?.is_some() {}
            if queue.spooled_all(below) {
                return Ok(());
            }
        }
    }

    /// Deletes what is settled: nothing more is sent.
    pub(in crate::send) fn close(&mut self, queue: &Queue, counters: &Counters, clock: &Clock) {
        let view = queue.view(Disk { is_well: false, is_ahead: false, oldest: None });
        // What was given up may be of use to the next process.
        if view.phase < Phase::Abandoned {
            self.store.settle(view.settled);
        }
        self.count(counters, clock.now());
    }

    /// Puts some lines of the backlog into the queue. Answers whether there were any, or may be.
    fn read(&mut self, queue: &Queue, room: usize, now: Instant, wall: Duration) -> bool {
        if self.read.1 == 0 {
            if !self.store.has_unread() {
                return false;
            }
            self.read.1 = self.store.read(wall, room, &mut self.read.0);
        }
        if self.read.1 > 0 {
            let Some(below) = queue.restore(&self.read.0, self.read.1, now) else { return false };
            self.store.read_below(below);
            self.read.1 = 0;
        }
        true
    }

    /// What was read and is not confirmed will be read again.
    fn unread(&mut self) {
        self.store.rewind();
        self.read.1 = 0;
    }

    /// Counts and logs a failure, and the end of one.
    fn note(&mut self, kept: io::Result<()>, counters: &Counters, now: Instant) {
        let Err(error) = kept else {
            if self.failed.is_some_and(|(retry_at, _)| now >= retry_at) {
                self.failed = None;
            }
            return;
        };
        counters.spool_errors.add(1);
        self.has_gap = true;
        let pause = self.failed.map_or(PAUSE.0, |(_, pause)| (2 * pause).min(PAUSE.1));
        self.failed = Some((now + pause, pause));
        self.sync_at = None;
        if self.log.should_log("write", now) {
            let directory = self.store.path().display();
            tracing::warn!(%directory, %error, retry_in = ?pause, "cannot write to the spool: points stay in memory");
        }
    }

    /// Brings the counters up to date, and says what was lost.
    fn count(&mut self, counters: &Counters, now: Instant) {
        counters.spool_bytes.set(self.store.bytes());
        let Tally { damaged, dropped } = self.store.take_tally();
        // Taken anew, as what is read back is.
        counters.points_taken.add(dropped);
        counters.points_dropped.spool.add(dropped);
        counters.spool_errors.add(damaged);
        let directory = self.store.path().display();
        if dropped > 0 && self.log.should_log("dropped", now) {
            tracing::warn!(%directory, points = dropped, "points in the spool are dropped: they are too old or too many");
        }
        if damaged > 0 && self.log.should_log("damaged", now) {
            tracing::warn!(%directory, parts = damaged, "parts of the spool cannot be read, and are passed over");
        }
    }
}
