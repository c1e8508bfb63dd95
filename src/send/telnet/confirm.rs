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
/// How many lines are written until a question is due though there is more to send.
const QUESTION_POINTS: usize = 4096;
/// The age of the first line behind the last question at which the next one is due.
const QUESTION_AGE: Duration = Duration::from_secs(1);
/// How many lines may be unconfirmed after a connection failed, until something is confirmed. Where
/// every connection breaks after a while, each second one then still gets something confirmed.
const CAUTIOUS_POINTS: usize = 128;
/// How many timeouts a wait lasts at most, whatever progress the server shows.
const MAX_TIMEOUTS: u32 = 5;

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

    /// It has shown that it confirms in this mode.
    pub(super) fn learn(&mut self, mode: Confirmation, now: Instant) {
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

    /// How many lines may be unconfirmed, as far as the window has room for them.
    pub(super) fn max_unconfirmed(&self) -> usize {
        if self.is_cautious { CAUTIOUS_POINTS } else { usize::MAX }
    }
}

/// What the server of one connection is waited for: at most one question is outstanding.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The place behind which `version` is asked, and how many of its bytes are written.
    question: Option<(Place, usize)>,
    /// How many lines are behind the last question.
    unasked: usize,
    /// When the first of them was written.
    first_written: Instant,
    /// When the last bytes of lines were written.
    last_written: Instant,
    /// When the last question or our half-close was written: the wait for the server.
    began: Instant,
    /// When the server last showed that it works on what it got.
    progressed: Instant,
}

impl Barrier {
    pub(super) fn new(now: Instant) -> Self {
        Barrier {
            question: None,
            unasked: 0,
            first_written: now,
            last_written: now,
            began: now,
            progressed: now,
        }
    }

    /// Bytes were written that completed so many lines.
    pub(super) fn wrote(&mut self, points: usize, now: Instant) {
        if self.unasked == 0 {
            self.first_written = now;
        }
        self.unasked += points;
        self.last_written = now;
    }

    /// When the first line behind the last question was written.
    pub(super) fn first_written(&self) -> Instant {
        self.first_written
    }

    pub(super) fn last_written(&self) -> Instant {
        self.last_written
    }

    /// When to ask though there is more to send. `None` while a question is outstanding or there is
    /// nothing to ask about.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let age = if self.unasked < QUESTION_POINTS { QUESTION_AGE } else { Duration::ZERO };
        (self.question.is_none() && self.unasked > 0).then(|| self.first_written + age)
    }

    /// Begins a question behind `place`, where everything that was written ends.
    pub(super) fn ask(&mut self, place: Place) {
        self.question = Some((place, 0));
        self.unasked = 0;
    }

    /// The bytes of the question that are to be written.
    pub(super) fn to_write(&self) -> &'static [u8] {
        self.question.map_or(&[], |(_, written)| &QUESTION[written..])
    }

    /// What is missing of a question that was begun.
    pub(super) fn rest_of_line(&self) -> &'static [u8] {
        let rest = self.to_write();
        if rest.len() < QUESTION.len() { rest } else { &[] }
    }

    /// The kernel took so many bytes of the question.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        if let Some((_, written)) = &mut self.question {
            *written += bytes;
        }
        self.begin_wait(now);
    }

    /// The server is waited for from now on.
    pub(super) fn begin_wait(&mut self, now: Instant) {
        (self.began, self.progressed) = (now, now);
    }

    /// The server has shown that it works on what it got, which prolongs the wait.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.progressed = now;
    }

    /// When the wait began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When the wait is over. Progress prolongs it up to [`MAX_TIMEOUTS`] times: a server that
    /// refuses one line within each timeout and never answers is left in the end.
    pub(super) fn ends_at(&self, timeout: Duration) -> Instant {
        (self.progressed + timeout).min(self.began + timeout.saturating_mul(MAX_TIMEOUTS))
    }

    /// Whether a question is outstanding.
    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some_and(|(_, written)| written == QUESTION.len())
    }

    /// When an undecided server that has not answered counts as silent.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        self.is_asked().then(|| self.ends_at(ANSWER_TIME))
    }

    /// An answer came: everything before the place is parsed. `None` when nothing was asked.
    pub(super) fn answered(&mut self) -> Option<Place> {
        self.question.take_if(|(_, written)| *written == QUESTION.len()).map(|(place, _)| place)
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
            Event::Answered => profile.learn(Confirmation::Version, *now),
            Event::Silent => profile.learn(Confirmation::HalfClose, *now),
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
        assert_eq!(profile.max_unconfirmed(), usize::MAX);
        profile.failed();
        assert_eq!(profile.max_unconfirmed(), CAUTIOUS_POINTS);
        profile.confirmed();
        assert_eq!(profile.max_unconfirmed(), usize::MAX);
    }

    #[test]
    fn progress_prolongs_a_wait_up_to_a_bound() {
        let timeout = Duration::from_secs(30);
        let start = Instant::now();
        let mut barrier = Barrier::new(start);
        assert_eq!(barrier.ends_at(timeout), start + timeout);
        barrier.progressed(start + Duration::from_secs(20));
        assert_eq!(barrier.ends_at(timeout), start + Duration::from_secs(50));
        barrier.progressed(start + Duration::from_secs(140));
        assert_eq!(barrier.ends_at(timeout), start + Duration::from_secs(150));
    }

    #[test]
    fn a_question_is_due_after_a_second_and_one_is_outstanding_at_most() {
        let start = Instant::now();
        let place = Place::default();
        let mut barrier = Barrier::new(start);
        assert_eq!(barrier.due_at(), None, "a question never comes first");
        barrier.wrote(1, start);
        assert_eq!(barrier.due_at(), Some(start + QUESTION_AGE));
        barrier.wrote(QUESTION_POINTS, start + QUESTION_AGE / 2);
        assert_eq!(barrier.due_at(), Some(start));
        barrier.ask(place);
        assert_eq!((barrier.to_write(), barrier.rest_of_line()), (QUESTION, &b""[..]));
        barrier.took(3, start);
        assert_eq!((barrier.to_write(), barrier.rest_of_line()), (&b"sion\n"[..], &b"sion\n"[..]));
        assert_eq!(barrier.answered(), None, "half a question has no answer");
        barrier.took(5, start);
        barrier.wrote(1, start);
        assert_eq!(barrier.due_at(), None);
        assert_eq!(barrier.answered(), Some(place));
        assert_eq!(barrier.answered(), None);
        assert_eq!(barrier.due_at(), Some(start + QUESTION_AGE));
    }
}
