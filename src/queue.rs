//! Between the threads: encoded lines, bounded in points.
//!
//! **Problem.** A snapshot is made in milliseconds and sent over seconds. While the server is away snapshots pile up, and the oldest
//! point has to go first, one at a time; and what piled up must not keep the newest values waiting once the server is back.
//!
//! **Idea.** Lines travel in [`Batch`]es of some 64 KiB. A batch can give up its oldest lines without being copied, and a single raw
//! point joins the batch before it, so the bound is exact to the point at the price of one short lock per batch.
//!
//! **Mechanism.**
//! 1. The flusher pushes batches into the *fresh* lane. When the queue is full it waits for room, unless the link is down: then the
//!    oldest lines are dropped and counted.
//! 2. When a connection is lost, the fresh lane becomes the tail of the *backlog* lane.
//! 3. The writer takes a batch from each lane in turn while both have one: a backlog takes at most every other batch, so the newest
//!    values are never more than twice as late as without it.
//! 4. A batch carries an order number. The writer says which is the lowest that it still holds unconfirmed; so the queue knows when
//!    everything up to a [`Ticket`] is settled (confirmed or dropped), which is what `flush` and `shutdown` wait for.
//! 5. Buffers come back through [`Queue::recycle`], so a steady flush allocates nothing.

mod alarm;
mod batch;
mod inner;
mod states;

use std::sync::{Arc, PoisonError};

use self::alarm::Alarm;
pub(crate) use self::batch::Batch;
use self::inner::Inner;
pub(crate) use self::states::{Link, Phase, Ticket, Waiting};
use crate::clock::Instant;
use crate::stats::Counters;
use crate::sync::{self, Condvar, Mutex, MutexGuard};

/// The size that a batch is filled to: past 64 KiB a larger `write` gains nothing.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;
/// As many waiting batches are worth waking the writer for. On loopback it sends them faster than they are made, and to wake it for half
/// as many took a tenth of a flush.
const TOLD_BATCHES: usize = 8;
/// Buffers kept for reuse, 8 MiB of them.
const SPARE_BUFFERS: usize = 128;

/// As long as it lives, points are sent as fast as they may be.
pub(crate) struct Hurry<'a>(&'a Queue);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.lock().hurries -= 1;
    }
}

/// The queue; shared by the flusher, the writer and the handles.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Told when what somebody waits for was settled, when there is the room that the flusher waits for, when the link or the phase
    /// changes.
    changed: Condvar,
    alarm: Alarm,
    /// The most points that may wait.
    limit: usize,
    counters: Arc<Counters>,
}

impl Queue {
    pub(crate) fn new(limit: usize, counters: Arc<Counters>) -> Self {
        Queue {
            inner: Mutex::new(Inner::new()),
            changed: Condvar::new(),
            alarm: Alarm::new(),
            limit,
            counters,
        }
    }

    /// Sets what wakes the writer; a second call changes nothing.
    pub(crate) fn set_waker(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        self.alarm.set(wake);
    }

    // ---- the flusher's side ----

    /// The most points that a batch should hold: no more than may wait.
    pub(crate) fn batch_points(&self) -> usize {
        self.limit
    }

    /// The room for a batch: so many bytes of no meaning. A buffer that comes back is nearly full of such.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.lock().spare.pop().unwrap_or_default();
        buffer.resize(BATCH_BYTES, 0);
        buffer
    }

    /// Adds `points` lines, which are counted as taken already. Waits for room while the link is up; drops the oldest points
    /// while it is down. Once the queue is closed, these points are dropped themselves.
    ///
    /// The writer is told once a few batches wait, and by [`announce`](Self::announce) of the last ones: to fall asleep and be woken
    /// again for each costs both threads more than half a batch.
    pub(crate) fn push(&self, mut bytes: Vec<u8>, points: usize, taken: Instant) {
        let mut inner = self.lock();
        if inner.must_wait(points, self.limit) {
            // The writer may not have been told of all that it is to make room of.
            drop(inner);
            self.announce();
            inner = self.lock();
        }
        while inner.must_wait(points, self.limit) {
            inner.wants_room = true;
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.wants_room = false;
        if inner.phase >= Phase::Abandoned {
            self.counters.dropped_shutdown.add(points as u64);
            inner.keep_spare(bytes);
            return;
        }
        let many_wait = inner.link == Link::Down || inner.fresh.len() >= SPARE_BUFFERS;
        if many_wait && bytes.len() < BATCH_BYTES / 2 {
            // Small snapshots may wait for days with many others, and each came in a buffer for a whole batch.
            bytes.shrink_to_fit();
        }
        let order = inner.next_order;
        inner.next_order += 1;
        inner.snapshot_end = inner.next_order;
        inner.points += points;
        inner.fresh.push_back(Batch { bytes, start: 0, points, order, taken });
        self.enforce_limit(&mut inner);
        let is_worth_it = inner.fresh.len() >= TOLD_BATCHES;
        drop(inner);
        if is_worth_it {
            self.announce();
        }
    }

    /// Tells the writer what was pushed.
    pub(crate) fn announce(&self) {
        self.alarm.ring();
    }

    /// Adds one line, counted as taken already, to the youngest batch. Never waits: a full queue drops its oldest point.
    /// Answers `false`, and adds nothing, once the queue is closing.
    pub(crate) fn append(&self, line: &[u8], taken: Instant) -> bool {
        let mut inner = self.lock();
        if inner.phase != Phase::Open {
            return false;
        }
        let was_empty = inner.points == 0;
        match inner.fresh.back_mut() {
            Some(batch) if batch.bytes.len() + line.len() <= BATCH_BYTES => {
                batch.bytes.extend_from_slice(line);
                batch.points += 1;
            }
            _ => {
                let mut bytes = inner.spare.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(line);
                let order = inner.next_order;
                inner.next_order += 1;
                inner.fresh.push_back(Batch { bytes, start: 0, points: 1, order, taken });
            }
        }
        inner.points += 1;
        self.enforce_limit(&mut inner);
        drop(inner);
        if was_empty {
            self.alarm.ring();
        }
        true
    }

    /// Says how many lines the snapshot had that was just pushed.
    pub(crate) fn set_snapshot_points(&self, points: usize) {
        self.lock().snapshot_points = points;
    }

    /// Says that nobody can give up any more: the writer does at this time.
    pub(crate) fn end_at(&self, at: Instant) {
        self.lock().ends_at = Some(at);
        self.alarm.ring();
    }

    /// Whether the last snapshot is still being sent, so that the next tick had better be left out. Raw points do not count: a
    /// stream of them would leave no tick at all.
    pub(crate) fn is_busy(&self) -> bool {
        let inner = self.lock();
        let is_of_snapshot = |batch: &Batch| batch.order < inner.snapshot_end;
        inner.link == Link::Up && inner.fresh.front().is_some_and(is_of_snapshot)
    }

    /// Whether lines of a snapshot wait to be sent.
    pub(crate) fn has_unsent_snapshot(&self) -> bool {
        let inner = self.lock();
        inner.fronts().any(|batch| batch.order < inner.snapshot_end)
    }

    /// Whether any point waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.lock().points > 0
    }

    /// A ticket for everything pushed so far.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.lock().next_order)
    }

    // ---- the handles' side ----

    /// Asks for everything to be sent without spreading it over the interval, while the answer lives.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.lock().hurries += 1;
        self.alarm.ring();
        Hurry(self)
    }

    /// Waits until everything up to `ticket` is confirmed or dropped, or until the deadline; answers whether it is.
    pub(crate) fn wait_settled(&self, ticket: Ticket, deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, |inner| {
            let is_over = inner.is_settled(ticket) || inner.phase == Phase::Finished;
            if !is_over {
                inner.awaited = Some(inner.awaited.map_or(ticket, |other| other.min(ticket)));
            }
            is_over
        })
    }

    /// Waits until the writer has ended, or until the deadline; answers whether it has.
    pub(crate) fn wait_finished(&self, deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, |inner| inner.phase == Phase::Finished)
    }

    /// When the oldest point was taken that is neither confirmed nor dropped.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let inner = self.lock();
        let lanes = inner.fronts().map(|batch| batch.taken);
        lanes.chain(inner.in_flight.map(|(_, taken)| taken)).min()
    }

    /// Takes no more points, and lets the writer end when it has sent those there are.
    pub(crate) fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Gives up what was not sent yet, and tells the writer to end.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        self.counters.dropped_shutdown.add(inner.points as u64);
        inner.points = 0;
        inner.backlog_points = 0;
        let Inner { backlog, fresh, given_up, .. } = &mut *inner;
        given_up.extend([backlog, fresh].map(std::mem::take));
        // Under the same lock: what is pushed from now on is dropped by whoever pushes it, and nobody sends it any more.
        inner.phase = inner.phase.max(Phase::Abandoned);
        drop(inner);
        self.changed.notify_all();
        self.alarm.ring();
    }

    // ---- the writer's side ----

    /// What wakes the writer.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// The next batch to send, if any; it is in flight from now on.
    pub(crate) fn pop(&self) -> Option<Batch> {
        let mut inner = self.lock();
        let from_backlog =
            !inner.backlog.is_empty() && (inner.backlog_turn || inner.fresh.is_empty());
        inner.backlog_turn = !from_backlog;
        let batch = if from_backlog { inner.backlog.pop_front() } else { inner.fresh.pop_front() }?;
        inner.points -= batch.points;
        if from_backlog {
            inner.backlog_points -= batch.points;
        }
        let oldest = inner.in_flight.map_or(batch.order, |(order, _)| order.min(batch.order));
        let taken = inner.in_flight.map_or(batch.taken, |(_, taken)| taken.min(batch.taken));
        inner.in_flight = Some((oldest, taken));
        let wants_room = inner.wants_room;
        drop(inner);
        if wants_room {
            self.changed.notify_all();
        }
        Some(batch)
    }

    /// Says what the writer still holds unconfirmed.
    pub(crate) fn set_in_flight<'a>(&self, batches: impl Iterator<Item = &'a Batch>) {
        let in_flight = batches
            .map(|batch| (batch.order, batch.taken))
            .reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
        let mut inner = self.lock();
        inner.in_flight = in_flight;
        let is_awaited = inner.settles_awaited();
        drop(inner);
        if is_awaited {
            self.changed.notify_all();
        }
    }

    /// Hands the buffer of a settled batch back.
    pub(crate) fn recycle(&self, batch: Batch) {
        self.lock().keep_spare(batch.bytes);
    }

    /// Says whether the server is there. When it no longer is, what waits becomes backlog.
    pub(crate) fn set_link(&self, link: Link) {
        let mut inner = self.lock();
        if link == Link::Down {
            let Inner { backlog, fresh, .. } = &mut *inner;
            backlog.append(fresh);
            inner.backlog_points = inner.points;
        }
        inner.link = link;
        self.enforce_limit(&mut inner);
        drop(inner);
        self.changed.notify_all();
    }

    /// What waits to be sent.
    pub(crate) fn waiting(&self) -> Waiting {
        let inner = self.lock();
        Waiting {
            fresh: inner.points - inner.backlog_points,
            backlog: inner.backlog_points,
            snapshot_points: inner.snapshot_points,
            is_filling: inner.wants_room || inner.points > self.limit / 2,
        }
    }

    /// Whether a flush or the shutdown waits for points to arrive.
    pub(crate) fn is_hurried(&self) -> bool {
        self.lock().hurries > 0
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// When to give up, if nobody else can.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.lock().ends_at
    }

    /// Says that the writer has ended.
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
        drop(inner);
        self.changed.notify_all();
        self.alarm.ring();
    }

    fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Inner) -> bool,
    ) -> bool {
        let mut inner = self.lock();
        while !done(&mut inner) {
            inner = match deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn enforce_limit(&self, inner: &mut Inner) {
        if inner.overfull(0, self.limit) {
            let excess = inner.points - self.limit;
            inner.drop_oldest(excess);
            self.counters.dropped_queue_full.add(excess as u64);
            if inner.settles_awaited() {
                self.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn queue(limit: usize) -> (Queue, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Queue::new(limit, Arc::clone(&counters)), counters)
    }

    fn push(queue: &Queue, lines: &str) {
        queue.push(lines.into(), lines.lines().count(), Instant::now());
    }

    fn popped(queue: &Queue) -> String {
        queue
            .pop()
            .map(|batch| String::from_utf8(batch.lines().to_vec()).unwrap())
            .unwrap_or_default()
    }

    #[test]
    fn oldest_point_is_dropped_first() {
        let (queue, counters) = queue(4);
        queue.set_link(Link::Down);
        push(&queue, "a\nb\nc\n");
        push(&queue, "d\ne\nf\n");
        assert_eq!(counters.dropped_queue_full.get(), 2);
        assert_eq!(popped(&queue), "c\n");
        assert_eq!(popped(&queue), "d\ne\nf\n");
    }

    #[test]
    fn a_batch_larger_than_the_queue_keeps_its_newest_points() {
        let (queue, counters) = queue(2);
        push(&queue, "a\nb\nc\nd\ne\n");
        assert_eq!(counters.dropped_queue_full.get(), 3);
        assert_eq!(popped(&queue), "d\ne\n");
    }

    #[test]
    fn raw_points_share_a_batch_and_drop_the_oldest() {
        let (queue, counters) = queue(3);
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            assert!(queue.append(line.as_bytes(), Instant::now()));
        }
        assert_eq!(counters.dropped_queue_full.get(), 1);
        assert_eq!(popped(&queue), "b\nc\nd\n");
        queue.close();
        assert!(!queue.append(b"e\n", Instant::now()));
    }

    #[test]
    fn after_a_lost_connection_old_and_new_lines_take_turns() {
        let (queue, _) = queue(100);
        push(&queue, "old1\n");
        push(&queue, "old2\n");
        push(&queue, "old3\n");
        queue.set_link(Link::Down);
        queue.set_link(Link::Up);
        push(&queue, "new1\n");
        push(&queue, "new2\n");
        let waiting = queue.waiting();
        assert_eq!((waiting.fresh, waiting.backlog), (2, 3));
        let order: Vec<_> = (0..5).map(|_| popped(&queue)).collect();
        assert_eq!(order, ["old1\n", "new1\n", "old2\n", "new2\n", "old3\n"]);
        assert_eq!(queue.waiting(), Waiting::default());
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_full_queue_holds_the_flusher_back_while_the_link_is_up() {
        let (queue, counters) = queue(2);
        push(&queue, "a\nb\n");
        std::thread::scope(|scope| {
            let pusher = scope.spawn(|| push(&queue, "c\nd\n"));
            assert_eq!(popped(&queue), "a\nb\n");
            pusher.join().unwrap();
        });
        assert_eq!(popped(&queue), "c\nd\n");
        assert_eq!(counters.dropped_queue_full.get(), 0);
    }

    #[test]
    fn a_ticket_is_settled_when_nothing_older_is_held() {
        let (queue, _) = queue(10);
        let now = Some(Instant::now());
        push(&queue, "a\n");
        let first = queue.ticket();
        assert!(!queue.wait_settled(first, now));
        let batch = queue.pop().unwrap();
        assert!(!queue.wait_settled(first, now));
        push(&queue, "b\n");
        let second = queue.ticket();
        queue.set_in_flight(std::iter::empty());
        assert!(queue.wait_settled(first, now));
        assert!(!queue.wait_settled(second, now));
        queue.recycle(batch);
    }

    #[test]
    fn a_flush_hears_that_its_points_were_dropped_for_newer_ones() {
        let (queue, _) = queue(1);
        queue.set_link(Link::Down);
        push(&queue, "a\n");
        let ticket = queue.ticket();
        std::thread::scope(|scope| {
            let waiting = &queue;
            // Without a deadline: unheard, it waits for ever.
            let waiter = scope.spawn(move || waiting.wait_settled(ticket, None));
            // Long enough for it to wait, which nothing shows.
            std::thread::park_timeout(Duration::from_millis(50));
            push(&queue, "b\n");
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn while_the_server_is_away_small_snapshots_take_little_memory() {
        let (queue, _) = queue(1000);
        queue.set_link(Link::Down);
        for _ in 0..1000 {
            let mut buffer = queue.buffer();
            buffer.truncate(0);
            buffer.extend_from_slice(b"a\n");
            queue.push(buffer, 1, Instant::now());
        }
        let held = || queue.lock().fresh.iter().map(|batch| batch.bytes.capacity()).sum::<usize>();
        assert!(held() <= 1000 * 16, "{}", held());
        // Nor does a small buffer come back as one for a batch.
        while let Some(batch) = queue.pop() {
            queue.recycle(batch);
        }
        assert!(queue.buffer().capacity() >= BATCH_BYTES);
    }

    #[test]
    fn what_was_not_sent_at_the_deadline_counts_as_dropped_by_shutdown() {
        let (queue, counters) = queue(10);
        push(&queue, "a\nb\n");
        queue.close();
        push(&queue, "c\n");
        queue.abandon();
        push(&queue, "d\n");
        assert_eq!(counters.dropped_shutdown.get(), 4);
        assert!(queue.pop().is_none());
        assert_eq!(queue.lock().given_up.iter().map(VecDeque::len).sum::<usize>(), 2);
        queue.finish();
        assert!(queue.lock().given_up.is_empty(), "who ends frees it");
    }

    #[test]
    fn a_writer_that_sleeps_is_woken_for_a_few_batches_or_for_the_last() {
        let (queue, _) = queue(10);
        let wakes = Arc::new(AtomicUsize::new(0));
        queue.set_waker({
            let wakes = Arc::clone(&wakes);
            move || {
                wakes.fetch_add(1, Ordering::Relaxed);
                true
            }
        });
        assert!(queue.alarm().lie_down());
        let woken = |pushes: usize| {
            (0..pushes).for_each(|_| push(&queue, "a\n"));
            wakes.load(Ordering::Relaxed)
        };
        assert_eq!(woken(TOLD_BATCHES - 1), 0);
        assert_eq!(woken(1), 1);
        assert_eq!(woken(1), 1, "it is awake");
        while queue.pop().is_some() {}
        queue.alarm().get_up();
        assert!(queue.alarm().lie_down());
        assert_eq!(woken(1), 1);
        queue.announce();
        assert_eq!(woken(0), 2);
    }

    #[test]
    fn the_age_of_the_oldest_point_covers_lanes_and_flight() {
        let (queue, _) = queue(10);
        let early = Instant::now();
        let late = early + Duration::from_secs(5);
        queue.push(b"a\n".to_vec(), 1, early);
        queue.push(b"b\n".to_vec(), 1, late);
        assert_eq!(queue.oldest(), Some(early));
        let first = queue.pop().unwrap();
        assert_eq!(queue.oldest(), Some(early));
        queue.set_in_flight(std::iter::empty());
        assert_eq!(queue.oldest(), Some(late));
        drop(first);
    }
}

/// The handshake of flusher, writer and handle: whatever the order of their steps, nobody waits for ever and no point is lost unseen.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc as Shared;
    use loom::thread::{self, JoinHandle};

    /// The writer's wait for events: a ring is not lost when nobody waits yet.
    #[derive(Default)]
    struct Bell {
        has_rung: Mutex<bool>,
        rung: Condvar,
    }

    impl Bell {
        fn ring(&self) {
            *sync::lock(&self.has_rung) = true;
            self.rung.notify_all();
        }

        fn wait(&self) {
            let mut has_rung = sync::lock(&self.has_rung);
            while !*has_rung {
                has_rung = self.rung.wait(has_rung).unwrap();
            }
            *has_rung = false;
        }
    }

    /// The three threads' common ground, with room for so many points.
    fn ground(limit: usize) -> (Shared<Queue>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Shared::new(Queue::new(limit, Arc::clone(&counters))), counters)
    }

    /// Takes points and has them confirmed at once, as long as the real one would. `first` is what it says of the link.
    fn writer(queue: &Shared<Queue>, counters: &Arc<Counters>, first: Link) -> JoinHandle<()> {
        let (queue, counters) = (Shared::clone(queue), Arc::clone(counters));
        thread::spawn(move || {
            let bell = Shared::new(Bell::default());
            let ringer = Shared::clone(&bell);
            queue.set_waker(move || {
                ringer.ring();
                true
            });
            if first == Link::Down {
                queue.set_link(Link::Down);
            }
            loop {
                let phase = queue.phase();
                if phase >= Phase::Abandoned {
                    break;
                }
                if let Some(batch) = queue.pop() {
                    counters.points_confirmed.add(batch.points() as u64);
                    queue.set_in_flight(std::iter::empty());
                    queue.recycle(batch);
                } else if phase >= Phase::Closing {
                    break;
                } else {
                    if queue.alarm().lie_down() {
                        bell.wait();
                    }
                    queue.alarm().get_up();
                }
            }
            queue.finish();
        })
    }

    fn push(queue: &Queue, counters: &Counters, line: &str) {
        counters.points_taken.add(1);
        queue.push(line.into(), 1, Instant::now());
    }

    fn flusher(queue: &Shared<Queue>, counters: &Arc<Counters>) -> JoinHandle<()> {
        let (queue, counters) = (Shared::clone(queue), Arc::clone(counters));
        thread::spawn(move || {
            push(&queue, &counters, "a\n");
            push(&queue, &counters, "b\n");
            queue.close();
        })
    }

    fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    #[test]
    fn a_shutdown_ends_with_every_point_confirmed() {
        check(3, || {
            let (queue, counters) = ground(1);
            let threads = [writer(&queue, &counters, Link::Up), flusher(&queue, &counters)];
            assert!(queue.wait_finished(None));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let stats = counters.stats();
            assert_eq!((stats.points_taken, stats.points_confirmed), (2, 2));
        });
    }

    #[test]
    fn an_abandoned_queue_ends_everybody_and_accounts_for_every_point() {
        check(2, || {
            let (queue, counters) = ground(1);
            let threads = [writer(&queue, &counters, Link::Up), flusher(&queue, &counters)];
            queue.close();
            queue.abandon();
            assert!(queue.wait_finished(None));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let stats = counters.stats();
            assert_eq!((stats.points_taken, stats.points_pending), (2, 0), "{stats:?}");
            assert_eq!(stats.points_confirmed + stats.points_dropped.shutdown, 2);
        });
    }

    #[test]
    fn a_lost_link_lets_the_flusher_go_on() {
        check(2, || {
            let (queue, counters) = ground(1);
            let threads = [writer(&queue, &counters, Link::Down), flusher(&queue, &counters)];
            assert!(queue.wait_finished(None));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let stats = counters.stats();
            assert_eq!((stats.points_taken, stats.points_pending), (2, 0), "{stats:?}");
            assert_eq!(stats.points_confirmed + stats.points_dropped.queue_full, 2);
        });
    }

    #[test]
    fn a_flush_returns_once_what_is_before_its_ticket_is_settled() {
        check(3, || {
            let (queue, counters) = ground(10);
            let thread = writer(&queue, &counters, Link::Up);
            push(&queue, &counters, "a\n");
            let ticket = queue.ticket();
            let _hurry = queue.hurry();
            assert!(queue.append(b"raw\n", Instant::now()));
            assert!(queue.wait_settled(ticket, None));
            assert!(counters.points_confirmed.get() >= 1);
            queue.close();
            assert!(queue.wait_finished(None));
            thread.join().unwrap();
            assert_eq!(counters.points_confirmed.get(), 2);
        });
    }
}
