//! What the queue and its users say to each other.

/// What the writer last said of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// Connected, or not tried since it last was.
    #[default]
    Up,
    /// The last attempt failed.
    Down,
}

/// How far the exporter's end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Points are taken.
    #[default]
    Open,
    /// No more points are taken; the writer sends what there is, then ends.
    Closing,
    /// Time is up: what is not confirmed is dropped, and the writer ends as soon as it can.
    Abandoned,
    /// The writer has ended.
    Finished,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Points made since the connection was last lost.
    pub(crate) fresh: usize,
    /// Points made before.
    pub(crate) backlog: usize,
    /// Lines of the last snapshot, dropped and sent ones included.
    pub(crate) snapshot_points: usize,
    /// The flusher waits for room, or more than half of the queue is used.
    pub(crate) is_filling: bool,
}

/// Covers every point that was pushed before it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Watermark(
    /// The number of the first point that is not covered.
    pub(super) u64,
);
