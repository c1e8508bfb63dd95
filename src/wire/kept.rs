//! Lines of series, as they are kept.
//!
//! **Problem.** A flush reads the line of each series and copies it, but for time and value; of a million series that is most of what
//! it reads, and most of what a series takes in memory.
//!
//! **Idea.** Lines are one behind the other, and a name that many of them have is there once, or at least not each time.
//!
//! **Mechanism.** Of a line a header and the tail are kept, ` TAGS\n`. The header says how long the tail is and where the head is,
//! `put NAME`, which stands behind its own length before the first line that has it. Whatever follows a part, who copies it may copy
//! more than it, in one go.

use std::fmt;

/// Lines of series; see the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept(Vec<u8>);

/// `put NAME` and ` TAGS\n`: a line of a series but for time and value.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    kept: &'a Kept,
    start: u32,
}

/// A [`Line`] that stands alone.
#[derive(Debug)]
pub(crate) struct LineBuf {
    kept: Kept,
    start: u32,
}

/// Where the head of a line is and how long its tail is, four bytes each.
const HEADER: usize = 8;
/// How long a head is.
const LENGTH: usize = 4;
/// The command that begins a line.
pub(super) const PUT: &str = "put ";

impl Kept {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Kept(Vec::with_capacity(bytes))
    }

    /// The line that begins at `start`.
    #[inline]
    pub(crate) fn line(&self, start: u32) -> Option<Line<'_>> {
        ((start as usize) < self.0.len()).then_some(Line { kept: self, start })
    }

    /// Adds a line, and its head unless that is at `head` already; answers where both are.
    pub(crate) fn add(&mut self, line: Line<'_>, head: Option<u32>) -> (u32, u32) {
        let is_there = |at: &u32| self.head(*at) == Some(line.head());
        self.add_parts(line.parts(), head.filter(is_there))
    }

    fn add_parts(&mut self, (head, tail): (&[u8], &[u8]), head_at: Option<u32>) -> (u32, u32) {
        let Kept(bytes) = self;
        let head_at = head_at.unwrap_or_else(|| {
            let head_at = bytes.len() as u32;
            bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
            bytes.extend_from_slice(head);
            head_at
        });
        let start = bytes.len() as u32;
        bytes.extend_from_slice([head_at, tail.len() as u32].map(u32::to_le_bytes).as_flattened());
        bytes.extend_from_slice(tail);
        (head_at, start)
    }

    /// The same lines with room for so many bytes.
    pub(crate) fn copy_with_room(&self, bytes: usize) -> Self {
        let mut copy = Kept::with_capacity(bytes);
        copy.0.extend_from_slice(&self.0);
        copy
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// The head that is kept at `at`, if there is one.
    fn head(&self, at: u32) -> Option<&[u8]> {
        let (length, head) = self.0.get(at as usize..)?.split_first_chunk::<LENGTH>()?;
        head.get(..u32::from_le_bytes(*length) as usize)
    }
}

impl LineBuf {
    pub(super) fn new(head: &str, tail: &str) -> Self {
        let parts = (head.as_bytes(), tail.as_bytes());
        let mut kept = Kept::with_capacity(size(parts));
        let (_, start) = kept.add_parts(parts, None);
        LineBuf { kept, start }
    }

    pub(crate) fn line(&self) -> Line<'_> {
        Line { kept: &self.kept, start: self.start }
    }
}

impl<'a> Line<'a> {
    /// How many bytes it takes with its head.
    pub(crate) fn size(self) -> usize {
        size(self.parts())
    }

    /// Head and tail, each with its length and with what follows it, if that is `N` bytes in all.
    #[inline]
    pub(crate) fn and_beyond<const N: usize>(self) -> Option<[(&'a [u8; N], usize); 2]> {
        let Kept(bytes) = self.kept;
        let start = self.start as usize;
        let (header, tail) = bytes.get(start..start + HEADER + N)?.split_first_chunk::<HEADER>()?;
        let (head_at, tail_length) = header_of(*header);
        let head_at = head_at as usize;
        let (length, head) =
            bytes.get(head_at..head_at + LENGTH + N)?.split_first_chunk::<LENGTH>()?;
        let head_length = u32::from_le_bytes(*length) as usize;
        Some([(head.first_chunk()?, head_length), (tail.first_chunk()?, tail_length)])
    }

    /// Head and tail.
    pub(crate) fn parts(self) -> (&'a [u8], &'a [u8]) {
        let parts = || {
            let line = self.kept.0.get(self.start as usize..)?;
            let (header, tail) = line.split_first_chunk::<HEADER>()?;
            let (head_at, tail_length) = header_of(*header);
            Some((self.kept.head(head_at)?, tail.get(..tail_length)?))
        };
        parts().unwrap_or_default()
    }

    /// `put NAME`.
    pub(crate) fn head(self) -> &'a [u8] {
        self.parts().0
    }

    /// ` TAGS\n`.
    pub(crate) fn tail(self) -> &'a [u8] {
        self.parts().1
    }

    /// The metric's name, prefix included.
    pub(crate) fn metric(self) -> &'a str {
        as_str(self.head().get(PUT.len()..).unwrap_or_default())
    }

    /// The tags, in order of their keys.
    pub(crate) fn tags(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        as_str(self.tail()).split_ascii_whitespace().filter_map(|tag| tag.split_once('='))
    }

    /// Whether both are one series to a server.
    pub(crate) fn is_same_series(self, other: Line<'_>) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", [as_str(self.head()), as_str(self.tail())].concat())
    }
}

fn size((head, tail): (&[u8], &[u8])) -> usize {
    LENGTH + head.len() + HEADER + tail.len()
}

#[inline]
fn header_of(header: [u8; HEADER]) -> (u32, usize) {
    let bits = u64::from_le_bytes(header);
    (bits as u32, (bits >> 32) as usize)
}

/// A part of a line, which was made of strings.
fn as_str(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

#[cfg(test)]
impl Line<'_> {
    pub(crate) fn text(self) -> String {
        let (head, tail) = self.parts();
        [head, tail].map(String::from_utf8_lossy).concat()
    }
}
