//! Feature `spool`: what the writer asks of the queue to keep its points on disk.
//!
//! The writer copies lines without taking them, writes the copies, and then says how far it has
//! come; so what cannot be written stays where it is. Numbers tell what was copied: they ascend in
//! each lane, and from the backlog to the fresh lane.

use std::ops::Range;
use std::time::Duration;

use super::inner::Inner;
use super::{Batch, Phase, Queue};
use crate::clock::Instant;

/// What the writer says of the disk, before it looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// Whether it takes points, as far as is known.
    pub(crate) is_well: bool,
    /// Whether points have to be on disk before they are sent.
    pub(crate) is_ahead: bool,
    /// How old the oldest point on it is, and when that was read. It may be older than the clock.
    pub(crate) oldest: Option<(Duration, Instant)>,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    /// When what is not confirmed will be given up.
    pub(crate) deadline: Option<Instant>,
    /// How many points are to be moved to disk, if any are.
    pub(crate) spill: Option<usize>,
    /// Below which number every point is written that has to be, if one is not.
    pub(crate) unwritten: Option<u64>,
    /// Every point with a lower number is confirmed, dropped, or moved to disk.
    pub(crate) settled: u64,
    /// How many points may be read from disk: none while others wait to be sent, or at the end.
    pub(crate) room: usize,
}

impl Queue {
    pub(crate) fn view(&self, disk: Disk) -> View {
        let mut inner = self.lock();
        inner.spills = disk.is_well;
        inner.oldest_spooled = disk.oldest;
        // What was sent unwritten is not written any more.
        let written = inner.written.unwrap_or_default();
        inner.written = (disk.is_well && disk.is_ahead).then_some(written);
        View {
            phase: inner.phase,
            deadline: inner.ends_at.or(inner.deadline),
            spill: inner.wants_spill().then_some(inner.points().div_ceil(2)),
            unwritten: inner.unwritten(),
            settled: inner.fronts().map(|(first, _)| first).min().unwrap_or(inner.next_point),
            room: match inner.phase == Phase::Open && inner.points() == 0 {
                true => inner.limit.points.div_ceil(2),
                false => 0,
            },
        }
    }

    /// The disk takes nothing for now: no point has to wait for it to be sent.
    pub(crate) fn disk_failed(&self) {
        let mut inner = self.lock();
        (inner.spills, inner.written) = (false, None);
        // The flusher may wait for room that will not come.
        self.changed.notify_all();
    }

    /// Copies the lines of the first batch with points from `number` on, and not those before;
    /// answers their numbers. What came from disk is passed over.
    pub(crate) fn copy(&self, number: u64, lines: &mut Vec<u8>) -> Option<Range<u64>> {
        let inner = self.lock();
        let batch = first_from(&inner, number)?;
        let known = number.saturating_sub(batch.first) as usize;
        let is_end = |byte: &u8| *byte == b'\n';
        let text = batch.lines();
        let start = text.split_inclusive(is_end).take(known).map(<[u8]>::len).sum::<usize>();
        lines.clear();
        lines.extend_from_slice(&text[start..]);
        Some(number.max(batch.first)..batch.end())
    }

    /// Below which number every point is on disk that has to be, if any have to.
    pub(crate) fn written(&self) -> Option<u64> {
        self.lock().written
    }

    /// Points with lower numbers than this are on disk: those that have to be may be sent.
    pub(crate) fn set_written(&self, below: u64) {
        if let Some(written) = &mut self.lock().written {
            *written = below;
        }
    }

    /// Takes out the points of lower numbers than this, which were moved to disk, and the batches
    /// before them that came from there.
    pub(crate) fn spooled(&self, below: u64) {
        let mut inner = self.lock();
        let before = inner.points();
        let is_moved = |batch: &Batch| batch.end() <= below || batch.is_from_disk;
        while inner.oldest_lane().front().is_some_and(is_moved) {
            if let Some(batch) = inner.oldest_lane().pop() {
                inner.keep_spare(batch);
            }
        }
        // Lines may have joined a batch since it was copied.
        let lane = inner.oldest_lane();
        let moved = lane.front().map_or(0, |front| below.saturating_sub(front.first));
        if moved > 0 {
            lane.drop_of_front(moved as usize, 0);
        }
        self.counters.points_spooled.add((before - inner.points()) as u64);
        if inner.wants_room || inner.settles_awaited() {
            self.changed.notify_all();
        }
    }

    /// Gives up everything, in flight too, since it is all on disk; `false`, and nothing, if there
    /// are points from this number on that are not.
    pub(crate) fn spooled_all(&self, below: u64) -> bool {
        let mut inner = self.lock();
        if first_from(&inner, below).is_some() {
            return false;
        }
        self.counters.points_spooled.add(inner.give_up() as u64);
        true
    }

    /// Adds a batch that was read from disk and counts it as taken, unless the queue is abandoned;
    /// answers the number behind it.
    pub(crate) fn restore(&self, lines: &[u8], points: usize, now: Instant) -> u64 {
        let mut inner = self.lock();
        if inner.phase >= Phase::Abandoned {
            return u64::MAX;
        }
        self.counters.points_taken.add(points as u64);
        let mut batch = Batch::new(lines.into(), points, inner.next_point, now);
        batch.is_from_disk = true;
        if inner.written == Some(inner.next_point) {
            inner.written = Some(batch.end());
        }
        inner.next_point = batch.end();
        inner.fresh.add(batch);
        inner.next_point
    }
}

fn first_from(inner: &Inner, number: u64) -> Option<&Batch> {
    let lanes = [&inner.backlog, &inner.fresh].into_iter();
    lanes.flat_map(|lane| lane.from(number)).find(|batch| !batch.is_from_disk)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::queue::Link;
    use crate::queue::tests::wakes::count_wakes;
    use crate::stats::{Counters, Stats};

    fn queue(limit: usize) -> Queue {
        Queue::new(limit, Arc::new(Counters::default()))
    }

    fn view(queue: &Queue, is_ahead: bool) -> View {
        queue.view(Disk { is_well: true, is_ahead, oldest: None })
    }

    /// Each line its number.
    fn push(queue: &Queue, numbers: Range<u64>) {
        for n in numbers {
            assert!(queue.append(format!("{n}\n").into(), Instant::now()));
        }
    }

    fn copied(queue: &Queue, number: u64) -> Option<(String, Range<u64>)> {
        let mut lines = Vec::new();
        let numbers = queue.copy(number, &mut lines)?;
        Some((String::from_utf8(lines).unwrap(), numbers))
    }

    #[track_caller]
    fn lawful(queue: &Queue) -> Stats {
        let stats = queue.stats(Instant::now());
        let settled = stats.points_confirmed + stats.points_dropped.total() + stats.points_spooled;
        assert_eq!(stats.points_taken, settled + stats.points_pending, "{stats:?}");
        stats
    }

    #[test]
    fn what_was_copied_is_taken_out_and_what_joined_it_meanwhile_stays() {
        let queue = queue(100);
        push(&queue, 0..5);
        assert_eq!(copied(&queue, 0), Some(("0\n1\n2\n3\n4\n".into(), 0..5)));
        push(&queue, 5..7);
        assert_eq!(copied(&queue, 5), Some(("5\n6\n".into(), 5..7)));
        queue.spooled(5);
        assert_eq!(queue.pop().unwrap().lines(), b"5\n6\n");
        let stats = lawful(&queue);
        assert_eq!((stats.points_spooled, stats.points_pending), (5, 2));
    }

    #[test]
    fn a_snapshot_that_waits_is_at_risk_only_where_the_disk_makes_no_room() {
        let queue = queue(4);
        let push = |lines: &str, points| queue.push(lines.into(), points, Instant::now());
        queue.set_link(Link::Down);
        push("a\nb\n", 2);
        assert!(queue.risks_snapshot(), "there is no disk");
        view(&queue, false);
        assert!(!queue.risks_snapshot());
        push("c\n", 1);
        assert!(queue.risks_snapshot(), "the disk is behind");
        queue.view(Disk { is_well: false, is_ahead: false, oldest: None });
        queue.spooled(1);
        assert!(queue.risks_snapshot(), "the disk is full");
    }

    #[test]
    fn half_of_a_queue_that_is_more_than_half_full_is_to_be_moved_while_the_link_is_down() {
        let queue = queue(10);
        push(&queue, 0..6);
        assert_eq!(view(&queue, false).spill, None);
        queue.set_link(Link::Down);
        assert_eq!(view(&queue, false).spill, Some(3));
        queue.spooled(1);
        assert_eq!(view(&queue, false).spill, None);
    }

    #[test]
    fn what_has_to_be_written_first_is_sent_after_that() {
        let queue = queue(100);
        view(&queue, true);
        push(&queue, 0..3);
        assert!(queue.pop().is_none());
        assert_eq!(view(&queue, true).unwritten, Some(0));
        queue.set_written(3);
        assert_eq!(view(&queue, true).unwritten, None);
        push(&queue, 3..4);
        assert!(queue.pop().is_none());
        // The disk has failed.
        queue.disk_failed();
        assert_eq!(queue.pop().unwrap().points(), 4);
    }

    #[test]
    fn the_writer_is_woken_for_each_point_that_is_to_be_written_or_moved() {
        for (link, is_ahead) in [(Link::Up, true), (Link::Down, false)] {
            let queue = queue(2);
            queue.set_link(link);
            view(&queue, is_ahead);
            let wakes = count_wakes(&queue);
            for n in 0..2 {
                push(&queue, n..n + 1);
                queue.waker().unpark();
            }
            assert_eq!(wakes.load(Ordering::Relaxed), 2, "{link:?}");
        }
    }

    #[test]
    fn what_came_from_disk_is_not_copied_and_needs_not_be_written() {
        let queue = queue(100);
        view(&queue, true);
        push(&queue, 0..1);
        assert_eq!(queue.restore(b"x\ny\n", 2, Instant::now()), 3);
        assert_eq!(copied(&queue, 0), Some(("0\n".into(), 0..1)));
        assert_eq!(copied(&queue, 1), None);
        queue.set_written(1);
        for lines in [&b"0\n"[..], b"x\ny\n"] {
            assert_eq!(queue.pop().unwrap().lines(), lines);
        }
        let stats = lawful(&queue);
        assert_eq!((stats.points_taken, stats.points_pending), (3, 3));
    }

    #[test]
    fn points_keep_their_numbers_when_the_link_goes_down_behind_a_gap() {
        let queue = queue(100);
        queue.restore(b"x\n", 1, Instant::now());
        push(&queue, 1..2);
        queue.set_link(Link::Down);
        queue.set_link(Link::Up);
        push(&queue, 2..3);
        for lines in [&b"x\n"[..], b"2\n"] {
            assert_eq!(queue.pop().unwrap().lines(), lines);
        }
        push(&queue, 3..4);
        queue.set_link(Link::Down);
        assert_eq!(copied(&queue, 0), Some(("1\n".into(), 1..2)));
        assert_eq!(copied(&queue, 2), Some(("3\n".into(), 3..4)));
        queue.spooled(2);
        assert_eq!(lawful(&queue).points_spooled, 1);
        assert_eq!(queue.pop().unwrap().lines(), b"3\n");
    }

    #[test]
    fn what_came_from_disk_joins_nothing_and_gives_way() {
        let queue = queue(100);
        queue.restore(b"x\n", 1, Instant::now());
        push(&queue, 0..1);
        queue.set_link(Link::Down);
        assert_eq!(copied(&queue, 0), Some(("0\n".into(), 1..2)));
        queue.spooled(0);
        assert_eq!(lawful(&queue).points_spooled, 1);
        assert_eq!(queue.pop().unwrap().lines(), b"0\n");
    }

    #[test]
    fn everything_is_given_up_but_what_came_meanwhile() {
        let queue = queue(100);
        push(&queue, 0..2);
        assert_eq!(queue.pop().unwrap().points(), 2);
        push(&queue, 2..4);
        assert!(!queue.spooled_all(3));
        assert!(queue.spooled_all(4));
        queue.abandon();
        let stats = lawful(&queue);
        assert_eq!((stats.points_spooled, stats.points_pending), (4, 0));
        assert_eq!(queue.restore(b"x\n", 1, Instant::now()), u64::MAX);
        assert_eq!(lawful(&queue).points_taken, 4);
    }

    #[test]
    fn a_disk_that_hangs_costs_the_flusher_a_second_and_then_the_oldest_points() {
        let queue = queue(2);
        queue.set_link(Link::Down);
        view(&queue, false);
        for n in 0..4 {
            queue.push(format!("{n}\n").into(), 1, Instant::now());
        }
        assert_eq!(lawful(&queue).points_dropped.queue_full, 2);
        assert_eq!(queue.pop().unwrap().lines(), b"2\n");
    }
}
