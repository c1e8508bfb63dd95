//! What can go wrong, and what to change.
//!
//! Most people log an error alone, so its text says the cause; some print the chain of `source()`s,
//! and there the cause is not to be read twice. So the source of a [`BuildError`] is an
//! [`io::Error`] of the same kind whose text is what the error itself leaves out: `os error 111`.
//! Its `Debug` is its text, since that is what a `main` prints that returns it.

use std::path::PathBuf;
use std::{fmt, io};

/// Why [`build`](crate::OpenTsdbBuilder::build) or [`install`](crate::OpenTsdbBuilder::install)
/// failed. Nothing is left running.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An address is not `host`, `host:port`, `[v6]:port`, one of these behind `tcp://`, or, with
    /// the feature `http`, a URL.
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
    /// The connectivity check reached no server.
    /// [`ConnectivityCheck::Off`](crate::ConnectivityCheck::Off) starts without one.
    #[error(
        "no TSD reached at {address}: {}; start it, correct the address, or use with_connectivity_check(ConnectivityCheck::Off)",
        in_words(source)
    )]
    Unreachable {
        /// The last address that was tried, resolved if it could be.
        address: String,
        /// Why it could not be reached: its kind, and in its text the system's number.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error(
        "the thread {name} could not be started: {}; raise the limit of threads",
        in_words(source)
    )]
    Spawn {
        /// The name of the thread.
        name: &'static str,
        /// Why not: its kind, and in its text the system's number.
        source: io::Error,
    },
    /// The machine's event queue could not be opened.
    #[error(
        "the event queue could not be opened: {}; raise the limit of open files",
        in_words(source)
    )]
    EventQueue {
        /// Why not: its kind, and in its text the system's number.
        source: io::Error,
    },
    /// The directory of the spool cannot be used: another exporter has it, others may write to it,
    /// or it could not be made. Only with the feature `spool`.
    #[error("the spool in {} cannot be used: {}", directory.display(), in_words(source))]
    Spool {
        /// The directory of this exporter.
        directory: PathBuf,
        /// Why not: its kind, and in its text the system's number.
        source: io::Error,
    },
    /// There is a global recorder already. Install one exporter per process, or `build` and put
    /// several under a `metrics_util::layers::FanoutBuilder`.
    #[error(
        "a global metrics recorder is installed already; install one only, or combine several with a fanout layer"
    )]
    FailedToSetGlobalRecorder,
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BuildError {
    pub(crate) fn invalid(
        option: &'static str,
        value: impl fmt::Debug,
        fix: impl Into<String>,
    ) -> Self {
        let (value, fix) = (format!("{value:?}"), fix.into());
        BuildError::InvalidConfiguration { option, value, fix }
    }
}

/// The cause of an error whose text says it already.
#[derive(Debug)]
struct Cause(io::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(code) => write!(f, "os error {code}"),
            None => write!(f, "{}", self.0.kind()),
        }
    }
}

impl std::error::Error for Cause {}

/// The error as a [`BuildError`] has it.
pub(crate) fn cause(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Cause(error))
}

/// What an error is, as in `connection refused`, without the system's number.
fn in_words(source: &io::Error) -> String {
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<Cause>());
    let text = cause.map_or(source, |Cause(error)| error).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    if let Some(why) = words.strip_prefix("failed to lookup address information: ") {
        return format!("no such host, or no resolver that knows it ({why})");
    }
    let mut rest = words.chars();
    rest.next().map(|first| first.to_lowercase().chain(rest).collect()).unwrap_or_default()
}

/// Why [`flush`](crate::OpenTsdbHandle::flush) or [`shutdown`](crate::OpenTsdbHandle::shutdown) did
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The exporter was shut down before, or is being shut down.
    #[error("the exporter was shut down already; flush before shutdown, and shut down once")]
    AlreadyShutdown,
    /// This process is a fork of the one that started the exporter, whose threads did not come
    /// along.
    #[error("the exporter belongs to the parent of this forked process; build one after the fork")]
    Forked,
    /// It was called in a callback of [`on_snapshot`](crate::OpenTsdbBuilder::on_snapshot), whose
    /// end it would wait for.
    #[error("a callback of on_snapshot cannot wait for a snapshot; flush on another thread")]
    OnSnapshot,
}

/// Why [`send`](crate::OpenTsdbHandle::send) did not take a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The metric's name is empty or has characters that the [`Flavor`](crate::Flavor) does not
    /// take: those outside `[A-Za-z0-9._/-]`; for `VictoriaMetrics` and `InfluxDb` space, `=`,
    /// quotes, the backslash and what is not printed.
    #[error(
        "the metric's name is empty or has characters that the flavor does not take; A-Z a-z 0-9 . _ / - are taken by all"
    )]
    InvalidMetric,
    /// A tag's key or value is empty or has such characters.
    #[error(
        "a tag's key or value is empty or has characters that the flavor does not take; A-Z a-z 0-9 . _ / - are taken by all"
    )]
    InvalidTag,
    /// One key twice, or more tags than [`with_max_tags`](crate::OpenTsdbBuilder::with_max_tags)
    /// allows, those of every series (host, instance, global labels) included.
    #[error(
        "a point may have each tag once and, with those of every series, no more than with_max_tags allows"
    )]
    TooManyTags,
    /// The timestamp has another number of digits than the exporter's precision: 10 for seconds, 13
    /// for milliseconds.
    #[error(
        "the timestamp has to be in the exporter's precision: 10 digits for seconds, 13 for milliseconds"
    )]
    InvalidTimestamp,
    /// NaN or an infinity, which no server stores.
    #[error("the value has to be finite")]
    NotFinite,
    /// The line would be longer than the server reads: 1,024 bytes for OpenTSDB and KairosDB, see
    /// [`Flavor`](crate::Flavor).
    #[error("the line is longer than the server reads; shorten the name or the tags")]
    TooLong,
    /// A recorded metric has this name and these tags; a second value for its time would make the
    /// row unreadable.
    #[error("a recorded metric is this series already; give the point another name or tag")]
    Recorded,
    /// The series has a point of this time already, or may have one; see
    /// [`send`](crate::OpenTsdbHandle::send). A second value would make the row unreadable.
    #[error(
        "the series has a point of this time already; give each point a time of its own, in ascending order"
    )]
    Duplicate,
    /// There are raw points of as many series as
    /// [`with_series_limit`](crate::OpenTsdbBuilder::with_series_limit) allows, and this would be a
    /// new one.
    #[error("there are as many raw series as with_series_limit allows; raise it, or send fewer")]
    SeriesLimit,
    /// The exporter was shut down, or belongs to the parent of this forked process.
    #[error("the exporter was shut down already")]
    AlreadyShutdown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn the_cause_is_said_in_words_and_once() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let unknown = io::Error::other("no such host");
        let cases = [(refused, "connection refused"), (unknown, "no such host")];
        let os = io::Error::from_raw_os_error(if cfg!(windows) { 10061 } else { 111 });
        let words = os.to_string().to_lowercase().split(" (os").next().unwrap().to_owned();
        for (source, words) in cases.into_iter().chain([(os, words.as_str())]) {
            let kind = source.kind();
            let error =
                BuildError::Unreachable { address: "tsd:4242".into(), source: cause(source) };
            let text = error.to_string();
            assert!(text.starts_with(&format!("no TSD reached at tsd:4242: {words}; ")), "{text}");
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            assert_eq!(source.kind(), kind);
            if source.to_string() != kind.to_string() {
                assert!(source.to_string().starts_with("os error "), "{source}");
            }
        }
    }
}
