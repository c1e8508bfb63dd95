//! Series, time and number become a `put` line.
//!
//! What does not change is copied: the two parts of the [`Line`], and the time, which is rendered once per snapshot. A line has a
//! greatest length: a TSD closes the connection on a line of more than [`TSD_LINE`] bytes without a reply, and what was pipelined is
//! lost.
//!
//! A copy of a fixed length is a few instructions, one of any length a call. So of a line whose parts are short as many bytes are
//! copied as a part may have, and the next part begins where the part really ended: three of the four parts of such a line are
//! copied without a branch. For that there is always room behind the last line that counts, which is why the buffer is kept whole
//! and the end of the lines beside it.

use super::series::Line;
use super::value::{FloatDigits, Value};

/// The longest line that a TSD reads, its line feed included (net.opentsdb.tsd.PipelineFactory).
pub(crate) const TSD_LINE: usize = 1024;

/// The command of a native histogram.
const HISTOGRAM: &str = "histogram ";
/// The longest time, in milliseconds, with a space on both sides.
const LONGEST_TIME: usize = 15;
/// The longest time that there may be, with a space on both sides.
const ANY_TIME: usize = u64::MAX.ilog10() as usize + 3;
/// The most bytes of a head or a tail that is copied at a fixed length, and of a time.
const SHORT: usize = 64;
const SHORT_TIME: usize = 16;
/// The room that a line of short parts is made in.
const ROOM: usize = 256;

/// The bytes that a `histogram` line of this series has room for besides everything else.
pub(crate) fn histogram_room(line: Line<'_>) -> usize {
    TSD_LINE
        .saturating_sub(HISTOGRAM.len() + line.metric().len() + LONGEST_TIME + line.tail().len())
}

/// Why a line was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// It would be longer than the server reads.
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
#[derive(Debug)]
pub(crate) struct Lines {
    /// The lines, and behind them room for others: bytes of no meaning.
    bytes: Vec<u8>,
    /// Where the lines end.
    end: usize,
    points: u32,
    /// The most bytes of a line, its line feed included.
    max_line: usize,
    /// The time with a space on both sides, and how many bytes that is.
    time: ([u8; ANY_TIME], usize),
}

impl Lines {
    /// No lines, with the whole of `buffer` as room for them, of at most `max_line` bytes each.
    pub(crate) fn new(buffer: Vec<u8>, max_line: usize) -> Self {
        Lines { bytes: buffer, end: 0, points: 0, max_line, time: ([0; ANY_TIME], 0) }
    }

    /// No lines, of the same length at most.
    pub(crate) fn emptied(&self) -> Self {
        Lines::new(Vec::new(), self.max_line)
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
        line: Line<'_>,
        variant: Variant<'_>,
        value: Value,
    ) -> Result<(), Unsendable> {
        let Variant { suffix, tag } = variant;
        match value {
            Value::Integer(integer) => {
                self.push_digits(line, suffix, tag, itoa::Buffer::new().format(integer).as_bytes())
            }
            Value::Float(float) if float.is_finite() => self.push_float(line, suffix, tag, float),
            Value::Float(_) => Err(Unsendable::NotFinite),
        }
    }

    #[inline(never)]
    fn push_float(
        &mut self,
        line: Line<'_>,
        suffix: &str,
        tag: &str,
        float: f64,
    ) -> Result<(), Unsendable> {
        self.push_digits(line, suffix, tag, FloatDigits::of(float).as_bytes())
    }

    #[inline(always)]
    fn push_digits(
        &mut self,
        line: Line<'_>,
        suffix: &str,
        tag: &str,
        digits: &[u8],
    ) -> Result<(), Unsendable> {
        if suffix.is_empty() && tag.is_empty() && self.push_short(line, digits) {
            return Ok(());
        }
        self.push_long(line, suffix, tag, digits)
    }

    /// Adds a line of short parts; answers whether it is one, and whether there was room.
    #[inline(always)]
    fn push_short(&mut self, line: Line<'_>, digits: &[u8]) -> bool {
        let room = self.bytes.get_mut(self.end..).and_then(|room| room.first_chunk_mut::<ROOM>());
        let parts = line.and_beyond::<SHORT>();
        let (Some(room), Some([(head, head_length), (tail, tail_length)])) = (room, parts) else {
            return false;
        };
        let (time, time_length) = &self.time;
        if head_length > SHORT || tail_length > SHORT || *time_length > SHORT_TIME {
            return false;
        }
        room[..SHORT].copy_from_slice(head);
        room[head_length..head_length + SHORT_TIME].copy_from_slice(&time[..SHORT_TIME]);
        let at = head_length + time_length;
        copy_digits(&mut room[at..at + digits.len()], digits);
        let at = at + digits.len();
        room[at..at + SHORT].copy_from_slice(tail);
        self.end += at + tail_length;
        self.points += 1;
        true
    }

    #[inline(never)]
    fn push_long(
        &mut self,
        line: Line<'_>,
        suffix: &str,
        tag: &str,
        digits: &[u8],
    ) -> Result<(), Unsendable> {
        let space = if tag.is_empty() { "" } else { " " };
        let time = self.time;
        let (head, tail) = line.parts();
        let time = &time.0[..time.1];
        self.push_parts(&[
            head,
            suffix.as_bytes(),
            time,
            digits,
            space.as_bytes(),
            tag.as_bytes(),
            tail,
        ])
    }

    /// Adds a `histogram` line with a value that is rendered already, whole or not at all.
    pub(crate) fn push_histogram(
        &mut self,
        line: Line<'_>,
        value: &[u8],
    ) -> Result<(), Unsendable> {
        let time = self.time;
        let (metric, time) = (line.metric().as_bytes(), &time.0[..time.1]);
        self.push_parts(&[HISTOGRAM.as_bytes(), metric, time, value, line.tail()])
    }

    /// Adds the line that these are the parts of, unless it is too long.
    fn push_parts(&mut self, parts: &[&[u8]]) -> Result<(), Unsendable> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > self.max_line {
            return Err(Unsendable::TooLong);
        }
        let end = self.end + length;
        if end > self.bytes.len() {
            self.bytes.resize(end.max(2 * self.bytes.len()), 0);
        }
        for part in parts {
            self.bytes[self.end..self.end + part.len()].copy_from_slice(part);
            self.end += part.len();
        }
        self.points += 1;
        Ok(())
    }

    /// Whether there are `points` lines, or another one might make the buffer grow beyond `size`.
    #[inline]
    pub(crate) fn is_full(&self, size: usize, points: usize) -> bool {
        self.end > size.saturating_sub(self.max_line) || self.points as usize >= points
    }

    /// Whether there is no line.
    pub(crate) fn is_empty(&self) -> bool {
        self.points == 0
    }

    /// Takes the lines and how many they are, and goes on with `buffer` as room.
    pub(crate) fn take(&mut self, buffer: Vec<u8>) -> (Vec<u8>, usize) {
        let mut bytes = std::mem::replace(&mut self.bytes, buffer);
        bytes.truncate(std::mem::take(&mut self.end));
        (bytes, std::mem::take(&mut self.points) as usize)
    }

    /// The lines.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

/// Copies up to 32 bytes as two pieces that may overlap.
#[inline(always)]
fn copy_digits(to: &mut [u8], from: &[u8]) {
    macro_rules! pieces_of {
        ($length:literal) => {
            if let (Some(first), Some(last)) =
                (from.first_chunk::<$length>(), from.last_chunk::<$length>())
            {
                to[..$length].copy_from_slice(first);
                let rest = to.len() - $length;
                to[rest..].copy_from_slice(last);
            }
        };
    }
    match from.len() {
        0 => {}
        1 => to[0] = from[0],
        2..=3 => pieces_of!(2),
        4..=7 => pieces_of!(4),
        8..=16 => pieces_of!(8),
        _ => pieces_of!(16),
    }
}

#[cfg(test)]
mod tests {
    use super::super::series::{LineBuf, Rules};
    use super::*;
    use proptest::prelude::*;

    impl Default for Lines {
        fn default() -> Self {
            Lines::new(Vec::new(), TSD_LINE)
        }
    }

    fn line(name: &str) -> LineBuf {
        let rules = Rules::of_a_test();
        rules.identify(name, std::iter::empty(), None).line()
    }

    #[test]
    fn a_line_is_head_suffix_time_value_tag_and_tail() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000);
        lines.push(line("m").line(), Variant::default(), Value::Integer(7)).unwrap();
        lines
            .push(line("m").line(), Variant { suffix: ".bucket", tag: "le=0.5" }, Value::Float(1.0))
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
            lines.push(line(&name).line(), Variant::default(), Value::Integer(-1)).unwrap();
            expected += &format!("put {name} {time} -1 host=a\n");
        }
        assert_eq!(String::from_utf8_lossy(lines.bytes()), expected);
    }

    #[test]
    fn a_histogram_line_may_fill_its_room() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000_000);
        let room = histogram_room(line("m").line());
        lines.push_histogram(line("m").line(), b"0,1=2").unwrap();
        assert_eq!(lines.bytes(), b"histogram m 1700000000000 0,1=2 host=a\n");
        assert_eq!(lines.push_histogram(line("m").line(), &vec![b'1'; room]), Ok(()));
        assert_eq!(
            lines.push_histogram(line("m").line(), &vec![b'1'; room + 1]),
            Err(Unsendable::TooLong)
        );
    }

    #[test]
    fn a_line_of_1024_bytes_is_sent_and_one_more_byte_is_not() {
        let around = "put  1700000000 7 host=a\n".len();
        for (length, expected) in [(1024, Ok(())), (1025, Err(Unsendable::TooLong))] {
            let mut lines = Lines::default();
            lines.set_time(1_700_000_000);
            lines.push(line("short").line(), Variant::default(), Value::Integer(7)).unwrap();
            let before = lines.bytes().len();
            let pushed = lines.push(
                line(&"m".repeat(length - around)).line(),
                Variant::default(),
                Value::Integer(7),
            );
            assert_eq!(pushed, expected);
            assert_eq!(lines.bytes().len() - before, if expected.is_ok() { 1024 } else { 0 });
        }
    }

    proptest! {
        #[test]
        fn a_line_that_others_follow_is_copied_as_one_that_stands_alone(
            lines in proptest::collection::vec(
                ("[ab]|[a-z.]{1,100}", proptest::collection::vec("[a-z]{1,30}", 0..4), any::<i64>(), any::<f64>()),
                1..20,
            ),
            time in prop_oneof![0..10_000_000_000_000u64, any::<u64>()],
            room in 0..2048usize,
        ) {
            let rules = Rules::of_a_test();
            let (mut identified, mut expected) = (Vec::new(), String::new());
            let (mut made, mut alone) = (Lines::new(vec![b'?'; room], TSD_LINE), Lines::default());
            made.set_time(time);
            alone.set_time(time);
            for (name, tags, ..) in &lines {
                let tags = tags.iter().map(|tag| (tag.as_str(), "v"));
                identified.push(rules.identify(name, tags, None).line());
            }
            let (mut packed, mut starts) = (Vec::new(), Vec::new());
            for line in &identified {
                starts.push(packed.len());
                packed.extend_from_slice(line.line().text().as_bytes());
            }
            for ((line, start), (_, _, integer, float)) in identified.iter().zip(starts).zip(lines) {
                let (head, tail) = line.line().parts();
                let packed = Line::of_parts(&packed[start..], head.len(), tail.len()).unwrap();
                let [head, tail] = <[_; 2]>::from(packed.parts()).map(String::from_utf8_lossy);
                for value in [Value::Integer(integer), Value::Integer(integer % 1000), Value::Float(float)] {
                    let pushed = made.push(packed, Variant::default(), value);
                    prop_assert_eq!(pushed, alone.push(line.line(), Variant::default(), value));
                    if pushed.is_ok() {
                        expected += &format!("{head} {time} {}{tail}", value.to_text());
                    }
                }
            }
            prop_assert_eq!(String::from_utf8_lossy(made.bytes()), expected.as_str());
            prop_assert_eq!(String::from_utf8_lossy(alone.bytes()), expected.as_str());
            let points = expected.lines().count();
            prop_assert_eq!(made.take(Vec::new()), (expected.into_bytes(), points));
        }
    }

    #[test]
    fn what_is_not_finite_leaves_no_byte() {
        let mut lines = Lines::default();
        lines.set_time(1_700_000_000);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                lines.push(line("m").line(), Variant::default(), value.into()),
                Err(Unsendable::NotFinite)
            );
        }
        assert!(lines.is_empty() && lines.bytes().is_empty());
    }
}
