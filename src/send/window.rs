//! What was taken from the queue and is not confirmed yet.
//!
//! **Problem.** A write that succeeded proves nothing: the kernel may hold megabytes that a reset
//! throws away. And a line that was cut must only ever be sent again whole, or a server stores its
//! half as a point of its own.
//!
//! **Idea.** The lines form one stream, and the state is four places in it: `confirmed <= written
//! <= granted <= end`. All but `written` are always between two lines. To lose a connection is to
//! set `written` back to `confirmed`.
//!
//! ```text
//!   | first batch        | second batch       | last batch         |
//!         ^ confirmed         ^ written  ^ granted                 ^ end
//! ```
//!
//! **Mechanism.** A batch leaves when `confirmed` has passed its end. `high_water` is the farthest
//! that `written` ever was: what is written before it is written again, and no server has seen what
//! lies behind it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::queue::{BATCH_BYTES, Batch};

/// The most bytes that are held; room for a whole batch is needed to take one.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Batches of the usual size that fit in the window, twice: a steady flush allocates nothing.
const USUAL_BATCHES: usize = 128;

/// A place in the stream of all lines that ever passed the window, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place(u64);

impl Place {
    /// How many bytes lie between an earlier place and this one.
    pub(super) fn since(self, earlier: Place) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(super) fn plus(self, bytes: usize) -> Place {
        Place(self.0 + bytes as u64)
    }
}

/// Lines that a write completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Written {
    pub(super) points: usize,
    /// Those of them that had been written before.
    pub(super) resent: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Oldest first, each with the place where it begins; `confirmed` lies within the first. None
    /// is empty.
    batches: VecDeque<(Place, Batch)>,
    /// Everything before was parsed by a server. Between two lines.
    confirmed: Place,
    /// What the present connection took.
    written: Place,
    /// How far may be written now. Between two lines.
    granted: Place,
    /// Where the last batch ends.
    end: Place,
    /// The farthest that `written` ever was.
    high_water: Place,
    /// Lines between `confirmed` and `end`.
    unconfirmed: usize,
    /// Lines between `granted` and `end`.
    ungranted: usize,
}

impl Window {
    /// An empty window that holds what it usually does without growing.
    pub(super) fn new() -> Self {
        Window { batches: VecDeque::with_capacity(USUAL_BATCHES), ..Window::default() }
    }

    /// Whether another batch may be taken.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.end.since(self.confirmed) + BATCH_BYTES as u64;
        self.batches.is_empty() || bytes <= MAX_BYTES
    }

    /// Whether something has to be confirmed before more can be granted.
    pub(super) fn is_full(&self) -> bool {
        self.ungranted == 0 && !self.has_room()
    }

    /// Adds a batch.
    pub(super) fn push(&mut self, mut batch: Batch) {
        if self.batches.len() >= USUAL_BATCHES {
            // So many are small ones, and each has a buffer for a whole batch.
            batch.shrink();
        }
        let begin = self.end;
        self.end = begin.plus(batch.lines().len());
        self.unconfirmed += batch.points();
        self.ungranted += batch.points();
        self.batches.push_back((begin, batch));
    }

    /// Lets the next lines be written: at most `points`, and none beyond the next batch.
    pub(super) fn grant(&mut self, points: usize) {
        let Some((batch, from)) = self.batch_at(self.granted) else { return };
        let lines = &batch.lines()[from..];
        let all = lines_in(batch, from..batch.lines().len());
        let bytes = if all <= points { lines.len() } else { length_of(lines, points) };
        self.granted = self.granted.plus(bytes);
        self.ungranted -= all.min(points);
    }

    /// What was granted and is not written yet; never more than one batch.
    pub(super) fn to_write(&self) -> &[u8] {
        let Some((batch, from)) = self.batch_at(self.written) else { return &[] };
        &batch.lines()[from..from + self.granted.since(self.written) as usize]
    }

    /// The lines between two places, which are both between lines.
    pub(super) fn lines(&self, places: Range<Place>) -> impl Iterator<Item = &[u8]> + Clone {
        let within = move |(begin, batch): &'_ (Place, Batch)| -> Range<usize> {
            let from = places.start.since(*begin) as usize;
            let upto = places.end.since(*begin) as usize;
            from.min(batch.lines().len())..upto.min(batch.lines().len())
        };
        let batches = self.batches.iter();
        let pieces = batches.map(move |held| &held.1.lines()[within(held)]);
        pieces.flat_map(|lines| lines.split_inclusive(|&byte| byte == b'\n'))
    }

    /// What is missing of the line that was begun; nothing between two lines.
    pub(super) fn rest_of_line(&self) -> &[u8] {
        let Some((batch, from)) = self.batch_at(self.written) else { return &[] };
        let (begun, rest) = batch.lines().split_at(from);
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) if begun.last().is_some_and(|&byte| byte != b'\n') => &rest[..=end],
            _ => &[],
        }
    }

    /// The kernel took the next so many bytes of what was granted, or they are in a request.
    pub(super) fn wrote(&mut self, bytes: usize) -> Written {
        let (mut all, end) = (Written::default(), self.written.plus(bytes));
        while let Some((batch, from)) = self.batch_at(self.written).filter(|_| self.written < end) {
            let taken = (end.since(self.written) as usize).min(batch.lines().len() - from);
            let again = (self.high_water.since(self.written) as usize).min(taken);
            all.points += lines_in(batch, from..from + taken);
            all.resent += lines_in(batch, from..from + again);
            self.written = self.written.plus(taken);
        }
        self.high_water = self.high_water.max(self.written);
        all
    }

    /// Everything before `place`, which is between two lines and was written, is confirmed. Hands
    /// back the batches that are done with, and answers how many points were confirmed by it.
    pub(super) fn confirm(&mut self, place: Place, mut done: impl FnMut(Batch)) -> usize {
        let before = self.unconfirmed;
        while let Some((begin, batch)) = self.batches.front().filter(|_| self.confirmed < place) {
            let end = begin.plus(batch.lines().len());
            let from = self.confirmed.since(*begin) as usize;
            self.confirmed = end.min(place);
            let upto = self.confirmed.since(*begin) as usize;
            self.unconfirmed -= lines_in(batch, from..upto);
            if self.confirmed == end {
                self.batches.pop_front().into_iter().for_each(|(_, batch)| done(batch));
            }
        }
        before - self.unconfirmed
    }

    /// The connection is lost: everything unconfirmed is to be written again.
    pub(super) fn rewind(&mut self) {
        self.written = self.confirmed;
        self.granted = self.confirmed;
        self.ungranted = self.unconfirmed;
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether what was granted is written, so that the stream stands between two lines.
    pub(super) fn at_line_boundary(&self) -> bool {
        self.written == self.granted
    }

    /// Lines that no write was granted for yet.
    pub(super) fn ungranted(&self) -> usize {
        self.ungranted
    }

    /// Lines that a write was granted for and that are not confirmed.
    pub(super) fn granted(&self) -> usize {
        self.unconfirmed - self.ungranted
    }

    /// Whether the lines to be written next were written before.
    pub(super) fn is_resending(&self) -> bool {
        self.granted < self.high_water
    }

    /// Whether the present connection has lines that are not confirmed.
    pub(super) fn has_unconfirmed_writes(&self) -> bool {
        self.written > self.confirmed
    }

    pub(super) fn confirmed(&self) -> Place {
        self.confirmed
    }

    pub(super) fn written(&self) -> Place {
        self.written
    }

    /// How far may be written.
    pub(super) fn granted_place(&self) -> Place {
        self.granted
    }

    /// Bytes of the lines that a write was granted for and that are not written.
    pub(super) fn unwritten(&self) -> usize {
        self.granted.since(self.written) as usize
    }

    /// What is held, oldest first.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    /// The lines that are not confirmed, but for those that are on disk.
    #[cfg(feature = "spool")]
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &[u8]> {
        let batches = self.batches.iter().filter(|(_, batch)| !batch.is_from_disk);
        batches.map(|(begin, batch)| &batch.lines()[self.confirmed.since(*begin) as usize..])
    }

    /// The batch in which the byte at `place` is, and where in its lines; `None` at the end.
    fn batch_at(&self, place: Place) -> Option<(&Batch, usize)> {
        let behind = self.batches.partition_point(|(begin, _)| *begin <= place);
        let (begin, batch) = self.batches.get(behind.checked_sub(1)?)?;
        let at = place.since(*begin) as usize;
        (at < batch.lines().len()).then_some((batch, at))
    }
}

/// The bytes of the first `n` lines.
fn length_of(bytes: &[u8], n: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    ends.map(|(at, _)| at + 1).take(n).last().unwrap_or(0)
}

/// How many lines end within these bytes of a batch, which knows it of all of them.
fn lines_in(batch: &Batch, bytes: Range<usize>) -> usize {
    if bytes == (0..batch.lines().len()) {
        return batch.points();
    }
    // In pieces whose count fits a byte, which lets the compiler compare and add 16 bytes at a
    // time: a tenth of the instructions.
    let count = |piece: &[u8]| piece.iter().map(|&byte| u8::from(byte == b'\n')).sum::<u8>();
    batch.lines()[bytes].chunks(u8::MAX.into()).map(|piece| usize::from(count(piece))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::queue::Queue;
    use crate::stats::Counters;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A batch of these lines, by the only way that there is to make one.
    fn batch(lines: &str) -> Batch {
        let queue = Queue::new(usize::MAX, Arc::new(Counters::default()));
        queue.push(lines.into(), lines.lines().count(), Instant::now());
        queue.pop().unwrap()
    }

    fn window(batches: &[&str]) -> Window {
        let mut window = Window::default();
        batches.iter().for_each(|lines| window.push(batch(lines)));
        window
    }

    /// Grants and writes everything, and answers what was written.
    fn write_all(window: &mut Window) -> String {
        let mut text = String::new();
        while window.ungranted() > 0 {
            window.grant(usize::MAX);
            text += std::str::from_utf8(window.to_write()).unwrap();
            window.wrote(window.to_write().len());
        }
        text
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_request_takes_whole_lines_of_several_batches() {
        let mut window = window(&["a\nbb\n", "c\n", "d\ne\n"]);
        (0..3).for_each(|_| window.grant(usize::MAX));
        let left = |window: &Window| {
            let lines = window.lines(window.written()..window.granted_place());
            lines.map(String::from_utf8_lossy).collect::<Vec<_>>().join("|")
        };
        assert_eq!((&*left(&window), window.unwritten()), ("a\n|bb\n|c\n|d\n|e\n", 11));
        assert_eq!(window.wrote(7), Written { points: 3, resent: 0 });
        assert_eq!((&*left(&window), window.unwritten()), ("d\n|e\n", 4));
        window.rewind();
        (0..3).for_each(|_| window.grant(usize::MAX));
        assert_eq!(window.wrote(9), Written { points: 4, resent: 3 });
        assert_eq!(window.confirm(window.written(), |_| {}), 4);
        assert_eq!(window.wrote(100), Written { points: 1, resent: 0 });
        assert_eq!(window.confirm(window.written(), |_| {}), 1);
        assert!(window.is_empty());
    }

    #[test]
    fn a_lost_connection_sends_again_from_the_first_unconfirmed_line() {
        let mut window = window(&["a\nb\nc\n", "d\n"]);
        window.grant(1);
        assert_eq!(window.to_write(), b"a\n");
        assert!(!window.has_unconfirmed_writes());
        assert_eq!(window.wrote(2), Written { points: 1, resent: 0 });
        assert!(window.at_line_boundary() && window.has_unconfirmed_writes());
        assert_eq!(window.rest_of_line(), b"", "none was begun");
        let place = window.written();
        window.grant(1);
        assert_eq!(window.wrote(1), Written { points: 0, resent: 0 }, "half a line is no point");
        assert_eq!(window.rest_of_line(), b"\n");
        assert!(!window.at_line_boundary());
        assert_eq!(window.confirm(place, |_| panic!("the batch is still needed")), 1);
        assert_eq!((window.confirmed(), window.granted()), (place, 1));
        window.rewind();
        assert_eq!(write_all(&mut window), "b\nc\nd\n");
        assert_eq!(window.granted(), 3);
        assert_eq!(window.confirm(window.written(), drop), 3);
        assert!(!window.has_unconfirmed_writes());
        assert!(window.is_empty());
    }

    #[test]
    fn lines_that_were_written_before_count_as_resent() {
        let mut window = window(&["a\nb\n", "c\n"]);
        window.grant(2);
        window.wrote(3);
        window.rewind();
        assert!(window.is_resending());
        window.grant(2);
        assert_eq!(window.wrote(4), Written { points: 2, resent: 1 });
        assert!(!window.is_resending());
    }

    #[test]
    fn a_batch_of_any_size_is_taken_when_there_is_none_and_then_no_more_than_fit() {
        let line = format!("{}\n", "x".repeat(1023));
        let mut window = Window::default();
        let mut taken = 0;
        while window.has_room() {
            window.push(batch(&line.repeat(64)));
            taken += 1;
        }
        assert_eq!(taken, 64, "4 MiB in batches of 64 KiB");
        assert!(!window.is_full(), "nothing of it is granted");
        write_all(&mut window);
        assert!(window.is_full());
    }

    #[cfg(feature = "spool")]
    #[test]
    fn what_is_confirmed_or_on_disk_is_not_to_be_kept_there() {
        let mut window = window(&["a\nb\n", "c\n"]);
        let mut from_disk = batch("d\n");
        from_disk.is_from_disk = true;
        window.push(from_disk);
        window.grant(1);
        window.wrote(2);
        window.confirm(window.written(), drop);
        assert_eq!(window.unconfirmed().collect::<Vec<_>>().concat(), b"b\nc\n");
        assert_eq!(window.batches().count(), 3);
    }

    #[test]
    fn many_small_batches_hold_no_more_than_their_lines() {
        let queue = Queue::new(usize::MAX, Arc::new(Counters::default()));
        let mut window = Window::default();
        for _ in 0..=USUAL_BATCHES {
            let mut lines = Vec::with_capacity(BATCH_BYTES);
            lines.extend(b"a\n");
            queue.push(lines, 1, Instant::now());
            window.push(queue.pop().unwrap());
        }
        window.confirm(window.end, |batch| queue.recycle(batch));
        // The queue keeps those that have room for a batch, as they were.
        let spare = std::iter::repeat_with(|| queue.buffer());
        let full_size = spare.take_while(|buffer| buffer.starts_with(b"a\n")).count();
        assert_eq!(full_size, USUAL_BATCHES);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Grant(usize),
        Write(usize),
        Confirm,
        Lose,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1usize..6).prop_map(Step::Push),
            (0usize..8).prop_map(Step::Grant),
            (1usize..40).prop_map(Step::Write),
            Just(Step::Confirm),
            Just(Step::Lose),
        ]
    }

    /// The window as the law has it: lines with a number each, and nothing clever.
    #[derive(Default)]
    struct Naive {
        lines: Vec<String>,
        confirmed: usize,
        /// Everything that the present connection got.
        sent: String,
        /// Lines that some connection got whole.
        high_water: usize,
    }

    impl Naive {
        fn sent_lines(&self) -> usize {
            self.sent.matches('\n').count()
        }
    }

    proptest! {
        #[test]
        fn each_connection_gets_the_unconfirmed_lines_whole_in_order_and_unchanged(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            // Where the present connection began.
            let mut begun = 0;
            for step in steps {
                match step {
                    Step::Push(n) => {
                        let from = naive.lines.len();
                        let lines: Vec<_> = (from..from + n).map(|n| format!("put line {n}\n")).collect();
                        window.push(batch(&lines.concat()));
                        naive.lines.extend(lines);
                    }
                    Step::Grant(n) if window.at_line_boundary() => {
                        let before = window.ungranted();
                        window.grant(n);
                        let granted = window.to_write().iter().filter(|&&b| b == b'\n').count();
                        prop_assert_eq!(before - window.ungranted(), granted);
                        prop_assert!(granted <= n);
                    }
                    Step::Grant(_) => {}
                    Step::Write(n) => {
                        let n = n.min(window.to_write().len());
                        let before = begun + naive.sent_lines();
                        naive.sent += std::str::from_utf8(&window.to_write()[..n]).unwrap();
                        let after = begun + naive.sent_lines();
                        let written = window.wrote(n);
                        prop_assert_eq!(written.points, after - before);
                        let again = after.min(naive.high_water).saturating_sub(before);
                        prop_assert_eq!(written.resent, again);
                        naive.high_water = naive.high_water.max(after);
                    }
                    Step::Confirm if window.at_line_boundary() => {
                        let sent = begun + naive.sent_lines();
                        let confirmed = window.confirm(window.written(), drop);
                        prop_assert_eq!(confirmed, sent - naive.confirmed);
                        naive.confirmed = sent;
                    }
                    Step::Confirm => {}
                    Step::Lose => {
                        window.rewind();
                        begun = naive.confirmed;
                        naive.sent.clear();
                    }
                }
                prop_assert!(naive.lines[begun..].concat().starts_with(&naive.sent));
                prop_assert_eq!(window.unconfirmed, naive.lines.len() - naive.confirmed);
                prop_assert_eq!(window.is_empty(), naive.lines.len() == naive.confirmed);
            }
            window.rewind();
            prop_assert_eq!(write_all(&mut window), naive.lines[naive.confirmed..].concat());
        }
    }
}
