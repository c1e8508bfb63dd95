//! One request and its answer on a stream, and the next.
//!
//! Progress is made when the kernel takes bytes and when some come.

use std::io;

use super::answer::Reader;
use crate::clock::Instant;
use crate::send::connection::Received;
use crate::send::deadline::Deadline;
use crate::send::stream::Stream;

pub(super) struct Exchange {
    pub(super) stream: Stream,
    /// The request, and how much of it is written.
    request: Vec<u8>,
    written: usize,
    pub(super) reader: Reader,
    /// The wait for the answer.
    pub(super) deadline: Deadline,
}

impl Exchange {
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        Exchange {
            stream,
            request: Vec::new(),
            written: 0,
            reader: Reader::default(),
            deadline: Deadline::new(now),
        }
    }

    /// Begins with the request that `write` puts into the buffer.
    pub(super) fn begin(&mut self, write: impl FnOnce(&mut Vec<u8>), now: Instant) {
        write(&mut self.request);
        self.written = 0;
        self.deadline = Deadline::new(now);
    }

    /// Reads once.
    pub(super) fn read(&mut self, now: Instant) -> io::Result<Received> {
        let received = self.stream.read(|bytes| self.reader.feed(bytes))?;
        match received {
            Received::Empty => {}
            Received::More => self.deadline.prolong(now),
            Received::Ended => self.reader.end(),
        }
        Ok(received)
    }

    /// Writes once; returns how many bytes the kernel took.
    pub(super) fn write(&mut self, now: Instant) -> io::Result<usize> {
        let (written, taken) = self.stream.write(&self.request[self.written..])?;
        self.written += written;
        if taken > 0 {
            self.deadline.prolong(now);
        }
        Ok(taken)
    }

    /// Whether the kernel has taken the whole request.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.request.len() && !self.stream.is_behind()
    }

    /// The answer was read; returns whether another request may follow.
    pub(super) fn finish(&mut self) -> bool {
        let keeps_open =
            self.reader.answer().is_some_and(|answer| answer.keeps_open) && self.is_written();
        self.reader.reset();
        keeps_open
    }
}
