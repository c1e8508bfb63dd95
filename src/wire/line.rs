//! Series, time and number become a `put` line.
//!
//! What does not change is copied: the two parts of the [`Line`], and the time, which is rendered
//! once per snapshot. A line has a greatest length: a TSD closes the connection on a line of more
//! than [`TSD_LINE`] bytes without a reply, and what was pipelined is lost.
//!
//! A copy of a fixed length is a few instructions, one of any length a call. So of a short part as
//! many bytes are copied as a short part may have, and the next part begins where it really ends.
//! That is why the buffer is kept whole, with the end of the lines beside it, and why a [`Line`]
//! comes with what lies behind it. With a call for each part a line takes half as long again.

use std::mem;

use super::charset::Charset;
use super::series::{Line, SHORT};
use super::value::{LONGEST_NUMBER, Value};

/// The longest line that a TSD reads, its line feed included (`net.opentsdb.tsd.PipelineFactory`).
pub(crate) const TSD_LINE: usize = 1024;

/// The command of a native histogram.
const HISTOGRAM: &str = "histogram ";
/// The longest time, in milliseconds, with a space on both sides.
const LONGEST_TIME: usize = 15;
/// The longest time that there may be, with a space on both sides.
const ANY_TIME: usize = u64::MAX.ilog10() as usize + 3;
/// More than a line of such parts takes, with what is copied beyond its end.
const ROOM: usize = 512;

/// The bytes that a `histogram` line of this series has room for besides everything else.
pub(crate) fn histogram_room(line: Line<'_>) -> usize {
    TSD_LINE
        .saturating_sub(HISTOGRAM.len() + line.metric().len() + LONGEST_TIME + line.tail().len())
}

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRules {
    pub(crate) charset: Charset,
    /// The most bytes of a line, its line feed included.
    pub(crate) max_line: usize,
    /// The most tags of a series.
    pub(crate) max_tags: usize,
    /// Times in milliseconds. InfluxDB stores those of the put protocol at wrong times.
    pub(crate) has_millis: bool,
    /// The `histogram` command.
    pub(crate) has_histograms: bool,
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
    /// The lines, and behind them bytes of no meaning: room for others.
    bytes: Vec<u8>,
    /// Where the lines end.
    end: usize,
    points: u32,
    /// The most bytes of a line, its line feed included.
    max_line: usize,
    /// See [`is_full`](Self::is_full).
    most_bytes: usize,
    most_points: u32,
    /// The time with a space on both sides, and how many bytes that is.
    time: ([u8; ANY_TIME], u8),
}

impl Lines {
    /// No lines, with the whole of `buffer` as room for them, of at most `max_line` bytes each.
    pub(crate) fn new(buffer: Vec<u8>, max_line: usize) -> Self {
        let (most_bytes, most_points) = (usize::MAX, u32::MAX);
        let time = ([0; ANY_TIME], 0);
        Lines { bytes: buffer, end: 0, points: 0, max_line, most_bytes, most_points, time }
    }

    /// The same, full with so many points, or when there is no room in `bytes` bytes for another
    /// line of a TSD's. Longer ones, which other servers read, make the buffer grow: they are rare.
    pub(crate) fn bounded(self, bytes: usize, points: usize) -> Self {
        let most_points = u32::try_from(points).unwrap_or(u32::MAX);
        Lines { most_bytes: bytes.saturating_sub(TSD_LINE), most_points, ..self }
    }

    /// Forgets the lines.
    pub(crate) fn clear(&mut self) {
        (self.end, self.points) = (0, 0);
    }

    /// Sets the time of the lines from here on.
    pub(crate) fn set_time(&mut self, timestamp: u64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(timestamp).as_bytes();
        let time = &mut self.time;
        time.0[0] = b' ';
        time.0[1..=digits.len()].copy_from_slice(digits);
        time.0[digits.len() + 1] = b' ';
        time.1 = digits.len() as u8 + 2;
    }

    /// Adds a line, whole or not at all.
    // Always: within the loop over one kind of metric it saves a tenth of the time.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        line: Line<'_>,
        variant: Variant<'_>,
        value: Value,
    ) -> Result<(), Unsendable> {
        let Variant { suffix, tag } = variant;
        let is_plain = suffix.is_empty() && tag.is_empty();
        if is_plain && self.push_short(line, value).is_some() {
            return Ok(());
        }
        let mut digits = [0; LONGEST_NUMBER];
        let length = value.write(&mut digits).ok_or(Unsendable::NotFinite)?;
        let (time, (head, tail)) = (self.time, line.parts());
        let space = if tag.is_empty() { "" } else { " " };
        let [suffix, space, tag] = [suffix, space, tag].map(str::as_bytes);
        let time = &time.0[..time.1.into()];
        self.push_parts(&[head, suffix, time, &digits[..length], space, tag, tail])
    }

    /// Adds a line of short parts; `None`, and nothing, if it is not one, its value is not finite,
    /// or there is no room.
    #[inline(always)]
    fn push_short(&mut self, line: Line<'_>, value: Value) -> Option<()> {
        let room = self.bytes.get_mut(self.end..)?.first_chunk_mut::<ROOM>()?;
        let (head, tail, parts) = line.short()?;
        room[..SHORT].copy_from_slice(&parts[..SHORT]);
        room[head..head + ANY_TIME].copy_from_slice(&self.time.0);
        let at = head + usize::from(self.time.1);
        let at = at + value.write(room[at..].first_chunk_mut()?)?;
        room[at..at + SHORT].copy_from_slice(&parts[head..head + SHORT]);
        self.end += at + tail;
        self.points += 1;
        Some(())
    }

    /// Adds a `histogram` line with a value that is rendered already, whole or not at all.
    pub(crate) fn push_histogram(
        &mut self,
        line: Line<'_>,
        value: &[u8],
    ) -> Result<(), Unsendable> {
        let (time, metric) = (self.time, line.metric().as_bytes());
        let time = &time.0[..time.1.into()];
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
        let mut room = &mut self.bytes[self.end..end];
        for part in parts {
            let (to, rest) = room.split_at_mut(part.len());
            to.copy_from_slice(part);
            room = rest;
        }
        self.end = end;
        self.points += 1;
        Ok(())
    }

    /// Whether there are as many lines as there should be.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.end > self.most_bytes || self.points >= self.most_points
    }

    /// Whether there is no line.
    pub(crate) fn is_empty(&self) -> bool {
        self.points == 0
    }

    /// Takes the lines and how many they are, and goes on with `buffer` as room.
    pub(crate) fn take(&mut self, buffer: Vec<u8>) -> (Vec<u8>, usize) {
        let mut bytes = mem::replace(&mut self.bytes, buffer);
        bytes.truncate(mem::take(&mut self.end));
        (bytes, mem::take(&mut self.points) as usize)
    }

    /// The lines.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
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
        assert!(!lines.is_empty());
        assert_eq!(lines.take(Vec::new()).1, 2);
        assert!(lines.is_empty());
    }

    #[test]
    fn a_suffix_or_a_tag_alone_is_sent_where_all_parts_are_short() {
        // As it is kept, others lie behind it.
        let kept = [line("m").line().bytes(), &[b'?'; 2 * SHORT]].concat();
        let mut lines = Lines::new(vec![0; 2 * ROOM], TSD_LINE);
        lines.set_time(1_700_000_000);
        for (suffix, tag) in [(".count", ""), ("", "le=1")] {
            let line = Line::at(&kept).unwrap();
            lines.push(line, Variant { suffix, tag }, Value::Integer(7)).unwrap();
        }
        let expected = "put m.count 1700000000 7 host=a\nput m 1700000000 7 le=1 host=a\n";
        assert_eq!(String::from_utf8_lossy(lines.bytes()), expected);
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

    #[test]
    fn a_batch_has_many_lines_though_a_server_reads_long_ones() {
        for (bytes, points, is_full) in
            [(64 * 1024, 100, false), (TSD_LINE, 100, true), (64 * 1024, 1, true)]
        {
            let mut lines = Lines::new(Vec::new(), 256 * 1024).bounded(bytes, points);
            assert!(!lines.is_full(), "one without lines never is");
            lines.push(line("m").line(), Variant::default(), Value::Integer(7)).unwrap();
            assert_eq!(lines.is_full(), is_full);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_its_parts_in_order(
            lines in proptest::collection::vec(
                (
                    "[ab]|[a-z.]{1,100}",
                    proptest::collection::vec("[a-z]{1,30}", 0..4),
                    any::<i64>(),
                    any::<f64>(),
                ),
                1..20,
            ),
            time in prop_oneof![0..10_000_000_000_000u64, any::<u64>()],
            room in 0..2048usize,
        ) {
            let rules = Rules::of_a_test();
            let (mut made, mut expected) = (Lines::new(vec![b'?'; room], TSD_LINE), String::new());
            made.set_time(time);
            for (name, tags, integer, float) in lines {
                let tags = tags.iter().map(|tag| (tag.as_str(), "v"));
                let line = rules.identify(&name, tags, None).line();
                let (head, tail) = line.line().parts();
                let [head, tail] = [head, tail].map(String::from_utf8_lossy);
                // As it is kept, others lie behind it.
                let kept = [line.line().bytes(), &[b'?'; 2 * SHORT]].concat();
                let values = [integer.into(), (integer % 1000).into(), Value::Float(float)];
                for (value, kept) in values.into_iter().flat_map(|it| [(it, None), (it, Line::at(&kept))]) {
                    let line = kept.unwrap_or(line.line());
                    if made.push(line, Variant::default(), value).is_ok() {
                        expected += &format!("{head} {time} {}{tail}", value.to_text());
                    }
                }
            }
            prop_assert_eq!(String::from_utf8_lossy(made.bytes()), expected.as_str());
            let points = expected.lines().count();
            prop_assert_eq!(made.take(vec![b'?'; room]), (expected.into_bytes(), points));
            prop_assert!(made.push(line("m").line(), Variant::default(), 1.into()).is_ok());
            prop_assert!(!made.is_empty());
            made.clear();
            prop_assert!(made.is_empty() && made.bytes().is_empty());
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
