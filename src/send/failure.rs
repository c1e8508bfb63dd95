//! Why there is no connection, by the phase that failed.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::backoff::Cost;
use crate::wire::reply::Alien;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{endpoint} does not resolve")]
    Resolve { endpoint: String, source: io::Error },
    #[error("the resolver had no answer for {endpoint} in time")]
    ResolverSilent { endpoint: String },
    #[error("{peer} does not take a connection")]
    Connect { peer: SocketAddr, source: io::Error },
    #[error("{peer} had not answered the connection when its share of the time was over")]
    ConnectTimeout { peer: SocketAddr },
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
    #[error("there is no endpoint")]
    NoEndpoint,
}

impl Failure {
    /// What it did to the server.
    pub(super) fn cost(&self) -> Cost {
        match self {
            Failure::Stalled(_) | Failure::Unanswered(_) | Failure::NotClosed(_) => Cost::GivenUp,
            _ => Cost::Gone,
        }
    }

    /// The phase, for the log to be quiet about what it has said.
    pub(super) fn phase(&self) -> &'static str {
        match self {
            Failure::Resolve { .. } | Failure::ResolverSilent { .. } => "resolve",
            Failure::Connect { .. } | Failure::ConnectTimeout { .. } | Failure::NoEndpoint => {
                "connect"
            }
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
    pub(super) fn in_full(&self) -> InFull<'_> {
        InFull(self)
    }
}

pub(super) struct InFull<'a>(&'a Failure);

impl fmt::Display for InFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.source() {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}
