//! Lines on their way.

use crate::clock::Instant;

/// Whole lines, in the order in which they were made.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The lines; those before `start` were dropped.
    pub(super) bytes: Vec<u8>,
    /// Where the first line begins that is still to be sent.
    pub(super) start: usize,
    /// How many lines there are from `start` on.
    pub(super) points: usize,
    /// Its place among all batches; a lower one was made earlier.
    pub(super) order: u64,
    /// When its oldest point was taken.
    pub(super) taken: Instant,
}

impl Batch {
    /// The lines to send.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many points the lines hold.
    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// Gives up the `n` oldest lines.
    pub(super) fn drop_oldest(&mut self, n: usize) {
        let ends = self.lines().iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
        let length = ends.map(|(at, _)| at + 1).take(n).last().unwrap_or(0);
        self.start += length;
        self.points -= n;
    }
}
