//! One connection, from the first line to its end.
//!
//! Each turn reads what the server says, then writes once at most, so that neither a flood of replies nor a long backlog starves the
//! other. Between two lines it is decided what comes next:
//!
//! 1. a question, `version`: when a burst is sent, or 16 to 256 KiB or a second after the last one (see [`confirm`](super::confirm));
//! 2. a half-close, where that is how the server confirms: when a burst is sent, when the window is full, when the burst lasts, and
//!    always at the end of the shutdown when something is unconfirmed;
//! 3. the next lines, as many as the limiter allows;
//! 4. nothing.
//!
//! The connection makes progress when the kernel takes bytes, when an answer comes, and when the server refuses a point, which
//! shows that it reads. The last counts only once for each line that was written, or chatter would pass for life.

use std::time::{Duration, Instant};

use super::confirm::{ANSWER_TIME, Barrier, Mode};
use super::connection::{Connection, Drained};
use super::delivery::{Delivery, Work};
use super::failure::Failure;
use super::notices::Heard;
use super::window::Place;
use crate::wire::reply::Parser;

/// How long a burst may last until a half-close asks whether it arrived; a second when somebody waits for that.
const BURST: Duration = Duration::from_secs(10);
const HURRIED_BURST: Duration = Duration::from_secs(1);
/// How long nothing has come for a burst to be over, unless somebody waits: a snapshot comes in several batches.
const LINGER: Duration = Duration::from_millis(20);
/// How long after a half-close the next one comes, unless somebody waits: single points get no connection each.
const REST: Duration = Duration::from_secs(1);
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
    /// When a line was last written.
    last_line: Option<Instant>,
    /// When the first line of the present burst was written.
    burst: Option<Instant>,
    /// Lines that were written, less the refusals that were counted as progress.
    credit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// We have closed our side; the last sign of life since.
    HalfClosed {
        since: Instant,
    },
}

/// What comes next between two lines.
enum Move {
    Ask,
    HalfClose,
    Write,
    Leave,
    Wait(Option<Instant>),
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
            last_line: None,
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
            (Stage::HalfClosed { .. }, Drained::Ended) => self.settle(delivery, now)?,
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

    /// Leaves in the middle of it, but not of a line: a server may store half a line as a point of its own.
    pub(super) fn abandon(mut self, delivery: &mut Delivery, buffer: &mut [u8]) {
        let question = self.barrier.to_write();
        let rest = delivery.window.rest_of_line();
        self.connection.make_room();
        if !question.is_empty() {
            let _ = self.connection.write(question);
        } else if !rest.is_empty() {
            if let Ok(bytes) = self.connection.write(rest) {
                let written = delivery.window.wrote(bytes);
                delivery.counters.points_sent.add(written.points);
                delivery.counters.points_resent.add(written.resent);
                delivery.counters.bytes_sent.add(bytes as u64);
            }
        }
        // Unread bytes would make the kernel reset the connection, and what is under way would be lost.
        let _ = self.connection.drain(buffer, |_| {});
        let _ = self.connection.half_close();
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
        if let Stage::HalfClosed { since } = &mut self.stage {
            *since = now;
        }
        self.barrier.touch(now);
    }

    fn confirmed(&mut self, place: Place, delivery: &mut Delivery) {
        delivery.confirm(place);
        self.has_confirmed = true;
        if !delivery.window.has_unconfirmed_writes() {
            self.burst = None;
        }
    }

    /// The server has closed its side after us.
    fn settle(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        match self.connection.is_settled() {
            Ok(false) => Ok(Next::Wait(Some(now + SETTLE_POLL))),
            Ok(true) => {
                if self.is_silent && self.barrier.outstanding().is_some() {
                    delivery.modes.stayed_silent(self.endpoint);
                }
                self.confirmed(delivery.window.written(), delivery);
                Err(End::Quiet)
            }
            Err(error) => Err(End::Failed(Failure::End(error))),
        }
    }

    fn advance(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        let is_between = self.barrier.to_write().is_empty() && delivery.window.is_between_lines();
        if is_between {
            match self.decide(delivery, now) {
                Move::Ask => self.barrier.begin(delivery.window.written()),
                Move::HalfClose => return self.half_close(delivery, now),
                Move::Write => {}
                Move::Leave => return Err(End::Quiet),
                Move::Wait(until) => return Ok(Next::Wait(until)),
            }
        }
        self.write(delivery, now)
    }

    /// What comes next between two lines. After [`Move::Write`] there are lines to write.
    fn decide(&mut self, delivery: &mut Delivery, now: Instant) -> Move {
        let work = delivery.work();
        let mode = delivery.modes.of(self.endpoint);
        let is_full = delivery.window.ungranted() == 0 && !delivery.window.has_room();
        let is_over = is_full || (work.is_sent() && self.quiet_at(work).is_none_or(|at| now >= at));
        if self.wants_half_close(mode, is_over, work, delivery, now) {
            return Move::HalfClose;
        }
        if mode.asks()
            && self.barrier.is_askable()
            && (is_over || self.barrier.is_due(delivery.window.written(), now))
        {
            return Move::Ask;
        }
        if work.is_sent() {
            delivery.limiter.drained();
            return self.idle(mode, work, delivery, now);
        }
        if delivery.window.ungranted() == 0 && !delivery.take_batch() {
            return Move::Wait(None);
        }
        match delivery.limiter.allow(work.demand, now) {
            Ok(points) => {
                let granted = delivery.window.grant(points);
                delivery.limiter.spend(granted, now);
                if granted > 0 { Move::Write } else { Move::Wait(None) }
            }
            Err(later) => {
                let due = if mode.asks() { self.barrier.due() } else { None };
                Move::Wait(earliest(Some(later), due))
            }
        }
    }

    fn wants_half_close(
        &self,
        mode: Mode,
        is_over: bool,
        work: Work,
        delivery: &Delivery,
        now: Instant,
    ) -> bool {
        let has_unconfirmed = delivery.window.has_unconfirmed_writes();
        match mode {
            Mode::HalfClose => {
                let allowed = if work.demand.is_hurried { HURRIED_BURST } else { BURST };
                let is_long = self.burst.is_some_and(|since| now >= since + allowed);
                let is_rested = self.rested_at(work, delivery).is_none_or(|at| now >= at);
                has_unconfirmed && (is_long || (is_over && (is_rested || !work.is_sent())))
            }
            Mode::Undecided { .. } => {
                has_unconfirmed && (self.is_silent || (work.is_closing && work.is_sent()))
            }
            Mode::Version => false,
            Mode::Written => work.is_sent() && self.is_leaving(work, now),
        }
    }

    /// Everything is written.
    fn idle(&self, mode: Mode, work: Work, delivery: &Delivery, now: Instant) -> Move {
        if delivery.window.is_empty() {
            // In mode `Written` a half-close comes first.
            let is_done = self.is_leaving(work, now) && mode != Mode::Written;
            return if is_done { Move::Leave } else { Move::Wait(self.leave_at) };
        }
        let rested_at = self.rested_at(work, delivery).filter(|_| mode == Mode::HalfClose);
        let waits = [self.quiet_at(work), rested_at].into_iter().flatten();
        Move::Wait(waits.filter(|at| *at > now).min())
    }

    /// Whether this connection is no longer wanted once everything is confirmed.
    fn is_leaving(&self, work: Work, now: Instant) -> bool {
        work.is_closing || self.leave_at.is_some_and(|at| now >= at)
    }

    /// When the burst counts as over if no line comes until then; `None` for at once.
    fn quiet_at(&self, work: Work) -> Option<Instant> {
        self.last_line.filter(|_| !work.demand.is_hurried).map(|at| at + LINGER)
    }

    /// When the next half-close may come; `None` for at once.
    fn rested_at(&self, work: Work, delivery: &Delivery) -> Option<Instant> {
        delivery.half_closed.filter(|_| !work.demand.is_hurried).map(|at| at + REST)
    }

    fn half_close(&mut self, delivery: &mut Delivery, now: Instant) -> Result<Next, End> {
        if let Err(error) = self.connection.half_close() {
            return Err(self.lost(Failure::Write(error), delivery, now));
        }
        self.stage = Stage::HalfClosed { since: now };
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
        let written = delivery.window.wrote(bytes);
        delivery.counters.points_sent.add(written.points);
        delivery.counters.points_resent.add(written.resent);
        self.credit += written.points;
        self.last_line = Some(now);
        self.burst.get_or_insert(now);
        if written.points > 0 {
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
        if let Stage::HalfClosed { since } = self.stage {
            return match since + timeout {
                due if now < due => Ok(Some(due)),
                _ => Err(End::Failed(Failure::NotClosed(timeout))),
            };
        }
        let stalled = self.stalled.map(|since| since + timeout);
        if stalled.is_some_and(|due| now >= due) {
            return Err(End::Failed(Failure::Stalled(timeout)));
        }
        let answer = match (delivery.modes.of(self.endpoint), self.barrier.outstanding()) {
            (Mode::Undecided { .. }, Some(asked)) if !self.is_silent => {
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
            delivery.modes.lost(self.endpoint);
        }
        let holds_nothing = !delivery.window.has_unconfirmed_writes();
        if holds_nothing && self.is_proved(delivery, now) {
            End::Quiet
        } else {
            End::Failed(failure)
        }
    }
}

/// The earlier of two times that there may be.
pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
