//! Without the feature `spool` there is none.

use super::window::Window;
use crate::clock::{Clock, Instant};
use crate::queue::Queue;
use crate::stats::Counters;

/// What keeps points on disk; there is no such thing.
pub(crate) enum Keeper {}

impl Keeper {
    pub(in crate::send) fn has_backlog(&self) -> bool {
        match *self {}
    }

    pub(in crate::send) fn turn(
        &mut self,
        _: &Queue,
        _: &Window,
        _: &Counters,
        _: &Clock,
    ) -> Option<Instant> {
        match *self {}
    }

    pub(in crate::send) fn close(&mut self, _: &Queue, _: &Counters, _: &Clock) {
        match *self {}
    }

    pub(in crate::send) fn keep_all(&mut self, _: &Queue, _: &Window, _: &Counters, _: &Clock) {
        match *self {}
    }
}
