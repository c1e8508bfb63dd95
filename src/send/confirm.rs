//! How it is known that a server has parsed what was written.
//!
//! **Problem.** Servers differ. Most answer `version` in order, so that its answer proves the lines before it; VictoriaMetrics
//! answers nothing, and takes a `version` that comes first for a broken request.
//!
//! **Idea.** Ask once, behind the first burst, and remember the outcome for each endpoint.
//!
//! **Mechanism.** An undecided endpoint is asked `version`:
//!
//! | what happens | the endpoint is from then on |
//! |---|---|
//! | an answer, be it late | `Version` |
//! | nothing for 2 s, or an HTTP reply; then a half-close, and the server closes too | `HalfClose` |
//! | nothing for 2 s; then the half-close fails as well | undecided as before: a server in trouble proves nothing |
//! | the connection is lost under the question | undecided; the second time `HalfClose` |
//! | `Version` by this table, and later a `version` stays unanswered until the connection is given up | undecided again |

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::window::Place;
use crate::stats::Confirmation;

/// The question, whose answer comes after everything before it was parsed.
pub(super) const QUESTION: &[u8] = b"version\n";
/// How long an undecided endpoint may take to answer.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How often a connection may be lost under the question.
const MAX_LOST: u8 = 2;
/// Bytes behind the last question at which the next one is due though there is more to send: the first on a connection, which
/// doubles with each answer up to the last. Where every connection breaks after a while, each one still gets something confirmed.
const QUESTION_BYTES: RangeInclusive<u64> = 16 * 1024..=256 * 1024;
/// The age of the first unasked byte at which a question is due though there is more to send.
const QUESTION_AGE: Duration = Duration::from_secs(1);

/// How an endpoint confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not known yet; so many connections were lost under the question.
    Undecided {
        lost: u8,
    },
    Version,
    HalfClose,
    Written,
}

/// What is known of each endpoint.
#[derive(Debug)]
pub(super) struct Modes {
    /// What the user wants.
    wanted: Confirmation,
    /// By the endpoint's index.
    modes: Vec<Mode>,
}

impl Modes {
    pub(super) fn new(wanted: Confirmation, endpoints: usize) -> Self {
        let mode = match wanted {
            Confirmation::Auto => Mode::Undecided { lost: 0 },
            Confirmation::Version => Mode::Version,
            Confirmation::HalfClose => Mode::HalfClose,
            Confirmation::Written => Mode::Written,
        };
        Modes { wanted, modes: vec![mode; endpoints] }
    }

    pub(super) fn of(&self, endpoint: usize) -> Mode {
        self.modes.get(endpoint).copied().unwrap_or(Mode::HalfClose)
    }

    /// The endpoint answered `version`.
    pub(super) fn answered(&mut self, endpoint: usize) {
        self.decide(endpoint, Mode::Version);
    }

    /// It did not answer, but closed in good order after the half-close.
    pub(super) fn stayed_silent(&mut self, endpoint: usize) {
        self.decide(endpoint, Mode::HalfClose);
    }

    /// The connection was lost before the answer.
    pub(super) fn lost(&mut self, endpoint: usize) {
        if let Mode::Undecided { lost } = self.of(endpoint) {
            let lost = lost + 1;
            let mode = if lost < MAX_LOST { Mode::Undecided { lost } } else { Mode::HalfClose };
            self.decide(endpoint, mode);
        }
    }

    /// It used to answer, and no longer did.
    pub(super) fn unanswered(&mut self, endpoint: usize) {
        self.decide(endpoint, Mode::Undecided { lost: 0 });
    }

    fn decide(&mut self, endpoint: usize, decided: Mode) {
        if self.wanted == Confirmation::Auto {
            if let Some(mode) = self.modes.get_mut(endpoint) {
                *mode = decided;
            }
        }
    }
}

impl Mode {
    /// What the user is told is in force.
    pub(super) fn in_force(self) -> Confirmation {
        match self {
            Mode::Undecided { .. } => Confirmation::Auto,
            Mode::Version => Confirmation::Version,
            Mode::HalfClose => Confirmation::HalfClose,
            Mode::Written => Confirmation::Written,
        }
    }

    /// Whether `version` is asked.
    pub(super) fn asks(self) -> bool {
        matches!(self, Mode::Version | Mode::Undecided { .. })
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

    #[test]
    fn an_endpoint_is_decided_as_the_table_says() {
        type Event = fn(&mut Modes, usize);
        let (answered, silent, lost, unanswered): (Event, Event, Event, Event) =
            (Modes::answered, Modes::stayed_silent, Modes::lost, Modes::unanswered);
        let cases: &[(&[Event], Mode)] = &[
            (&[], Mode::Undecided { lost: 0 }),
            (&[answered], Mode::Version),
            (&[silent], Mode::HalfClose),
            (&[silent, answered], Mode::Version),
            (&[lost], Mode::Undecided { lost: 1 }),
            (&[lost, answered], Mode::Version),
            (&[lost, lost], Mode::HalfClose),
            (&[answered, lost], Mode::Version),
            (&[answered, unanswered], Mode::Undecided { lost: 0 }),
        ];
        for (events, expected) in cases {
            let mut modes = Modes::new(Confirmation::Auto, 2);
            for event in *events {
                event(&mut modes, 1);
            }
            assert_eq!(modes.of(1), *expected);
            assert_eq!(modes.of(0), Mode::Undecided { lost: 0 }, "each endpoint for itself");
        }
    }

    #[test]
    fn what_the_user_decided_stays_decided() {
        for wanted in [Confirmation::Version, Confirmation::HalfClose, Confirmation::Written] {
            let mut modes = Modes::new(wanted, 1);
            modes.unanswered(0);
            modes.stayed_silent(0);
            modes.answered(0);
            assert_eq!(modes.of(0).in_force(), wanted);
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
