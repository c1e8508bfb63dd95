//! What a connection reports to the writer after each turn, whatever protocol it speaks.

use super::failure::Failure;
use crate::clock::Instant;

/// When to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do at once.
    Again,
    /// At this time, or when something happens.
    Wait(Option<Instant>),
}

impl Next {
    /// Whichever comes first.
    pub(super) fn or(self, other: Next) -> Next {
        match (self, other) {
            (Next::Wait(a), Next::Wait(b)) => Next::Wait(earliest(a, b)),
            _ => Next::Again,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We closed it, and everything on it is confirmed.
    Finished,
    /// The server closed it, or it broke, after everything on it was confirmed.
    Closed,
    /// It ended before everything on it was confirmed.
    Failed(Failure),
}

/// The earlier of two times, either of which may be missing.
pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
