//! What comes next between two lines.
//!
//! **Problem.** To ask after each line is chatter, and to half-close after each is a connection per line; to do either too late
//! keeps points unconfirmed, which costs memory and double lines when the connection breaks.
//!
//! **Idea.** Points come in bursts, a snapshot each. The end of a burst is the time to ask; one that does not end is asked about
//! all the same.
//!
//! **Mechanism.** The first of these that holds:
//!
//! 1. a half-close, where that is how the server confirms: when a burst is over, when the window is full, when the burst has lasted
//!    long, or has 16 KiB to 1 MiB after a connection that failed; at the end of the shutdown unless `version` does it;
//! 2. a question: when a burst is over, when the window is full, or 16 to 256 KiB or a second after the last question;
//! 3. the next lines;
//! 4. to leave, when everything is confirmed, at the shutdown or for a preferred endpoint;
//! 5. nothing until something happens.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::confirm::Mode;
use super::delivery::Work;
use crate::clock::Instant;

/// How long nothing has come for a burst to be over, unless somebody waits: a snapshot comes in several batches.
const LINGER: Duration = Duration::from_millis(20);
/// How long after a half-close the next one comes, unless somebody waits: single points get no connection each.
const REST: Duration = Duration::from_secs(1);
/// How long a burst may last until a half-close asks whether it arrived; a second when somebody waits for that.
const BURST: Duration = Duration::from_secs(10);
const HURRIED_BURST: Duration = Duration::from_secs(1);
/// How many bytes a burst may have until a half-close asks the same, after a connection that failed: the first bound, and the last.
const BURST_BYTES: RangeInclusive<u64> = 16 * 1024..=1024 * 1024;

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) now: Instant,
    pub(super) mode: Mode,
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
    /// An undecided server has let its time pass.
    pub(super) is_silent: bool,
    /// When the first line of the present burst was written, and when the last one was.
    pub(super) burst: Option<(Instant, Instant)>,
    /// It has as many bytes as it may.
    pub(super) is_at_bound: bool,
    /// When a connection was last half-closed.
    pub(super) half_closed: Option<Instant>,
    /// When to leave, so that a preferred endpoint can be tried.
    pub(super) leave_at: Option<Instant>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    HalfClose,
    Ask,
    Send,
    Leave,
    Wait(Option<Instant>),
}

impl Scene {
    pub(super) fn plan(&self) -> Plan {
        if self.wants_half_close() {
            return Plan::HalfClose;
        }
        if self.mode.asks() && self.is_askable && (self.is_over() || self.is_ask_due) {
            return Plan::Ask;
        }
        if !self.work.is_sent() {
            return if self.is_full { Plan::Wait(None) } else { Plan::Send };
        }
        if !self.is_empty {
            let rested_at = self.rested_at().filter(|_| self.mode == Mode::HalfClose);
            let times = [self.quiet_at(), rested_at].into_iter().flatten();
            return Plan::Wait(times.filter(|at| *at > self.now).min());
        }
        if self.is_leaving() { Plan::Leave } else { Plan::Wait(self.leave_at) }
    }

    fn wants_half_close(&self) -> bool {
        let is_last = self.work.is_sent() && self.is_leaving();
        match self.mode {
            Mode::HalfClose => {
                let is_rested = self.rested_at().is_none_or(|at| self.now >= at);
                self.has_unconfirmed
                    && (self.is_full || self.is_long() || (self.is_over() && is_rested))
            }
            Mode::Undecided => {
                self.has_unconfirmed && (self.is_silent || (is_last && self.work.is_closing))
            }
            // Its close would prove too little at the end.
            Mode::Lapsed => self.has_unconfirmed && self.is_silent,
            Mode::Version => false,
            Mode::Written => is_last,
        }
    }

    /// Whether this connection is no longer wanted once everything is confirmed.
    fn is_leaving(&self) -> bool {
        self.work.is_closing || self.leave_at.is_some_and(|at| self.now >= at)
    }

    fn is_over(&self) -> bool {
        self.is_full || (self.work.is_sent() && self.quiet_at().is_none_or(|at| self.now >= at))
    }

    fn is_long(&self) -> bool {
        let allowed = if self.work.demand.is_hurried { HURRIED_BURST } else { BURST };
        self.is_at_bound || self.burst.is_some_and(|(first, _)| self.now >= first + allowed)
    }

    /// When the burst counts as over if no line comes until then; `None` for at once.
    fn quiet_at(&self) -> Option<Instant> {
        self.burst.filter(|_| !self.work.demand.is_hurried).map(|(_, last)| last + LINGER)
    }

    /// When the next half-close may come; `None` for at once.
    fn rested_at(&self) -> Option<Instant> {
        self.half_closed.filter(|_| !self.work.demand.is_hurried).map(|at| at + REST)
    }
}

/// How many bytes a burst may have until a half-close asks whether it arrived: any number, unless a connection failed of late.
///
/// Where every connection breaks after a while, a whole burst would be sent again for ever. So it begins anew with a small one, which
/// doubles with each that is confirmed.
#[derive(Debug, Default)]
pub(super) struct Bound(Option<u64>);

impl Bound {
    pub(super) fn bytes(&self) -> u64 {
        self.0.unwrap_or(u64::MAX)
    }

    /// A connection failed with lines that were not confirmed.
    pub(super) fn failed(&mut self) {
        self.0 = Some(*BURST_BYTES.start());
    }

    /// A burst was confirmed.
    pub(super) fn confirmed(&mut self) {
        self.0 = self.0.map(|bytes| bytes * 2).filter(|bytes| BURST_BYTES.contains(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::super::limiter::Demand;
    use super::*;

    const MODES: [Mode; 5] =
        [Mode::Undecided, Mode::Lapsed, Mode::Version, Mode::HalfClose, Mode::Written];

    /// Lines were written just now, and there are no more.
    fn just_sent(mode: Mode) -> Scene {
        let now = Instant::now();
        Scene {
            now,
            mode,
            work: Work { is_closing: false, demand: Demand::default() },
            is_full: false,
            is_empty: mode == Mode::Written,
            has_unconfirmed: mode != Mode::Written,
            is_askable: true,
            is_ask_due: false,
            is_silent: false,
            burst: Some((now, now)),
            is_at_bound: false,
            half_closed: None,
            leave_at: None,
        }
    }

    fn later(scene: Scene, by: Duration) -> Scene {
        Scene { now: scene.now + by, ..scene }
    }

    fn hurried(mut scene: Scene) -> Scene {
        scene.work.demand.is_hurried = true;
        scene
    }

    fn closing(scene: Scene) -> Scene {
        let mut scene = hurried(scene);
        scene.work.is_closing = true;
        scene
    }

    fn with_more(mut scene: Scene) -> Scene {
        scene.work.demand.unsent = 10;
        scene
    }

    fn confirmed(scene: Scene) -> Scene {
        Scene { is_empty: true, has_unconfirmed: false, is_askable: false, burst: None, ..scene }
    }

    fn full(scene: Scene) -> Scene {
        Scene { is_full: true, ..with_more(scene) }
    }

    #[test]
    fn each_mode_has_its_own_next_step() {
        use Plan::{Ask, HalfClose, Leave, Send, Wait};
        let idle = Wait(None);
        // In the order of `MODES`: undecided, lapsed, version, half-close, written.
        type Case = (&'static str, fn(Scene) -> Scene, [Plan; 5]);
        let cases: &[Case] = &[
            ("a burst is over", |s| later(s, LINGER), [Ask, Ask, Ask, HalfClose, idle]),
            ("somebody waits for it", hurried, [Ask, Ask, Ask, HalfClose, idle]),
            ("there is more", with_more, [Send; 5]),
            (
                "there is more, and it lasts",
                |s| later(with_more(s), BURST),
                [Send, Send, Send, HalfClose, Send],
            ),
            (
                "there is more than a burst may have",
                |s| Scene { is_at_bound: s.mode == Mode::HalfClose, ..with_more(s) },
                [Send, Send, Send, HalfClose, Send],
            ),
            (
                "a question is due",
                |s| Scene { is_ask_due: true, ..with_more(s) },
                [Ask, Ask, Ask, Send, Send],
            ),
            ("the window is full", full, [Ask, Ask, Ask, HalfClose, idle]),
            (
                "full and asked",
                |s| Scene { is_askable: false, ..full(s) },
                [idle, idle, idle, HalfClose, idle],
            ),
            (
                "asked in vain",
                |s| Scene { is_silent: true, is_askable: false, ..with_more(s) },
                [HalfClose, HalfClose, Send, Send, Send],
            ),
            (
                "asked, and waiting",
                |s| Scene { is_askable: false, ..hurried(s) },
                [idle, idle, idle, HalfClose, idle],
            ),
            ("everything is confirmed", confirmed, [idle; 5]),
            ("the shutdown, unconfirmed", closing, [HalfClose, Ask, Ask, HalfClose, HalfClose]),
            (
                "the shutdown, confirmed",
                |s| confirmed(closing(s)),
                [Leave, Leave, Leave, Leave, HalfClose],
            ),
            ("the shutdown, unsent", |s| with_more(closing(s)), [Send; 5]),
        ];
        for (name, scene, expected) in cases {
            let plans = MODES.map(|mode| scene(just_sent(mode)).plan());
            assert_eq!(plans, *expected, "{name}");
        }
    }

    #[test]
    fn a_burst_lingers_and_half_closes_keep_their_distance() {
        for mode in [Mode::Undecided, Mode::Lapsed, Mode::Version, Mode::HalfClose] {
            let scene = just_sent(mode);
            assert_eq!(scene.plan(), Plan::Wait(Some(scene.now + LINGER)), "{mode:?}");
        }
        let scene = just_sent(Mode::HalfClose);
        let rested_at = scene.now + REST / 2;
        let scene = Scene { half_closed: Some(rested_at - REST), ..later(scene, LINGER) };
        assert_eq!(scene.plan(), Plan::Wait(Some(rested_at)));
        assert_eq!(Scene { now: rested_at, ..scene }.plan(), Plan::HalfClose);
        assert_eq!(full(scene).plan(), Plan::HalfClose, "a full window cannot rest");
        let at_bound = Scene { is_at_bound: true, ..with_more(scene) };
        assert_eq!(at_bound.plan(), Plan::HalfClose, "nor can a burst that may not grow");
    }

    #[test]
    fn after_a_failure_a_burst_is_small_and_doubles_until_it_has_no_bound() {
        let mut bound = Bound::default();
        bound.confirmed();
        assert_eq!(bound.bytes(), u64::MAX);
        bound.failed();
        for kibibytes in [16, 32, 64, 128, 256, 512, 1024] {
            assert_eq!(bound.bytes(), kibibytes * 1024);
            bound.confirmed();
        }
        assert_eq!(bound.bytes(), u64::MAX);
        bound.failed();
        bound.confirmed();
        bound.failed();
        assert_eq!(bound.bytes(), 16 * 1024, "each failure begins anew");
    }

    #[test]
    fn a_connection_is_left_for_a_preferred_endpoint_when_nothing_is_on_its_way() {
        for mode in MODES {
            let scene = just_sent(mode);
            let leave_at = scene.now + BURST;
            let scene = Scene { leave_at: Some(leave_at), ..scene };
            assert_eq!(confirmed(scene).plan(), Plan::Wait(Some(leave_at)), "{mode:?}");
            let due = Scene { now: leave_at, ..scene };
            let expected = if mode == Mode::Written { Plan::HalfClose } else { Plan::Leave };
            assert_eq!(confirmed(due).plan(), expected, "{mode:?}");
            assert_eq!(with_more(confirmed(due)).plan(), Plan::Send, "{mode:?}");
        }
    }
}
