//! Which call sites record, by their level and target.

use std::cmp::Reverse;

use metrics::{Level, Metadata};

/// The least levels.
pub(crate) struct Levels {
    general: Level,
    /// By the prefix of the target, the longest first.
    by_target: Vec<(String, Level)>,
    /// The highest of all: what has it passes without a look at its target.
    highest: Level,
}

impl Levels {
    /// `None` when every call site records. Of equal prefixes the last one counts.
    pub(crate) fn new(general: Level, by_target: &[(String, Level)]) -> Option<Box<Self>> {
        let mut by_target: Vec<_> = by_target.iter().rev().cloned().collect();
        by_target.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        let levels = by_target.iter().map(|&(_, level)| level);
        let highest = levels.fold(general, |one, other| if other > one { other } else { one });
        (highest > Level::TRACE).then(|| Box::new(Levels { general, by_target, highest }))
    }

    #[inline]
    pub(crate) fn admits(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() >= self.highest || self.admits_target(metadata)
    }

    #[inline(never)]
    fn admits_target(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target().as_bytes();
        let is_of = |(prefix, _): &&(String, Level)| starts_with(target, prefix.as_bytes());
        let longest = self.by_target.iter().find(is_of);
        *metadata.level() >= longest.map_or(self.general, |&(_, least)| least)
    }
}

/// As std's, without its call, which would be most of what a level costs.
#[inline(always)]
fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    let Some(text) = text.get(..prefix.len()) else { return false };
    let (words, expected) = (text.chunks_exact(8), prefix.chunks_exact(8));
    let rest = words.remainder().iter().eq(expected.remainder());
    rest && words.eq(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_std_takes_for_one() {
        let text: Vec<u8> = (0..40).collect();
        for length in 0..=text.len() {
            let mut prefix = text[..length].to_vec();
            for end in [length.saturating_sub(1), length, text.len()] {
                let text = &text[..end];
                assert_eq!(starts_with(text, &prefix), text.starts_with(&prefix), "{length} {end}");
            }
            for at in 0..length {
                prefix[at] ^= 1;
                assert!(!starts_with(&text, &prefix), "{length} {at}");
                prefix[at] ^= 1;
            }
        }
    }
}
