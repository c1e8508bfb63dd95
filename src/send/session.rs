//! One connection, from the first line to its end.
//!
//! Each turn reads what the server says, then writes once at most, so that neither a flood of replies nor a long backlog starves the
//! other. What is written is the rest of what was begun, or else what the [`agenda`](super::agenda) has next.
//!
//! The connection makes progress when the kernel takes bytes, when an answer comes, and when the server refuses a point, which
//! shows that it reads. The last counts only once for each line that was written, or chatter would pass for life.

use std::time::Duration;

use super::agenda::{Plan, Scene};
use super::confirm::{ANSWER_TIME, Barrier, Mode};
use super::connection::{Connection, Drained};
use super::delivery::{Delivery, Work};
use super::failure::Failure;
use super::notices::Heard;
use super::window::Place;
use crate::clock::Instant;
use crate::wire::reply::Parser;

/// How old a connection has to be for what the kernel took from it to speak for the server.
const CREDIBLE: Duration = Duration::from_secs(1);
/// How often it is looked whether the server's machine has acknowledged everything, should the event queue not tell.
const SETTLE_POLL: Duration = Duration::from_millis(5);

/// What a session says of itself after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do at once.
    Again,
    /// Nothing until then, or until something happens.
    Wait(Option<Instant>),
}

/// How a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// In good order; nothing is lost, and nothing has to be waited for.
    Quiet,
    Failed(Failure),
}

pub(super) struct Session {
    connection: Connection,
    /// Its index.
    pub(super) endpoint: usize,
    /// When to leave, so that a preferred endpoint can be tried.
    leave_at: Option<Instant>,
    parser: Parser,
    barrier: Barrier,
    stage: Stage,
    connected: Instant,
    /// Whether the server has confirmed anything on this connection.
    has_confirmed: bool,
    /// Since when the kernel has taken no byte though there were some.
    stalled: Option<Instant>,
    /// The limiter is told when a write is done that was held up.
    is_held_up: bool,
    /// An undecided server has let its time pass.
    is_silent: bool,
    /// When the first line of the present burst was written, and when the last one was.
    burst: Option<(Instant, Instant)>,
    /// Lines that were written, less the refusals that were counted as progress.
    credit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// We have closed our side.
    HalfClosed {
        /// The last sign of life.
        since: Instant,
        /// How the server confirmed when we did.
        mode: Mode,
    },
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        endpoint: usize,
        leave_at: Option<Instant>,
        delivery: &Delivery,
        now: Instant,
    ) -> Self {
        Session {
            connection,
            endpoint,
            leave_at,
            parser: Parser::default(),
            barrier: Barrier::new(delivery.window.written()),
            stage: Stage::Open,
            connected: now,
            has_confirmed: false,
            stalled: None,
            is_held_up: false,
            is_silent: false,
            burst: None,
            credit: 0,
        }
    }

    /// Reads, then goes on as far as it can without waiting.
    pub(super) fn turn(
        &mut self,
        delivery: &mut Delivery,
        buffer: &mut [u8],
        name: &dyn std::fmt::Display,
        now: Instant,
    ) -> Result<Next, End> {
        let drained = self.read(delivery, buffer, name, now)?;
        let next = match (self.stage, drained) {
            (Stage::HalfClosed { mode, .. }, Drained::Ended) => self.settle(mode, delivery, now)?,
            (Stage::HalfClosed { .. }, _) => Next::Wait(None),
            (Stage::Open, Drained::Ended) => return Err(self.lost(Failure::Closed, delivery, now)),
            (Stage::Open, _) => match self.advance(delivery, now) {
                Ok(next) => next,
                Err(end) => {
                    // An answer may have come since the reading, and must not be lost with the connection: what it confirms
                    // would be sent again, for ever where no connection lasts.
                    let _ = self.read(delivery, buffer, name, now);
                    return Err(end);
                }
            },
        };
        let deadline = self.check_deadline(delivery, now)?;
        Ok(match next {
            _ if drained == Drained::More => Next::Again,
            Next::Again => Next::Again,
            Next::Wait(until) => Next::Wait(earliest(until, deadline)),
        })
    }

    /// Leaves in the middle of it, but not of a line: a server may store half a line as a point of its own. Answers the connection,
    /// of which we have closed our side.
    pub(super) fn abandon(mut self, delivery: &mut Delivery, buffer: &mut [u8]) -> Connection {
        let question = self.barrier.to_write();
        let rest = delivery.window.rest_of_line();
        self.connection.make_room();
        if !question.is_empty() {
            let _ = self.connection.write(question);
        } else if !rest.is_empty() {
            if let Ok(bytes) = self.connection.write(rest) {
                delivery.wrote(bytes);
                delivery.counters.bytes_sent.add(bytes as u64);
            }
        }
        // Unread bytes would make the kernel reset the connection, and what is under way would be lost.
        let _ = self.connection.drain(buffer, |_| {});
        let _ = self.connection.half_close();
        self.connection
    }

    /// Whether the server has shown that it takes points.
    pub(super) fn is_proved(&self, delivery: &Delivery, now: Instant) -> bool {
        let believes = delivery.modes.of(self.endpoint) == Mode::Written;
        let is_old = now.saturating_duration_since(self.connected) >= CREDIBLE;
        self.has_confirmed && (is_old || !believes)
    }

    fn read(
        &mut self,
        delivery: &mut Delivery,
        buffer: &mut [u8],
        name: &dyn std::fmt::Display,
        now: Instant,
    ) -> Result<Drained, End> {
        let mut heard = Heard::default();
        let is_asked = self.barrier.outstanding().is_some();
        let (parser, counters, notices) =
            (&mut self.parser, &delivery.counters, &mut delivery.notices);
        let drained = self.connection.drain(buffer, |bytes| {
            parser.feed(bytes, is_asked, |reply, text| {
                heard.take(reply, text, counters, notices, now);
            });
        });
        self.hear(&heard, delivery, now);
        heard.log(name);
        drained.map_err(|error| match self.stage {
            Stage::Open => self.lost(Failure::Read(error), delivery, now),
            Stage::HalfClosed { .. } => self.lost(Failure::End(error), delivery, now),
        })
    }

    fn hear(&mut self, heard: &Heard, delivery: &mut Delivery, now: Instant) {
        if heard.is_answered {
            if let Some(place) = self.barrier.answered() {
                delivery.modes.answered(self.endpoint);
                self.confirmed(place, delivery);
            }
        }
        if heard.is_http && self.barrier.outstanding().is_some() {
            self.is_silent = true;
        }
        if heard.is_complaint {
            delivery.slow_down(now);
        }
        let counted = heard.rejections.min(self.credit);
        if counted > 0 {
            self.credit -= counted;
            self.progressed(now);
        }
    }

    /// The server works on what lies behind us.
    fn progressed(&mut self, now: Instant) {
        if let Stage::HalfClosed { since, .. } = &mut self.stage {
            *since = now;
        }
        self.barrier.touch(now);
    }

    fn confirmed(&mut self, place: Place, delivery: &mut Delivery) {
        // First, so that a flush that returns sees it.
        delivery.counters.set_confirmation(delivery.modes.of(self.endpoint).in_force());
        delivery.confirm(place);
        self.has_confirmed = true;
        if !delivery.window.has_unconfirmed_writes() {
            self.burst = None;
        }
    }

    /// The server has closed its side after us, when it confirmed in this mode.
    fn settle(&mut self, mode: Mode, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        match self.connection.is_settled() {
            Ok(false) => Ok(Next::Wait(Some(now + SETTLE_POLL))),
            Ok(true) => {
                if self.is_silent && self.barrier.outstanding().is_some() {
                    delivery.modes.stayed_silent(self.endpoint);
                }
                let is_decided = delivery.modes.of(self.endpoint) == Mode::HalfClose;
                if mode != Mode::Lapsed || is_decided {
                    delivery.bound.confirmed();
                    self.confirmed(delivery.window.written(), delivery);
                }
                if delivery.window.has_unconfirmed_writes() {
                    return Err(End::Failed(Failure::Silent));
                }
                Err(End::Quiet)
            }
            Err(error) => Err(End::Failed(Failure::End(error))),
        }
    }

    fn advance(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        let is_between = self.barrier.to_write().is_empty() && delivery.window.is_between_lines();
        if is_between {
            let scene = self.scene(delivery, now);
            match scene.plan() {
                Plan::HalfClose => return self.half_close(delivery, now),
                Plan::Ask => self.barrier.begin(delivery.window.written()),
                Plan::Send => {
                    if let Err(next) = self.grant(scene.work, delivery, now) {
                        return Ok(next);
                    }
                }
                Plan::Leave => return Err(End::Quiet),
                Plan::Wait(until) => return Ok(Next::Wait(until)),
            }
        }
        self.write(delivery, now)
    }

    fn scene(&self, delivery: &Delivery, now: Instant) -> Scene {
        let window = &delivery.window;
        let mode = delivery.modes.of(self.endpoint);
        Scene {
            now,
            mode,
            work: delivery.work(),
            is_full: window.ungranted() == 0 && !window.has_room(),
            is_empty: window.is_empty(),
            has_unconfirmed: window.has_unconfirmed_writes(),
            is_askable: self.barrier.is_askable(),
            is_ask_due: self.barrier.is_due(window.written(), now),
            is_silent: self.is_silent,
            burst: self.burst,
            is_at_bound: delivery.left_of_burst(mode) == 0,
            half_closed: delivery.half_closed,
            leave_at: self.leave_at,
        }
    }

    /// Takes as many of the next lines as may go now. If none may: when to ask again.
    fn grant(&self, work: Work, delivery: &mut Delivery, now: Instant) -> Result<(), Next> {
        if delivery.window.ungranted() == 0 && !delivery.take_batch() {
            return Err(Next::Wait(None));
        }
        let mode = delivery.modes.of(self.endpoint);
        match delivery.limiter.allow(work.demand, now) {
            Ok(points) => {
                let granted = delivery.window.grant(points, delivery.left_of_burst(mode));
                delivery.limiter.spend(granted);
                if granted > 0 { Ok(()) } else { Err(Next::Wait(None)) }
            }
            Err(later) => {
                let due = self.barrier.due().filter(|_| mode.asks());
                Err(Next::Wait(earliest(Some(later), due)))
            }
        }
    }

    fn half_close(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        if let Err(error) = self.connection.half_close() {
            return Err(self.lost(Failure::Write(error), delivery, now));
        }
        let mode = delivery.modes.of(self.endpoint);
        self.stage = Stage::HalfClosed { since: now, mode };
        delivery.half_closed = Some(now);
        Ok(Next::Again)
    }

    fn write(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        let question = self.barrier.to_write();
        let is_question = !question.is_empty();
        let bytes = if is_question { question } else { delivery.window.to_write() };
        let taken = match self.connection.write(bytes) {
            Ok(taken) => taken,
            Err(error) => return Err(self.lost(Failure::Write(error), delivery, now)),
        };
        if taken == 0 {
            self.stalled.get_or_insert(now);
            self.is_held_up |= !is_question;
            return Ok(Next::Wait(None));
        }
        delivery.counters.bytes_sent.add(taken as u64);
        if self.stalled.take().is_some() {
            // The kernel had no room, and has some again: the server reads.
            self.progressed(now);
        }
        if is_question {
            self.barrier.took(taken, now);
        } else {
            self.wrote_lines(taken, delivery, now);
        }
        Ok(Next::Again)
    }

    fn wrote_lines(&mut self, bytes: usize, delivery: &mut Delivery, now: Instant) {
        let points = delivery.wrote(bytes);
        self.credit += points;
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
        if points > 0 {
            self.barrier.wrote(now);
        }
        if delivery.window.is_between_lines() {
            if std::mem::take(&mut self.is_held_up) {
                delivery.limiter.held_up(now);
            }
            if delivery.modes.of(self.endpoint) == Mode::Written {
                self.confirmed(delivery.window.written(), delivery);
            }
        }
    }

    /// Ends what makes no progress; answers when to look again.
    fn check_deadline(
        &mut self,
        delivery: &mut Delivery,
        now: Instant,
    ) -> Result<Option<Instant>, End> {
        let timeout = delivery.write_timeout;
        if let Stage::HalfClosed { since, .. } = self.stage {
            if now >= since + timeout {
                delivery.modes.hung(self.endpoint);
                return Err(End::Failed(Failure::NotClosed(timeout)));
            }
            return Ok(Some(since + timeout));
        }
        let stalled = self.stalled.map(|since| since + timeout);
        if stalled.is_some_and(|due| now >= due) {
            return Err(End::Failed(Failure::Stalled(timeout)));
        }
        let answer = match (delivery.modes.of(self.endpoint), self.barrier.outstanding()) {
            (Mode::Undecided | Mode::Lapsed, Some(asked)) if !self.is_silent => {
                let due = asked + ANSWER_TIME;
                if now >= due {
                    self.is_silent = true;
                    // At once, to decide again.
                    return Ok(Some(now));
                }
                Some(due)
            }
            (Mode::Version, Some(asked)) => {
                let due = asked + timeout;
                if now >= due {
                    delivery.modes.unanswered(self.endpoint);
                    return Err(End::Failed(Failure::Unanswered(timeout)));
                }
                Some(due)
            }
            _ => None,
        };
        Ok(earliest(stalled, answer))
    }

    /// The connection is gone: what that means depends on what it held.
    fn lost(&self, failure: Failure, delivery: &mut Delivery, now: Instant) -> End {
        let is_asked = self.barrier.outstanding().is_some() || !self.barrier.to_write().is_empty();
        if is_asked && self.stage == Stage::Open {
            delivery.modes.lost(self.endpoint, now);
        }
        let holds_something = delivery.window.has_unconfirmed_writes();
        let has_failed = holds_something || !self.is_proved(delivery, now);
        if has_failed { End::Failed(failure) } else { End::Quiet }
    }
}

/// The earlier of two times that there may be.
pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
