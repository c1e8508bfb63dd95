//! Feature `spool`: what the writer asks of the queue to keep its points on disk.
//!
//! The writer copies lines without taking them, writes the copies, and then says how far it has
//! come; so what cannot be written stays where it is. Numbers tell what was copied: they ascend in
//! each lane, and from the backlog to the fresh lane.

use std::ops::Range;

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
    /// When the oldest point on it was written.
    pub(crate) oldest: Option<Instant>,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    /// When what is not confirmed will be given up.
    pub(crate) deadline: Option<Instant>,
    /// How much is to be moved to disk, in points and bytes, if anything is.
    pub(crate) spill: Option<(usize, usize)>,
    /// Below which number every point is written that has to be, if one is not.
    pub(crate) unwritten: Option<u64>,
    /// Every point with a lower number is confirmed, dropped, or moved to disk.
    pub(crate) settled: u64,
    /// How many points may be read from disk: none while others wait to be sent, or at the end.
    pub(crate) room: usize,
}

impl Queue {
    /// Says that there is a spool.
    pub(crate) fn set_spool(&self) {
        self.lock().has_spool = true;
    }

    pub(crate) fn view(&self, disk: Disk) -> View {
        let mut inner = self.lock();
        inner.spills = disk.is_well;
        inner.oldest_spooled = disk.oldest;
        inner.written = match disk.is_well && disk.is_ahead {
            false => u64::MAX,
            // What was sent unwritten is not written any more.
            true if inner.written == u64::MAX => 0,
            true => inner.written,
        };
        let half = (inner.points().div_ceil(2), inner.bytes() / 2);
        View {
            phase: inner.phase,
            deadline: inner.ends_at.or(inner.deadline),
            spill: inner.wants_spill().then_some(half),
            unwritten: inner.is_unwritten().then_some(inner.written),
            settled: inner.fronts().map(|(first, _)| first).min().unwrap_or(inner.next_point),
            room: match inner.phase == Phase::Open && inner.points() == 0 {
                true => inner.limit.points.div_ceil(2),
                false => 0,
            },
        }
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

    /// Below which number every point is written that has to be.
    pub(crate) fn written(&self) -> u64 {
        self.lock().written
    }

    /// Points with lower numbers than this are on disk: those that have to be may be sent.
    pub(crate) fn set_written(&self, below: u64) {
        let mut inner = self.lock();
        if inner.written != u64::MAX {
            inner.written = below;
        }
    }

    /// Takes out the points of lower numbers than this, which were moved to disk, and the batches
    /// before them that came from there.
    pub(crate) fn spooled(&self, below: u64) {
        let mut inner = self.lock();
        let before = inner.points();
        let is_moved = |batch: &Batch| batch.end() <= below || batch.is_from_disk;
        while let Some(batch) = inner.take_oldest_if(is_moved) {
            inner.keep_spare(batch.into_buffer());
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

    /// Adds a batch that was read from disk and counts it as taken, unless something waits already;
    /// answers the number behind it.
    pub(crate) fn restore(&self, lines: &[u8], points: usize, now: Instant) -> Option<u64> {
        let mut inner = self.lock();
        if inner.phase != Phase::Open || inner.points() > 0 {
            return None;
        }
        self.counters.points_taken.add(points as u64);
        let mut batch = Batch::new(lines.into(), points, inner.next_point, now);
        batch.is_from_disk = true;
        inner.next_point = batch.end();
        if inner.written != u64::MAX {
            inner.written = inner.next_point;
        }
        inner.backlog.push(batch);
        Some(inner.next_point)
    }
}

fn first_from(inner: &Inner, number: u64) -> Option<&Batch> {
    let lanes = [&inner.backlog, &inner.fresh].into_iter();
    lanes.flat_map(|lane| lane.from(number)).find(|batch| !batch.is_from_disk)
}
