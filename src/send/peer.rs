//! The seam between the writer and the protocols: an endpoint, with what is known of it and the
//! connection to it, whatever protocol it speaks.
//!
//! Its address chooses the protocol. Everything that outlives a connection and is no matter of the
//! protocol is in [`Delivery`]; a protocol takes lines from it and says which are confirmed.

use std::fmt::Display;

use super::connection::{Connection, Released};
use super::delivery::Delivery;
use super::status::End;
use super::telnet;
use super::window::Window;
use crate::clock::Instant;
use crate::stats::Confirmation;

pub(super) enum Peer {
    Telnet(telnet::Peer),
}

/// What a turn works on.
pub(super) struct Turn<'a> {
    pub(super) delivery: &'a mut Delivery,
    /// The endpoint, for the log.
    pub(super) name: &'a dyn Display,
    pub(super) now: Instant,
}

/// Asks the protocol.
macro_rules! ask {
    ($self:ident, $peer:ident => $answer:expr) => {
        match $self {
            Peer::Telnet($peer) => $answer,
        }
    };
}

impl Peer {
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

    /// Reads, then goes on as far as it can without waiting; answers when to go on should nothing
    /// happen until then.
    pub(super) fn turn(&mut self, turn: Turn<'_>) -> Result<Option<Instant>, End> {
        ask!(self, peer => peer.turn(turn))
    }

    /// Whether the server has shown on this connection that it takes points.
    pub(super) fn is_proved(&self, now: Instant) -> bool {
        ask!(self, peer => peer.is_proved(now))
    }

    /// A connection to it failed, or none could be made.
    pub(super) fn failed(&mut self) {
        ask!(self, peer => peer.failed());
    }

    /// Gives the connection up, if there is one.
    pub(super) fn release(&mut self, window: &Window, now: Instant) -> Option<Released> {
        ask!(self, peer => peer.release(window, now))
    }
}
