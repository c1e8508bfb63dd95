//! How it is known that a server has parsed what was written.
//!
//! **Problem.** Servers differ. Most answer `version` in order, so that its answer proves the lines before it; VictoriaMetrics
//! answers nothing, and takes a `version` that comes first for a broken request.
//!
//! **Idea.** Ask once, behind the first burst, and remember the outcome for each endpoint. What an endpoint has shown once counts:
//! a server that has answered `version` and then leaves one unanswered is more likely to hang than to have become another.
//!
//! **Mechanism.** A connection is lost *under the question* when that is asked and not answered; *a close in silence* is a server's
//! end in good order after 2 s without an answer, or an HTTP reply, and then our half-close. What happens to an endpoint:
//!
//! | mode | what happens | from then on |
//! |---|---|---|
//! | any | an answer, be it late | `Version`; what spoke against it is forgotten |
//! | `Undecided`: never answered | a close in silence | `HalfClose`, which confirms it |
//! | | a connection is lost under the question | undecided; the second time `HalfClose`, for 10 minutes |
//! | `Version` by this table | a `version` stays unanswered until the connection is given up | `Lapsed` |
//! | `Lapsed`: answered once | a close in silence | lapsed, and it confirms nothing; the third in a row `HalfClose`, which confirms it |
//! | | a connection is lost under the question | lapsed; the sixth time `HalfClose`, for 10 minutes |
//! | `Undecided`, `Lapsed` | silence, and then no close either | as before: a server in trouble proves nothing, nor did the closes before it |
//! | `HalfClose` for 10 minutes | they are over at the next connection | as before, with nothing against it |
//!
//! Why a close in silence of a server that has answered is worth so little: one whose storage hangs is as silent, and when it is
//! stopped then, it closes in good order what it has read and never handled.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::window::Place;
use crate::clock::Instant;
use crate::stats::Confirmation;

/// The question, whose answer comes after everything before it was parsed.
pub(super) const QUESTION: &[u8] = b"version\n";
/// How long an undecided endpoint may take to answer.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How many closes in silence, and how many connections lost under the question, make a server one that does not answer.
const ENOUGH: Evidence = Evidence { silences: 1, losses: 2 };
/// How many, if it has answered before.
const ENOUGH_AFTER_AN_ANSWER: Evidence = Evidence { silences: 3, losses: 6 };
/// How long lost connections make a server one that does not answer: the network may have lost them, or a server that was ill.
const LOSSES_COUNT_FOR: Duration = Duration::from_secs(600);
/// Bytes behind the last question at which the next one is due though there is more to send: the first on a connection, which
/// doubles with each answer up to the last. Where every connection breaks after a while, each one still gets something confirmed.
const QUESTION_BYTES: RangeInclusive<u64> = 16 * 1024..=256 * 1024;
/// The age of the first unasked byte at which a question is due though there is more to send.
const QUESTION_AGE: Duration = Duration::from_secs(1);

/// How an endpoint confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not known yet.
    Undecided,
    /// By `version` once, which it no longer answers.
    Lapsed,
    Version,
    HalfClose,
    Written,
}

/// What speaks against `version`, since it was last answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Evidence {
    /// Closes in silence, in a row.
    silences: u8,
    /// Connections lost under the question.
    losses: u8,
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    mode: Mode,
    has_answered: bool,
    evidence: Evidence,
    /// When `HalfClose` is to be doubted; for good if that was not decided by losses.
    doubted_at: Option<Instant>,
}

/// What is known of each endpoint.
#[derive(Debug)]
pub(super) struct Modes {
    /// What the user wants.
    wanted: Confirmation,
    /// By the endpoint's index.
    known: Vec<Known>,
}

impl Modes {
    pub(super) fn new(wanted: Confirmation, endpoints: usize) -> Self {
        let mode = match wanted {
            Confirmation::Auto => Mode::Undecided,
            Confirmation::Version => Mode::Version,
            Confirmation::HalfClose => Mode::HalfClose,
            Confirmation::Written => Mode::Written,
        };
        let evidence = Evidence::default();
        let known = Known { mode, has_answered: false, evidence, doubted_at: None };
        Modes { wanted, known: vec![known; endpoints] }
    }

    pub(super) fn of(&self, endpoint: usize) -> Mode {
        self.known.get(endpoint).map_or(Mode::HalfClose, |known| known.mode)
    }

    /// There is a new connection to it.
    pub(super) fn connected(&mut self, endpoint: usize, now: Instant) {
        let Some(known) = self.undecided_by_user(endpoint) else { return };
        if known.doubted_at.is_some_and(|at| now >= at) {
            known.doubted_at = None;
            known.evidence = Evidence::default();
            known.mode = known.asking();
        }
    }

    /// The endpoint answered `version`.
    pub(super) fn answered(&mut self, endpoint: usize) {
        let Some(known) = self.undecided_by_user(endpoint) else { return };
        let evidence = Evidence::default();
        *known = Known { mode: Mode::Version, has_answered: true, evidence, doubted_at: None };
    }

    /// It did not answer, but closed in good order after the half-close.
    pub(super) fn stayed_silent(&mut self, endpoint: usize) {
        let Some(known) = self.asked(endpoint) else { return };
        known.evidence.silences += 1;
        if known.evidence.silences >= known.enough().silences {
            known.mode = Mode::HalfClose;
        }
    }

    /// It did not answer, and did not close either.
    pub(super) fn hung(&mut self, endpoint: usize) {
        let Some(known) = self.asked(endpoint) else { return };
        known.evidence.silences = 0;
    }

    /// The connection was lost before the answer.
    pub(super) fn lost(&mut self, endpoint: usize, now: Instant) {
        let Some(known) = self.asked(endpoint) else { return };
        known.evidence.losses += 1;
        if known.evidence.losses >= known.enough().losses {
            known.mode = Mode::HalfClose;
            known.doubted_at = Some(now + LOSSES_COUNT_FOR);
        }
    }

    /// It used to answer, and no longer did.
    pub(super) fn unanswered(&mut self, endpoint: usize) {
        let Some(known) = self.undecided_by_user(endpoint) else { return };
        known.mode = known.asking();
    }

    fn undecided_by_user(&mut self, endpoint: usize) -> Option<&mut Known> {
        self.known.get_mut(endpoint).filter(|_| self.wanted == Confirmation::Auto)
    }

    /// One that is asked to find out.
    fn asked(&mut self, endpoint: usize) -> Option<&mut Known> {
        let known = self.undecided_by_user(endpoint)?;
        known.mode.is_open().then_some(known)
    }
}

impl Known {
    fn asking(&self) -> Mode {
        if self.has_answered { Mode::Lapsed } else { Mode::Undecided }
    }

    fn enough(&self) -> Evidence {
        if self.has_answered { ENOUGH_AFTER_AN_ANSWER } else { ENOUGH }
    }
}

impl Mode {
    /// What the user is told is in force.
    pub(super) fn in_force(self) -> Confirmation {
        match self {
            Mode::Undecided | Mode::Lapsed => Confirmation::Auto,
            Mode::Version => Confirmation::Version,
            Mode::HalfClose => Confirmation::HalfClose,
            Mode::Written => Confirmation::Written,
        }
    }

    /// Whether `version` is asked.
    pub(super) fn asks(self) -> bool {
        self == Mode::Version || self.is_open()
    }

    /// Whether that is asked to find out if there will be an answer.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Mode::Undecided | Mode::Lapsed)
    }
}

/// The questions on one connection, of which one is outstanding at most.
#[derive(Debug)]
pub(super) struct Barrier {
    stage: Stage,
    /// Everything written before has a question behind it.
    asked_upto: Place,
    /// When the first byte behind `asked_upto` was written.
    since: Option<Instant>,
    /// How many bytes there may be behind it.
    stride: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    None,
    /// So many bytes of the question are written, which stands behind `place`.
    Asking {
        done: usize,
        place: Place,
    },
    /// Outstanding since then.
    Asked {
        place: Place,
        since: Instant,
    },
}

impl Barrier {
    /// For a connection that begins at `place`.
    pub(super) fn new(place: Place) -> Self {
        let stride = *QUESTION_BYTES.start();
        Barrier { stage: Stage::None, asked_upto: place, since: None, stride }
    }

    /// Lines were written.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Whether there is something to ask about and nobody is asked.
    pub(super) fn is_askable(&self) -> bool {
        self.stage == Stage::None && self.since.is_some()
    }

    /// Whether to ask though there is more to send.
    pub(super) fn is_due(&self, written: Place, now: Instant) -> bool {
        written.since(self.asked_upto) >= self.stride || self.due().is_some_and(|due| now >= due)
    }

    /// When to ask though there is more to send.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.stage != Stage::None {
            return None;
        }
        self.since.map(|since| since + QUESTION_AGE)
    }

    /// Begins a question behind `place`.
    pub(super) fn begin(&mut self, place: Place) {
        self.stage = Stage::Asking { done: 0, place };
        self.asked_upto = place;
        self.since = None;
    }

    /// The bytes of a question that is being written.
    pub(super) fn to_write(&self) -> &'static [u8] {
        match self.stage {
            Stage::Asking { done, .. } => &QUESTION[done..],
            Stage::None | Stage::Asked { .. } => &[],
        }
    }

    /// The kernel took so many bytes of it.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        if let Stage::Asking { done, place } = self.stage {
            let done = done + bytes;
            self.stage = if done < QUESTION.len() {
                Stage::Asking { done, place }
            } else {
                Stage::Asked { place, since: now }
            };
        }
    }

    /// Since when an answer is outstanding.
    pub(super) fn outstanding(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asked { since, .. } => Some(since),
            Stage::None | Stage::Asking { .. } => None,
        }
    }

    /// The server has shown that it works on what comes before the question.
    pub(super) fn touch(&mut self, now: Instant) {
        if let Stage::Asked { since, .. } = &mut self.stage {
            *since = now;
        }
    }

    /// An answer came; it proves everything before the place. None when nobody asked.
    pub(super) fn answered(&mut self) -> Option<Place> {
        let Stage::Asked { place, .. } = self.stage else { return None };
        self.stage = Stage::None;
        self.stride = (self.stride * 2).min(*QUESTION_BYTES.end());
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Answered,
        Silent,
        Hung,
        Lost,
        Unanswered,
        /// So much time passes before the next connection.
        Reconnected(Duration),
    }

    fn happen(modes: &mut Modes, endpoint: usize, event: Event, now: &mut Instant) {
        match event {
            Event::Answered => modes.answered(endpoint),
            Event::Silent => modes.stayed_silent(endpoint),
            Event::Hung => modes.hung(endpoint),
            Event::Lost => modes.lost(endpoint, *now),
            Event::Unanswered => modes.unanswered(endpoint),
            Event::Reconnected(after) => {
                *now += after;
                modes.connected(endpoint, *now);
            }
        }
    }

    #[test]
    fn an_endpoint_is_decided_as_the_table_says() {
        use Event::{Answered, Hung, Lost, Reconnected, Silent, Unanswered};
        let late = Reconnected(LOSSES_COUNT_FOR);
        let early = Reconnected(LOSSES_COUNT_FOR - Duration::from_secs(1));
        let lapse: &[Event] = &[Answered, Unanswered];
        let cases: &[(&[Event], &[Event], Mode)] = &[
            (&[], &[], Mode::Undecided),
            (&[], &[Answered], Mode::Version),
            (&[], &[Silent], Mode::HalfClose),
            (&[], &[Silent, Answered], Mode::Version),
            (&[], &[Silent, late], Mode::HalfClose),
            (&[], &[Lost], Mode::Undecided),
            (&[], &[Lost, Answered], Mode::Version),
            (&[], &[Lost, Hung, Lost], Mode::HalfClose),
            (&[], &[Lost, Lost, early], Mode::HalfClose),
            (&[], &[Lost, Lost, late], Mode::Undecided),
            (&[], &[Lost, Lost, late, Lost], Mode::Undecided),
            (&[], &[Lost, Lost, late, Silent, late], Mode::HalfClose),
            (&[], &[Answered, Lost, Lost], Mode::Version),
            (lapse, &[], Mode::Lapsed),
            (lapse, &[Answered], Mode::Version),
            (lapse, &[Silent, Silent], Mode::Lapsed),
            (lapse, &[Silent, Silent, Silent], Mode::HalfClose),
            (lapse, &[Silent, Silent, Silent, late], Mode::HalfClose),
            (lapse, &[Silent, Silent, Hung, Silent, Silent], Mode::Lapsed),
            (lapse, &[Silent, Silent, Answered, Unanswered, Silent], Mode::Lapsed),
            (lapse, &[Lost; 5], Mode::Lapsed),
            (lapse, &[Lost; 6], Mode::HalfClose),
            (lapse, &[Lost, Lost, Lost, Lost, Lost, Lost, early], Mode::HalfClose),
            (lapse, &[Lost, Lost, Lost, Lost, Lost, Lost, late], Mode::Lapsed),
        ];
        for (before, events, expected) in cases {
            let mut modes = Modes::new(Confirmation::Auto, 2);
            let mut now = Instant::now();
            for event in before.iter().chain(*events) {
                happen(&mut modes, 1, *event, &mut now);
            }
            assert_eq!(modes.of(1), *expected, "{before:?} {events:?}");
            assert_eq!(modes.of(0), Mode::Undecided, "each endpoint for itself");
        }
    }

    #[test]
    fn what_the_user_decided_stays_decided() {
        for wanted in [Confirmation::Version, Confirmation::HalfClose, Confirmation::Written] {
            let mut modes = Modes::new(wanted, 1);
            let mut now = Instant::now();
            let events = [Event::Unanswered, Event::Silent, Event::Lost, Event::Lost];
            for event in events.into_iter().chain([Event::Answered]) {
                happen(&mut modes, 0, event, &mut now);
                assert_eq!(modes.of(0).in_force(), wanted);
            }
        }
    }

    #[test]
    fn a_question_is_due_after_a_second_and_one_is_outstanding_at_most() {
        let start = Instant::now();
        let mut barrier = Barrier::new(Place::default());
        assert!(!barrier.is_askable(), "a question never comes first");
        barrier.wrote(start);
        assert!(!barrier.is_due(Place::default(), start));
        assert!(barrier.is_due(Place::default(), start + QUESTION_AGE));
        barrier.begin(Place::default());
        assert_eq!(barrier.to_write(), QUESTION);
        barrier.took(3, start);
        assert_eq!(barrier.to_write(), b"sion\n");
        assert_eq!(barrier.answered(), None, "half a question has no answer");
        barrier.took(5, start);
        barrier.wrote(start);
        assert!(!barrier.is_askable());
        assert_eq!(barrier.due(), None);
        assert_eq!(barrier.answered(), Some(Place::default()));
        assert_eq!(barrier.answered(), None);
        assert!(barrier.is_askable());
    }
}
