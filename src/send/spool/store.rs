//! The segments: written at one end, read and deleted at the other.
//!
//! **Problem.** A file of positions beside the data can disagree with it, and whoever believes the
//! wrong one sends everything again or nothing. A backlog can be larger than memory, damaged, or a
//! stranger's.
//!
//! **Idea.** No ledger. A segment is a few MiB, named by its number, and is there until all of it is
//! settled; then its file is deleted. Whoever starts reads what is there from the beginning.
//!
//! **Mechanism.**
//! 1. Lines are appended to the last segment. [`Store::sync`] ends what belongs together: what
//!    was appended since is cut off again when something fails, since it is still in memory.
//! 2. A segment of *copies* holds points that memory has too, numbered by the queue. It goes when
//!    all of them are settled, or becomes part of the *backlog*.
//! 3. The backlog is read from the oldest segment on, one segment at a time and some lines at a
//!    time, each checked by [`LineRules`]. Read to its end, and settled, it goes.
//! 4. Beyond `max_bytes` and `max_age` the oldest segment goes, its points counted.
//!
//! A record that is bad gives up the rest of its segment; a file that cannot be opened is left
//! alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use super::directory::Directory;
use super::options::Spool;
use super::record;
use crate::wire::sendable::LineRules;

/// Bounds of the size of a segment, which is an eighth of what there may be on disk.
const SEGMENT_BYTES: (u64, u64) = (4096, 4 * 1024 * 1024);
/// The parts of `max_bytes` that a segment may hold, and of `max_age` that it is written for.
const PARTS: u32 = 8;
/// How many lines are read at a time: what a fresh snapshot waits for at most.
const LINES: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    directory: Directory,
    max_bytes: u64,
    max_age: Duration,
    rules: LineRules,
    /// In the order of their numbers; the backlog before the copies.
    segments: VecDeque<Segment>,
    /// The last segment, if it is still written.
    writing: Option<Writing>,
    /// The oldest segment, if it is part of the backlog and was begun.
    reading: Option<Reading>,
    /// The number of the next segment.
    next: u64,
    tally: Tally,
    /// The record that is written.
    record: Vec<u8>,
}

/// What happened that nobody asked for.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Records, lines and files that could not be read.
    pub(super) damaged: u64,
    /// Points that were too old, or too many.
    pub(super) dropped: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// When it was begun, as the time since the Unix epoch; when it was last written, if an earlier
    /// process did.
    created: Duration,
    /// Its points have lower numbers than this in the queue, or had. `None` for the backlog.
    copies_below: Option<u64>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    /// How much of it is on disk for sure, and of which copies.
    synced: u64,
    synced_below: Option<u64>,
}

#[derive(Debug)]
struct Reading {
    file: File,
    /// Of the present record, those before `at` were read.
    lines: Vec<u8>,
    at: usize,
    /// Whether the present record is too old to be sent.
    is_old: bool,
    /// Whether nothing more can be read of it.
    has_ended: bool,
    /// What was read has lower numbers than this in the queue.
    below: u64,
}

impl Store {
    /// Opens the directory, with what is in it as the backlog.
    pub(super) fn open(spool: &Spool, rules: LineRules) -> io::Result<Self> {
        let directory = Directory::open(&spool.directory)?;
        let found = directory.segments()?;
        let segments: VecDeque<_> = found
            .into_iter()
            .map(|(number, bytes, created)| Segment { number, bytes, created, copies_below: None })
            .collect();
        Ok(Store {
            next: segments.back().map_or(0, |last| last.number + 1),
            directory,
            max_bytes: spool.max_bytes,
            max_age: spool.max_age,
            rules,
            segments,
            writing: None,
            reading: None,
            tally: Tally::default(),
            record: Vec::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many bytes there are on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How old the oldest segment is.
    pub(super) fn oldest(&self, wall: Duration) -> Option<Duration> {
        self.segments.front().map(|segment| wall.saturating_sub(segment.created))
    }

    /// What happened since this was last asked.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    // ---- writing ----

    /// Adds whole lines: to the backlog, or as copies of points with lower numbers than this.
    ///
    /// # Errors
    /// Nothing of what was appended since the last [`sync`](Self::sync) counts then.
    pub(super) fn append(
        &mut self,
        mut lines: &[u8],
        copies_below: Option<u64>,
        wall: Duration,
    ) -> io::Result<()> {
        let most = (self.segment_bytes() as usize).min(record::MAX_LINES) - record::HEADER;
        let is_end = |&byte: &u8| byte == b'\n';
        while !lines.is_empty() {
            let last = lines[..lines.len().min(most)].iter().rposition(is_end);
            // A line that is longer than a record should be goes alone.
            let end =
                last.or_else(|| lines.iter().position(is_end)).map_or(lines.len(), |at| at + 1);
            let record;
            (record, lines) = lines.split_at(end);
            self.append_record(record, copies_below, wall).inspect_err(|_| self.cut())?;
        }
        Ok(())
    }

    fn append_record(
        &mut self,
        lines: &[u8],
        copies_below: Option<u64>,
        wall: Duration,
    ) -> io::Result<()> {
        record::encode(lines, wall, &mut self.record);
        let bytes = self.record.len() as u64;
        while self.bytes() + bytes > self.max_bytes && self.has_backlog() {
            self.drop_oldest();
        }
        if self.bytes() + bytes > self.max_bytes {
            if copies_below.is_some() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.tally.dropped += count(lines);
            return Ok(());
        }
        let is_full = self.segments.back().is_some_and(|last| {
            last.bytes + bytes > self.segment_bytes()
                || last.created.saturating_add(self.max_age / PARTS) <= wall
                || last.copies_below.is_some() != copies_below.is_some()
        });
        if is_full {
            self.close()?;
        }
        if self.writing.is_none() {
            let (number, file) = self.directory.create(self.next)?;
            self.next = number + 1;
            self.writing = Some(Writing { file, synced: 0, synced_below: None });
            self.segments.push_back(Segment { number, bytes: 0, created: wall, copies_below });
        }
        if let (Some(writing), Some(last)) = (&mut self.writing, self.segments.back_mut()) {
            writing.file.write_all(&self.record)?;
            last.bytes += bytes;
            last.copies_below = copies_below;
        }
        Ok(())
    }

    /// Has everything that was appended on disk.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let (Some(writing), Some(last)) = (&mut self.writing, self.segments.back()) else {
            return Ok(());
        };
        if writing.synced < last.bytes {
            if let Err(error) = writing.file.sync_data() {
                self.cut();
                return Err(error);
            }
            (writing.synced, writing.synced_below) = (last.bytes, last.copies_below);
        }
        Ok(())
    }

    /// Whether there is something to [`sync`](Self::sync).
    pub(super) fn is_dirty(&self) -> bool {
        let written = self.segments.back().map_or(0, |last| last.bytes);
        self.writing.as_ref().is_some_and(|writing| writing.synced < written)
    }

    /// Ends the segment that is written.
    fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        self.writing = None;
        Ok(())
    }

    /// Ends the segment that is written, without what was appended since the last sync.
    fn cut(&mut self) {
        let (Some(writing), Some(last)) = (self.writing.take(), self.segments.back_mut()) else {
            return;
        };
        (last.bytes, last.copies_below) = (writing.synced, writing.synced_below);
        // What cannot be cut off is sent twice.
        let _ = writing.file.set_len(writing.synced);
        if writing.synced == 0 {
            self.remove(self.segments.len() - 1);
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / u64::from(PARTS)).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }

    // ---- reading ----

    /// Whether there are points on disk alone.
    pub(super) fn has_backlog(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.copies_below.is_none())
    }

    /// Whether [`read`](Self::read) may have lines.
    pub(super) fn has_unread(&self) -> bool {
        self.has_backlog() && !self.reading.as_ref().is_some_and(|reading| reading.has_ended)
    }

    /// Puts some of the next lines of the backlog into `lines`, at most this many, and answers how
    /// many. None may be an end, or bad lines that were passed over: see
    /// [`has_unread`](Self::has_unread).
    pub(super) fn read(&mut self, wall: Duration, most: usize, lines: &mut Vec<u8>) -> usize {
        lines.clear();
        if !self.has_unread() {
            return 0;
        }
        if self.reading.is_none() {
            self.reading = self.begin();
        }
        let Some(reading) = &mut self.reading else {
            self.segments.pop_front();
            return 0;
        };
        if reading.at == reading.lines.len() {
            let record = record::read(&mut reading.file, &mut reading.lines);
            self.tally.damaged += u64::from(record.is_err());
            let time = record.ok().flatten();
            reading.has_ended = time.is_none();
            if reading.has_ended {
                reading.lines.clear();
            }
            reading.is_old = time.is_some_and(|time| time.saturating_add(self.max_age) <= wall);
            reading.at = 0;
        }
        let mut points = 0;
        while let Some(line) = reading.next_line().filter(|_| points < most.min(LINES)) {
            let length = line.len();
            if reading.is_old {
                self.tally.dropped += 1;
            } else if self.rules.allow(line) {
                lines.extend_from_slice(line);
                points += 1;
            } else {
                self.tally.damaged += 1;
            }
            reading.at += length;
        }
        points
    }

    /// Opens the oldest segment. One that cannot be opened is left where it is.
    fn begin(&mut self) -> Option<Reading> {
        if self.segments.len() == 1 {
            // Everything in it was synced.
            self.writing = None;
        }
        let opened = self.directory.read(self.segments.front()?.number);
        self.tally.damaged += u64::from(opened.is_err());
        let (lines, at, is_old, has_ended, below) = Default::default();
        opened.ok().map(|file| Reading { file, lines, at, is_old, has_ended, below })
    }

    /// What was read last has lower numbers than this in the queue.
    pub(super) fn read_below(&mut self, number: u64) {
        if let Some(reading) = &mut self.reading {
            reading.below = number;
        }
    }

    /// Reads the oldest segment from its beginning again.
    pub(super) fn rewind(&mut self) {
        self.reading = None;
    }

    // ---- deleting ----

    /// Every point with a lower number than this is settled.
    pub(super) fn settle(&mut self, below: u64) {
        if self.reading.as_ref().is_some_and(|reading| reading.has_ended && reading.below <= below)
        {
            self.remove(0);
        }
        let is_settled =
            |segment: &Segment| segment.copies_below.is_some_and(|copies| copies <= below);
        while let Some(at) = self.segments.iter().position(is_settled) {
            self.remove(at);
        }
    }

    /// Makes the oldest copies part of the backlog; answers below which number they are.
    pub(super) fn release_copies(&mut self) -> io::Result<Option<u64>> {
        let copies = |segment: &Segment| segment.copies_below.is_some();
        let Some(at) = self.segments.iter().position(copies) else { return Ok(None) };
        if at + 1 == self.segments.len() {
            self.close()?;
        }
        Ok(self.segments[at].copies_below.take())
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, wall: Duration) {
        let age = self.max_age.saturating_add(self.max_age / PARTS);
        while self.has_backlog() && self.oldest(wall).is_some_and(|oldest| oldest >= age) {
            self.drop_oldest();
        }
    }

    /// Drops the oldest segment of the backlog. What was read of it is not lost.
    fn drop_oldest(&mut self) {
        let reading = self.reading.take().or_else(|| self.begin());
        self.tally.dropped += reading.map_or(0, Reading::count_rest);
        self.remove(0);
    }

    /// Deletes a segment.
    fn remove(&mut self, at: usize) {
        if at + 1 == self.segments.len() {
            self.writing = None;
        }
        if at == 0 {
            self.reading = None;
        }
        if let Some(segment) = self.segments.remove(at) {
            let removed = self.directory.remove(segment.number);
            self.tally.damaged += u64::from(removed.is_err());
        }
    }
}

impl Reading {
    /// The rest of the line at `at`, its line feed included if it has one.
    fn next_line(&self) -> Option<&[u8]> {
        self.lines[self.at..].split_inclusive(|&byte| byte == b'\n').next()
    }

    /// How many lines are left, up to the first bad record.
    fn count_rest(mut self) -> u64 {
        let mut lines = count(&self.lines[self.at..]);
        while let Ok(Some(_)) = record::read(&mut self.file, &mut self.lines) {
            lines += count(&self.lines);
        }
        lines
    }
}

/// How many lines end in these bytes.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}
