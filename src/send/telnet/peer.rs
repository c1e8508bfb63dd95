//! An endpoint that speaks the telnet protocol: what is known of it, and the connection to it.

use std::fmt::Display;

use super::confirm::Profile;
use super::session::Session;
use crate::clock::Instant;
use crate::send::connection::{Connection, Released};
use crate::send::delivery::Delivery;
use crate::send::peer::{Outcome, Peer, Turn};
use crate::send::status::End;
use crate::send::window::Window;
use crate::stats::Confirmation;

pub(crate) struct TelnetPeer {
    profile: Profile,
    session: Option<Session>,
}

impl TelnetPeer {
    pub(crate) fn new(wanted: Confirmation) -> Self {
        TelnetPeer { profile: Profile::new(wanted), session: None }
    }
}

impl Peer for TelnetPeer {
    fn confirmation(&self) -> Confirmation {
        self.profile.mode()
    }

    fn connected(&mut self, connection: Connection, now: Instant) {
        self.profile.connected(now);
        self.session = Some(Session::new(connection, now));
    }

    fn turn(&mut self, delivery: &mut Delivery, name: &dyn Display, now: Instant) -> Outcome {
        let Some(session) = &mut self.session else { return Err(End::Finished) };
        session.turn(&mut Turn { delivery, known: &mut self.profile, name, now })
    }

    fn is_proved(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_proved(&self.profile, now))
    }

    fn failed(&mut self) {
        self.profile.failed();
    }

    fn release(&mut self, window: &Window, now: Instant) -> Option<Released> {
        self.session.take().map(|session| session.release(window, now))
    }
}
