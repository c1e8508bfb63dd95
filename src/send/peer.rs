//! The seam between the writer and the protocols: an endpoint, with what is known of it and the
//! connection to it, whatever protocol it speaks.
//!
//! Everything that outlives a connection and is no matter of the protocol is in [`Delivery`]; a
//! protocol takes lines from it and says which are confirmed.

use std::fmt::Display;

use super::connection::{Connection, Released};
use super::delivery::Delivery;
use super::status::End;
use super::window::Window;
use crate::clock::Instant;
use crate::stats::Confirmation;

/// When to go on should nothing happen until then, or how the connection has ended.
pub(super) type Outcome = Result<Option<Instant>, End>;

pub(super) trait Peer: Send {
    /// How it confirms; [`Confirmation::Auto`] while that is not known.
    fn confirmation(&self) -> Confirmation;

    /// There is a connection to it.
    fn connected(&mut self, connection: Connection, now: Instant);

    /// Reads, then goes on as far as it can without waiting.
    fn turn(&mut self, delivery: &mut Delivery, name: &dyn Display, now: Instant) -> Outcome;

    /// Whether the server has shown on this connection that it takes points.
    fn is_proved(&self, now: Instant) -> bool;

    /// A connection to it failed, or none could be made. That teaches nothing where an answer says
    /// more than the end of a connection.
    fn failed(&mut self) {}

    /// Gives the connection up, if there is one.
    fn release(&mut self, window: &Window, now: Instant) -> Option<Released>;
}

/// What a turn of a connection works on.
pub(super) struct Turn<'a, Known> {
    pub(super) delivery: &'a mut Delivery,
    /// What is known of the endpoint.
    pub(super) known: &'a mut Known,
    /// The endpoint, for the log.
    pub(super) name: &'a dyn Display,
    pub(super) now: Instant,
}
