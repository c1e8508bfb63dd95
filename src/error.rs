//! What can go wrong, and what to change.

use std::io;

/// Why [`build`](crate::OpenTsdbBuilder::build) or [`install`](crate::OpenTsdbBuilder::install) failed. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An address is not `host`, `host:port`, `[v6]:port` or one of these behind `tcp://`.
    #[error("{address:?} is not an address: {reason}")]
    InvalidAddress {
        /// The address as it was given.
        address: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// An option has a value that cannot work.
    #[error("{option}({value}): {fix}")]
    InvalidConfiguration {
        /// The method or the environment variable that set it.
        option: &'static str,
        /// The value.
        value: String,
        /// What to give instead.
        fix: String,
    },
    /// The connectivity check reached no server. [`ConnectivityCheck::Off`](crate::ConnectivityCheck::Off) starts without one.
    #[error(
        "no TSD reached at {address}; start it, correct the address, or use with_connectivity_check(ConnectivityCheck::Off)"
    )]
    Unreachable {
        /// The last address that was tried, resolved if it could be.
        address: String,
        /// Why it could not be reached.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("the thread {name} could not be started; raise the limit of threads")]
    Spawn {
        /// The name of the thread.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The machine's event queue could not be opened.
    #[error("the event queue could not be opened; raise the limit of open files")]
    EventQueue {
        /// Why not.
        source: io::Error,
    },
    /// There is a global recorder already. Install one exporter per process, or `build` and put several under a
    /// `metrics_util::layers::FanoutBuilder`.
    #[error(
        "a global metrics recorder is installed already; install one only, or combine several with a fanout layer"
    )]
    FailedToSetGlobalRecorder,
}

/// Why [`flush`](crate::OpenTsdbHandle::flush) or [`shutdown`](crate::OpenTsdbHandle::shutdown) did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The exporter was shut down before.
    #[error("the exporter was shut down already; flush before shutdown, and shut down once")]
    AlreadyShutdown,
    /// This process is a fork of the one that started the exporter, whose threads did not come along.
    #[error("the exporter belongs to the parent of this forked process; build one after the fork")]
    Forked,
}

/// Why [`send`](crate::OpenTsdbHandle::send) did not take a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The metric's name is empty or has characters outside `[A-Za-z0-9._/-]`.
    #[error("the metric's name has to be one or more of A-Z a-z 0-9 . _ / -")]
    InvalidMetric,
    /// A tag's key or value is empty or has characters outside `[A-Za-z0-9._/-]`.
    #[error("each tag's key and value has to be one or more of A-Z a-z 0-9 . _ / -")]
    InvalidTag,
    /// One key twice, or more tags than [`with_max_tags`](crate::OpenTsdbBuilder::with_max_tags) allows.
    #[error("a point may have each tag once and no more tags than with_max_tags allows")]
    TooManyTags,
    /// The timestamp has another number of digits than the exporter's precision: 10 for seconds, 13 for milliseconds.
    #[error(
        "the timestamp has to be in the exporter's precision: 10 digits for seconds, 13 for milliseconds"
    )]
    InvalidTimestamp,
    /// NaN or an infinity, which no server stores.
    #[error("the value has to be finite")]
    NotFinite,
    /// The line would be longer than the 1024 bytes that a TSD reads.
    #[error("the line is longer than 1024 bytes; shorten the name or the tags")]
    TooLong,
    /// A recorded metric has this name and these tags; a second value for its time would make the row unreadable.
    #[error("a recorded metric is this series already; give the point another name or tag")]
    Recorded,
    /// The exporter was shut down, or belongs to the parent of this forked process.
    #[error("the exporter was shut down already")]
    AlreadyShutdown,
}
