//! An endpoint that speaks the telnet protocol: what is known of it, and the connection to it.

use super::confirm::Profile;
use super::session::{Context, Session};
use crate::clock::Instant;
use crate::send::connection::{Connection, Released};
use crate::send::delivery::Turn;
use crate::send::status::End;
use crate::send::window::Window;
use crate::stats::Confirmation;

pub(crate) struct Peer {
    profile: Profile,
    session: Option<Box<Session>>,
}

impl Peer {
    pub(crate) fn new(wanted: Confirmation) -> Self {
        Peer { profile: Profile::new(wanted), session: None }
    }

    pub(crate) fn confirmation(&self) -> Confirmation {
        self.profile.mode()
    }

    pub(crate) fn connected(
        &mut self,
        connection: Connection,
        leave_at: Option<Instant>,
        now: Instant,
    ) {
        self.profile.connected(now);
        self.session = Some(Box::new(Session::new(connection, leave_at, now)));
    }

    pub(crate) fn turn(&mut self, turn: Turn<'_>) -> Result<Option<Instant>, End> {
        let Some(session) = &mut self.session else { return Err(End::Finished) };
        let Turn { delivery, name, now } = turn;
        session.turn(&mut Context { delivery, profile: &mut self.profile, name, now })
    }

    pub(crate) fn is_proved(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_proved(&self.profile, now))
    }

    pub(crate) fn failed(&mut self) {
        self.profile.failed();
    }

    pub(crate) fn release(&mut self, window: &Window, now: Instant) -> Option<Released> {
        self.session.take().map(|session| session.release(window, now))
    }
}
