//! Bytes become an answer.
//!
//! The head is read by `httparse`; this file knows where the body ends: by `Content-Length`, in
//! chunks, or with the connection. What a server sends is bounded: a head that is longer than
//! [`MAX_HEAD`] is none, and a body is kept up to [`MAX_BODY`].

use std::io::{self, ErrorKind};
use std::time::Duration;

use httparse::Status;
use httpdate::parse_http_date;

/// The longest head, and the longest line between two chunks.
const MAX_HEAD: usize = 16 * 1024;
/// How much of a body is kept. What a TSD says of 600 refused points, a body's worth, is 200 kB.
const MAX_BODY: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Where a redirect leads to.
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// Whether another request may follow on the connection.
    pub(super) keeps_open: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// So many bytes of the body, and whether another chunk follows.
    Bytes(u64, bool),
    BodyUntilEnd,
    ChunkSize,
    ChunkEnd,
    Trailer,
    Nothing,
}

/// Reads one answer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What has come and is not read yet.
    input: Vec<u8>,
    part: Part,
    /// Whether any byte of it has come.
    pub(super) has_begun: bool,
    answer: Answer,
}

impl Reader {
    /// Makes ready for the next answer, whose bytes find their buffers there.
    pub(super) fn reset(&mut self) {
        let mut body = std::mem::take(&mut self.answer.body);
        body.clear();
        body.shrink_to(MAX_HEAD);
        self.input.clear();
        (self.part, self.has_begun) = (Part::Head, false);
        self.answer = Answer { body, ..Answer::default() };
    }

    /// Takes what has come.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.has_begun = true;
        self.input.extend_from_slice(bytes);
        while let Some(used) = self.step()? {
            self.input.drain(..used);
        }
        if self.part == Part::Nothing && !self.input.is_empty() {
            // It has said more than one answer, so it is not known where the next one begins.
            self.answer.keeps_open = false;
        }
        Ok(())
    }

    /// The connection has ended, which may be the end of the answer.
    pub(super) fn end(&mut self) {
        if self.part == Part::BodyUntilEnd {
            self.part = Part::Nothing;
        }
        self.answer.keeps_open = false;
    }

    /// The answer, when it is whole.
    pub(super) fn answer(&self) -> Option<&Answer> {
        (self.part == Part::Nothing).then_some(&self.answer)
    }

    /// Reads one part; returns how many bytes it was, or `None` when more have to come.
    fn step(&mut self) -> io::Result<Option<usize>> {
        let length = self.input.len();
        let used = match self.part {
            Part::Head => return self.read_head(),
            Part::Bytes(0, is_chunk) => {
                self.part = if is_chunk { Part::ChunkEnd } else { Part::Nothing };
                0
            }
            Part::Bytes(left, is_chunk) if length > 0 => {
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(length);
                self.part = Part::Bytes(left - used as u64, is_chunk);
                self.keep(used);
                used
            }
            Part::BodyUntilEnd if length > 0 => {
                self.keep(length);
                length
            }
            Part::ChunkSize => match httparse::parse_chunk_size(&self.input) {
                Ok(Status::Complete((used, size))) => {
                    self.part = if size == 0 { Part::Trailer } else { Part::Bytes(size, true) };
                    used
                }
                Ok(Status::Partial) if length <= MAX_HEAD => return Ok(None),
                Ok(Status::Partial) | Err(_) => return Err(malformed("the size of a chunk")),
            },
            Part::ChunkEnd if length >= 2 => {
                self.part = Part::ChunkSize;
                2
            }
            Part::Trailer => match self.input.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    let is_last = self.input[..end].trim_ascii().is_empty();
                    self.part = if is_last { Part::Nothing } else { Part::Trailer };
                    end + 1
                }
                None if length <= MAX_HEAD => return Ok(None),
                None => return Err(malformed("what follows the last chunk")),
            },
            _ => return Ok(None),
        };
        Ok(Some(used))
    }

    fn keep(&mut self, bytes: usize) {
        let body = &mut self.answer.body;
        let kept = bytes.min(MAX_BODY.saturating_sub(body.len()));
        body.extend_from_slice(&self.input[..kept]);
    }

    fn read_head(&mut self) -> io::Result<Option<usize>> {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Response::new(&mut headers);
        let used = match head.parse(&self.input) {
            Ok(Status::Complete(used)) => used,
            Ok(Status::Partial) if self.input.len() <= MAX_HEAD => return Ok(None),
            Ok(Status::Partial) | Err(_) => return Err(malformed("the head of its answer")),
        };
        let status = head.code.unwrap_or_default();
        if (100..200).contains(&status) {
            // Provisional: the answer itself follows.
            return Ok(Some(used));
        }
        let mut part = Part::BodyUntilEnd;
        let (mut date, mut retry_at) = (None, None);
        self.answer.status = status;
        self.answer.keeps_open = head.version == Some(1);
        for header in head.headers.iter() {
            let value = String::from_utf8_lossy(header.value);
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let has = |word: &str| value.split(',').any(|it| it.trim().eq_ignore_ascii_case(word));
            if is("Content-Length") && part == Part::BodyUntilEnd {
                part = Part::Bytes(value.trim().parse().map_err(|_| malformed("a length"))?, false);
            } else if is("Transfer-Encoding") && has("chunked") {
                part = Part::ChunkSize;
            } else if is("Connection") && (has("close") || has("keep-alive")) {
                self.answer.keeps_open = has("keep-alive");
            } else if is("Date") {
                date = parse_http_date(&value).ok();
            } else if is("Retry-After") {
                self.answer.retry_after = value.trim().parse().ok().map(Duration::from_secs);
                retry_at = parse_http_date(&value).ok();
            } else if is("Location") {
                self.answer.location = Some(value.into_owned());
            }
        }
        if let (Some(date), Some(retry_at)) = (date, retry_at) {
            // By the server's own clock, whatever ours says.
            self.answer.retry_after = retry_at.duration_since(date).ok();
        }
        if matches!(status, 204 | 304) {
            part = Part::Nothing;
        }
        self.answer.keeps_open &= part != Part::BodyUntilEnd;
        self.part = part;
        Ok(Some(used))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{what} is not one of HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads it in pieces of this size.
    fn read(text: &str, piece: usize, ends: bool) -> io::Result<Option<(u16, String, bool)>> {
        let mut reader = Reader::default();
        for bytes in text.as_bytes().chunks(piece) {
            reader.feed(bytes)?;
        }
        if ends {
            reader.end();
        }
        let read = |answer: &Answer| {
            let body = String::from_utf8(answer.body.clone()).unwrap();
            (answer.status, body, answer.keeps_open)
        };
        Ok(reader.answer().map(read))
    }

    #[test]
    fn an_answer_ends_where_its_head_says_however_it_is_cut() {
        let cases = [
            ("HTTP/1.1 204 No Content\r\n\r\n", false, Some((204, "", true))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false, Some((200, "{}", true))),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: Close\r\n\r\n{}",
                false,
                Some((200, "{}", false)),
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", false, Some((200, "{}", false))),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                false,
                Some((200, "", true)),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                false,
                Some((200, "", true)),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nall", false, None),
            ("HTTP/1.1 200 OK\r\n\r\nall", true, Some((200, "all", false))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", true, None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", false, Some((200, "{", false))),
            (
                "HTTP/1.1 400 Bad\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: t\r\n\r\n",
                false,
                Some((400, "abc0123456789", true)),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", true, None),
        ];
        for (text, ends, expected) in cases {
            let expected =
                expected.map(|(status, body, open)| (status, body.to_owned(), open && !ends));
            for piece in [1, 3, 4096] {
                assert_eq!(read(text, piece, ends).unwrap(), expected, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_takes_no_memory() {
        let head = "HTTP/1.1 200 OK\r\n";
        let endless = format!("{head}X: {}", "x".repeat(MAX_HEAD));
        let chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
        let trailer = chunk.replace("zz\r\n", "0\r\n") + &"x".repeat(MAX_HEAD + 100);
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            &endless,
            &chunk,
            &trailer,
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert_eq!(read(text, 100, false).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        let mut reader = Reader::default();
        reader.feed(format!("{head}\r\n").as_bytes()).unwrap();
        (0..1000).for_each(|_| reader.feed(&[b'x'; 8192]).unwrap());
        assert_eq!((reader.input.len(), reader.answer.body.len()), (0, MAX_BODY));
    }

    #[test]
    fn a_wait_and_a_place_are_read() {
        let mut reader = Reader::default();
        let mut wait_of = |headers: &str| {
            reader.reset();
            assert!(reader.answer().is_none() && reader.answer.retry_after.is_none());
            let head = format!("HTTP/1.1 503 Busy\r\n{headers}Content-Length: 0\r\n\r\n");
            reader.feed(head.as_bytes()).unwrap();
            let answer = reader.answer().unwrap();
            (answer.retry_after.map(|wait| wait.as_secs()), answer.location.clone())
        };
        let (date, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:51:37 GMT");
        assert_eq!(wait_of("Retry-After: 120\r\nLocation: /x\r\n"), (Some(120), Some("/x".into())));
        for (headers, wait) in [
            (format!("Retry-After: {later}\r\nDate: {date}\r\n"), Some(120)),
            (format!("Date: {date}\r\nRetry-After: {date}\r\n"), Some(0)),
            (format!("Date: {later}\r\nRetry-After: {date}\r\n"), None),
            (format!("Retry-After: {later}\r\n"), None),
            (format!("Date: {date}\r\nRetry-After: soon\r\n"), None),
            (format!("Date: {date}\r\nRetry-After: 7\r\n"), Some(7)),
        ] {
            assert_eq!(wait_of(&headers).0, wait, "{headers}");
        }
    }
}
