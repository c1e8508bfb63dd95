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
//! **When.** A question after each line is chatter, and a half-close after each is a connection per
//! line. Either of them too late keeps points unconfirmed, which costs memory, and double lines
//! when the connection breaks. Points come in bursts, a snapshot each, so the end of a burst is the
//! time to ask; a burst that does not end is asked about all the same. Between two lines comes the
//! first of these that holds, see [`Agenda`]:
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
use crate::queue::Demand;
use crate::send::deadline::Deadline;
use crate::send::delivery::is_leaving;
use crate::send::limiter::Brake;
use crate::send::window::{Place, Window};
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
/// How many lines may be unconfirmed after a connection failed, until something is confirmed.
const CAUTIOUS_POINTS: usize = 128;

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

/// What is known of one endpoint beyond its present connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// What the user wants.
    wanted: Confirmation,
    /// With [`Confirmation::Auto`]: the mode that was learned last, and when.
    learned: Option<(Confirmation, Instant)>,
    /// How many lines were confirmed since a connection last failed, if one ever did.
    confirmed_since_failure: Option<usize>,
    /// The time of the last half-close.
    pub(super) half_closed: Option<Instant>,
    /// Whether the system has told of a connection to it that everything was acknowledged. It does
    /// so of each that is, then.
    pub(super) settles: bool,
    /// How far its complaints slow down the sending.
    pub(super) brake: Brake,
}

impl Profile {
    pub(crate) fn new(wanted: Confirmation) -> Self {
        Profile { wanted, ..Profile::default() }
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

    /// A connection to it failed, or none could be made.
    pub(crate) fn failed(&mut self) {
        self.learned = self.learned.filter(|(mode, _)| *mode == Confirmation::Version);
        self.confirmed_since_failure = Some(0);
    }

    /// So many lines were confirmed.
    pub(super) fn confirmed(&mut self, points: usize) {
        self.confirmed_since_failure = self.confirmed_since_failure.map(|before| before + points);
    }

    /// How many lines may be unconfirmed, as far as the window has room for them: after a failure
    /// a few, and as many as were confirmed since. Where every connection breaks after a while,
    /// as much is then sent again as is confirmed, and not everything each time.
    pub(super) fn max_unconfirmed(&self) -> usize {
        self.confirmed_since_failure.map_or(usize::MAX, |points| CAUTIOUS_POINTS + points)
    }
}

/// The questions on one connection, of which at most one is outstanding, and how long its server
/// has been waited for.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The place behind which `version` is asked, and how many of its bytes are written.
    question: Option<(Place, usize)>,
    /// How many lines are behind the last question.
    unasked: usize,
    /// When the first of them was written.
    pub(super) first_written: Instant,
    /// When the last bytes of lines were written.
    pub(super) last_written: Instant,
    /// The wait for the server, since the last question or our half-close was written.
    pub(super) wait: Deadline,
}

impl Barrier {
    pub(super) fn new(now: Instant) -> Self {
        Barrier {
            question: None,
            unasked: 0,
            first_written: now,
            last_written: now,
            wait: Deadline::new(now),
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

    /// The kernel took so many bytes of the question.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        if let Some((_, written)) = &mut self.question {
            *written += bytes;
        }
        self.wait = Deadline::new(now);
    }

    /// Whether a question is outstanding.
    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some_and(|(_, written)| written == QUESTION.len())
    }

    /// When an undecided server that has not answered counts as silent.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        self.is_asked().then(|| self.wait.at(ANSWER_TIME))
    }

    /// An answer came: everything before the place is parsed. `None` when nothing was asked.
    pub(super) fn answered(&mut self) -> Option<Place> {
        self.question.take_if(|(_, written)| *written == QUESTION.len()).map(|(place, _)| place)
    }
}

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
pub(super) enum Next {
    HalfClose,
    Ask,
    Send,
    Wait(Option<Instant>),
}

impl Agenda<'_> {
    pub(super) fn next(&self) -> Next {
        if self.wants_half_close() {
            return Next::HalfClose;
        }
        if self.wants_to_ask() {
            return Next::Ask;
        }
        if !self.is_sent() && !self.is_full() {
            return Next::Send;
        }
        let times = if self.window.is_empty() {
            [self.leave_at, None, None]
        } else {
            [Some(self.quiet_at()), self.rested_at(), self.barrier.silent_at()]
        };
        Next::Wait(times.into_iter().flatten().filter(|at| *at > self.now).min())
    }

    fn wants_half_close(&self) -> bool {
        if self.window.is_empty()
            && self.is_sent()
            && is_leaving(self.demand, self.leave_at, self.now)
        {
            return true;
        }
        self.window.has_unconfirmed_writes()
            && match self.profile.mode() {
                Confirmation::HalfClose => {
                    let is_rested = self.rested_at().is_none_or(|at| self.now >= at);
                    self.is_full() || self.is_long() || (self.is_over() && is_rested)
                }
                Confirmation::Auto => self.barrier.silent_at().is_some_and(|at| self.now >= at),
                _ => false,
            }
    }

    fn wants_to_ask(&self) -> bool {
        self.barrier.due_at().is_some_and(|due_at| match self.profile.mode() {
            Confirmation::Auto => true,
            Confirmation::Version => self.is_over() || self.now >= due_at,
            _ => false,
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

    fn is_over(&self) -> bool {
        self.is_full() || (self.is_sent() && self.now >= self.quiet_at())
    }

    fn is_long(&self) -> bool {
        let allowed = if self.demand.is_expedited { EXPEDITED_BURST } else { BURST };
        self.now >= self.barrier.first_written + allowed
    }

    /// When the burst counts as over if no line comes until then.
    fn quiet_at(&self) -> Instant {
        let is_urgent = self.demand.is_expedited && self.profile.mode() != Confirmation::HalfClose;
        self.barrier.last_written + if is_urgent { Duration::ZERO } else { QUIET }
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
    fn after_a_failure_little_may_be_unconfirmed_and_more_with_what_is_confirmed() {
        let mut profile = Profile::new(Confirmation::HalfClose);
        profile.confirmed(10);
        assert_eq!(profile.max_unconfirmed(), usize::MAX);
        profile.failed();
        assert_eq!(profile.max_unconfirmed(), CAUTIOUS_POINTS);
        profile.confirmed(10);
        assert_eq!(profile.max_unconfirmed(), CAUTIOUS_POINTS + 10);
        profile.confirmed(CAUTIOUS_POINTS + 10);
        assert_eq!(profile.max_unconfirmed(), 2 * (CAUTIOUS_POINTS + 10));
        profile.failed();
        assert_eq!(profile.max_unconfirmed(), CAUTIOUS_POINTS);
    }

    /// Sends lines over connections of which each breaks after so many, and answers how many were
    /// sent again, and on how many connections that broke.
    fn resent_where_connections_break(
        mode: Confirmation,
        lasts: usize,
        lines: usize,
    ) -> [usize; 2] {
        let line = "put m 1700000000 1 host=a\n";
        let mut fixture = Fixture::just_sent(mode);
        fixture.profile.failed();
        fixture.window.rewind();
        (0..lines / 500).for_each(|_| fixture.load(&line.repeat(500)));
        // A second for each step, so that nothing is waited for.
        let (mut on_this, mut resent, mut failures) = (0, 0, 0);
        while !fixture.window.is_empty() {
            fixture.now += QUIET + QUESTION_AGE;
            fixture.demand.unsent = fixture.window.ungranted();
            match fixture.next() {
                Next::Send => {
                    let left = fixture.profile.max_unconfirmed() - fixture.window.granted();
                    fixture.window.grant(left);
                    let left_bytes = (lasts - on_this) * line.len();
                    let bytes = fixture.window.to_write().len();
                    let written = fixture.window.wrote(bytes.min(left_bytes));
                    fixture.barrier.wrote(written.points, fixture.now);
                    resent += written.resent;
                    on_this += written.points;
                    if bytes > left_bytes {
                        fixture.profile.failed();
                        fixture.window.rewind();
                        fixture.barrier = Barrier::new(fixture.now);
                        (on_this, failures) = (0, failures + 1);
                    }
                }
                Next::Ask | Next::HalfClose => {
                    if mode == Confirmation::HalfClose {
                        on_this = 0;
                    }
                    fixture.barrier = Barrier::new(fixture.now);
                    let confirmed = fixture.confirm();
                    fixture.profile.confirmed(confirmed);
                }
                Next::Wait(_) => {}
            }
        }
        [resent, failures]
    }

    #[test]
    fn where_every_connection_breaks_no_more_is_sent_again_than_is_confirmed() {
        for mode in [Confirmation::Version, Confirmation::HalfClose] {
            for lasts in [200, 500, 1000, 3000] {
                let lines = 20_000;
                let [resent, failures] = resent_where_connections_break(mode, lasts, lines);
                assert!(failures > 3, "{mode:?} {lasts}");
                let most = lines + failures * CAUTIOUS_POINTS;
                assert!(resent <= most, "{mode:?} {lasts}: {resent} of {lines}, {failures}");
            }
        }
    }

    #[test]
    fn a_question_is_due_after_a_second_and_one_is_outstanding_at_most() {
        let start = Instant::now();
        let place = Place::default();
        let mut barrier = Barrier::new(start);
        assert_eq!(barrier.due_at(), None, "a question never comes first");
        barrier.wrote(1, start);
        assert_eq!(barrier.due_at(), Some(start + QUESTION_AGE));
        barrier.wrote(QUESTION_POINTS - 2, start);
        assert_eq!(barrier.due_at(), Some(start + QUESTION_AGE));
        barrier.wrote(1, start + QUESTION_AGE / 2);
        assert_eq!(barrier.due_at(), Some(start));
        barrier.ask(place);
        assert_eq!(barrier.to_write(), QUESTION);
        barrier.took(3, start);
        assert_eq!(barrier.to_write(), b"sion\n");
        assert_eq!(barrier.answered(), None, "half a question has no answer");
        assert!(!barrier.is_asked() && barrier.silent_at().is_none());
        barrier.took(5, start);
        assert_eq!(barrier.silent_at(), Some(start + ANSWER_TIME));
        barrier.wrote(1, start);
        assert_eq!(barrier.due_at(), None);
        assert_eq!(barrier.answered(), Some(place));
        assert_eq!(barrier.answered(), None);
        assert_eq!(barrier.due_at(), Some(start + QUESTION_AGE));
    }

    const MODES: [Confirmation; 4] =
        [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose, Confirmation::Written];

    /// What an [`Agenda`] asks.
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

        fn load(&mut self, lines: &str) {
            let queue = Queue::new(usize::MAX, Arc::new(Counters::default()));
            queue.push(lines.into(), lines.lines().count(), self.now);
            self.window.push(queue.pop().unwrap());
        }

        fn write(&mut self, lines: &str) {
            self.load(lines);
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

        fn confirm(&mut self) -> usize {
            self.window.confirm(self.window.written(), drop)
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

        fn next(&self) -> Next {
            let Fixture { now, demand, leave_at, .. } = *self;
            let (window, profile, barrier) = (&self.window, &self.profile, &self.barrier);
            Agenda { now, demand, window, profile, barrier, leave_at }.next()
        }
    }

    #[test]
    fn each_mode_has_its_own_next_step() {
        use Next::{Ask, HalfClose, Send, Wait};
        let idle = Wait(None);
        // In the order of `MODES`: undecided, version, half-close, written.
        type Case = (&'static str, fn(&mut Fixture), [Next; 4]);
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
                    s.now += ANSWER_TIME;
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
                if let Wait(_) = fixture.next() { idle } else { fixture.next() }
            });
            assert_eq!(plans, *expected, "{name}");
        }
    }

    #[test]
    fn a_burst_lingers_and_half_closes_keep_their_distance() {
        for mode in [Confirmation::Version, Confirmation::HalfClose] {
            let fixture = Fixture::just_sent(mode);
            assert_eq!(fixture.next(), Next::Wait(Some(fixture.now + QUIET)), "{mode:?}");
        }
        let mut fixture = Fixture::just_sent(Confirmation::Version);
        fixture.demand.is_expedited = true;
        assert_eq!(fixture.next(), Next::Ask);
        let mut fixture = Fixture::just_sent(Confirmation::HalfClose);
        fixture.demand.is_expedited = true;
        let quiet_at = fixture.now + QUIET;
        assert_eq!(fixture.next(), Next::Wait(Some(quiet_at)), "it may be closing");
        let mut fixture = Fixture::just_sent(Confirmation::HalfClose);
        let rested_at = fixture.now + REST / 2;
        fixture.profile.half_closed = Some(rested_at - REST);
        fixture.now += QUIET;
        assert_eq!(fixture.next(), Next::Wait(Some(rested_at)));
        let now = std::mem::replace(&mut fixture.now, rested_at);
        assert_eq!(fixture.next(), Next::HalfClose);
        fixture.now = now;
        fixture.fill();
        assert_eq!(fixture.next(), Next::HalfClose, "a full window cannot rest");
    }

    #[test]
    fn a_connection_is_left_for_a_preferred_endpoint_when_nothing_is_on_its_way() {
        for mode in MODES {
            let mut fixture = Fixture::just_sent(mode);
            let leave_at = fixture.now + BURST;
            fixture.leave_at = Some(leave_at);
            fixture.answer();
            assert_eq!(fixture.next(), Next::Wait(Some(leave_at)), "{mode:?}");
            fixture.now = leave_at;
            assert_eq!(fixture.next(), Next::HalfClose, "{mode:?}");
            fixture.demand.unsent = 1;
            assert_eq!(fixture.next(), Next::Send, "{mode:?}");
            (fixture.demand.unsent, fixture.demand.is_expedited) = (0, true);
            assert_eq!(fixture.next(), Next::Wait(None), "{mode:?}");
        }
    }
}
