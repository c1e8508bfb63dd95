//! One connection, from the first line to its end.
//!
//! Each turn reads what the server says, then writes once at most, so that neither a flood of
//! replies nor a long backlog starves the other. What is written is the rest of what was begun, or
//! else what the [`agenda`](super::agenda) has next.
//!
//! The connection makes progress when the kernel takes bytes, when an answer comes, and when the
//! server refuses a point, which shows that it reads. Progress prolongs a wait for an answer or for
//! the end, but not for ever: see [`Patience`].
//!
//! Every session that is not cut short ends with our half-close, and reads on to the server's: late
//! refusals are counted, and no reply meets a closed socket.

use std::fmt::Display;
use std::time::Duration;

use super::agenda::{Plan, View};
use super::confirm::{ANSWER_TIME, Barrier, PROMPT, Patience, Profile, QUESTION, asks};
use super::replies::ReplyTally;
use crate::clock::Instant;
use crate::send::connection::{Connection, Drained, Released};
use crate::send::delivery::{Delivery, Work};
use crate::send::failure::Failure;
use crate::send::turn::{End, Next, earliest};
use crate::send::window::Place;
use crate::stats::Confirmation;
use crate::wire::reply::Parser;

/// How old a connection has to be for what the kernel took from it to speak for the server.
const CREDIBLE: Duration = Duration::from_secs(1);
/// How often it is looked whether the server's machine has acknowledged everything, should the
/// event queue not tell.
const SETTLE_POLL: Duration = Duration::from_millis(5);
/// How long after the end of the stream a reset is waited for where the system cannot tell that
/// everything was acknowledged. gVisor says so after a minute, Windows never.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How long the server's close is awaited when everything is confirmed.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    connection: Connection,
    /// Its index.
    pub(crate) endpoint: usize,
    /// When it is too old, so that a preferred endpoint can be tried.
    leave_at: Option<Instant>,
    parser: Parser,
    barrier: Barrier,
    /// Set once we have closed our side.
    half_close: Option<HalfClose>,
    connected: Instant,
    /// Whether the server has confirmed anything on this connection.
    has_confirmed: bool,
    /// Since when the kernel has taken no byte though there were some.
    stalled: Option<Instant>,
    /// Whether lines were among them; the limiter is told when they are written.
    is_held_up: bool,
    /// When the first line of the present burst was written, and when the last one was.
    burst: Option<(Instant, Instant)>,
}

/// We have closed our side.
#[derive(Clone, Copy, Debug)]
struct HalfClose {
    patience: Patience,
    /// When the server closed its side.
    ended: Option<Instant>,
}

/// What a turn of a session works on.
pub(crate) struct Context<'a> {
    pub(crate) delivery: &'a mut Delivery,
    /// Of the session's endpoint.
    pub(crate) profile: &'a mut Profile,
    /// The endpoint, for the log.
    pub(crate) name: &'a dyn Display,
    /// For reading.
    pub(crate) buffer: &'a mut [u8],
    pub(crate) now: Instant,
}

impl Session {
    pub(crate) fn new(
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
            half_close: None,
            connected: now,
            has_confirmed: false,
            stalled: None,
            is_held_up: false,
            burst: None,
        }
    }

    /// Reads, then goes on as far as it can without waiting.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Result<Next, End> {
        let drained = self.read(cx)?;
        let next = match (self.half_close, drained) {
            (Some(half_close), Drained::Ended) => self.settle(half_close, cx)?,
            (Some(_), _) => Next::Wait(None),
            (None, Drained::Ended) => {
                return Err(self.lost(Failure::Closed, cx));
            }
            (None, _) => match self.advance(cx) {
                Ok(next) => next,
                Err(end) => {
                    // An answer may have come since the reading. Lost with the connection, what it
                    // confirms would be sent again, for ever where no connection lasts.
                    let _ = self.read(cx);
                    return Err(end);
                }
            },
        };
        let deadline = self.check_deadline(cx)?;
        Ok(if drained == Drained::More { Next::Again } else { next.or(Next::Wait(deadline)) })
    }

    /// Gives the connection up, with what is missing of a line that was begun: a server may store
    /// half a line as a point of its own.
    pub(crate) fn release(self, delivery: &Delivery, now: Instant) -> Released {
        let question = self.barrier.to_write();
        let is_begun = (1..QUESTION.len()).contains(&question.len());
        let rest = if is_begun { question } else { delivery.window.rest_of_line() };
        Released::new(self.connection, rest, now)
    }

    /// Whether the server has shown that it takes points.
    pub(crate) fn is_proved(&self, profile: &Profile, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.connected) >= CREDIBLE;
        self.has_confirmed && (is_old || profile.mode() != Confirmation::Written)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<Drained, End> {
        let mut tally = ReplyTally::default();
        let is_asked = self.barrier.patience().is_some();
        let (parser, counters, log) =
            (&mut self.parser, &cx.delivery.counters, &mut cx.delivery.log);
        let mut take = |reply, text: &str| tally.take(reply, text, counters, log, cx.now);
        let drained = self.connection.drain(cx.buffer, |bytes| {
            parser.feed(bytes, is_asked, &mut take);
        });
        if !matches!(drained, Ok(Drained::Empty | Drained::More)) {
            parser.end(take);
        }
        self.hear(&tally, cx);
        tally.log(cx.name);
        drained.map_err(|error| {
            let failure =
                if self.half_close.is_some() { Failure::End(error) } else { Failure::Read(error) };
            self.lost(failure, cx)
        })
    }

    fn hear(&mut self, tally: &ReplyTally, cx: &mut Context<'_>) {
        if tally.is_answered {
            if let Some(place) = self.barrier.answered() {
                cx.profile.answered(cx.now);
                self.confirmed(place, cx);
            }
        }
        if tally.is_complaint {
            cx.delivery.slow_down(cx.now);
        }
        if tally.rejections > 0 {
            self.progressed(cx.now);
        }
    }

    /// The server works on what lies behind us.
    fn progressed(&mut self, now: Instant) {
        if let Some(half_close) = &mut self.half_close {
            half_close.patience.renew(now);
        }
        self.barrier.progressed(now);
    }

    fn confirmed(&mut self, place: Place, cx: &mut Context<'_>) {
        // First, so that a flush that returns sees it.
        cx.delivery.counters.set_confirmation(cx.profile.mode());
        cx.profile.confirmed();
        cx.delivery.confirm(place);
        self.has_confirmed = true;
        if !cx.delivery.window.has_unconfirmed_writes() {
            self.burst = None;
        }
    }

    /// Both sides have closed, the server after us: whether that confirms what was written.
    fn settle(&mut self, half_close: HalfClose, cx: &mut Context<'_>) -> Result<Next, End> {
        if !cx.delivery.window.has_unconfirmed_writes() {
            return Err(End::Finished);
        }
        let ended = half_close.ended.unwrap_or(cx.now);
        self.half_close = Some(HalfClose { ended: Some(ended), ..half_close });
        match self.connection.is_settled() {
            Err(error) => return Err(End::Failed(self.or_alien(Failure::End(error)))),
            Ok(false) if cx.now < ended + SETTLE_TIME => {
                return Ok(Next::Wait(Some(cx.now + SETTLE_POLL)));
            }
            Ok(_) => {}
        }
        let is_prompt = ended <= half_close.patience.began() + PROMPT;
        let is_undecided = cx.profile.mode() == Confirmation::Auto;
        if self.parser.alien().is_some() || (is_undecided && !is_prompt) {
            return Err(End::Failed(self.or_alien(Failure::Silent)));
        }
        if is_undecided {
            cx.profile.was_silent(cx.now);
        }
        self.confirmed(cx.delivery.window.written(), cx);
        Err(End::Finished)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Result<Next, End> {
        let is_at_boundary =
            self.barrier.to_write().is_empty() && cx.delivery.window.at_line_boundary();
        if is_at_boundary {
            let view = self.view(cx);
            match view.plan() {
                Plan::HalfClose => return self.half_close(cx),
                Plan::Ask => self.barrier.begin(cx.delivery.window.written()),
                Plan::Send => {
                    if let Err(next) = self.grant(view.work, cx) {
                        return Ok(next);
                    }
                }
                Plan::Wait(until) => return Ok(Next::Wait(until)),
            }
        }
        self.write(cx)
    }

    fn view(&self, cx: &Context<'_>) -> View {
        let window = &cx.delivery.window;
        View {
            now: cx.now,
            mode: cx.profile.mode(),
            work: cx.delivery.work(),
            is_full: window.ungranted() == 0 && !window.has_room(),
            is_empty: window.is_empty(),
            has_unconfirmed: window.has_unconfirmed_writes(),
            is_askable: self.barrier.is_askable(),
            is_ask_due: self.barrier.is_due(cx.profile, window.written(), cx.now),
            is_silent: self.answer_due_at().is_some_and(|due| cx.now >= due),
            burst: self.burst,
            is_at_bound: window.unconfirmed_bytes() >= cx.profile.burst_bytes(),
            half_closed: cx.profile.half_closed,
            leave_at: self.leave_at,
        }
    }

    /// When a server that was never heard to answer counts as silent.
    fn answer_due_at(&self) -> Option<Instant> {
        self.barrier.patience().map(|patience| patience.ends_at(ANSWER_TIME))
    }

    /// Takes as many of the next lines as may be written cx.now. If none may: when to ask again.
    fn grant(&self, work: Work, cx: &mut Context<'_>) -> Result<(), Next> {
        if cx.delivery.window.ungranted() == 0 && !cx.delivery.take_batch() {
            return Err(Next::Wait(None));
        }
        match cx.delivery.limiter.allow(work.demand, cx.now) {
            Ok(points) => {
                let left =
                    cx.profile.burst_bytes().saturating_sub(cx.delivery.window.unconfirmed_bytes());
                let granted = cx.delivery.window.grant(points, left);
                cx.delivery.limiter.spend(granted);
                if granted > 0 { Ok(()) } else { Err(Next::Wait(None)) }
            }
            Err(later) => {
                let due = self.barrier.due_at().filter(|_| asks(cx.profile.mode()));
                Err(Next::Wait(earliest(Some(later), due)))
            }
        }
    }

    fn half_close(&mut self, cx: &mut Context<'_>) -> Result<Next, End> {
        if cx.delivery.window.has_unconfirmed_writes() && self.parser.alien().is_some() {
            // Its end would prove nothing.
            return Err(End::Failed(self.or_alien(Failure::Silent)));
        }
        if let Err(error) = self.connection.half_close() {
            return Err(self.lost(Failure::Write(error), cx));
        }
        self.half_close = Some(HalfClose { patience: Patience::new(cx.now), ended: None });
        cx.profile.half_closed = Some(cx.now);
        Ok(Next::Again)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<Next, End> {
        let question = self.barrier.to_write();
        let is_question = !question.is_empty();
        let bytes = if is_question { question } else { cx.delivery.window.to_write() };
        let taken = match self.connection.write(bytes) {
            Ok(taken) => taken,
            Err(error) => return Err(self.lost(Failure::Write(error), cx)),
        };
        if taken == 0 {
            self.stalled.get_or_insert(cx.now);
            self.is_held_up |= !is_question;
            return Ok(Next::Wait(None));
        }
        cx.delivery.counters.bytes_sent.add(taken as u64);
        if self.stalled.take().is_some() {
            // The kernel had no room, and has some again: the server reads.
            self.progressed(cx.now);
        }
        if is_question {
            self.barrier.took(taken, cx.now);
        } else {
            self.wrote_lines(taken, cx);
        }
        Ok(Next::Again)
    }

    fn wrote_lines(&mut self, bytes: usize, cx: &mut Context<'_>) {
        let points = cx.delivery.wrote(bytes);
        self.burst = Some((self.burst.map_or(cx.now, |(first, _)| first), cx.now));
        if points > 0 {
            self.barrier.wrote(cx.now);
        }
        if cx.delivery.window.at_line_boundary() {
            if std::mem::take(&mut self.is_held_up) {
                cx.delivery.limiter.held_up(cx.now);
            }
            if cx.profile.mode() == Confirmation::Written {
                self.confirmed(cx.delivery.window.written(), cx);
            }
        }
    }

    /// Ends what makes no progress; answers when to look again.
    fn check_deadline(&self, cx: &Context<'_>) -> Result<Option<Instant>, End> {
        let timeout = cx.delivery.write_timeout;
        let (due, end) = if let Some(half_close) = self.half_close {
            if half_close.ended.is_some() {
                (None, End::Finished)
            } else if cx.delivery.window.has_unconfirmed_writes() {
                let due = half_close.patience.ends_at(timeout);
                (Some(due), End::Failed(Failure::NotClosed(timeout)))
            } else {
                (Some(half_close.patience.began() + LAST_WORDS), End::Finished)
            }
        } else if let Some(since) = self.stalled {
            (Some(since + timeout), End::Failed(Failure::Stalled(timeout)))
        } else if cx.profile.mode() == Confirmation::Version {
            let due = self.barrier.patience().map(|patience| patience.ends_at(timeout));
            (due, End::Failed(Failure::Unanswered(timeout)))
        } else {
            (None, End::Finished)
        };
        if due.is_some_and(|due| cx.now >= due) {
            return Err(match end {
                End::Failed(failure) => End::Failed(self.or_alien(failure)),
                end => end,
            });
        }
        let silent_at = self.answer_due_at().filter(|_| cx.profile.mode() == Confirmation::Auto);
        Ok(earliest(due, silent_at.filter(|at| *at > cx.now)))
    }

    /// The connection is gone: what that means depends on what it held.
    fn lost(&self, failure: Failure, cx: &Context<'_>) -> End {
        if cx.delivery.window.has_unconfirmed_writes() || !self.is_proved(cx.profile, cx.now) {
            End::Failed(self.or_alien(failure))
        } else {
            End::Closed
        }
    }

    /// That the peer is no TSD, if it has shown that; else the failure itself.
    fn or_alien(&self, failure: Failure) -> Failure {
        match self.parser.alien() {
            Some(alien) => Failure::Alien(alien.clone()),
            None => failure,
        }
    }
}
