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
//! 1. a half-close, where that is how the server confirms: when a burst is over, when as much is
//!    unconfirmed as may be, when the burst has lasted long; where a server has left `version`
//!    unanswered for too long; and when everything is confirmed and the connection is no longer
//!    wanted, at the shutdown or because of its age;
//! 2. a question: when a burst is over, when as much is unconfirmed as may be, when enough lines
//!    are or the first of them has waited for a second, and behind the first lines to an undecided
//!    endpoint;
//! 3. the next lines;
//! 4. nothing until something happens.

use std::time::Duration;

use super::confirm::{Barrier, Profile};
use crate::clock::Instant;
use crate::send::limiter::Demand;
use crate::send::window::Window;
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

/// What decides, on a connection whose last line is written whole.
#[derive(Clone, Copy)]
pub(super) struct Agenda<'a> {
    pub(super) now: Instant,
    pub(super) demand: Demand,
    pub(super) window: &'a Window,
    pub(super) profile: &'a Profile,
    pub(super) barrier: &'a Barrier,
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

impl Agenda<'_> {
    pub(super) fn plan(&self) -> Plan {
        if self.wants_half_close() {
            return Plan::HalfClose;
        }
        if self.wants_to_ask() {
            return Plan::Ask;
        }
        if !self.is_sent() && !self.is_full() {
            return Plan::Send;
        }
        let times = if self.window.is_empty() {
            [self.leave_at, None, None]
        } else {
            [Some(self.quiet_at()), self.rested_at(), self.barrier.silent_at()]
        };
        Plan::Wait(times.into_iter().flatten().filter(|at| *at > self.now).min())
    }

    fn wants_half_close(&self) -> bool {
        if self.window.is_empty() && self.is_sent() && self.is_leaving() {
            return true;
        }
        self.window.has_unconfirmed_writes()
            && match self.profile.mode() {
                Confirmation::HalfClose => {
                    let is_rested = self.rested_at().is_none_or(|at| self.now >= at);
                    self.is_full() || self.is_long() || (self.is_over() && is_rested)
                }
                Confirmation::Auto => self.barrier.silent_at().is_some_and(|at| self.now >= at),
                Confirmation::Version | Confirmation::Written => false,
            }
    }

    fn wants_to_ask(&self) -> bool {
        self.barrier.due_at().is_some_and(|due_at| match self.profile.mode() {
            Confirmation::Auto => true,
            Confirmation::Version => self.is_over() || self.now >= due_at,
            Confirmation::HalfClose | Confirmation::Written => false,
        })
    }

    /// Whether a write was granted for everything there is.
    fn is_sent(&self) -> bool {
        self.demand.unsent == 0
    }

    /// Whether something has to be confirmed before more is sent.
    fn is_full(&self) -> bool {
        self.window.is_full() || self.window.granted() >= self.profile.max_unconfirmed()
    }

    /// Whether this connection is no longer wanted once everything is confirmed. While somebody
    /// waits there may be more at any moment, and connecting anew would take time.
    fn is_leaving(&self) -> bool {
        let is_old = self.leave_at.is_some_and(|at| self.now >= at);
        self.demand.is_closing || (is_old && !self.demand.is_expedited)
    }

    fn is_over(&self) -> bool {
        self.is_full() || (self.is_sent() && self.now >= self.quiet_at())
    }

    fn is_long(&self) -> bool {
        let allowed = if self.demand.is_expedited { EXPEDITED_BURST } else { BURST };
        self.now >= self.barrier.first_written() + allowed
    }

    /// When the burst counts as over if no line comes until then.
    fn quiet_at(&self) -> Instant {
        let is_asked_for =
            self.demand.is_expedited && self.profile.mode() != Confirmation::HalfClose;
        self.barrier.last_written() + if is_asked_for { Duration::ZERO } else { QUIET }
    }

    /// When the next half-close may come; `None` for at once.
    fn rested_at(&self) -> Option<Instant> {
        self.profile.half_closed.filter(|_| !self.demand.is_expedited).map(|at| at + REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use crate::stats::Counters;
    use std::sync::Arc;

    const MODES: [Confirmation; 4] =
        [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose, Confirmation::Written];

    /// What an agenda looks at.
    struct Fixture {
        now: Instant,
        demand: Demand,
        window: Window,
        profile: Profile,
        barrier: Barrier,
        leave_at: Option<Instant>,
    }

    impl Fixture {
        /// Lines were written just now, and there are no more.
        fn just_sent(mode: Confirmation) -> Fixture {
            let now = Instant::now();
            let mut fixture = Fixture {
                now,
                demand: Demand::default(),
                window: Window::default(),
                profile: Profile::new(mode),
                barrier: Barrier::new(now),
                leave_at: None,
            };
            fixture.write("put m 1700000000 1 host=a\n");
            fixture
        }

        fn write(&mut self, lines: &str) {
            let queue = Queue::new(usize::MAX, Arc::new(Counters::default()));
            queue.push(lines.into(), lines.lines().count(), self.now);
            self.window.push(queue.pop().unwrap());
            self.window.grant(usize::MAX);
            let written = self.window.wrote(self.window.to_write().len());
            self.barrier.wrote(written.points, self.now);
            if self.profile.mode() == Confirmation::Written {
                self.confirm();
            }
        }

        fn ask(&mut self) {
            self.barrier.ask(self.window.written());
            self.barrier.took(self.barrier.to_write().len(), self.now);
        }

        fn confirm(&mut self) {
            self.window.confirm(self.window.written(), drop);
        }

        fn answer(&mut self) {
            self.ask();
            self.barrier.answered();
            self.confirm();
        }

        fn fill(&mut self) {
            self.write(&"x\n".repeat(3 << 20));
            self.demand.unsent = 10;
        }

        fn close(&mut self) {
            self.demand.is_expedited = true;
            self.demand.is_closing = true;
        }

        fn plan(&self) -> Plan {
            let Fixture { now, demand, leave_at, .. } = *self;
            let (window, profile, barrier) = (&self.window, &self.profile, &self.barrier);
            Agenda { now, demand, window, profile, barrier, leave_at }.plan()
        }
    }

    #[test]
    fn each_mode_has_its_own_next_step() {
        use Plan::{Ask, HalfClose, Send, Wait};
        let idle = Wait(None);
        // In the order of `MODES`: undecided, version, half-close, written.
        type Case = (&'static str, fn(&mut Fixture), [Plan; 4]);
        let cases: &[Case] = &[
            ("a burst is over", |s| s.now += QUIET, [Ask, Ask, HalfClose, idle]),
            (
                "somebody waits for it",
                |s| {
                    s.now += QUIET;
                    s.demand.is_expedited = true;
                },
                [Ask, Ask, HalfClose, idle],
            ),
            (
                "there is more",
                |s| {
                    s.ask();
                    s.demand.unsent = 10;
                },
                [Send; 4],
            ),
            (
                "there is more, and it lasts",
                |s| {
                    s.now += BURST;
                    s.ask();
                    s.demand.unsent = 10;
                },
                [Send, Send, HalfClose, Send],
            ),
            (
                "there is more than may be unconfirmed",
                |s| {
                    s.profile.failed();
                    s.write(&"x\n".repeat(s.profile.max_unconfirmed()));
                    s.demand.unsent = 10;
                },
                [Ask, Ask, HalfClose, Send],
            ),
            (
                "a question is due",
                |s| {
                    s.now += Duration::from_secs(1);
                    s.demand.unsent = 10;
                },
                [Ask, Ask, Send, Send],
            ),
            ("the window is full", Fixture::fill, [Ask, Ask, HalfClose, Send]),
            (
                "full and asked",
                |s| {
                    s.fill();
                    s.ask();
                },
                [idle, idle, HalfClose, Send],
            ),
            (
                "asked in vain",
                |s| {
                    s.ask();
                    s.now += crate::send::telnet::ANSWER_TIME;
                    s.demand.unsent = 10;
                },
                [HalfClose, Send, Send, Send],
            ),
            (
                "asked, and waiting",
                |s| {
                    s.demand.is_expedited = true;
                    s.ask();
                    s.now += QUIET;
                },
                [idle, idle, HalfClose, idle],
            ),
            ("everything is confirmed", Fixture::answer, [idle; 4]),
            (
                "the shutdown, unconfirmed",
                |s| {
                    s.close();
                    s.now += QUIET;
                },
                [Ask, Ask, HalfClose, HalfClose],
            ),
            (
                "the shutdown, confirmed",
                |s| {
                    s.answer();
                    s.close();
                },
                [HalfClose; 4],
            ),
            (
                "the shutdown, unsent",
                |s| {
                    s.ask();
                    s.close();
                    s.demand.unsent = 10;
                },
                [Send; 4],
            ),
        ];
        for (name, change, expected) in cases {
            let plans = MODES.map(|mode| {
                let mut fixture = Fixture::just_sent(mode);
                change(&mut fixture);
                // How long it waits is another test's matter.
                if let Wait(_) = fixture.plan() { idle } else { fixture.plan() }
            });
            assert_eq!(plans, *expected, "{name}");
        }
    }

    #[test]
    fn a_burst_lingers_and_half_closes_keep_their_distance() {
        for mode in [Confirmation::Version, Confirmation::HalfClose] {
            let fixture = Fixture::just_sent(mode);
            assert_eq!(fixture.plan(), Plan::Wait(Some(fixture.now + QUIET)), "{mode:?}");
        }
        let mut fixture = Fixture::just_sent(Confirmation::Version);
        fixture.demand.is_expedited = true;
        assert_eq!(fixture.plan(), Plan::Ask);
        let mut fixture = Fixture::just_sent(Confirmation::HalfClose);
        fixture.demand.is_expedited = true;
        let quiet_at = fixture.now + QUIET;
        assert_eq!(fixture.plan(), Plan::Wait(Some(quiet_at)), "it may be closing");
        let mut fixture = Fixture::just_sent(Confirmation::HalfClose);
        let rested_at = fixture.now + REST / 2;
        fixture.profile.half_closed = Some(rested_at - REST);
        fixture.now += QUIET;
        assert_eq!(fixture.plan(), Plan::Wait(Some(rested_at)));
        let now = std::mem::replace(&mut fixture.now, rested_at);
        assert_eq!(fixture.plan(), Plan::HalfClose);
        fixture.now = now;
        fixture.fill();
        assert_eq!(fixture.plan(), Plan::HalfClose, "a full window cannot rest");
    }

    #[test]
    fn a_connection_is_left_for_a_preferred_endpoint_when_nothing_is_on_its_way() {
        for mode in MODES {
            let mut fixture = Fixture::just_sent(mode);
            let leave_at = fixture.now + BURST;
            fixture.leave_at = Some(leave_at);
            fixture.answer();
            assert_eq!(fixture.plan(), Plan::Wait(Some(leave_at)), "{mode:?}");
            fixture.now = leave_at;
            assert_eq!(fixture.plan(), Plan::HalfClose, "{mode:?}");
            fixture.demand.unsent = 1;
            assert_eq!(fixture.plan(), Plan::Send, "{mode:?}");
            (fixture.demand.unsent, fixture.demand.is_expedited) = (0, true);
            assert_eq!(fixture.plan(), Plan::Wait(None), "{mode:?}");
        }
    }
}
