//! The segments: written at one end, read and deleted at the other.
//!
//! **Problem.** A file of positions beside the data can disagree with it, and whoever believes the
//! wrong one sends everything again or nothing. A backlog can be larger than memory, damaged, or a
//! stranger's.
//!
//! **Idea.** No ledger. A segment is a few MiB, named by its number, and is there until all of it
//! is settled; then its file is deleted. Whoever starts reads what is there from the beginning.
//!
//! **Mechanism.**
//! 1. Lines are appended to the last segment, a record each time, and are there for sure after
//!    [`Store::sync`].
//! 2. A segment of *copies* holds points that memory has too, numbered by the queue. It goes when
//!    all of them are settled, or becomes part of the *backlog*.
//! 3. The backlog is read from the oldest segment on, one segment at a time and some lines at a
//!    time, each checked by [`LineRules`]. Read to its end, and settled, it goes.
//! 4. Beyond `max_bytes` and `max_age` the oldest segment goes, its points counted.
//!
//! A record that is bad gives up the rest of its segment; a file that never can be opened is left
//! alone. What fails otherwise, as for want of file descriptors, is tried again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::time::Duration;

use super::directory::{Directory, is_lasting};
use super::options::Spool;
use super::record;
use crate::wire::line::LineRules;

/// The parts of `max_bytes` that a segment may hold, and of `max_age` that it is written for.
const PARTS: u32 = 8;
/// The most bytes of a segment.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// How many lines are read at a time: what a fresh snapshot waits for at most.
const LINES: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) directory: Directory,
    limits: Spool,
    rules: LineRules,
    /// In the order of their numbers; the backlog before the copies.
    segments: VecDeque<Segment>,
    /// The last segment, if it is still written.
    pub(super) writing: Option<File>,
    /// Whether something was written since the last sync.
    pub(super) is_dirty: bool,
    /// The oldest segment, if it is part of the backlog and was begun.
    reading: Option<Reading>,
    /// The number of the next segment.
    next: u64,
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
    /// Its points have lower numbers than this in the queue. `None` for the backlog.
    copies_below: Option<u64>,
}

#[derive(Debug)]
struct Reading {
    file: File,
    /// Of the present record, those before `at` were read.
    lines: Vec<u8>,
    at: usize,
    /// Whether nothing more can be read of it.
    has_ended: bool,
    /// What was read has lower numbers than this in the queue.
    below: u64,
}

impl Store {
    /// Opens the directory, with what is in it as the backlog.
    pub(super) fn open(spool: &Spool, rules: LineRules) -> io::Result<Self> {
        let directory = Directory::open(&spool.directory)?;
        let found = directory.segments()?.into_iter();
        let segment =
            |(number, bytes, created)| Segment { number, bytes, created, copies_below: None };
        let segments: VecDeque<_> = found.map(segment).collect();
        Ok(Store {
            next: segments.back().map_or(0, |last| last.number + 1),
            directory,
            limits: spool.clone(),
            rules,
            segments,
            writing: None,
            is_dirty: false,
            reading: None,
            damaged: 0,
            dropped: 0,
        })
    }

    /// How many bytes there are on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How old the oldest segment is.
    pub(super) fn oldest(&self, wall: Duration) -> Option<Duration> {
        self.segments.front().map(|segment| wall.saturating_sub(segment.created))
    }

    // ---- writing ----

    /// Adds whole lines: to the backlog, or as copies of points with lower numbers than this.
    pub(super) fn append(
        &mut self,
        lines: &[u8],
        copies_below: Option<u64>,
        wall: Duration,
    ) -> io::Result<()> {
        let record = record::encode(lines);
        let (bytes, max_bytes) = (record.len() as u64, self.limits.max_bytes);
        while self.bytes() + bytes > max_bytes && self.has_backlog() {
            self.drop_oldest();
        }
        if self.bytes() + bytes > max_bytes {
            if copies_below.is_some() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.dropped += count(lines);
            return Ok(());
        }
        let is_full = self.segments.back().is_some_and(|last| {
            last.bytes + bytes > (max_bytes / u64::from(PARTS)).min(SEGMENT_BYTES)
                || last.created.saturating_add(self.limits.max_age / PARTS) <= wall
                || last.copies_below.is_some() != copies_below.is_some()
        });
        if is_full {
            self.sync()?;
            self.writing = None;
        }
        let mut file = match self.writing.take() {
            Some(file) => file,
            None => {
                let number = self.next;
                self.next += 1;
                let file = self.directory.create(number)?;
                // Of the points none is there yet.
                let copies_below = copies_below.map(|_| 0);
                self.segments.push_back(Segment { number, bytes: 0, created: wall, copies_below });
                file
            }
        };
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        if let Err(error) = file.write_all(&record) {
            // Half a record would give up what comes behind it.
            let cut =
                file.set_len(last.bytes).and_then(|()| file.seek(SeekFrom::Start(last.bytes)));
            self.writing = cut.is_ok().then_some(file);
            return Err(error);
        }
        self.is_dirty = true;
        (last.bytes, last.copies_below) = (last.bytes + bytes, copies_below);
        self.writing = Some(file);
        Ok(())
    }

    /// Syncs what was appended.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_dirty) {
            return Ok(());
        }
        let Some(file) = &self.writing else {
            return Err(io::Error::other("a write failed, and what was written before is lost"));
        };
        let synced = file.sync_data().and_then(|()| self.directory.sync());
        // What is not there for sure is not written on.
        synced.inspect_err(|_| self.writing = None)
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
    pub(super) fn read(&mut self, most: usize, lines: &mut Vec<u8>) -> io::Result<usize> {
        lines.clear();
        if self.reading.is_none() {
            self.reading = self.begin()?;
        }
        let Some(reading) = &mut self.reading else {
            self.segments.pop_front();
            return Ok(0);
        };
        if reading.at == reading.lines.len() {
            let start = reading.file.stream_position()?;
            let record = record::read(&mut reading.file, &mut reading.lines);
            reading.at = 0;
            if !matches!(record, Ok(true)) {
                reading.lines.clear();
            }
            if let Err(error) = record {
                if !is_lasting(&error) {
                    reading.file.seek(SeekFrom::Start(start))?;
                    return Err(error);
                }
                self.damaged += 1;
            }
            reading.has_ended = reading.lines.is_empty();
        }
        let (mut points, mut at) = (0, reading.at);
        for line in reading.lines[at..].split_inclusive(is_end) {
            if points == most.min(LINES) {
                break;
            }
            at += line.len();
            if self.rules.allow(line) {
                lines.extend_from_slice(line);
                points += 1;
            } else {
                self.damaged += 1;
            }
        }
        reading.at = at;
        Ok(points)
    }

    /// Opens the oldest segment, unless it never will be.
    fn begin(&mut self) -> io::Result<Option<Reading>> {
        if self.segments.len() == 1 {
            // Everything in it was synced, or is to be dropped.
            (self.writing, self.is_dirty) = (None, false);
        }
        let Some(oldest) = self.segments.front() else { return Ok(None) };
        match self.directory.read(oldest.number) {
            Ok(file) => {
                let (lines, at, has_ended, below) = Default::default();
                Ok(Some(Reading { file, lines, at, has_ended, below }))
            }
            Err(error) if is_lasting(&error) => {
                self.damaged += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What was read has lower numbers than this in the queue.
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

    /// Makes the oldest copies part of the backlog; returns below which number they are.
    pub(super) fn release_copies(&mut self) -> io::Result<Option<u64>> {
        let copies = |segment: &Segment| segment.copies_below.is_some();
        let Some(at) = self.segments.iter().position(copies) else { return Ok(None) };
        if at + 1 == self.segments.len() {
            self.sync()?;
            self.writing = None;
        }
        Ok(self.segments[at].copies_below.take())
    }

    /// Drops what is too old and was not begun.
    pub(super) fn expire(&mut self, wall: Duration) {
        let max_age = self.limits.max_age;
        let is_old = |age| age >= max_age;
        while self.has_backlog() && self.reading.is_none() && self.oldest(wall).is_some_and(is_old)
        {
            self.drop_oldest();
        }
    }

    /// Drops the oldest segment of the backlog, and leaves its file where it cannot be opened. What
    /// was read of it counts as well: it may be on its way, or be taken for what is still on disk.
    fn drop_oldest(&mut self) {
        self.rewind();
        let begun = self.begin();
        self.damaged += u64::from(begun.is_err());
        let Ok(Some(mut reading)) = begun else {
            self.segments.pop_front();
            return;
        };
        let end = loop {
            match record::read(&mut reading.file, &mut reading.lines) {
                Ok(true) => self.dropped += count(&reading.lines),
                end => break end,
            }
        };
        self.damaged += u64::from(end.is_err());
        self.remove(0);
    }

    /// Deletes a segment.
    fn remove(&mut self, at: usize) {
        if at + 1 == self.segments.len() {
            (self.writing, self.is_dirty) = (None, false);
        }
        if at == 0 {
            self.reading = None;
        }
        if let Some(segment) = self.segments.remove(at) {
            self.damaged += u64::from(self.directory.remove(segment.number).is_err());
        }
    }
}

fn is_end(byte: &u8) -> bool {
    *byte == b'\n'
}

/// How many lines end in these bytes.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| is_end(byte)).count() as u64
}
