//! A target's bytes, taken apart from the front. What is missing at the end is zero or empty, so
//! any bytes are an input.

pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A number below `end`, at most 256.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn u64(&mut self) -> u64 {
        self.take(8).iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// At most so many bytes.
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Text up to the next zero byte.
    pub(super) fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0);
        let text = self.take(end.unwrap_or(self.0.len()));
        self.take(1);
        String::from_utf8_lossy(text).into_owned()
    }

    /// At most `most` texts, as many as the next byte says.
    pub(super) fn texts(&mut self, most: usize) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| self.text()).collect()
    }
}
