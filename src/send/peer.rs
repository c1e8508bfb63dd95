//! The seam between the writer and the protocols: an endpoint, with what is known of it and the
//! connection to it, whatever protocol it speaks.
//!
//! Its address chooses the protocol. Everything that outlives a connection and is no matter of the
//! protocol is in [`Delivery`](super::delivery::Delivery); a protocol takes lines from it and says
//! which are confirmed.

use super::connection::{Connection, Released};
use super::delivery::Turn;
use super::endpoint::Endpoint;
#[cfg(feature = "http")]
use super::http;
use super::status::End;
use super::telnet;
use super::window::Window;
use crate::clock::Instant;
use crate::stats::Confirmation;

pub(super) enum Peer {
    Telnet(telnet::Peer),
    #[cfg(feature = "http")]
    Http(Box<http::Peer>),
}

/// How the protocols are spoken.
pub(crate) struct Protocols {
    /// How telnet endpoints confirm.
    pub(crate) confirmation: Confirmation,
    #[cfg(feature = "http")]
    pub(crate) http: http::head::Options,
}

/// Asks the protocol.
macro_rules! ask {
    ($self:ident, $peer:ident => $answer:expr) => {
        match $self {
            Peer::Telnet($peer) => $answer,
            #[cfg(feature = "http")]
            Peer::Http($peer) => $answer,
        }
    };
}

impl Peer {
    /// The peer at this endpoint, by the protocol of its address.
    pub(super) fn new(endpoint: &Endpoint, protocols: &Protocols) -> Self {
        #[cfg(feature = "http")]
        if let Some(url) = &endpoint.url {
            return Peer::Http(Box::new(http::Peer::new(endpoint, url, &protocols.http)));
        }
        let _ = endpoint;
        Peer::Telnet(telnet::Peer::new(protocols.confirmation))
    }

    /// How it confirms; [`Confirmation::Auto`] while that is not known.
    pub(super) fn confirmation(&self) -> Confirmation {
        ask!(self, peer => peer.confirmation())
    }

    /// There is a connection to it, which is too old at `leave_at`.
    pub(super) fn connected(
        &mut self,
        connection: Connection,
        leave_at: Option<Instant>,
        now: Instant,
    ) {
        ask!(self, peer => peer.connected(connection, leave_at, now));
    }

    /// Reads, then goes on as far as it can without waiting; returns when to go on should nothing
    /// happen until then.
    pub(super) fn turn(&mut self, turn: Turn<'_>) -> Result<Option<Instant>, End> {
        ask!(self, peer => peer.turn(turn))
    }

    /// Whether the server has shown on this connection that it takes points.
    pub(super) fn is_proved(&self, now: Instant) -> bool {
        match self {
            Peer::Telnet(peer) => peer.is_proved(now),
            #[cfg(feature = "http")]
            Peer::Http(peer) => peer.is_proved(),
        }
    }

    /// A connection to it failed, or none could be made.
    pub(super) fn failed(&mut self) {
        match self {
            Peer::Telnet(peer) => peer.failed(),
            // Its answers say more than the end of a connection.
            #[cfg(feature = "http")]
            Peer::Http(_) => {}
        }
    }

    /// Gives the connection up, if there is one.
    pub(super) fn release(&mut self, window: &Window, now: Instant) -> Option<Released> {
        match self {
            Peer::Telnet(peer) => peer.release(window, now),
            // Half a request is none, wherever it ends.
            #[cfg(feature = "http")]
            Peer::Http(peer) => peer.release(now),
        }
    }
}
