//! What comes next between two lines.
//!
//! **Problem.** A question after each line is chatter, and a half-close after each is a connection
//! per line. Either of them too late keeps points unconfirmed, which costs memory, and double lines
//! when the connection breaks.
//!
//! **Idea.** Points come in bursts, a snapshot each. The end of a burst is the time to ask. A burst
//! that does not end is asked about all the same.
//!
//! **Mechanism.** The first of these that holds:
//!
//! 1. a half-close, where that is how the server confirms: when a burst is over, when the window is
//!    full, when the burst has lasted long or has as many bytes as it may; where a server has left
//!    `version` unanswered for too long; and when everything is confirmed and the connection is no
//!    longer wanted, at the shutdown or because of its age;
//! 2. a question: when a burst is over, when the window is full, when enough bytes or a second have
//!    passed since the last question, and behind the first lines to an undecided endpoint;
//! 3. the next lines;
//! 4. nothing until something happens.

use std::time::Duration;

use super::confirm::asks;
use crate::clock::Instant;
use crate::send::delivery::Work;
use crate::stats::Confirmation;

/// How long nothing has come for a burst to be over: a snapshot comes in several batches. Where
/// somebody waits a question is asked at once. A half-close is not: a peer that closes of itself,
/// as a proxy does whose server is away, is then seen to before we close.
const QUIET: Duration = Duration::from_millis(20);
/// How long after a half-close the next one comes, unless somebody waits: single points get no
/// connection each.
const REST: Duration = Duration::from_secs(1);
/// How long a burst may last until a half-close asks whether it arrived.
const BURST: Duration = Duration::from_secs(10);
/// The same while somebody waits for that.
const EXPEDITED_BURST: Duration = Duration::from_secs(1);

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) now: Instant,
    pub(super) mode: Confirmation,
    pub(super) work: Work,
    /// All lines of the window are written and there is no room for more.
    pub(super) is_full: bool,
    /// The window holds nothing.
    pub(super) is_empty: bool,
    /// Something was written on this connection and is not confirmed.
    pub(super) has_unconfirmed: bool,
    /// Lines were written behind the last question, and none is outstanding.
    pub(super) is_askable: bool,
    /// They are many, or old.
    pub(super) is_ask_due: bool,
    /// A question has been outstanding for too long, if the endpoint is undecided.
    pub(super) is_silent: bool,
    /// When the first line of the present burst was written, and when the last one was.
    pub(super) burst: Option<(Instant, Instant)>,
    /// It has as many bytes as it may.
    pub(super) is_at_bound: bool,
    /// When a connection to the endpoint was last half-closed.
    pub(super) half_closed: Option<Instant>,
    /// When the connection is too old.
    pub(super) leave_at: Option<Instant>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    HalfClose,
    Ask,
    Send,
    Wait(Option<Instant>),
}

impl View {
    pub(super) fn plan(&self) -> Plan {
        if self.wants_half_close() {
            return Plan::HalfClose;
        }
        if asks(self.mode) && self.is_askable && (self.is_over() || self.is_ask_due) {
            return Plan::Ask;
        }
        if !self.work.is_sent() {
            return if self.is_full { Plan::Wait(None) } else { Plan::Send };
        }
        if !self.is_empty {
            let rested_at = self.rested_at().filter(|_| self.mode == Confirmation::HalfClose);
            let times = [self.quiet_at(), rested_at].into_iter().flatten();
            return Plan::Wait(times.filter(|at| *at > self.now).min());
        }
        Plan::Wait(self.leave_at.filter(|at| *at > self.now))
    }

    fn wants_half_close(&self) -> bool {
        if self.is_empty && self.work.is_sent() && self.is_leaving() {
            return true;
        }
        self.has_unconfirmed
            && match self.mode {
                Confirmation::HalfClose => {
                    let is_rested = self.rested_at().is_none_or(|at| self.now >= at);
                    self.is_full || self.is_long() || (self.is_over() && is_rested)
                }
                Confirmation::Auto => self.is_silent,
                Confirmation::Version | Confirmation::Written => false,
            }
    }

    /// Whether this connection is no longer wanted once everything is confirmed. While somebody
    /// waits there may be more at any moment, and connecting anew would take time.
    fn is_leaving(&self) -> bool {
        let is_old = self.leave_at.is_some_and(|at| self.now >= at);
        self.work.is_closing || (is_old && !self.work.demand.is_expedited)
    }

    fn is_over(&self) -> bool {
        self.is_full || (self.work.is_sent() && self.quiet_at().is_none_or(|at| self.now >= at))
    }

    fn is_long(&self) -> bool {
        let allowed = if self.work.demand.is_expedited { EXPEDITED_BURST } else { BURST };
        self.is_at_bound || self.burst.is_some_and(|(first, _)| self.now >= first + allowed)
    }

    /// When the burst counts as over if no line comes until then; `None` for at once.
    fn quiet_at(&self) -> Option<Instant> {
        let is_awaited = self.mode == Confirmation::HalfClose || !self.work.demand.is_expedited;
        self.burst.filter(|_| is_awaited).map(|(_, last)| last + QUIET)
    }

    /// When the next half-close may come; `None` for at once.
    fn rested_at(&self) -> Option<Instant> {
        self.half_closed.filter(|_| !self.work.demand.is_expedited).map(|at| at + REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::limiter::Demand;

    const MODES: [Confirmation; 4] =
        [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose, Confirmation::Written];

    /// Lines were written just now, and there are no more.
    fn just_sent(mode: Confirmation) -> View {
        let now = Instant::now();
        View {
            now,
            mode,
            work: Work { is_closing: false, demand: Demand::default() },
            is_full: false,
            is_empty: mode == Confirmation::Written,
            has_unconfirmed: mode != Confirmation::Written,
            is_askable: true,
            is_ask_due: false,
            is_silent: false,
            burst: Some((now, now)),
            is_at_bound: false,
            half_closed: None,
            leave_at: None,
        }
    }

    fn later(view: View, by: Duration) -> View {
        View { now: view.now + by, ..view }
    }

    fn expedited(mut view: View) -> View {
        view.work.demand.is_expedited = true;
        view
    }

    fn closing(view: View) -> View {
        let mut view = expedited(view);
        view.work.is_closing = true;
        view
    }

    fn with_more(mut view: View) -> View {
        view.work.demand.unsent = 10;
        view
    }

    fn confirmed(view: View) -> View {
        View { is_empty: true, has_unconfirmed: false, is_askable: false, burst: None, ..view }
    }

    fn full(view: View) -> View {
        View { is_full: true, ..with_more(view) }
    }

    #[test]
    fn each_mode_has_its_own_next_step() {
        use Plan::{Ask, HalfClose, Send, Wait};
        let idle = Wait(None);
        // In the order of `MODES`: undecided, version, half-close, written.
        type Case = (&'static str, fn(View) -> View, [Plan; 4]);
        let cases: &[Case] = &[
            ("a burst is over", |v| later(v, QUIET), [Ask, Ask, HalfClose, idle]),
            ("somebody waits for it", |v| expedited(later(v, QUIET)), [Ask, Ask, HalfClose, idle]),
            ("there is more", with_more, [Send; 4]),
            (
                "there is more, and it lasts",
                |v| later(with_more(v), BURST),
                [Send, Send, HalfClose, Send],
            ),
            (
                "there is more than a burst may have",
                |v| View { is_at_bound: v.mode == Confirmation::HalfClose, ..with_more(v) },
                [Send, Send, HalfClose, Send],
            ),
            (
                "a question is due",
                |v| View { is_ask_due: true, ..with_more(v) },
                [Ask, Ask, Send, Send],
            ),
            ("the window is full", full, [Ask, Ask, HalfClose, idle]),
            (
                "full and asked",
                |v| View { is_askable: false, ..full(v) },
                [idle, idle, HalfClose, idle],
            ),
            (
                "asked in vain",
                |v| View { is_silent: true, is_askable: false, ..with_more(v) },
                [HalfClose, Send, Send, Send],
            ),
            (
                "asked, and waiting",
                |v| View { is_askable: false, ..expedited(later(v, QUIET)) },
                [idle, idle, HalfClose, idle],
            ),
            ("everything is confirmed", confirmed, [idle; 4]),
            (
                "the shutdown, unconfirmed",
                |v| closing(later(v, QUIET)),
                [Ask, Ask, HalfClose, HalfClose],
            ),
            ("the shutdown, confirmed", |v| confirmed(closing(v)), [HalfClose; 4]),
            ("the shutdown, unsent", |v| with_more(closing(v)), [Send; 4]),
        ];
        for (name, change, expected) in cases {
            let plans = MODES.map(|mode| change(just_sent(mode)).plan());
            assert_eq!(plans, *expected, "{name}");
        }
    }

    #[test]
    fn a_burst_lingers_and_half_closes_keep_their_distance() {
        for mode in [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose] {
            let view = just_sent(mode);
            assert_eq!(view.plan(), Plan::Wait(Some(view.now + QUIET)), "{mode:?}");
        }
        for mode in [Confirmation::Auto, Confirmation::Version] {
            assert_eq!(expedited(just_sent(mode)).plan(), Plan::Ask, "{mode:?}");
        }
        let view = expedited(just_sent(Confirmation::HalfClose));
        assert_eq!(view.plan(), Plan::Wait(Some(view.now + QUIET)), "it may be closing");
        let view = just_sent(Confirmation::HalfClose);
        let rested_at = view.now + REST / 2;
        let view = View { half_closed: Some(rested_at - REST), ..later(view, QUIET) };
        assert_eq!(view.plan(), Plan::Wait(Some(rested_at)));
        assert_eq!(View { now: rested_at, ..view }.plan(), Plan::HalfClose);
        assert_eq!(full(view).plan(), Plan::HalfClose, "a full window cannot rest");
        let at_bound = View { is_at_bound: true, ..with_more(view) };
        assert_eq!(at_bound.plan(), Plan::HalfClose, "nor can a burst that may not grow");
    }

    #[test]
    fn a_connection_is_left_for_a_preferred_endpoint_when_nothing_is_on_its_way() {
        for mode in MODES {
            let view = just_sent(mode);
            let leave_at = view.now + BURST;
            let view = View { leave_at: Some(leave_at), ..view };
            assert_eq!(confirmed(view).plan(), Plan::Wait(Some(leave_at)), "{mode:?}");
            let due = View { now: leave_at, ..view };
            assert_eq!(confirmed(due).plan(), Plan::HalfClose, "{mode:?}");
            assert_eq!(with_more(confirmed(due)).plan(), Plan::Send, "{mode:?}");
            assert_eq!(expedited(confirmed(due)).plan(), Plan::Wait(None), "{mode:?}");
        }
    }
}
