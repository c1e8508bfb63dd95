//! Between the threads: encoded lines, bounded in points and in bytes.
//!
//! **Problem.** A snapshot is made in milliseconds and sent over seconds. While the server is away
//! snapshots pile up, and the oldest points have to go first; what piled up must not keep the
//! newest values waiting once the server is back. And every point has to be accounted for at any
//! moment.
//!
//! **Idea.** Lines travel in batches of some 64 KiB. A batch can drop its oldest lines without
//! being copied, so the bound is exact to the point at the price of one short lock per batch.
//! Whatever becomes of a point is counted under that lock.
//!
//! **Mechanism.**
//! 1. The flusher pushes batches into the *fresh* lane. When the queue is full it waits for room,
//!    unless the link is down: then the oldest lines are dropped.
//! 2. When a connection is lost, the fresh lane becomes the tail of the *backlog* lane.
//! 3. The writer takes a batch from each lane in turn while both have one: a backlog takes at most
//!    every other batch, so the newest values are at most twice as late as without it.
//! 4. What the writer took is in flight until it is confirmed. Points are numbered, so the queue
//!    knows when everything below a [`Watermark`] is settled (confirmed or dropped), which is what
//!    `flush` and `shutdown` wait for.
//! 5. Abandoned, the queue drops whatever is not confirmed, in the lanes and in flight. A
//!    confirmation that comes later counts nothing.
//! 6. With a spool, the writer moves the oldest points to disk while the link is down, and the
//!    flusher waits for that as it does for room. What is read back waits behind what is fresh.
//! 7. Buffers come back through [`Queue::recycle`], so a steady flush allocates nothing.

mod batch;
#[cfg(feature = "spool")]
pub(crate) mod disk;
mod inner;
mod lane;
#[cfg(all(test, loom))]
mod model;
mod states;
#[cfg(all(test, not(loom)))]
mod tests;
mod waker;

use crate::clock::Instant;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use self::batch::{BATCH_BYTES, Batch};
use self::inner::{Inner, Limit};
pub(crate) use self::states::{Demand, Link, Phase, Watermark};
use self::waker::Waker;
use crate::stats::{Count, Counters, Stats};
use crate::sync::{self, Condvar, Mutex, MutexGuard};

/// How long the flusher waits for room on disk. A disk that hangs longer counts as failed.
const DISK_TIME: Duration = Duration::from_secs(1);

/// Bytes that the writer is woken for while the queue is corked. To wake a thread takes the flusher
/// some 13 us, half of what the lines of a batch take, and the writer sleeps again before the next
/// batch is there.
const MANY_BYTES: usize = 8 * BATCH_BYTES;

/// While it lives, more of a snapshot is about to be pushed.
pub(crate) struct Cork<'a>(&'a Queue);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.lock().is_corked = false;
        self.0.waker.wake();
    }
}

/// While it lives, points are sent without being spread over the interval.
pub(crate) struct Expedite<'a>(&'a Queue);

impl Drop for Expedite<'_> {
    fn drop(&mut self) {
        self.0.lock().expedites -= 1;
        // It may leave a connection now that it had to keep.
        self.0.waker.wake();
    }
}

/// The queue; shared by the flusher, the writer and the handles.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Notified when what somebody waits for is settled, when there is the room that the flusher
    /// waits for, and when the link or the phase changes.
    changed: Condvar,
    waker: Waker,
    counters: Arc<Counters>,
}

impl Queue {
    /// A queue of at most `limit` points, and of 128 bytes for each of them.
    pub(crate) fn new(limit: usize, counters: Arc<Counters>) -> Self {
        Queue {
            inner: Mutex::new(Inner { limit: Limit::of(limit), ..Inner::default() }),
            changed: Condvar::new(),
            waker: Waker::new(),
            counters,
        }
    }

    /// Sets what wakes the writer; a second call changes nothing.
    pub(crate) fn set_waker(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        self.waker.set(wake);
    }

    // ---- the flusher's side ----

    /// The most points that a batch should hold.
    pub(crate) fn batch_points(&self) -> usize {
        self.lock().limit.points
    }

    /// A buffer for a batch, filled with bytes of no meaning.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.lock().spare.pop().unwrap_or_default();
        buffer.resize(BATCH_BYTES, 0);
        buffer
    }

    /// Lets the writer sleep until there is much for it, or the answer is dropped.
    pub(crate) fn cork(&self) -> Cork<'_> {
        self.lock().is_corked = true;
        Cork(self)
    }

    /// Adds `points` lines and counts them as taken. Waits for room while the link is up; drops the
    /// oldest points while it is down. Once the queue is abandoned these points are dropped.
    pub(crate) fn push(&self, lines: Vec<u8>, points: usize, taken: Instant) {
        let mut inner = self.lock();
        while inner.must_wait(points, lines.len()) {
            if !std::mem::replace(&mut inner.wants_room, true) {
                // A queue that fills is not spread, which the writer has to hear.
                self.waker.wake();
            }
            inner = match inner.link {
                Link::Up => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Link::Down => {
                    let waited = self.changed.wait_timeout(inner, DISK_TIME);
                    let (mut inner, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    inner.spills &= !waited.timed_out();
                    inner
                }
            };
        }
        inner.wants_room = false;
        self.counters.points_taken.add(points as u64);
        if inner.phase >= Phase::Abandoned {
            self.counters.points_dropped.shutdown.add(points as u64);
            return;
        }
        let before = inner.bytes();
        inner.add(lines, points, taken);
        inner.snapshot_end = inner.next_point;
        // Else the writer was woken before, and has not taken all of it yet.
        let enough = if inner.is_corked { MANY_BYTES } else { 1 };
        let wakes = (before + 1..=inner.bytes()).contains(&enough);
        self.added(inner, wakes);
    }

    /// Adds one line and counts it as taken. Never waits: a full queue drops its oldest point.
    /// Returns `false`, and counts nothing, once the queue is closing.
    pub(crate) fn append(&self, line: Vec<u8>, taken: Instant) -> bool {
        let mut inner = self.lock();
        if inner.phase != Phase::Open {
            return false;
        }
        self.counters.points_taken.add(1);
        // What waits in a corked queue the writer may not know of, and this may not wait for room.
        let wakes = inner.is_corked || inner.points() == 0;
        inner.add(line, 1, taken);
        self.added(inner, wakes);
        true
    }

    /// Says how many lines the snapshot had that was just pushed.
    pub(crate) fn set_snapshot_points(&self, points: usize) {
        self.lock().snapshot_points = points;
    }

    /// Says that no handle is left that could shut down: the writer abandons the queue at this
    /// time.
    pub(crate) fn end_at(&self, at: Instant) {
        self.lock().ends_at = Some(at);
        self.waker.wake();
    }

    /// Says when a shutdown will abandon the queue.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.lock().deadline = deadline;
        self.waker.wake();
    }

    /// Whether the last snapshot is still being sent, so that the next tick is better left out. Raw
    /// points do not count: a stream of them would leave no tick at all.
    pub(crate) fn is_busy(&self) -> bool {
        let inner = self.lock();
        inner.link == Link::Up && inner.has_snapshot(&inner.fresh)
    }

    /// Whether lines of a snapshot wait to be sent, and may be dropped when another one joins them:
    /// no disk makes room for it in time.
    pub(crate) fn risks_snapshot(&self) -> bool {
        let inner = self.lock();
        let is_unsent = inner.has_snapshot(&inner.backlog) || inner.has_snapshot(&inner.fresh);
        is_unsent && (!inner.spills || inner.is_half_used())
    }

    /// Covers everything pushed so far.
    pub(crate) fn watermark(&self) -> Watermark {
        Watermark(self.lock().next_point)
    }

    // ---- the handles' side ----

    /// Asks for everything to be sent at once, while the answer lives.
    pub(crate) fn expedite(&self) -> Expedite<'_> {
        self.lock().expedites += 1;
        self.waker.wake();
        Expedite(self)
    }

    /// Waits until everything below the watermark is confirmed or dropped, or until the deadline;
    /// answers whether it is. When the queue is abandoned, it is.
    pub(crate) fn wait_settled(&self, watermark: Watermark, deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, |inner| {
            let is_settled = inner.is_settled(watermark);
            if !is_settled {
                inner.awaited = Some(inner.awaited.map_or(watermark, |other| other.min(watermark)));
            }
            is_settled
        })
    }

    /// Waits until the writer has ended, or until the deadline; returns whether it has.
    pub(crate) fn wait_finished(&self, deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, |inner| inner.phase == Phase::Finished)
    }

    /// Everything that was counted, read while no point changes its state.
    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let inner = self.lock();
        let since = |at| now.saturating_duration_since(at);
        let oldest_pending = inner.oldest().map(since);
        let oldest_spooled = inner.oldest_spooled.map(|(age, at)| age + since(at));
        Stats { oldest_pending, oldest_spooled, ..self.counters.stats() }
    }

    /// Takes no more points, and lets the writer end when it has sent those there are.
    pub(crate) fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Drops everything that is not confirmed, in flight too, and tells the writer to end.
    pub(crate) fn abandon(&self) {
        self.advance(Phase::Abandoned);
    }

    // ---- the writer's side ----

    /// What wakes the writer.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The next batch to send, if any; it is in flight from now on.
    pub(crate) fn pop(&self) -> Option<Batch> {
        let mut inner = self.lock();
        let batch = inner.pop();
        if inner.wants_room {
            self.changed.notify_all();
        }
        batch
    }

    /// Counts `points` of what is in flight as confirmed; the batches `held` are not, or not all of
    /// them. Counts nothing once the queue is abandoned: they count as dropped already.
    pub(crate) fn confirm<'a>(&self, points: usize, held: impl Iterator<Item = &'a Batch>) {
        self.settle(points, held, &self.counters.points_confirmed);
    }

    /// As [`confirm`](Self::confirm), for points that are too long to be sent.
    #[cfg(feature = "http")]
    pub(crate) fn drop_too_long<'a>(&self, points: usize, held: impl Iterator<Item = &'a Batch>) {
        self.settle(points, held, &self.counters.points_dropped.too_long);
    }

    fn settle<'a>(&self, points: usize, held: impl Iterator<Item = &'a Batch>, fate: &Count) {
        let mut inner = self.lock();
        if inner.phase >= Phase::Abandoned {
            return;
        }
        inner.confirm(points, held);
        fate.add(points as u64);
        if inner.settles_awaited() {
            self.changed.notify_all();
        }
    }

    /// Takes the buffer of a confirmed batch back.
    pub(crate) fn recycle(&self, batch: Batch) {
        self.lock().keep_spare(batch);
    }

    /// Says whether the server is there. When it no longer is, what waits becomes backlog.
    pub(crate) fn set_link(&self, link: Link) {
        let mut inner = self.lock();
        if link == Link::Down {
            inner.shelve();
        }
        inner.link = link;
        drop(inner);
        self.changed.notify_all();
    }

    /// What waits to be sent.
    pub(crate) fn waiting(&self) -> Demand {
        self.lock().waiting()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// When to abandon the queue, if nobody else can.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.lock().ends_at
    }

    /// Says that the writer has ended. What it left behind is dropped.
    pub(crate) fn finish(&self) {
        self.advance(Phase::Finished);
        let given_up = std::mem::take(&mut self.lock().given_up);
        // Without the lock.
        drop(given_up);
    }

    // ---- within ----

    fn lock(&self) -> MutexGuard<'_, Inner> {
        sync::lock(&self.inner)
    }

    fn advance(&self, phase: Phase) {
        let mut inner = self.lock();
        inner.phase = inner.phase.max(phase);
        if phase >= Phase::Abandoned {
            self.counters.points_dropped.shutdown.add(inner.give_up() as u64);
        }
        drop(inner);
        self.changed.notify_all();
        self.waker.wake();
    }

    /// Lines were added to a queue that is perhaps too full now.
    fn added(&self, mut inner: MutexGuard<'_, Inner>, wakes: bool) {
        let is_for_disk = inner.wants_spill() || inner.unwritten().is_some();
        let dropped = inner.drop_oldest();
        if dropped > 0 {
            self.counters.points_dropped.queue_full.add(dropped as u64);
            if inner.settles_awaited() {
                self.changed.notify_all();
            }
        }
        drop(inner);
        if wakes || is_for_disk {
            self.waker.wake();
        }
    }

    fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Inner) -> bool,
    ) -> bool {
        let mut inner = self.lock();
        while !done(&mut inner) {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            inner = match left {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }
}
