//! Why there is no connection, by the phase that failed.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::backoff::Wait;
use crate::wire::reply::Alien;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot resolve {address}")]
    Resolve { address: String, source: io::Error },
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("the connection was lost while writing")]
    Write(#[source] io::Error),
    #[error("the connection was lost while reading")]
    Read(#[source] io::Error),
    #[error("the server closed the connection before it had confirmed what was written")]
    Closed,
    #[error("the connection was lost while its end was awaited")]
    End(#[source] io::Error),
    #[error("the server took no byte for {0:?}")]
    Stalled(Duration),
    #[error("the server has not answered `version` for {0:?}")]
    Unanswered(Duration),
    #[error("the server has not closed its side for {0:?} after we closed ours")]
    NotClosed(Duration),
    #[error("the server closed in good order without an answer to `version`, long after we did")]
    Silent,
    #[error("{0}")]
    Alien(Alien),
}

impl Failure {
    /// What it means for the wait after it.
    pub(super) fn wait(&self) -> Wait {
        match self {
            Failure::Stalled(_) | Failure::Unanswered(_) | Failure::NotClosed(_) => {
                Wait::AtLeastMin
            }
            _ => Wait::Jittered,
        }
    }

    /// The phase that failed: the cause by which log lines are limited.
    pub(super) fn phase(&self) -> &'static str {
        match self {
            Failure::Resolve { .. } => "resolve",
            Failure::Connect { .. } => "connect",
            Failure::Write(_) | Failure::Stalled(_) => "write",
            Failure::Read(_) => "read",
            Failure::Closed
            | Failure::End(_)
            | Failure::Unanswered(_)
            | Failure::NotClosed(_)
            | Failure::Silent
            | Failure::Alien(_) => "confirm",
        }
    }

    /// The failure with its cause, for the log.
    pub(super) fn in_full(&self) -> String {
        match self.source() {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
