//! An endpoint that speaks HTTP: what is known of it, and the connection to it.

use super::body::Body;
use super::head::{Head, HttpCompression, Options};
use super::learned::Learned;
use super::session::{Context, Session, Settings};
use super::stream::Stream;
use super::url::Url;
use crate::clock::Instant;
use crate::send::connection::{Connection, Released};
use crate::send::delivery::Turn;
use crate::send::endpoint::Endpoint;
use crate::send::status::{End, Failure};
use crate::stats::Confirmation;

pub(crate) struct Peer {
    endpoint: Endpoint,
    options: Options,
    settings: Settings,
    head: Head,
    body: Body,
    learned: Learned,
    session: Option<Box<Session>>,
}

impl Peer {
    pub(crate) fn new(endpoint: &Endpoint, url: &Url, options: &Options) -> Self {
        let ask = options.ask;
        Peer {
            settings: Settings {
                ask,
                is_gzip: options.compression == HttpCompression::Gzip,
                batch_bytes: options.batch_bytes,
            },
            head: Head::new(url, &endpoint.authority(), ask, options),
            body: Body::new(),
            learned: Learned::new(),
            session: None,
            endpoint: endpoint.clone(),
            options: options.clone(),
        }
    }

    pub(crate) fn confirmation(&self) -> Confirmation {
        self.settings.ask.confirmation()
    }

    pub(crate) fn connected(
        &mut self,
        connection: Connection,
        leave_at: Option<Instant>,
        now: Instant,
    ) {
        let stream = Stream::open(connection, &self.endpoint, &self.options);
        self.session = stream.ok().map(|stream| Box::new(Session::new(stream, leave_at, now)));
    }

    pub(crate) fn turn(&mut self, turn: Turn<'_>) -> Result<Option<Instant>, End> {
        let Some(session) = &mut self.session else { return Err(End::Failed(Failure::Closed)) };
        let Turn { delivery, name, now } = turn;
        let (learned, body, head) = (&mut self.learned, &mut self.body, &self.head);
        let settings = self.settings;
        session.turn(&mut Context { delivery, learned, body, head, settings, name, now })
    }

    pub(crate) fn is_proved(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_proved())
    }

    pub(crate) fn release(&mut self, now: Instant) -> Option<Released> {
        self.session.take().map(|session| Released::new(session.release(), Vec::new(), now))
    }
}
