//! The start-up check: whether a server would take points.
//!
//! It is sent none, but an empty array, which no server stores anything of. A TSD answers 400 to
//! that, the others 2xx; what needs a change of the configuration answers as it would to points.

use std::io::{self, ErrorKind};

use super::exchange::Exchange;
use super::head::{Ask, Head, Options};
use super::status;
use crate::clock::Instant;
use crate::send::connection::{Connection, Received};
use crate::send::dial::timed_out;
use crate::send::endpoint::Endpoint;
use crate::send::stream::Stream;
use crate::send::url::Url;

/// A request without points.
const NO_POINTS: &[u8] = b"[]";

pub(in crate::send) struct Check {
    exchange: Exchange,
    head: Head,
}

impl Check {
    pub(in crate::send) fn begin(
        connection: Connection,
        endpoint: &Endpoint,
        url: &Url,
        options: &Options,
        now: Instant,
    ) -> io::Result<Self> {
        let mut exchange = Exchange::new(Stream::open(connection, endpoint, &options.trust)?, now);
        let head = Head::new(url, &endpoint.authority(), Ask::Status, options);
        exchange.begin(|request| head.write(false, NO_POINTS, request), now);
        Ok(Check { exchange, head })
    }

    /// Goes on as far as it can without waiting; returns when to go on, or `None` when the server
    /// would take points.
    pub(in crate::send) fn turn(
        &mut self,
        now: Instant,
        deadline: Instant,
    ) -> io::Result<Option<Instant>> {
        let received = self.exchange.read(now)?;
        if let Some(answer) = self.exchange.reader.answer() {
            return match status::judge_check(answer, &self.head.secrets) {
                Some(reason) => Err(io::Error::new(ErrorKind::InvalidData, reason)),
                None => Ok(None),
            };
        }
        let taken = self.exchange.write(now)?;
        match received {
            Received::Ended => Err(ErrorKind::UnexpectedEof.into()),
            // A server may say more without an end.
            _ if now >= deadline => Err(timed_out()),
            Received::Empty if taken == 0 => Ok(Some(deadline)),
            Received::Empty | Received::More => Ok(Some(now)),
        }
    }
}
