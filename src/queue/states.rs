//! How far things are.

/// What the writer last said of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is taken to be there: connected, or not tried since it last was.
    Up,
    /// The last attempt failed.
    Down,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Points are taken.
    Open,
    /// No more points are taken; the writer sends what there is, then ends.
    Closing,
    /// Time is up: the writer ends as soon as it can.
    Abandoned,
    /// The writer has ended.
    Finished,
}

/// How many points wait in each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Made since the connection was last lost.
    pub(crate) fresh: usize,
    /// Made before.
    pub(crate) backlog: usize,
    /// Lines of the last snapshot, dropped and sent ones included.
    pub(crate) snapshot_points: usize,
    /// The flusher waits for room, or more than half of the queue is used.
    pub(crate) is_filling: bool,
}

/// Everything that was pushed before it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ticket(pub(super) u64);
