//! Series, time and number become a `put` line.
//!
//! What does not change is copied: the two parts of the [`Line`], and the time, which is rendered once per snapshot. A line is at
//! most [`MAX_LINE`] bytes, for a TSD closes the connection on a longer one without a word and what was pipelined is lost.

use super::series::Line;
use super::value::Value;

/// The longest line that a TSD reads, its line feed included (net.opentsdb.tsd.PipelineFactory).
pub(crate) const MAX_LINE: usize = 1024;

/// The command of a native histogram.
const HISTOGRAM: &str = "histogram ";
/// The longest time, in milliseconds, with a space on both sides.
const LONGEST_TIME: usize = 15;

/// The bytes that a `histogram` line of this series has room for besides everything else.
pub(crate) fn histogram_room(line: &Line) -> usize {
    MAX_LINE
        .saturating_sub(HISTOGRAM.len() + line.metric().len() + LONGEST_TIME + line.tail().len())
}

/// Why a line was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// It would be longer than [`MAX_LINE`].
    TooLong,
    /// NaN or an infinity.
    NotFinite,
}

/// What distinguishes one line of a series from its others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variant<'a> {
    /// Behind the metric's name, with its dot.
    pub(crate) suffix: &'a str,
    /// A tag before the series' own, as `le=0.5`; empty for none.
    pub(crate) tag: &'a str,
}

/// Lines of one time, in a buffer that is reused.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    points: usize,
    /// The time with a space on both sides, and how many bytes that is.
    time: ([u8; u64::MAX.ilog10() as usize + 3], usize),
}

impl Lines {
    /// Lines that will be appended to `buffer`, which must be empty.
    pub(crate) fn new(buffer: Vec<u8>) -> Self {
        Lines { bytes: buffer, ..Lines::default() }
    }

    /// Sets the time of the lines from here on.
    pub(crate) fn set_time(&mut self, timestamp: u64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(timestamp).as_bytes();
        let time = &mut self.time;
        time.0[0] = b' ';
        time.0[1..=digits.len()].copy_from_slice(digits);
        time.0[digits.len() + 1] = b' ';
        time.1 = digits.len() + 2;
    }

    /// Adds a line, whole or not at all.
    // Always: within the loop over one kind it is a quarter fewer instructions.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        line: &Line,
        variant: Variant<'_>,
        value: Value,
    ) -> Result<(), Unsendable> {
        if !value.is_finite() {
            return Err(Unsendable::NotFinite);
        }
        let start = self.bytes.len();
        extend::<32>(&mut self.bytes, line.text(), line.head().len());
        if !variant.suffix.is_empty() {
            self.bytes.extend_from_slice(variant.suffix.as_bytes());
        }
        extend::<16>(&mut self.bytes, &self.time.0, self.time.1);
        value.write(&mut self.bytes);
        if !variant.tag.is_empty() {
            self.bytes.push(b' ');
            self.bytes.extend_from_slice(variant.tag.as_bytes());
        }
        self.bytes.extend_from_slice(line.tail());
        self.commit(start)
    }

    /// Adds a `histogram` line with a value that is rendered already, whole or not at all.
    pub(crate) fn push_histogram(&mut self, line: &Line, value: &[u8]) -> Result<(), Unsendable> {
        let start = self.bytes.len();
        let time = &self.time.0[..self.time.1];
        for part in [HISTOGRAM.as_bytes(), line.metric().as_bytes(), time, value, line.tail()] {
            self.bytes.extend_from_slice(part);
        }
        self.commit(start)
    }

    /// Keeps the line that begins at `start`, unless it is too long.
    fn commit(&mut self, start: usize) -> Result<(), Unsendable> {
        if self.bytes.len() - start > MAX_LINE {
            self.bytes.truncate(start);
            return Err(Unsendable::TooLong);
        }
        self.points += 1;
        Ok(())
    }

    /// Whether there are `points` lines, or another one might make the buffer grow beyond `size`.
    pub(crate) fn is_full(&self, size: usize, points: usize) -> bool {
        self.bytes.len() + MAX_LINE > size || self.points >= points
    }

    /// Whether there is no line.
    pub(crate) fn is_empty(&self) -> bool {
        self.points == 0
    }

    /// Takes the lines and how many they are, and goes on in `buffer`.
    pub(crate) fn take(&mut self, buffer: Vec<u8>) -> (Vec<u8>, usize) {
        (std::mem::replace(&mut self.bytes, buffer), std::mem::take(&mut self.points))
    }

    /// The lines.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends the first `length` bytes. If there are `N` of them or fewer, and as many in `from`, `N` are copied and the rest of them cut
/// off again: a copy of a fixed length is two instructions, one of any length a call.
#[inline]
fn extend<const N: usize>(to: &mut Vec<u8>, from: &[u8], length: usize) {
    match from.first_chunk::<N>() {
        Some(chunk) if length <= N => {
            let end = to.len() + length;
            to.extend_from_slice(chunk);
            to.truncate(end);
        }
        _ => to.extend_from_slice(&from[..length]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::series::Rules;
    use super::*;

    fn line(name: &str) -> Line {
        let rules = Rules::of_a_test();
        rules.identify(name, std::iter::empty(), None).line
    }

    #[test]
    fn a_line_is_head_suffix_time_value_tag_and_tail() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000);
        lines.push(&line("m"), Variant::default(), Value::Integer(7)).unwrap();
        lines
            .push(&line("m"), Variant { suffix: ".bucket", tag: "le=0.5" }, Value::Float(1.0))
            .unwrap();
        assert_eq!(
            lines.bytes(),
            b"put m 1700000000 7 host=a\nput m.bucket 1700000000 1.0 le=0.5 host=a\n"
        );
        assert_eq!(lines.take(Vec::new()).1, 2);
        assert!(lines.is_empty());
    }

    #[test]
    fn names_and_times_of_any_length_are_copied_whole() {
        let mut lines = Lines::default();
        let mut expected = String::new();
        for n in 1..100 {
            let (name, time) = ("m".repeat(n), u64::MAX.wrapping_shr(n as u32 % 64));
            lines.set_time(time);
            lines.push(&line(&name), Variant::default(), Value::Integer(-1)).unwrap();
            expected += &format!("put {name} {time} -1 host=a\n");
        }
        assert_eq!(String::from_utf8_lossy(lines.bytes()), expected);
    }

    #[test]
    fn a_histogram_line_may_fill_its_room() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000_000);
        let room = histogram_room(&line("m"));
        lines.push_histogram(&line("m"), b"0,1=2").unwrap();
        assert_eq!(lines.bytes(), b"histogram m 1700000000000 0,1=2 host=a\n");
        assert_eq!(lines.push_histogram(&line("m"), &vec![b'1'; room]), Ok(()));
        assert_eq!(
            lines.push_histogram(&line("m"), &vec![b'1'; room + 1]),
            Err(Unsendable::TooLong)
        );
    }

    #[test]
    fn a_line_of_1024_bytes_is_sent_and_one_more_byte_is_not() {
        let around = "put  1700000000 7 host=a\n".len();
        for (length, expected) in [(1024, Ok(())), (1025, Err(Unsendable::TooLong))] {
            let mut lines = Lines::default();
            lines.set_time(1_700_000_000);
            lines.push(&line("short"), Variant::default(), Value::Integer(7)).unwrap();
            let before = lines.bytes().len();
            let pushed = lines.push(
                &line(&"m".repeat(length - around)),
                Variant::default(),
                Value::Integer(7),
            );
            assert_eq!(pushed, expected);
            assert_eq!(lines.bytes().len() - before, if expected.is_ok() { 1024 } else { 0 });
        }
    }

    #[test]
    fn what_is_not_finite_leaves_no_byte() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                lines.push(&line("m"), Variant::default(), value.into()),
                Err(Unsendable::NotFinite)
            );
        }
        assert!(lines.is_empty() && lines.bytes().is_empty());
    }
}
