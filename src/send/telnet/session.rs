//! One connection, from the first line to its end.
//!
//! Each turn reads what the server says, then writes once at most, so that neither a flood of
//! replies nor a long backlog starves the other. What is written is the rest of what was begun, or
//! else what the [`Agenda`] has next.
//!
//! The connection makes progress when the kernel takes bytes, when an answer comes, and when the
//! server refuses a point, which shows that it reads. Progress prolongs a wait for an answer or for
//! the end, or for the kernel to take a batch, up to a bound ([`Deadline`]): a server that reads a
//! few bytes within each timeout is left, and one that takes a batch within all of them is not.
//!
//! Every session that is not cut short ends with our half-close, and reads on to the server's: late
//! refusals are counted, and no reply meets a closed socket.

use std::io;
use std::time::Duration;

use super::confirm::{Agenda, Barrier, Next, PROMPT, Profile};
use crate::clock::Instant;
use crate::send::connection::{Connection, Received, Released};
use crate::send::deadline::Deadline;
use crate::send::peer::{Outcome, Turn};
use crate::send::replies::ReplyTally;
use crate::send::status::{End, Failure};
use crate::send::window::{Place, Window};
use crate::stats::Confirmation;
use crate::wire::reply::Parser;

/// How old a connection has to be for what the kernel took from it to speak for the server.
const CREDIBLE: Duration = Duration::from_secs(1);
/// How often to ask the system whether the server's machine has acknowledged everything, should no
/// event tell.
const SETTLE_POLL: Duration = Duration::from_millis(5);
/// How long after the end of the stream a reset is waited for where the system has never told that
/// everything was acknowledged. gVisor says so after a minute, Windows never.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How long the server's close is awaited when everything is confirmed.
const FINAL_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    connection: Connection,
    parser: Parser,
    barrier: Barrier,
    stage: Stage,
    connected: Instant,
    /// Whether the server has confirmed anything on this connection.
    has_confirmed: bool,
    /// Whether the kernel has no room for what is to be written.
    is_stalled: bool,
    /// The wait for the kernel to take that: lines of a batch, or a question.
    writing: Deadline,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Open,
    /// We have closed our side.
    HalfClosed,
    /// And the server has closed its side since then.
    Ended(Instant),
}

type Context<'a> = Turn<'a, Profile>;

impl Session {
    pub(crate) fn new(connection: Connection, now: Instant) -> Self {
        Session {
            connection,
            parser: Parser::default(),
            barrier: Barrier::new(now),
            stage: Stage::Open,
            connected: now,
            has_confirmed: false,
            is_stalled: false,
            writing: Deadline::new(now),
        }
    }

    /// Reads, then goes on as far as it can without waiting; returns when to go on should nothing
    /// happen until then.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Outcome {
        let received = self.read(cx)?;
        let next = match (self.stage, received) {
            (Stage::Open, Received::Ended) => return Err(self.lost(Failure::Closed, cx)),
            // An answer may have come since the reading. Lost with the connection, what it confirms
            // would be sent again, and again where no connection lasts.
            (Stage::Open, _) => self.advance(cx).inspect_err(|_| drop(self.read(cx)))?,
            (Stage::HalfClosed, Received::Ended) => self.settle(cx.now, cx)?,
            (Stage::HalfClosed, _) => None,
            (Stage::Ended(at), _) => self.settle(at, cx)?,
        };
        let deadline = self.check_deadline(cx)?;
        let more = (received == Received::More).then_some(cx.now);
        Ok([next, deadline, more].into_iter().flatten().min())
    }

    /// Gives the connection up, with what is missing of a line that was begun: a server may store
    /// half a line as a point of its own.
    pub(crate) fn release(self, window: &Window, now: Instant) -> Released {
        let rest = [self.barrier.to_write(), window.rest_of_line()].concat();
        Released::new(self.connection, rest, now)
    }

    /// Whether the server has shown that it takes points.
    pub(crate) fn is_proved(&self, profile: &Profile, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.connected) >= CREDIBLE;
        self.has_confirmed && (is_old || profile.mode() != Confirmation::Written)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<Received, End> {
        let mut tally = ReplyTally::default();
        let is_asked = self.barrier.is_asked();
        let (parser, counters, log) =
            (&mut self.parser, &cx.delivery.counters, &mut cx.delivery.status.log);
        let mut take = |reply, text: &str| tally.take(reply, text, counters, log, cx.now);
        let received = self.connection.read(|bytes| parser.feed(bytes, is_asked, &mut take));
        if !matches!(received, Ok(Received::Empty | Received::More)) {
            parser.end(take);
        }
        if let Some(place) = tally.is_answered.then(|| self.barrier.answered()).flatten() {
            cx.known.learn(Confirmation::Version, cx.now);
            self.confirmed(place, cx);
        }
        if tally.is_complaint {
            let window = &cx.delivery.window;
            cx.known.brake.complained(window.confirmed(), window.written(), cx.now);
        }
        if tally.rejections > 0 {
            self.barrier.wait.prolong(cx.now);
        }
        tally.log(cx.name);
        received.map_err(|error| self.broken("reading", error, cx))
    }

    fn confirmed(&mut self, place: Place, cx: &mut Context<'_>) {
        // First, so that a flush that returns sees it.
        cx.delivery.counters.set_confirmation(cx.known.mode());
        cx.known.confirmed(cx.delivery.confirm(place));
        self.has_confirmed = true;
    }

    /// Both sides have closed, the server after us and at this time: whether that confirms what was
    /// written.
    fn settle(&mut self, ended: Instant, cx: &mut Context<'_>) -> Outcome {
        if !cx.delivery.window.has_unconfirmed_writes() {
            return Err(End::Finished);
        }
        self.stage = Stage::Ended(ended);
        match self.connection.is_settled() {
            Err(error) => return Err(self.broken("its end was awaited", error, cx)),
            Ok(true) => cx.known.settles = true,
            Ok(false) => {
                let settles = cx.known.settles;
                let time = if settles { cx.delivery.write_timeout } else { SETTLE_TIME };
                if cx.now < ended + time {
                    return Ok(Some(cx.now + SETTLE_POLL));
                }
                if settles {
                    let omission = "has closed its side and not acknowledged what was written";
                    return Err(self.failed(Failure::Unresponsive { omission, time }));
                }
            }
        }
        let is_prompt = ended <= self.barrier.wait.began + PROMPT;
        let is_undecided = cx.known.mode() == Confirmation::Auto;
        if self.parser.alien().is_some() || (is_undecided && !is_prompt) {
            return Err(self.failed(Failure::Silent));
        }
        if is_undecided {
            cx.known.learn(Confirmation::HalfClose, cx.now);
        }
        self.confirmed(cx.delivery.window.written(), cx);
        Err(End::Finished)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.barrier.to_write().is_empty() && cx.delivery.window.at_line_boundary() {
            self.writing = Deadline::new(cx.now);
            let demand = cx.delivery.demand();
            let agenda = Agenda {
                now: cx.now,
                demand,
                window: &cx.delivery.window,
                profile: cx.known,
                barrier: &self.barrier,
                leave_at: cx.delivery.leave_at,
            };
            match agenda.next() {
                Next::HalfClose => return self.half_close(cx),
                Next::Ask => self.barrier.ask(cx.delivery.window.written()),
                Next::Send => {
                    let left = cx.known.max_unconfirmed() - cx.delivery.window.granted();
                    match cx.delivery.limiter.allow(demand, cx.known.brake, cx.now) {
                        Ok(points) => cx.delivery.grant(points.min(left)),
                        Err(later) => return Ok(Some(later)),
                    }
                }
                Next::Wait(until) => return Ok(until),
            }
        }
        self.write(cx)
    }

    fn half_close(&mut self, cx: &mut Context<'_>) -> Outcome {
        if cx.delivery.window.has_unconfirmed_writes() && self.parser.alien().is_some() {
            // Its end would prove nothing.
            return Err(self.failed(Failure::Silent));
        }
        self.connection.half_close().map_err(|error| self.broken("writing", error, cx))?;
        self.stage = Stage::HalfClosed;
        self.barrier.wait = Deadline::new(cx.now);
        cx.known.half_closed = Some(cx.now);
        Ok(Some(cx.now))
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Outcome {
        let question = self.barrier.to_write();
        let bytes = if question.is_empty() { cx.delivery.window.to_write() } else { question };
        if bytes.is_empty() {
            // What there was to send is dropped.
            return Ok(None);
        }
        let taken =
            self.connection.write(bytes).map_err(|error| self.broken("writing", error, cx))?;
        let was_stalled = std::mem::replace(&mut self.is_stalled, taken == 0);
        if self.is_stalled {
            return Ok(None);
        }
        cx.delivery.counters.bytes_sent.add(taken as u64);
        self.writing.prolong(cx.now);
        if was_stalled {
            // The kernel had no room, and has some again: the server reads.
            self.barrier.wait.prolong(cx.now);
        }
        if question.is_empty() {
            let points = cx.delivery.wrote(taken);
            cx.delivery.limiter.spend(points, cx.now);
            self.barrier.wrote(points, cx.now);
            let window = &cx.delivery.window;
            if window.at_line_boundary() && cx.known.mode() == Confirmation::Written {
                self.confirmed(window.written(), cx);
            }
        } else {
            self.barrier.took(taken, cx.now);
        }
        Ok(Some(cx.now))
    }

    /// Ends what makes no progress; returns when to look again.
    fn check_deadline(&self, cx: &Context<'_>) -> Outcome {
        let time = cx.delivery.write_timeout;
        let is_awaited = self.barrier.is_asked() && cx.known.mode() == Confirmation::Version;
        let (deadline, omission) = match self.stage {
            Stage::HalfClosed if !cx.delivery.window.has_unconfirmed_writes() => {
                let due = self.barrier.wait.began + FINAL_CLOSE_TIMEOUT;
                return if cx.now < due { Ok(Some(due)) } else { Err(End::Finished) };
            }
            Stage::HalfClosed => (self.barrier.wait, "has not closed its side after ours"),
            Stage::Open if self.is_stalled => (self.writing, "took too little"),
            Stage::Open if is_awaited => (self.barrier.wait, "has not answered `version`"),
            Stage::Open | Stage::Ended(_) => return Ok(None),
        };
        if cx.now < deadline.at(time) {
            return Ok(Some(deadline.at(time)));
        }
        Err(self.failed(Failure::Unresponsive { omission, time }))
    }

    fn broken(&self, during: &'static str, source: io::Error, cx: &Context<'_>) -> End {
        self.lost(Failure::Lost { during, source }, cx)
    }

    /// The connection is gone: what that means depends on what it held.
    fn lost(&self, failure: Failure, cx: &Context<'_>) -> End {
        if cx.delivery.window.has_unconfirmed_writes() || !self.is_proved(cx.known, cx.now) {
            self.failed(failure)
        } else {
            End::Closed(failure)
        }
    }

    /// Says that the peer is no TSD, if it has shown that, or else the failure itself.
    fn failed(&self, failure: Failure) -> End {
        End::Failed(self.parser.alien().map_or(failure, |alien| Failure::Alien(alien.clone())))
    }
}
