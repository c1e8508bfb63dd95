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

/// What there is to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The queue takes no more points.
    pub(crate) is_closing: bool,
    /// All points that wait.
    pub(crate) unsent: usize,
    /// Those of them that are no backlog: a stream of raw points is in no snapshot.
    pub(crate) fresh: usize,
    /// Lines of the last snapshot, dropped and sent ones included.
    pub(crate) snapshot_points: usize,
    /// Whether some points are from before a connection was lost, or are sent again.
    pub(crate) has_backlog: bool,
    /// Whether a flush or the shutdown waits.
    pub(crate) is_expedited: bool,
    /// Whether the flusher waits for room, or more than half of the queue is used.
    pub(crate) is_filling: bool,
}

/// Covers every point that was pushed before it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Watermark(
    /// The number of the first point that is not covered.
    pub(super) u64,
);
