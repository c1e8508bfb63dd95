//! What was taken from the queue and is not confirmed yet.
//!
//! **Problem.** A write that succeeded proves nothing: the kernel may hold megabytes that a reset throws away. And a line that was
//! cut may only ever be sent again whole, or a server stores its half as a point of its own.
//!
//! **Idea.** The lines form one stream, and the state is four places in it: `confirmed <= written <= granted <= end`. All but
//! `written` are always between two lines. To lose a connection is to set `written` back to `confirmed`.
//!
//! ```text
//!   | first batch        | second batch       | last batch         |
//!         ^ confirmed         ^ written  ^ granted                 ^ end
//! ```
//!
//! **Mechanism.** A batch leaves when `confirmed` has passed its end. `reached` is the farthest that `written` ever was: what is
//! written before it is written again, and what lies behind it no server has seen.

use std::collections::VecDeque;

use crate::queue::{BATCH_BYTES, Batch};

/// The most bytes that are held; room for a whole batch is needed to take one.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Points at which no further batch is taken.
const MAX_POINTS: usize = 65_536;

/// A place in the stream of all lines that ever passed the window, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place(u64);

impl Place {
    /// How many bytes lie between an earlier place and this one.
    pub(super) fn since(self, earlier: Place) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    fn plus(self, bytes: usize) -> Place {
        Place(self.0 + bytes as u64)
    }
}

/// Lines that a write completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Written {
    pub(super) points: u64,
    /// Those of them that had been written before.
    pub(super) resent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    /// Oldest first; `confirmed` lies within the first. None is empty.
    batches: VecDeque<Batch>,
    /// Where the first batch begins.
    base: Place,
    /// Everything before was parsed by a server. Between two lines.
    confirmed: Place,
    /// What the present connection took.
    written: Place,
    /// How far may be written now. Between two lines.
    granted: Place,
    /// Where the last batch ends.
    end: Place,
    /// The farthest that `written` ever was.
    reached: Place,
    /// The batch in which the next byte to grant lies, and where it begins. `written` is in it or in the one before.
    cursor: Cursor,
    /// Lines between `confirmed` and `end`.
    unconfirmed: usize,
    /// Lines between `granted` and `end`.
    ungranted: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    index: usize,
    start: Place,
}

impl Window {
    /// Whether another batch may be taken.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.end.since(self.base) + BATCH_BYTES as u64;
        self.batches.is_empty() || (bytes <= MAX_BYTES && self.unconfirmed < MAX_POINTS)
    }

    /// Adds a batch, which must not be empty.
    pub(super) fn push(&mut self, batch: Batch) {
        self.end = self.end.plus(batch.lines().len());
        self.unconfirmed += batch.points();
        self.ungranted += batch.points();
        self.batches.push_back(batch);
    }

    /// Lets the next lines be written, at most `points` and none beyond the batch that is being written. Answers how many.
    pub(super) fn grant(&mut self, points: usize) -> usize {
        self.step_cursor();
        let Some(batch) = self.batches.get(self.cursor.index) else { return 0 };
        let from = self.granted.since(self.cursor.start) as usize;
        let (bytes, lines) = leading_lines(&batch.lines()[from..], points);
        self.granted = self.granted.plus(bytes);
        self.ungranted -= lines;
        lines
    }

    /// What was granted and is not written yet; never more than one batch.
    pub(super) fn to_write(&self) -> &[u8] {
        let Some(batch) = self.batches.get(self.cursor.index) else { return &[] };
        let from = self.written.since(self.cursor.start) as usize;
        let to = self.granted.since(self.cursor.start) as usize;
        &batch.lines()[from..to]
    }

    /// What is missing of the line that was begun; nothing between two lines.
    pub(super) fn rest_of_line(&self) -> &[u8] {
        let Some(batch) = self.batches.get(self.cursor.index) else { return &[] };
        let (begun, rest) = batch.lines().split_at(self.written.since(self.cursor.start) as usize);
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) if begun.last().is_some_and(|&byte| byte != b'\n') => &rest[..=end],
            _ => &[],
        }
    }

    /// The kernel took the first `bytes` of [`to_write`](Self::to_write).
    pub(super) fn wrote(&mut self, bytes: usize) -> Written {
        let taken = &self.to_write()[..bytes];
        let again = (self.reached.since(self.written) as usize).min(bytes);
        let written =
            Written { points: count_lines(taken), resent: count_lines(&taken[..again]) };
        self.written = self.written.plus(bytes);
        self.reached = self.reached.max(self.written);
        written
    }

    /// Everything before `place`, which is between two lines and was written, is confirmed. Hands back the batches that are done
    /// with, and answers how many points were confirmed by it.
    pub(super) fn confirm(&mut self, place: Place, mut done: impl FnMut(Batch)) -> u64 {
        let before = self.unconfirmed;
        while let Some(batch) = self.batches.front() {
            let end = self.base.plus(batch.lines().len());
            let seen = self.confirmed.since(self.base) as usize;
            if end > place {
                let upto = place.since(self.base) as usize;
                if upto > seen {
                    self.unconfirmed -= count_lines(&batch.lines()[seen..upto]) as usize;
                }
                break;
            }
            self.unconfirmed -= if seen == 0 {
                batch.points()
            } else {
                count_lines(&batch.lines()[seen..]) as usize
            };
            self.leave_first(end);
            if let Some(batch) = self.batches.pop_front() {
                done(batch);
            }
            self.confirmed = end;
        }
        self.confirmed = self.confirmed.max(place.min(self.written));
        (before - self.unconfirmed) as u64
    }

    /// The connection is lost: everything unconfirmed is to be written again.
    pub(super) fn rewind(&mut self) {
        self.written = self.confirmed;
        self.granted = self.confirmed;
        self.cursor = Cursor { index: 0, start: self.base };
        self.ungranted = self.unconfirmed;
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether what was granted is written, so that the stream stands between two lines.
    pub(super) fn is_between_lines(&self) -> bool {
        self.written == self.granted
    }

    /// Lines that no write was granted for yet.
    pub(super) fn ungranted(&self) -> usize {
        self.ungranted
    }

    /// Whether the lines to be written next were written before.
    pub(super) fn is_resending(&self) -> bool {
        self.granted < self.reached
    }

    /// Whether the present connection has lines that are not confirmed.
    pub(super) fn has_unconfirmed_writes(&self) -> bool {
        self.written > self.confirmed
    }

    pub(super) fn written(&self) -> Place {
        self.written
    }

    /// Lines of which no server has seen the end.
    pub(super) fn never_written(&self) -> u64 {
        let mut start = self.base;
        let mut lines = 0;
        for batch in &self.batches {
            let seen = (self.reached.since(start) as usize).min(batch.lines().len());
            lines += count_lines(&batch.lines()[seen..]);
            start = start.plus(batch.lines().len());
        }
        lines
    }

    /// What is held, oldest first.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }

    /// When the batch at the cursor is granted and written, the next one is at it.
    fn step_cursor(&mut self) {
        while let Some(batch) = self.batches.get(self.cursor.index) {
            let end = self.cursor.start.plus(batch.lines().len());
            if self.granted < end || self.written < end {
                return;
            }
            self.cursor = Cursor { index: self.cursor.index + 1, start: end };
        }
    }

    /// Keeps the cursor where it is while the first batch, which ends at `end`, leaves.
    fn leave_first(&mut self, end: Place) {
        self.base = end;
        match self.cursor.index.checked_sub(1) {
            Some(index) => self.cursor.index = index,
            None => self.cursor.start = end,
        }
    }
}

/// The bytes of the first lines, at most `max` of them, and how many they are.
fn leading_lines(bytes: &[u8], max: usize) -> (usize, usize) {
    // Most grants without spreading take everything, which counting settles faster than looking for an end.
    let all = count_lines(bytes) as usize;
    if all <= max {
        return (bytes.len(), all);
    }
    let ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    let length = ends.map(|(at, _)| at + 1).take(max).last().unwrap_or(0);
    (length, max)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
