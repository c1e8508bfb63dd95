//! What a server can be told to do wrong, and when.
//!
//! A [`Step`] is an [`Action`] or a [`Fault`] and its moment. One without a moment happens while
//! [`script`](super::FakeTsd::script) runs. Those with a moment form a queue, the [`Script`]: only
//! the first waits, and it counts from when it became the first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(feature = "http")]
use super::http::fault::HttpFault;

/// What a [`FakeTsd`](super::FakeTsd) does once when it is told to, on every open connection.
///
/// ```
/// use metrics_exporter_opentsdb::testing::{Action, FakeTsd};
/// use std::time::Duration;
///
/// let tsd = FakeTsd::start();
/// tsd.script(Action::Reset); // now
/// tsd.script(Action::Close.after_lines(10)); // then these three, one after the other
/// tsd.script(Action::Restart { down: Duration::from_millis(20) }.after_bytes(5_000));
/// let late = b"put: Please throttle writes: late\n".to_vec();
/// tsd.script(Action::Say(late).after(Duration::from_millis(2_500)));
/// assert_eq!(tsd.pending_step_count(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Resets each connection (RST). What was not handled yet is lost.
    Reset,
    /// Handles and answers what has arrived, then closes each connection (FIN). Where something
    /// may not be read, as under [`Fault::StopReading`], the kernel sends a RST instead, as it does
    /// for any server.
    Close,
    /// Sends a FIN on each connection and goes on reading and storing. Under [`Fault::StopReading`]
    /// it reads on once that is healed.
    HalfClose,
    /// Throws away what has arrived and was not handled, sends a FIN on each connection, and throws
    /// away whatever comes on it from now on. A client sees the same as with
    /// [`Close`](Action::Close). A TSD that hangs and is then stopped ends so.
    CloseUnread,
    /// Sends these bytes on each connection, in addition to all replies.
    Say(Vec<u8>),
    /// [`Close`](Action::Close), then refuses connections for a while, then listens again on the
    /// same port.
    Restart {
        /// How long connections are refused.
        down: Duration,
    },
    /// [`Reset`](Action::Reset), then refuses connections for a while, then listens again on the
    /// same port.
    Crash {
        /// How long connections are refused.
        down: Duration,
    },
    /// Ends every [`Fault`], as [`heal`](super::FakeTsd::heal) does.
    Heal,
}

/// What a [`FakeTsd`](super::FakeTsd) does wrong until [`heal`](super::FakeTsd::heal).
///
/// A fault applies to all connections, open ones and those to come;
/// [`for_open_connections`](Fault::for_open_connections) spares the latter. Several hold at once.
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
/// use std::time::Duration;
///
/// let tsd = FakeTsd::start();
/// tsd.script(Fault::Mute); // in force when `script` returns
/// tsd.script(Fault::Delay(Duration::from_millis(60)).after_lines(100));
/// tsd.heal();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is read, so that the sender's buffers fill up.
    StopReading,
    /// Reads at most so many bytes at a time, and then waits.
    Trickle {
        /// How much is read at a time.
        bytes: usize,
        /// The wait between two reads.
        every: Duration,
    },
    /// Asks the kernel for a receive buffer of so many bytes (`SO_RCVBUF`) for each connection. It
    /// outlasts [`heal`](super::FakeTsd::heal).
    ReceiveBuffer(usize),
    /// Resets each connection (RST) when so many more bytes have been read from it, be it in the
    /// middle of a line, as a device in between may.
    BreakAfter(usize),
    /// Reads and stores lines, but answers nothing.
    Mute,
    /// Each answer comes so much later, that to `version` too, and so does the close after the
    /// client's FIN.
    Delay(Duration),
    /// Does not close a connection when the client has finished (FIN).
    HoldOpen,
    /// Sends garbage on each connection, as fast as the client reads.
    Flood,
    /// Is no TSD, or a proxy whose backend is away: throws away what comes, answers the first of it
    /// with these bytes and then a FIN. Without bytes there is the FIN alone.
    ///
    /// ```
    /// use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
    ///
    /// let web = FakeTsd::start();
    /// web.script(Fault::Alien(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    /// let tls = FakeTsd::start();
    /// tls.script(Fault::Alien(vec![0x15, 3, 3, 0, 2, 2, 70])); // an alert
    /// ```
    Alien(Vec<u8>),
    /// Stores no `put`, and answers each with `put: Please throttle writes: …`.
    Throttle,
    /// Stores no `put`, and answers each with this text and a line feed, as `put: HBase error: …`.
    Refusal(String),
    /// `tsd.mode = ro`: `put` is an unknown command.
    ReadOnly,
    /// `tsd.core.auto_create_metrics = false`: metrics that were never seen are refused.
    UnknownMetrics,
    /// Storage hangs. A point that needs a new metric, key or value blocks its connection until
    /// this is healed, what was sent behind it included. Points of known ones are taken.
    FreezeStorage,
    /// Refuses connections, where the system allows that on a port that is kept; elsewhere as
    /// [`ResetNew`](Fault::ResetNew).
    Refuse,
    /// The kernel establishes new connections, and nobody accepts them.
    IgnoreNew,
    /// Accepts new connections and resets them.
    ResetNew,
    /// Accepts new connections and closes them without reading, as a TSD does at
    /// `tsd.core.connections.limit`.
    CloseNew,
    /// What only a [`FakeHttpTsd`](super::FakeHttpTsd) can do wrong.
    #[cfg(feature = "http")]
    Http(HttpFault),
}

impl Fault {
    /// Spares the connections that are made later.
    #[must_use]
    pub fn for_open_connections(self) -> Step {
        Step { task: Task::Begin { fault: self, spares_new: true }, when: When::Now }
    }
}

/// The faults in force on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Mode {
    pub(super) delay: Duration,
    /// How much is read at a time, and how long the wait is between two reads.
    pub(super) trickle: Option<(usize, Duration)>,
    /// How much is still read before the connection breaks.
    pub(super) breaks_after: Option<usize>,
    /// What is answered to the first bytes, before a FIN; nothing is handled.
    pub(super) alien: Option<Vec<u8>>,
    /// What each `put` is answered with instead of being stored.
    pub(super) refusal: Option<String>,
    /// The latest last.
    #[cfg(feature = "http")]
    pub(super) http: Vec<HttpFault>,
    /// Those that have nothing more to say.
    others: Vec<Fault>,
}

impl Mode {
    pub(super) fn begin(&mut self, fault: &Fault) {
        const THROTTLE: &str = "put: Please throttle writes: 10000 RPCs waiting on this region";
        match fault {
            Fault::Delay(delay) => self.delay = *delay,
            Fault::Trickle { bytes, every } => self.trickle = Some((*bytes, *every)),
            Fault::BreakAfter(bytes) => self.breaks_after = Some(*bytes),
            Fault::Alien(bytes) => self.alien = Some(bytes.clone()),
            Fault::Throttle => self.refusal = Some(THROTTLE.into()),
            Fault::Refusal(text) => self.refusal = Some(text.clone()),
            #[cfg(feature = "http")]
            Fault::Http(fault) => self.http.push(fault.clone()),
            fault if self.has(fault) => {}
            fault => self.others.push(fault.clone()),
        }
    }

    /// Whether a fault is in force that has nothing more to say.
    pub(super) fn has(&self, fault: &Fault) -> bool {
        self.others.contains(fault)
    }

    /// Nobody reads a flood any more.
    pub(super) fn end_flood(&mut self) {
        self.others.retain(|fault| *fault != Fault::Flood);
    }
}

/// An [`Action`] or a [`Fault`] and its moment, for [`FakeTsd::script`](super::FakeTsd::script).
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Fault, Step};
///
/// let step: Step = Fault::StopReading.for_open_connections().after_lines(10);
/// FakeTsd::start().script(step);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub(super) task: Task,
    pub(super) when: When,
}

/// What is done at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Do(Action),
    Begin { fault: Fault, spares_new: bool },
}

macro_rules! moments {
    ($($type:ident)*) => {$(
        impl $type {
            /// When so many more bytes have been read, and before the next one is.
            #[must_use]
            pub fn after_bytes(self, bytes: usize) -> Step {
                Step { when: When::Bytes(bytes), ..self.into() }
            }

            /// When so many more lines have been handled, `version` and bad lines included, and
            /// before the next one is. To a `FakeHttpTsd` a request is a line.
            #[must_use]
            pub fn after_lines(self, lines: usize) -> Step {
                Step { when: When::Lines(lines), ..self.into() }
            }

            /// On the next connection, when it is accepted, and on that one alone.
            #[must_use]
            pub fn at_next_connection(self) -> Step {
                Step { when: When::Connection, ..self.into() }
            }

            /// When so much time has passed.
            #[must_use]
            pub fn after(self, wait: Duration) -> Step {
                Step { when: When::Time(wait), ..self.into() }
            }
        }
    )*};
}

moments!(Action Fault Step);
#[cfg(feature = "http")]
moments!(HttpFault);

#[cfg(feature = "http")]
impl From<HttpFault> for Step {
    fn from(fault: HttpFault) -> Self {
        Fault::Http(fault).into()
    }
}

impl From<Action> for Step {
    fn from(action: Action) -> Self {
        Step { task: Task::Do(action), when: When::Now }
    }
}

impl From<Fault> for Step {
    fn from(fault: Fault) -> Self {
        Step { task: Task::Begin { fault, spares_new: false }, when: When::Now }
    }
}

/// The moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    Bytes(usize),
    Lines(usize),
    Connection,
    Time(Duration),
}

/// The steps that wait for their moment.
#[derive(Debug)]
pub(super) struct Script {
    /// What is left to wait is counted down in the first one. It stays the first while it is done,
    /// so that what is read meanwhile does not count for the next one.
    pub(super) steps: VecDeque<Step>,
    /// When the first became the first.
    since: Instant,
}

impl Script {
    pub(super) fn new() -> Self {
        Script { steps: VecDeque::new(), since: Instant::now() }
    }

    pub(super) fn push(&mut self, step: Step) {
        if self.steps.is_empty() {
            self.since = Instant::now();
        }
        self.steps.push_back(step);
    }

    /// How many bytes may be read, and how many lines handled, before a step is due.
    pub(super) fn left(&self) -> (usize, usize) {
        match self.next() {
            Some(When::Bytes(bytes)) => (bytes, usize::MAX),
            Some(When::Lines(lines)) => (usize::MAX, lines),
            _ => (usize::MAX, usize::MAX),
        }
    }

    /// When a step is due, if time decides that.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.next()? {
            When::Time(wait) => Some(self.since + wait),
            _ => None,
        }
    }

    fn next(&self) -> Option<When> {
        self.steps.front().map(|step| step.when)
    }

    /// So many bytes were read and lines handled.
    pub(super) fn count(&mut self, bytes: usize, lines: usize) {
        match self.steps.front_mut().map(|step| &mut step.when) {
            Some(When::Bytes(left)) => *left = left.saturating_sub(bytes),
            Some(When::Lines(left)) => *left = left.saturating_sub(lines),
            _ => {}
        }
    }

    /// The step whose moment has come; [`advance`](Self::advance) when it is done.
    pub(super) fn due(&self, now: Instant) -> Option<Step> {
        let is_due = match self.next()? {
            When::Bytes(left) | When::Lines(left) => left == 0,
            _ => self.deadline().is_some_and(|deadline| deadline <= now),
        };
        self.steps.front().filter(|_| is_due).cloned()
    }

    /// The step that waits for a connection, if it is the first.
    pub(super) fn due_at_connection(&self) -> Option<Step> {
        self.steps.front().filter(|step| step.when == When::Connection).cloned()
    }

    /// The first step is done: the next one counts from now on.
    pub(super) fn advance(&mut self) {
        self.steps.pop_front();
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::tests::{Client, LONG, PATIENCE, expect, put};
    use super::super::{End, FakeTsd, Replies};
    use super::*;
    use crate::builder::Flavor;

    const BAD: &str = "put m 1700000000 1\n";
    const BAD_REPLY: &str = "put: illegal argument: not enough arguments (need least 4, got 3)\n";
    const A_WHILE: Duration = Duration::from_millis(30);

    fn tsd_and_client() -> (FakeTsd, Client) {
        let tsd = FakeTsd::start();
        let client = Client::connect(&tsd);
        (tsd, client)
    }

    #[test]
    fn reset_loses_what_was_not_handled() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.script(Action::Reset);
        assert_eq!(tsd.log().open_connection_count(), 0);
        client.expect_reset();
        assert_eq!(tsd.log().connection(0).unwrap().end, End::ByServer);
    }

    #[test]
    fn close_handles_and_answers_what_has_arrived() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1)).send(BAD);
        assert_eq!(tsd.log().accepted_count(), 0);
        tsd.heal();
        tsd.script(Action::Close);
        assert_eq!((tsd.log().accepted_count(), tsd.log().open_connection_count()), (1, 0));
        assert_eq!(client.rest(), BAD_REPLY);
    }

    #[test]
    fn close_unread_throws_away_what_comes_later() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.script(Action::CloseUnread);
        assert_eq!(client.rest(), "");
        client.send(put(2, 2).repeat(100_000));
        assert_eq!(client.finish(), "");
        assert_eq!((tsd.log().accepted_count(), tsd.log().open_connection_count()), (1, 0));
        assert_eq!(tsd.log().connection(0).unwrap().end, End::ByServer);
    }

    #[test]
    fn close_unread_looks_like_the_end_of_work_that_was_never_done() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::FreezeStorage);
        client
            .send(put(1, 1))
            .send("version\n")
            .stream
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        expect(&tsd, |log| log.open_connection_count() == 0);
        tsd.script(Action::CloseUnread);
        assert_eq!(client.rest(), "");
        let connection = tsd.log().connection(0).unwrap();
        assert_eq!(connection.bytes as usize, put(1, 1).len() + "version\n".len());
        assert_eq!(connection.end, End::ByServer);
        tsd.heal();
        assert_eq!((tsd.log().accepted_count(), tsd.log().version_count()), (0, 0));
    }

    #[test]
    fn a_server_that_has_ended_its_side_reads_on() {
        let (tsd, mut client) = tsd_and_client();
        client.send(BAD).expect(BAD_REPLY);
        tsd.script(Fault::StopReading);
        tsd.script(Action::HalfClose);
        assert_eq!(client.rest(), "");
        client.send(put(1, 1)).send("version\nput half a li");
        assert_eq!(tsd.log().accepted_count(), 0);
        tsd.heal();
        expect(&tsd, |log| log.accepted_count() == 1 && log.version_count() == 1);
        client.finish();
        expect(&tsd, |log| log.open_connection_count() == 0);
        let connection = tsd.log().connection(0).unwrap();
        assert_eq!(
            (connection.unterminated.as_slice(), connection.end),
            (&b"put half a li"[..], End::ByClient)
        );
    }

    #[test]
    fn what_is_no_tsd_answers_and_ends_in_order() {
        for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{15}\u{3}\u{3}\0\u{2}\u{2}F", ""] {
            for delay in [Duration::ZERO, A_WHILE] {
                let tsd = FakeTsd::start();
                tsd.script(Fault::Alien(answer.into()));
                tsd.script(Fault::Delay(delay));
                let mut client = Client::connect(&tsd);
                assert!(client.is_quiet());
                let began = Instant::now();
                client.send(put(1, 1).repeat(1_000));
                assert_eq!(client.rest(), answer);
                assert!(began.elapsed() >= delay);
                client.send(put(2, 2).repeat(1_000)).finish();
                assert_eq!((tsd.log().accepted_count(), tsd.lines().len()), (0, 0));
            }
        }
    }

    #[test]
    fn an_alien_that_is_half_closed_answers_before_its_end() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.script(Fault::Alien(b"what?".to_vec()));
        tsd.script(Fault::Delay(A_WHILE));
        assert_eq!(client.send(put(2, 2)).finish(), "what?");
        assert_eq!(tsd.log().accepted_count(), 1);
    }

    #[test]
    fn a_late_complaint_comes_at_its_time() {
        let (tsd, mut client) = tsd_and_client();
        let (late, began) = ("put: Please throttle writes: late\n", Instant::now());
        tsd.script(Action::Say(late.into()).after(A_WHILE));
        client.send(put(1, 1)).expect(late);
        assert!(began.elapsed() >= A_WHILE);
    }

    #[test]
    fn lines_are_refused_one_by_one_and_version_is_never_answered() {
        let tsd =
            FakeTsd::builder().replies(Replies::from(Flavor::OpenTsdb).with_version("")).start();
        tsd.script(Fault::Refusal("put: HBase error: no".into()));
        tsd.script(Fault::Trickle { bytes: put(1, 1).len(), every: A_WHILE });
        let mut client = Client::connect(&tsd);
        client.send(put(1, 1)).send("version\n").send(put(2, 2)).send(put(3, 3));
        for _ in 0..3 {
            client.expect("put: HBase error: no\n");
        }
        expect(&tsd, |log| log.version_count() == 1);
        assert!(client.is_quiet());
    }

    #[test]
    fn what_is_said_needs_no_line_feed() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Action::Say(b"garbage without an end".to_vec()));
        client.expect("garbage without an end");
        assert!(client.is_quiet());
    }

    #[test]
    fn restart_refuses_for_a_while_and_returns_on_the_same_port() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.script(Action::Restart { down: A_WHILE });
        let began = Instant::now();
        assert_eq!(client.rest(), "");
        let mut refused = 0;
        let mut client = loop {
            match Client::dial(&tsd) {
                Ok(client) => break client,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
            refused += 1;
            assert!(began.elapsed() < PATIENCE);
        };
        assert!(refused > 0);
        assert!(began.elapsed() >= A_WHILE);
        client.send(put(2, 2));
        expect(&tsd, |log| log.accepted_count() == 2 && log.connection_count() == 2);
    }

    #[test]
    fn crash_resets_and_returns() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1));
        tsd.script(Action::Crash { down: Duration::ZERO });
        client.expect_reset();
        assert_eq!(tsd.lines(), [""; 0]);
        tsd.heal();
        Client::connect(&tsd).send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
    }

    #[test]
    fn stopped_reading_fills_the_senders_buffer() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        let sent = client.fill();
        assert_eq!(tsd.log().connection(0).unwrap().bytes, 0);
        tsd.heal();
        expect(&tsd, |log| log.connection(0).unwrap().bytes == sent as u64);
        assert_eq!(tsd.log().accepted_count(), sent / LONG);
    }

    #[test]
    fn a_client_that_leaves_is_seen_without_reading() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1));
        drop(client);
        expect(&tsd, |log| log.open_connection_count() == 0);
        assert_eq!(
            (tsd.log().accepted_count(), tsd.log().connection(0).unwrap().end),
            (0, End::Open)
        );
        tsd.heal();
        expect(&tsd, |log| log.connection(0).unwrap().end == End::ByClient);
        assert_eq!(tsd.log().accepted_count(), 1);
    }

    #[test]
    fn trickle_reads_a_few_bytes_at_a_time() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Trickle { bytes: 20, every: Duration::from_millis(2) });
        let began = Instant::now();
        client.send(put(1, 1).repeat(10)).finish();
        assert_eq!(tsd.log().accepted_count(), 10);
        let reads = put(1, 1).len() * 10 / 20;
        assert!(began.elapsed() >= Duration::from_millis(2) * (reads as u32 - 1));
    }

    #[test]
    fn each_connection_breaks_at_its_own_size() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::BreakAfter(put(1, 1).len() * 3));
        client.send(put(1, 1)).send(put(2, 2));
        expect(&tsd, |log| log.accepted_count() == 2);
        Client::connect(&tsd).send(put(1, 1)).send(put(2, 2)).finish();
        client.send(put(3, 3).repeat(2)).expect_reset();
        assert_eq!((tsd.log().accepted_count(), tsd.log().resent_count()), (5, 2));
        assert_eq!(
            [0, 1].map(|n| tsd.log().connection(n).unwrap().end),
            [End::ByServer, End::ByClient]
        );
    }

    #[test]
    fn a_small_receive_buffer_holds_little() {
        let ample = FakeTsd::start();
        ample.script(Fault::StopReading);
        let ample_bytes = Client::connect(&ample).fill();
        let tsd = FakeTsd::start();
        tsd.script(Fault::ReceiveBuffer(4096));
        tsd.script(Fault::StopReading);
        let mut client = Client::connect(&tsd);
        let bytes = client.fill();
        assert!(bytes < ample_bytes, "{bytes} of {ample_bytes}");
        tsd.heal();
        expect(&tsd, |log| log.connection(0).unwrap().bytes == bytes as u64);
    }

    #[test]
    fn mute_stores_and_answers_nothing() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Mute);
        client.send(put(1, 1)).send(BAD).send("version\n");
        expect(&tsd, |log| log.version_count() == 1);
        assert_eq!((tsd.log().accepted_count(), tsd.log().rejected_count()), (1, 1));
        assert!(client.is_quiet());
        tsd.heal();
        client.send(BAD).expect(BAD_REPLY);
    }

    #[test]
    fn held_open_outlives_the_clients_fin() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::HoldOpen);
        client.send(put(1, 1)).stream.shutdown(std::net::Shutdown::Write).unwrap();
        expect(&tsd, |log| log.accepted_count() == 1);
        assert!(client.is_quiet());
        tsd.heal();
        assert_eq!(client.rest(), "");
        assert_eq!(tsd.log().connection(0).unwrap().end, End::ByClient);
    }

    #[test]
    fn answers_and_the_close_are_delayed() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Delay(A_WHILE));
        let began = Instant::now();
        client.send(BAD).send("version\n");
        expect(&tsd, |log| log.version_count() == 1);
        client.expect(BAD_REPLY).expect("net.opentsdb.tools ");
        assert!(began.elapsed() >= A_WHILE);
        let began = Instant::now();
        client.finish();
        assert!(began.elapsed() >= A_WHILE);
    }

    #[test]
    fn flood_says_more_than_a_bounded_reader_can_hold_and_still_reads() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Flood);
        client.send(put(1, 1));
        let garbage = client.read(1 << 20);
        assert!(garbage.contains('\u{fffd}') && garbage.contains("\n\n"));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.heal();
        client.send(BAD);
        assert!(client.finish().ends_with(BAD_REPLY));
    }

    #[test]
    fn throttled_puts_are_not_stored() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Throttle);
        client.send(put(1, 1));
        client.expect("put: Please throttle writes: ");
        assert_eq!((tsd.log().accepted_count(), tsd.log().rejected_count()), (0, 1));
        tsd.script(Fault::Refusal("put: HBase error: a\n\tb".into()));
        assert!(client.send(put(1, 1)).finish().ends_with("put: HBase error: a\n\tb\n"));
    }

    #[test]
    fn read_only_does_not_know_put() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::ReadOnly);
        client.send(put(1, 1)).send("histogram m 1 0 x a=b\n");
        let replies =
            "unknown command: put.  Try `help'.\nunknown command: histogram.  Try `help'.\n";
        client.expect(replies);
        assert_eq!(tsd.log().rejected()[0], (put(1, 1).trim_end().into(), replies[..34].into()));
    }

    #[test]
    fn unknown_metrics_are_refused_and_known_ones_are_not() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted_count() == 1);
        tsd.script(Fault::UnknownMetrics);
        client.send("put n.unknown 1 1 k=v\n").send(put(2, 2));
        client.expect("put: unknown metric: No such name for 'metrics': 'n.unknown'\n");
        expect(&tsd, |log| log.accepted_count() == 2);
    }

    #[test]
    fn frozen_storage_blocks_behind_the_first_new_name() {
        let (tsd, mut client) = tsd_and_client();
        client.send("put m 1 1 host=a\nput m 1 1 host=b dc=x\n");
        expect(&tsd, |log| log.accepted_count() == 2);
        tsd.script(Fault::FreezeStorage);
        // A known series, then known names in a new series: neither needs storage at once.
        client.send("put m 2 1 host=a\nput m 2 1 dc=x\nversion\n").expect("net.opentsdb.tools ");
        assert_eq!(tsd.log().accepted_count(), 4);
        client.send("put m 3 1 host=new\nput m 3 1 host=a\nversion\n");
        let mut other = Client::connect(&tsd);
        other.send("put m 3 1 host=b dc=x\nversion\n").expect("net.opentsdb.tools ");
        assert_eq!((tsd.log().accepted_count(), tsd.log().version_count()), (5, 2));
        tsd.heal();
        expect(&tsd, |log| log.accepted_count() == 7 && log.version_count() == 3);
        assert_eq!(client.finish().matches("net.opentsdb.tools ").count(), 1);
    }

    #[test]
    fn refused_and_healed() {
        let tsd = FakeTsd::start();
        for _ in 0..3 {
            tsd.script(Fault::Refuse);
            let error = Client::dial(&tsd).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            tsd.heal();
            Client::connect(&tsd);
        }
        assert_eq!(tsd.log().connection_count(), 3);
    }

    #[test]
    fn ignored_connections_are_served_once_it_is_over() {
        let tsd = FakeTsd::start();
        tsd.script(Fault::IgnoreNew);
        let mut client = Client::dial(&tsd).unwrap();
        client.send(put(1, 1)).send(BAD);
        assert_eq!(tsd.log().connection_count(), 0);
        tsd.heal();
        client.expect(BAD_REPLY);
        assert_eq!(tsd.log().connection_count(), 1);
    }

    #[test]
    fn new_connections_are_reset_or_closed() {
        let (tsd, mut before) = tsd_and_client();
        tsd.script(Fault::ResetNew);
        Client::connect(&tsd).expect_reset();
        tsd.script(Fault::CloseNew);
        assert_eq!(Client::connect(&tsd).rest(), "");
        before.send(BAD).expect(BAD_REPLY);
        assert_eq!((tsd.log().connection_count(), tsd.log().open_connection_count()), (3, 1));
    }

    #[test]
    fn a_step_comes_exactly_after_its_bytes() {
        let (tsd, mut client) = tsd_and_client();
        let line = put(1, 1);
        tsd.script(Fault::StopReading.after_bytes(3 * line.len() + 5));
        client.send(line.repeat(10));
        expect(&tsd, |log| log.connection(0).unwrap().bytes == 3 * line.len() as u64 + 5);
        assert_eq!((tsd.log().accepted_count(), tsd.pending_step_count()), (3, 0));
        tsd.heal();
        expect(&tsd, |log| log.accepted_count() == 10);
    }

    #[test]
    fn a_step_comes_exactly_after_its_lines_and_steps_follow_each_other() {
        let (tsd, mut client) = tsd_and_client();
        for _ in 0..50 {
            tsd.script(Action::Reset.after_lines(2));
        }
        for round in 1..=50 {
            client.send(put(round, round).repeat(10)).expect_reset();
            assert_eq!(
                (tsd.log().accepted_count(), tsd.pending_step_count()),
                (2 * round as usize, 50 - round as usize)
            );
            client = Client::connect(&tsd);
        }
        client.send(put(60, 60).repeat(10)).finish();
        assert_eq!((tsd.log().accepted_count(), tsd.log().resent_count()), (110, 59));
    }

    #[test]
    fn what_a_step_handles_does_not_count_for_the_next_one() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1).repeat(10));
        tsd.script(Action::Close.after_lines(2));
        tsd.script(Action::Close.after_lines(2));
        tsd.heal();
        assert_eq!(client.rest(), "");
        assert_eq!((tsd.log().accepted_count(), tsd.pending_step_count()), (10, 1));
    }

    #[test]
    fn a_step_at_the_next_connection_is_for_that_one() {
        let (tsd, mut before) = tsd_and_client();
        tsd.script(Fault::Mute.at_next_connection());
        let mut muted = Client::connect(&tsd);
        let mut after = Client::connect(&tsd);
        for client in [&mut muted, &mut before, &mut after] {
            client.send(BAD);
        }
        before.expect(BAD_REPLY);
        after.expect(BAD_REPLY);
        expect(&tsd, |log| log.rejected_count() == 3);
        assert!(muted.is_quiet());
    }

    #[test]
    fn a_step_after_a_time_comes_by_itself() {
        let (tsd, mut client) = tsd_and_client();
        let began = Instant::now();
        tsd.script(Action::Close.after(A_WHILE));
        assert_eq!(client.rest(), "");
        assert!(began.elapsed() >= A_WHILE);
    }

    #[test]
    fn open_connections_alone_can_be_struck() {
        let (tsd, mut before) = tsd_and_client();
        tsd.script(Fault::StopReading.for_open_connections());
        before.send(BAD);
        Client::connect(&tsd).send(BAD).expect(BAD_REPLY);
        assert!(before.is_quiet());
        assert_eq!(tsd.log().rejected_count(), 1);
    }

    #[test]
    fn healing_keeps_the_flavour_and_the_steps() {
        let tsd =
            FakeTsd::builder().replies(Replies::from(Flavor::OpenTsdb).with_version("1")).start();
        tsd.script(Fault::Mute);
        tsd.script(Action::Close.after_lines(1));
        tsd.heal();
        assert_eq!(tsd.pending_step_count(), 1);
        assert_eq!(Client::connect(&tsd).send("version\n").rest(), "1");
    }
}
