//! How it is known that a server has parsed what was written.
//!
//! **Problem.** Servers differ. Most answer `version` in order, so that its answer proves the lines
//! before it. VictoriaMetrics answers nothing; it closes its side when it has read everything
//! before our half-close. But so does a proxy whose TSD is away, and a web server that understood
//! nothing.
//!
//! **Idea.** An answer to `version` proves more than any end of a stream, so [`Auto`] asks whenever
//! it may. It half-closes only where asking was in vain.
//!
//! **Mechanism.** What [`Auto`] has learned of an endpoint is one of three things:
//!
//! | learned | confirms by | until |
//! |---|---|---|
//! | nothing yet | `version`, asked behind the first lines; after 2 s of silence a half-close, whose end has to follow within half a second | it answers, or has been silent and closed like that |
//! | it answers | `version` alone | 10 minutes have passed since its last answer |
//! | it is silent | half-closes | 10 minutes have passed, or any failure |
//!
//! What each mode proves:
//!
//! | | proves | does not |
//! |---|---|---|
//! | `Version` | a server that knows `version` has parsed every line before it, also behind a proxy | that it has stored them |
//! | `HalfClose` | the other end of the connection has read everything and closed in good order after we did. A server of this protocol has parsed it then | anything of a server behind a proxy: the proxy may have read and closed while its server was away |
//! | `Auto` | as `Version` where the server answers. Where it does not: as `HalfClose`, and that the peer kept the connection open for 2 s and closed when we did, which a proxy without its server does only by chance | as `HalfClose`, once the endpoint has been silent |
//! | `Written` | the kernel took it | everything else |
//!
//! In all of them a connection that ends before our half-close proves nothing by its end, and
//! neither does one on which came bytes that no TSD sends ([`Parser::alien`]).
//!
//! Whether an end was orderly depends on the system, see
//! [`is_settled`](crate::send::connection::Connection::is_settled).
//!
//! [`Auto`]: Confirmation::Auto
//! [`Parser::alien`]: crate::wire::reply::Parser::alien

use std::time::Duration;

use crate::clock::Instant;
use crate::send::window::Place;
use crate::stats::Confirmation;

/// The question. Its answer comes after everything before it was parsed.
pub(crate) const QUESTION: &[u8] = b"version\n";
/// How long an endpoint that never answered may take to.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// The longest time between our half-close and that of a server that has been silent. It had
/// [`ANSWER_TIME`] for everything; what takes longer than this closes for a reason of its own.
pub(super) const PROMPT: Duration = Duration::from_millis(500);
/// How long it is remembered that an endpoint answers or is silent.
pub(crate) const LEARNED_FOR: Duration = Duration::from_secs(600);
/// Unasked bytes at which a question is due though there is more to send.
const QUESTION_BYTES: u64 = 256 * 1024;
/// The age of the first unasked byte at which a question is due though there is more to send.
const QUESTION_AGE: Duration = Duration::from_secs(1);
/// How much may be unconfirmed after a connection failed, until something is confirmed. Where every
/// connection breaks after a while, each second one then still gets something confirmed.
const CAUTIOUS_BYTES: u64 = 16 * 1024;
/// How many timeouts a wait lasts at most, whatever progress the server shows.
const PATIENCE: u32 = 5;

/// What is known of one endpoint beyond its present connection.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// What the user wants.
    wanted: Confirmation,
    /// With [`Confirmation::Auto`]: the mode that was learned last, and when.
    learned: Option<(Confirmation, Instant)>,
    /// Whether a connection failed since something was confirmed.
    is_cautious: bool,
    /// The time of the last half-close.
    pub(super) half_closed: Option<Instant>,
}

impl Profile {
    pub(crate) fn new(wanted: Confirmation) -> Self {
        Profile { wanted, learned: None, is_cautious: false, half_closed: None }
    }

    /// How it confirms; [`Confirmation::Auto`] while that is not known.
    pub(crate) fn mode(&self) -> Confirmation {
        self.learned.map_or(self.wanted, |(mode, _)| mode)
    }

    /// There is a new connection to it.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.learned =
            self.learned.filter(|(_, at)| now.saturating_duration_since(*at) < LEARNED_FOR);
    }

    /// It answered `version`.
    pub(super) fn answered(&mut self, now: Instant) {
        self.learn(Confirmation::Version, now);
    }

    /// It did not answer, and closed in good order when we did.
    pub(super) fn was_silent(&mut self, now: Instant) {
        self.learn(Confirmation::HalfClose, now);
    }

    fn learn(&mut self, mode: Confirmation, now: Instant) {
        if self.wanted == Confirmation::Auto {
            self.learned = Some((mode, now));
        }
    }

    /// It confirmed something.
    pub(super) fn confirmed(&mut self) {
        self.is_cautious = false;
    }

    /// A connection to it failed, or none could be made.
    pub(crate) fn failed(&mut self) {
        self.learned = self.learned.filter(|(mode, _)| *mode == Confirmation::Version);
        self.is_cautious = true;
    }

    /// How many bytes may be unconfirmed; where the answer does not bound that, the window does.
    pub(super) fn burst_bytes(&self) -> u64 {
        let is_bound =
            self.is_cautious && matches!(self.mode(), Confirmation::HalfClose | Confirmation::Auto);
        if is_bound { CAUTIOUS_BYTES } else { u64::MAX }
    }

    fn question_bytes(&self) -> u64 {
        if self.is_cautious { CAUTIOUS_BYTES } else { QUESTION_BYTES }
    }
}

/// Whether `version` is asked in this mode.
pub(super) fn asks(mode: Confirmation) -> bool {
    matches!(mode, Confirmation::Auto | Confirmation::Version)
}

/// A wait for the server. Progress prolongs it, up to [`PATIENCE`] times: a server that refuses one
/// line within each timeout and never answers is left in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    began: Instant,
    progressed: Instant,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Patience { began: now, progressed: now }
    }

    /// The server has shown that it works on what it got.
    pub(super) fn renew(&mut self, now: Instant) {
        self.progressed = now;
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn ends_at(&self, timeout: Duration) -> Instant {
        (self.progressed + timeout).min(self.began + timeout.saturating_mul(PATIENCE))
    }
}

/// The questions on one connection, of which one is outstanding at most.
#[derive(Debug)]
pub(super) struct Barrier {
    question: Question,
    /// Everything written before has a question behind it.
    asked_upto: Place,
    /// When the first line behind `asked_upto` was written.
    unasked_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    None,
    /// So many bytes of it are written, behind `place`.
    Asking {
        done: usize,
        place: Place,
    },
    /// Outstanding.
    Asked {
        place: Place,
        patience: Patience,
    },
}

impl Barrier {
    /// For a connection that begins at `place`.
    pub(super) fn new(place: Place) -> Self {
        Barrier { question: Question::None, asked_upto: place, unasked_since: None }
    }

    /// Lines were written.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.unasked_since.get_or_insert(now);
    }

    /// Whether there is something to ask about and no question is outstanding.
    pub(super) fn is_askable(&self) -> bool {
        self.question == Question::None && self.unasked_since.is_some()
    }

    /// Whether to ask though there is more to send.
    pub(super) fn is_due(&self, profile: &Profile, written: Place, now: Instant) -> bool {
        profile.mode() == Confirmation::Auto
            || written.since(self.asked_upto) >= profile.question_bytes()
            || self.due_at().is_some_and(|at| now >= at)
    }

    /// When a question is due by the age of what it asks about.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.unasked_since.filter(|_| self.is_askable()).map(|since| since + QUESTION_AGE)
    }

    /// Begins a question behind `place`.
    pub(super) fn begin(&mut self, place: Place) {
        self.question = Question::Asking { done: 0, place };
        self.asked_upto = place;
        self.unasked_since = None;
    }

    /// The bytes of a question that is being written.
    pub(super) fn to_write(&self) -> &'static [u8] {
        match self.question {
            Question::Asking { done, .. } => &QUESTION[done..],
            Question::None | Question::Asked { .. } => &[],
        }
    }

    /// The kernel took so many bytes of it.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        if let Question::Asking { done, place } = self.question {
            let done = done + bytes;
            self.question = if done < QUESTION.len() {
                Question::Asking { done, place }
            } else {
                Question::Asked { place, patience: Patience::new(now) }
            };
        }
    }

    /// The wait for an outstanding answer.
    pub(super) fn patience(&self) -> Option<Patience> {
        match self.question {
            Question::Asked { patience, .. } => Some(patience),
            Question::None | Question::Asking { .. } => None,
        }
    }

    /// The server has shown that it works on what comes before the question.
    pub(super) fn progressed(&mut self, now: Instant) {
        if let Question::Asked { patience, .. } = &mut self.question {
            patience.renew(now);
        }
    }

    /// An answer came: everything before the place is parsed. `None` when nothing was asked.
    pub(super) fn answered(&mut self) -> Option<Place> {
        let Question::Asked { place, .. } = self.question else { return None };
        self.question = Question::None;
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
        Failed,
        /// So much time passes before the next connection.
        Reconnected(Duration),
    }

    fn happen(profile: &mut Profile, event: Event, now: &mut Instant) {
        match event {
            Event::Answered => profile.answered(*now),
            Event::Silent => profile.was_silent(*now),
            Event::Failed => profile.failed(),
            Event::Reconnected(after) => {
                *now += after;
                profile.connected(*now);
            }
        }
    }

    #[test]
    fn what_was_learned_holds_for_ten_minutes_and_silence_until_a_failure() {
        use Event::{Answered, Failed, Reconnected, Silent};
        let late = Reconnected(LEARNED_FOR);
        let early = Reconnected(LEARNED_FOR - Duration::from_secs(1));
        let cases: &[(&[Event], Confirmation)] = &[
            (&[], Confirmation::Auto),
            (&[Failed], Confirmation::Auto),
            (&[Answered], Confirmation::Version),
            (&[Answered, Failed, early], Confirmation::Version),
            (&[Answered, early, Answered, early], Confirmation::Version),
            (&[Answered, Failed, late], Confirmation::Auto),
            (&[Silent], Confirmation::HalfClose),
            (&[Silent, early], Confirmation::HalfClose),
            (&[Silent, late], Confirmation::Auto),
            (&[Silent, Failed], Confirmation::Auto),
            (&[Silent, Answered, Failed], Confirmation::Version),
        ];
        for (events, expected) in cases {
            let mut profile = Profile::new(Confirmation::Auto);
            let mut now = Instant::now();
            events.iter().for_each(|event| happen(&mut profile, *event, &mut now));
            assert_eq!(profile.mode(), *expected, "{events:?}");
        }
    }

    #[test]
    fn what_the_user_decided_stays_decided() {
        for wanted in [Confirmation::Version, Confirmation::HalfClose, Confirmation::Written] {
            let mut profile = Profile::new(wanted);
            let mut now = Instant::now();
            let late = Event::Reconnected(LEARNED_FOR);
            for event in [Event::Silent, Event::Failed, Event::Answered, late] {
                happen(&mut profile, event, &mut now);
                assert_eq!(profile.mode(), wanted);
            }
        }
    }

    #[test]
    fn after_a_failure_little_may_be_unconfirmed_until_something_is() {
        let mut profile = Profile::new(Confirmation::HalfClose);
        assert_eq!(profile.burst_bytes(), u64::MAX);
        profile.failed();
        assert_eq!(profile.burst_bytes(), CAUTIOUS_BYTES);
        profile.confirmed();
        assert_eq!(profile.burst_bytes(), u64::MAX);
    }

    #[test]
    fn progress_prolongs_a_wait_up_to_a_bound() {
        let timeout = Duration::from_secs(30);
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert_eq!(patience.ends_at(timeout), start + timeout);
        patience.renew(start + Duration::from_secs(20));
        assert_eq!(patience.ends_at(timeout), start + Duration::from_secs(50));
        patience.renew(start + Duration::from_secs(140));
        assert_eq!(patience.ends_at(timeout), start + Duration::from_secs(150));
    }

    #[test]
    fn a_question_is_due_after_a_second_and_one_is_outstanding_at_most() {
        let start = Instant::now();
        let profile = Profile::new(Confirmation::Version);
        let place = Place::default();
        let mut barrier = Barrier::new(place);
        assert!(!barrier.is_askable(), "a question never comes first");
        barrier.wrote(start);
        assert!(!barrier.is_due(&profile, place, start));
        assert!(barrier.is_due(&profile, place, start + QUESTION_AGE));
        assert!(barrier.is_due(&Profile::new(Confirmation::Auto), place, start));
        barrier.begin(place);
        assert_eq!(barrier.to_write(), QUESTION);
        barrier.took(3, start);
        assert_eq!(barrier.to_write(), b"sion\n");
        assert_eq!(barrier.answered(), None, "half a question has no answer");
        barrier.took(5, start);
        barrier.wrote(start);
        assert!(!barrier.is_askable());
        assert_eq!(barrier.due_at(), None);
        assert_eq!(barrier.answered(), Some(place));
        assert_eq!(barrier.answered(), None);
        assert!(barrier.is_askable());
    }
}
