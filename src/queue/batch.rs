//! Lines on their way.

use crate::clock::Instant;

/// The size that a batch is filled to: a `write` of more than 64 KiB gains nothing.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Whole lines, in the order in which they were made; at least one.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The lines; those before `start` were dropped.
    bytes: Vec<u8>,
    /// Where the first line begins that is still to be sent.
    start: usize,
    /// How many lines there are from `start` on.
    points: usize,
    /// The number of the first of them; the others follow it.
    pub(super) first: u64,
    /// When its oldest point was taken, dropped ones included.
    pub(super) taken: Instant,
    /// Whether it was read from disk and is still there.
    pub(crate) is_from_disk: bool,
}

impl Batch {
    pub(super) fn new(bytes: Vec<u8>, points: usize, first: u64, taken: Instant) -> Self {
        Batch { bytes, start: 0, points, first, taken, is_from_disk: false }
    }

    /// The number behind its last point.
    pub(super) fn end(&self) -> u64 {
        self.first + self.points as u64
    }

    /// The lines to send.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many points the lines hold.
    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// Gives the buffer back to the allocator but for what the lines need, if that is much less.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > 2 * self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
    }

    /// Its buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether these lines follow and may join. Not where lines were dropped: the age of the others
    /// would not be known; nor what is on disk with what is not.
    pub(super) fn has_room_for(&self, next: &Batch) -> bool {
        let follows = self.end() == next.first && !self.is_from_disk && !next.is_from_disk;
        follows && self.start == 0 && self.bytes.len() + next.lines().len() <= BATCH_BYTES
    }

    /// Adds the lines that follow these. More will follow: the buffer grows once, to its full size.
    pub(super) fn join(&mut self, next: &Batch) {
        self.bytes.reserve_exact(BATCH_BYTES.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(next.lines());
        self.points += next.points;
    }

    /// Drops the oldest lines: `points` of them, and as many more as it takes to drop `bytes`, but
    /// never the last one.
    pub(super) fn drop_oldest(&mut self, points: usize, bytes: usize) {
        let (mut dropped, mut length) = (0, 0);
        for line in self.lines().split_inclusive(|&byte| byte == b'\n').take(self.points - 1) {
            if dropped >= points && length >= bytes {
                break;
            }
            dropped += 1;
            length += line.len();
        }
        self.start += length;
        self.points -= dropped;
        self.first += dropped as u64;
    }
}
