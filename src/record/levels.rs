//! Which call sites record, by their level and target.

use std::cmp::Reverse;

use metrics::{Level, Metadata};

/// The least levels.
pub(crate) struct Levels {
    /// The highest of them: what has it passes without a look at its target.
    highest: Level,
    /// By the prefix of the target, the longest first. The last one is empty, for all targets.
    by_target: Vec<(String, Level)>,
}

impl Levels {
    /// Of equal prefixes, which may not be empty, the last one counts.
    pub(crate) fn new(general: Level, by_target: &[(String, Level)]) -> Self {
        let mut by_target: Vec<_> = by_target.iter().rev().cloned().collect();
        by_target.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        by_target.push((String::new(), general));
        let levels = by_target.iter().map(|&(_, level)| level);
        let highest = levels.reduce(|one, other| if other > one { other } else { one });
        Levels { highest: highest.unwrap_or(general), by_target }
    }

    #[inline]
    pub(crate) fn admits(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() >= self.highest || self.admits_target(metadata)
    }

    #[inline(never)]
    fn admits_target(&self, metadata: &Metadata<'_>) -> bool {
        let is_of = |(prefix, _): &&(String, Level)| metadata.target().starts_with(prefix.as_str());
        self.by_target.iter().find(is_of).is_some_and(|(_, least)| metadata.level() >= least)
    }
}
