//! How a connection ended, and why there is none.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::backoff::Wait;
use crate::wire::reply::Alien;

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

/// An endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {address}")]
pub(crate) struct Unreached {
    /// What failed, as a verb.
    pub(super) action: &'static str,
    pub(crate) address: String,
    pub(crate) source: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("the connection was lost while {during}")]
    Lost { during: &'static str, source: io::Error },
    #[error("the server closed the connection before it had confirmed what was written")]
    Closed,
    #[error("the server {omission} for {time:?}")]
    Unresponsive { omission: &'static str, time: Duration },
    #[error("the server closed in good order without an answer to `version`, long after we did")]
    Silent,
    #[error("{0}")]
    Alien(Alien),
}

impl Failure {
    /// What it means for the wait after it.
    pub(super) fn wait(&self) -> Wait {
        match self {
            Failure::Unresponsive { .. } => Wait::AtLeastMin,
            _ => Wait::Jittered,
        }
    }

    /// The cause by which log lines are limited.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Failure::Unreached(unreached) => unreached.action,
            Failure::Lost { during, .. } => during,
            Failure::Unresponsive { omission, .. } => omission,
            Failure::Closed | Failure::Silent | Failure::Alien(_) => "confirm",
        }
    }

    /// The failure with its source, for the log.
    pub(super) fn in_full(&self) -> String {
        match self.source() {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
