//! Without the feature `spool` there is none.

use super::window::Window;
use crate::clock::Instant;

/// What keeps points on disk; there is no such thing.
pub(crate) enum Keeper {}

impl Keeper {
    pub(in crate::send) fn has_backlog(&self) -> bool {
        match *self {}
    }

    pub(in crate::send) fn turn(&mut self, _: &Window) -> Option<Instant> {
        match *self {}
    }

    pub(in crate::send) fn keep_all(&mut self, _: &Window) {
        match *self {}
    }
}
