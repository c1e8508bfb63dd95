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
        let target = metadata.target();
        let longest = self.by_target.iter().find(|(prefix, _)| {
            // The first byte by itself: it spares most of them a call.
            target.as_bytes().first() == prefix.as_bytes().first() && target.starts_with(&**prefix)
        });
        *metadata.level() >= longest.map_or(self.general, |&(_, least)| least)
    }
}
