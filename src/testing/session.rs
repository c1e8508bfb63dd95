//! One connection: bytes become lines, lines are handled in order, answers go back.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use socket2::SockRef;

use super::fault::{Fault, Mode};
#[cfg(feature = "tls")]
use super::http::tls::Tls;
use super::log::End;
use super::options::FakeTsdBuilder;
use super::rpc::{Answer, Desk};

/// How much is read at a time.
pub(super) const READ_SIZE: usize = 64 * 1024;
/// Complaints are dropped when so many bytes wait to be written (Netty's high water mark).
const HIGH_WATER: usize = 64 * 1024;
/// What a flood consists of: bytes that are no text, and empty lines. It ends with a line, so that
/// an answer in it can be read.
const GARBAGE: &[u8] = b"put: garbage \xff\xfe\x00 of no known kind\n\n\n\xc3\x28\r\n";

/// What the first byte made of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Unknown,
    Telnet,
    #[cfg(feature = "http")]
    Http,
    /// What comes is read and thrown away.
    Ignored,
}

#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    pub(super) mode: Mode,
    protocol: Protocol,
    /// Bytes that were read.
    inbox: Vec<u8>,
    /// How many of these, and of those that come next, are handled or thrown away.
    done: usize,
    /// Whether there is a line or request behind these that has to wait: for a step of the script,
    /// or for storage. Nothing is read meanwhile.
    has_next: bool,
    /// Whether the system said that the client has closed its side; there may be something to read
    /// before that.
    pub(super) is_left: bool,
    /// Whether the client has finished, and when that is to be answered.
    finished: Option<Instant>,
    /// When a trickle reads again.
    next_read: Option<Instant>,
    /// Whether the server has said all: the connection ends once that is written.
    is_closing: bool,
    /// Whether its own side ends once all is written.
    is_half_closing: bool,
    /// What is to be sent, and when at the earliest.
    outbox: VecDeque<(Instant, Vec<u8>)>,
    /// Whether an answer is among that.
    is_answering: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Session {
    pub(super) fn new(stream: TcpStream, mode: Mode, options: &FakeTsdBuilder) -> Self {
        #[cfg(not(feature = "tls"))]
        let _ = options;
        Session {
            stream,
            mode,
            protocol: Protocol::Unknown,
            inbox: Vec::new(),
            done: 0,
            has_next: false,
            is_left: false,
            finished: None,
            next_read: None,
            is_closing: false,
            is_half_closing: false,
            outbox: VecDeque::new(),
            is_answering: false,
            #[cfg(feature = "tls")]
            tls: options.http.as_ref().and_then(|http| http.tls.as_ref()).map(Tls::new),
        }
    }

    /// Reads once, at most what the buffer holds, which is lent for it. Returns how many bytes
    /// there were, or how the connection has ended.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> Result<usize, End> {
        let is_early = self.next_read.is_some_and(|next| next > now);
        if is_early || self.has_next || self.finished.is_some() || !self.can_handle() {
            return Ok(0);
        }
        let portion = self.mode.trickle.map_or(usize::MAX, |(bytes, _)| bytes);
        let rest = self.mode.breaks_after.unwrap_or(usize::MAX);
        let size = portion.min(rest).min(buffer.len());
        if size == 0 {
            return Ok(0);
        }
        match self.stream.read(&mut buffer[..size]) {
            Ok(0) => self.finished = Some(now + self.mode.delay),
            Ok(count) => {
                self.take_in(&buffer[..count], now);
                self.mode.breaks_after = self.mode.breaks_after.map(|left| left - count);
                self.next_read = self.mode.trickle.map(|(_, every)| now + every);
                return Ok(count);
            }
            Err(error) if is_for_later(&error) => {}
            Err(_) => return Err(End::ResetByClient),
        }
        Ok(0)
    }

    fn take_in(&mut self, bytes: &[u8], now: Instant) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            self.is_closing |= !tls.decrypt(bytes, &mut self.inbox);
            return self.say(&[], now);
        }
        let _ = now;
        self.inbox.extend_from_slice(bytes);
    }

    fn can_handle(&self) -> bool {
        !self.mode.has(&Fault::StopReading) && !self.is_closing
    }

    /// Handles at most `limit` of the lines or requests that were read; returns how many.
    pub(super) fn handle(&mut self, limit: usize, now: Instant, desk: &mut Desk<'_>) -> usize {
        let mut count = 0;
        while count < limit && self.can_handle() {
            self.greet(desk.options, now);
            if self.protocol == Protocol::Ignored {
                self.done = self.inbox.len();
            }
            let next = self.handle_next(desk);
            self.has_next = next.is_some();
            let Some((length, Some(answer))) = next else { break };
            self.done += length;
            count += 1;
            self.answer(answer, now);
        }
        let done = self.done.min(self.inbox.len());
        self.inbox.drain(..done);
        self.done -= done;
        if count < limit && self.is_read_out() {
            self.handle_tail(now, desk);
        }
        count
    }

    /// What was read and is not handled.
    fn rest(&self) -> &[u8] {
        self.inbox.get(self.done..).unwrap_or_default()
    }

    /// Handles the next line or request, if enough of it is there. Returns how long it is, and the
    /// answer unless it waits for storage.
    fn handle_next(&self, desk: &mut Desk<'_>) -> Option<(usize, Option<Answer>)> {
        let rest = self.rest();
        #[cfg(feature = "http")]
        if self.protocol == Protocol::Http {
            return super::http::exchange::handle(rest, desk, self.is_answering);
        }
        let feed = rest.iter().position(|&byte| byte == b'\n');
        let line = &rest[..feed.unwrap_or(rest.len())];
        let is_long = line.len() > desk.options.replies.max_line();
        // A TSD does not wait for the end of a long one.
        if feed.is_none() && !(is_long && desk.options.replies.is_tsd()) {
            return None;
        }
        let answer = match is_long {
            true => Some(desk.reject_long(line)),
            false => desk.handle(line.strip_suffix(b"\r").unwrap_or(line)),
        };
        Some((line.len() + 1, answer))
    }

    /// What remains when the client has finished: a line to some servers, nothing to others.
    fn handle_tail(&mut self, now: Instant, desk: &mut Desk<'_>) {
        let tail = mem::take(&mut self.inbox);
        if tail.is_empty() || self.protocol == Protocol::Ignored {
            return;
        }
        if self.protocol == Protocol::Telnet && desk.options.replies.takes_tail() {
            let answer = desk.handle(&tail);
            self.answer(answer.unwrap_or_default(), now);
        }
        desk.log.connections[desk.connection].unterminated = tail;
    }

    /// Whether the client has finished and everything it sent is handled but for a line without an
    /// end.
    fn is_read_out(&self) -> bool {
        self.finished.is_some() && !self.has_next
    }

    /// How the connection ends, if nothing is left to do but to close it.
    pub(super) fn is_done(&self, now: Instant) -> Option<End> {
        if !self.outbox.is_empty() {
            return None;
        }
        if self.is_closing {
            return Some(End::ByServer);
        }
        let is_time = self.finished.is_some_and(|at| at <= now) && self.is_read_out();
        (is_time && !self.is_held()).then_some(End::ByClient)
    }

    /// Whether the client has closed its side and that is not answered for now.
    pub(super) fn is_left_alone(&self) -> bool {
        self.is_left && (self.has_next || self.is_held())
    }

    fn is_held(&self) -> bool {
        [Fault::StopReading, Fault::HoldOpen].iter().any(|fault| self.mode.has(fault))
    }

    /// Writes what can be written; returns whether that is anything.
    pub(super) fn write(&mut self, now: Instant) -> bool {
        if self.mode.has(&Fault::Flood) && self.outbox.is_empty() {
            let copies = HIGH_WATER / GARBAGE.len();
            self.say(&GARBAGE.repeat(copies), now);
        }
        let mut has_written = false;
        while let Some((_, bytes)) = self.outbox.front_mut().filter(|(due, _)| *due <= now) {
            match self.stream.write(bytes) {
                Ok(count) if count == bytes.len() => drop(self.outbox.pop_front()),
                Ok(count) => drop(bytes.drain(..count)),
                Err(error) if is_for_later(&error) => break,
                // Nobody will read it. What the client has sent before can still be read.
                Err(_) => {
                    self.outbox.clear();
                    self.mode.end_flood();
                }
            }
            has_written = true;
        }
        self.is_answering &= !self.outbox.is_empty();
        if self.is_half_closing && self.outbox.is_empty() {
            self.is_half_closing = false;
            // That the client is gone already is no matter.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        has_written
    }

    /// When there is something to do without a word from the system.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = self.outbox.front().map(|(due, _)| *due);
        let times = [self.next_read, due, self.finished];
        times.into_iter().flatten().filter(|&time| time > now).min()
    }

    /// Sends bytes, after those that are to be sent already.
    pub(super) fn say(&mut self, bytes: &[u8], due: Instant) {
        #[cfg(feature = "tls")]
        let bytes = &self.tls.as_mut().map_or_else(|| bytes.to_vec(), |tls| tls.encrypt(bytes));
        match self.outbox.back_mut() {
            Some((at, waiting)) if *at >= due => waiting.extend_from_slice(bytes),
            _ => self.outbox.push_back((due, bytes.to_vec())),
        }
    }

    /// Begins what the fault says for this connection.
    pub(super) fn begin(&mut self, fault: &Fault) {
        if let Fault::ReceiveBuffer(bytes) = fault {
            // A system that does not set it leaves all as it was, which the test sees.
            let _ = SockRef::from(&self.stream).set_recv_buffer_size(*bytes);
        }
        self.mode.begin(fault);
    }

    /// Has the end of the connection send a RST.
    pub(super) fn reset(&self) -> End {
        // Without a wait to linger, closing does.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        End::ByServer
    }

    /// Sends a FIN after all that is to be sent.
    pub(super) fn half_close(&mut self, now: Instant) {
        self.is_half_closing = true;
        self.write(now);
    }

    /// Sends a FIN; whatever comes from now on is thrown away.
    pub(super) fn close_unread(&mut self) {
        self.protocol = Protocol::Ignored;
        self.mode = Mode::default();
        self.has_next = false;
        self.inbox.clear();
        self.outbox.clear();
        // That the client is gone already is no matter.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn greet(&mut self, options: &FakeTsdBuilder, now: Instant) {
        if self.rest().is_empty() {
            return;
        }
        if let Some(bytes) = self.mode.alien.take() {
            self.protocol = Protocol::Ignored;
            self.say(&bytes, now + self.mode.delay);
            self.is_half_closing = true;
        }
        if self.protocol == Protocol::Unknown {
            self.protocol = Protocol::Telnet;
            #[cfg(feature = "http")]
            if options.http.is_some() {
                self.protocol = Protocol::Http;
                return;
            }
            if let Some(answer) = options.replies.turns_away(self.inbox[0]) {
                self.protocol = Protocol::Ignored;
                let is_last = !answer.is_empty();
                self.answer(Answer { bytes: answer.into(), is_last, ..Answer::default() }, now);
            }
        }
    }

    fn answer(&mut self, answer: Answer, now: Instant) {
        let Answer { bytes, after, is_last, is_complaint } = answer;
        let waiting: usize = self.outbox.iter().map(|(_, bytes)| bytes.len()).sum();
        let is_dropped = is_complaint && waiting > HIGH_WATER || self.mode.has(&Fault::Mute);
        if !is_dropped && !bytes.is_empty() {
            self.is_answering = true;
            self.say(&bytes, now + self.mode.delay + after);
        }
        self.is_closing |= is_last;
    }
}

/// Whether the system has nothing to read, or no room to write, until it says so.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
