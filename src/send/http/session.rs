//! One connection, from its first request to its end.
//!
//! Each turn reads, judges an answer that is whole, makes the next request when none is out, and
//! writes once. Lines are gathered as the rate allows them, until they fill a body, until no more
//! have come for a moment, or until the first has waited for [`GATHER`].
//!
//! A request that is refused as a whole is made again of fewer points, or of fewer bytes: nothing
//! of it is confirmed, and the window begins at its first line again. A connection that the server
//! has closed after an answer, before the first byte of the next one, is no failure: the server had
//! done with it before it was sent more.

use std::io::{self, ErrorKind};
use std::time::Duration;

use super::body::Body;
use super::exchange::Exchange;
use super::head::{Head, Options};
use super::learned::Learned;
use super::status::{self, Verdict};
use crate::clock::Instant;
use crate::send::backoff::Wait;
use crate::send::connection::Received;
use crate::send::delivery::{Delivery, is_leaving};
use crate::send::peer::{Outcome, Turn};
use crate::send::replies::ReplyTally;
use crate::send::status::{End, Failure};
use crate::send::stream::Stream;
use crate::wire::reply::Reply;

/// How long lines are gathered while the rate holds others back: a limit holds for any second.
const GATHER: Duration = Duration::from_millis(100);
/// How long nothing has come for a burst to be over: a snapshot comes in several batches.
const QUIET: Duration = Duration::from_millis(20);

pub(super) struct Session {
    pub(super) exchange: Exchange,
    request: Option<Request>,
    /// When the first and the last of the lines were gathered that wait for their request.
    gathered: Option<(Instant, Instant)>,
    /// How many requests were answered.
    answers: usize,
    /// Whether the server has taken points on this connection.
    pub(super) has_confirmed: bool,
}

/// The request that waits for its answer.
#[derive(Clone, Copy)]
struct Request {
    points: usize,
    /// Of the body.
    bytes: usize,
    is_gzip: bool,
}

/// What is known of an endpoint, and what its requests are made by.
pub(super) struct Known {
    pub(super) learned: Learned,
    pub(super) body: Body,
    pub(super) head: Head,
    pub(super) options: Options,
}

type Context<'a> = Turn<'a, Known>;

impl Context<'_> {
    /// Whether no more lines are to be gathered for a body of so many bytes of them.
    fn is_full(&self, capacity: usize) -> bool {
        let window = &self.delivery.window;
        let has_points = window.granted() >= self.known.learned.max_points;
        window.unwritten() >= capacity || has_points || window.is_full()
    }
}

impl Session {
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        Session {
            exchange: Exchange::new(stream, now),
            request: None,
            gathered: None,
            answers: 0,
            has_confirmed: false,
        }
    }

    /// Goes on as far as it can without waiting; returns when to go on should nothing happen until
    /// then.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Outcome {
        let received = self.exchange.read(cx.now);
        let received = received.map_err(|error| self.broken("reading", error, cx))?;
        let is_unasked = self.request.is_none() && self.exchange.reader.has_begun;
        if self.request.is_some() && self.exchange.reader.answer().is_some() {
            self.answered(cx)?;
        } else if received == Received::Ended || is_unasked {
            return Err(self.lost(Failure::Closed, cx));
        }
        let next = if self.request.is_none() { self.advance(cx)? } else { None };
        let taken = self.exchange.write(cx.now);
        let taken = taken.map_err(|error| self.broken("writing", error, cx))?;
        cx.delivery.counters.bytes_sent.add(taken as u64);
        let goes_on = (taken > 0 || received == Received::More).then_some(cx.now);
        Ok([next, goes_on, self.check_deadline(cx)?].into_iter().flatten().min())
    }

    fn answered(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let of_request = self.request.take().zip(self.exchange.reader.answer());
        let Some((request, answer)) = of_request else { return Ok(()) };
        let Delivery { window, counters, status: log, .. } = &mut *cx.delivery;
        let mut tally = ReplyTally::default();
        let mut take = |reply, text: &str| tally.take(reply, text, counters, &mut log.log, cx.now);
        let Request { points, bytes, is_gzip } = request;
        let (mut is_settled, mut end) = (false, None);
        let secrets = &cx.known.head.secrets;
        match status::judge(answer, cx.known.options.ask, secrets) {
            Verdict::Taken(_) if !self.exchange.is_written() => {
                let reason = "the server answered before it was sent the whole request";
                end = Some(Failure::Refused(reason.to_owned(), Wait::Jittered));
            }
            Verdict::Taken(details) => {
                let lines = window.lines(window.confirmed()..window.written());
                let take = |reply, text: &str| take(reply, &status::shown(text, secrets));
                details.inspect(|details| details.each(lines, take));
                cx.known.learned.taken(points, is_gzip);
                cx.known.learned.fitted(bytes);
                (self.has_confirmed, is_settled) = (true, true);
            }
            Verdict::TooLarge(_) if points > 1 => cx.known.learned.too_large(bytes, cx.now),
            Verdict::Refused(_) if cx.known.learned.refused(points, is_gzip) => {}
            Verdict::TooLarge(text) | Verdict::Refused(text) => {
                take(Reply::IllegalArgument, &text);
                is_settled = true;
            }
            Verdict::Failing(text) => {
                if cx.known.learned.failing() && !cx.known.learned.refused(points, is_gzip) {
                    take(Reply::Other, &text);
                    is_settled = true;
                }
                end = Some(Failure::Refused(text, Wait::Jittered));
            }
            Verdict::Unsupported(_) if is_gzip => cx.known.learned.refuses_gzip(),
            Verdict::Unsupported(reason) => end = Some(Failure::Refused(reason, Wait::Slowest)),
            Verdict::Later(reason, wait) => end = Some(Failure::Refused(reason, wait)),
        }
        let keeps_open = self.exchange.finish();
        if tally.is_complaint {
            cx.known.learned.brake.complained(window.confirmed(), window.written(), cx.now);
        }
        if is_settled {
            // First, so that a flush that returns sees it.
            cx.delivery.counters.set_confirmation(cx.known.options.ask.confirmation());
            cx.delivery.confirm(cx.delivery.window.written());
        } else {
            window.rewind();
        }
        self.answers += 1;
        tally.log(cx.name);
        match end {
            Some(failure) => Err(End::Failed(failure)),
            None if keeps_open => Ok(()),
            None => Err(End::Finished),
        }
    }

    /// Gathers lines, and makes the next request of them when it is time.
    fn advance(&mut self, cx: &mut Context<'_>) -> Outcome {
        let limit = cx.known.learned.max_bytes(cx.known.options.batch_bytes, cx.now);
        let is_gzip = cx.known.options.is_gzip && cx.known.learned.may_gzip();
        let capacity = cx.known.body.capacity(limit, is_gzip);
        let later = loop {
            let demand = cx.delivery.demand();
            if demand.unsent == 0 || cx.is_full(capacity) {
                break None;
            }
            let room = cx.known.learned.max_points - cx.delivery.window.granted();
            match cx.delivery.limiter.allow(demand, cx.known.learned.brake, cx.now) {
                Ok(points) if self.gather(points.min(room), cx) => {}
                // What there was is dropped.
                Ok(_) => break None,
                Err(later) => break Some(later),
            }
        };
        let demand = cx.delivery.demand();
        if cx.delivery.window.unwritten() == 0 {
            self.gathered = None;
            let leave_at = cx.delivery.leave_at;
            if cx.delivery.is_empty() && is_leaving(demand, leave_at, cx.now) {
                return Err(End::Finished);
            }
            return Ok(later.or(leave_at.filter(|at| *at > cx.now)));
        }
        let (first, last) = *self.gathered.get_or_insert((cx.now, cx.now));
        let quiet = last + if demand.is_expedited { Duration::ZERO } else { QUIET };
        let is_over = demand.unsent == 0 && cx.now >= quiet;
        if !(cx.is_full(capacity) || is_over || cx.now >= first + GATHER) {
            let times = [later, Some(first + GATHER), (demand.unsent == 0).then_some(quiet)];
            return Ok(times.into_iter().flatten().min());
        }
        self.gathered = None;
        self.request(limit, is_gzip, cx);
        Ok(Some(cx.now))
    }

    /// Takes so many lines at most of the next batch; returns whether there were any.
    fn gather(&mut self, points: usize, cx: &mut Context<'_>) -> bool {
        let before = cx.delivery.window.granted();
        cx.delivery.grant(points);
        let gathered = cx.delivery.window.granted() - before;
        cx.delivery.limiter.spend(gathered, cx.now);
        self.gathered.get_or_insert((cx.now, cx.now)).1 = cx.now;
        gathered > 0
    }

    /// Begins a request of lines that were gathered.
    fn request(&mut self, limit: usize, is_gzip: bool, cx: &mut Context<'_>) {
        let window = &cx.delivery.window;
        let lines = window.lines(window.written()..window.granted_place());
        let mut points = cx.known.body.make(&lines, cx.known.learned.max_points, limit, is_gzip);
        if points == 0 && limit < cx.known.options.batch_bytes {
            // What an endpoint took for too large may be one line, which is its to refuse.
            points = cx.known.body.make(&lines, 1, cx.known.options.batch_bytes, is_gzip);
        }
        drop(lines);
        if points == 0 {
            return cx.delivery.drop_too_long();
        }
        let body = cx.known.body.bytes(is_gzip);
        self.request = Some(Request { points, bytes: body.len(), is_gzip });
        self.exchange.begin(|request| cx.known.head.write(is_gzip, body, request), cx.now);
        cx.delivery.wrote(cx.known.body.line_bytes);
    }

    /// Ends what makes no progress; returns when to look again.
    fn check_deadline(&self, cx: &mut Context<'_>) -> Outcome {
        let Some(request) = self.request else { return Ok(None) };
        let time = cx.delivery.write_timeout;
        let due = self.exchange.deadline.at(time);
        if cx.now < due {
            return Ok(Some(due));
        }
        cx.known.learned.unanswered(request.bytes, cx.now);
        Err(End::Failed(Failure::Unresponsive { omission: "has not answered a request", time }))
    }

    fn broken(&self, during: &'static str, source: io::Error, cx: &mut Context<'_>) -> End {
        match source.kind() {
            ErrorKind::PermissionDenied => {
                End::Failed(Failure::Refused(source.to_string(), Wait::Slowest))
            }
            ErrorKind::InvalidData => End::Failed(Failure::Lost { during, source }),
            _ => self.lost(Failure::Lost { during, source }, cx),
        }
    }

    /// The connection is gone.
    fn lost(&self, failure: Failure, cx: &mut Context<'_>) -> End {
        let is_silent = !self.exchange.reader.has_begun;
        match self.request {
            // It was closed before the request came, perhaps with a word about that: not even the
            // backoff is for that.
            None if self.answers > 0 => return End::Closed(failure),
            Some(_) if is_silent && self.answers > 0 => return End::Closed(failure),
            Some(request) if is_silent => cx.known.learned.unanswered(request.bytes, cx.now),
            _ => {}
        }
        End::Failed(failure)
    }
}
