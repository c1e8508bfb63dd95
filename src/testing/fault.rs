//! What a server can be told to do wrong, and when.
//!
//! A [`Step`] is a [`Fault`] and its moment. One without a moment happens while [`script`](super::FakeTsd::script) runs. Those with a
//! moment form a queue, the [`Plan`]: only the first waits, and it counts from when it became the first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a [`FakeTsd`](super::FakeTsd) can be told to do wrong.
///
/// Some faults are momentary and some last until [`heal`](super::FakeTsd::heal), for all connections that are open or will be;
/// [`for_open_connections`](Step::for_open_connections) spares the coming ones. Without a moment a fault has taken effect when
/// [`script`](super::FakeTsd::script) returns; with one it waits for its turn:
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
/// use std::time::Duration;
///
/// let tsd = FakeTsd::start();
/// tsd.script(Fault::Mute); // now, and for every connection
/// tsd.script(Fault::Reset.after_bytes(5_000)); // then these two, one after the other
/// tsd.script(Fault::Restart { down: Duration::from_millis(20) }.after_lines(100));
/// tsd.heal();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Momentary: each connection is reset (RST); what was not handled yet is lost.
    Reset,
    /// Momentary: what has arrived is handled and answered, then each connection is closed (FIN). Where something may not be
    /// read, as under [`StopReading`](Fault::StopReading), the kernel resets the connection instead, as it does for any server.
    Close,
    /// Momentary: each connection gets a FIN at once, and whatever comes on it from now on is accepted and thrown away.
    CloseUnread,
    /// Momentary: what has arrived is read and thrown away, then each connection is closed (FIN): to the client the same as
    /// [`Close`](Fault::Close). So ends a TSD that is stopped in good order while it hangs, as under
    /// [`FreezeStorage`](Fault::FreezeStorage).
    CloseUnhandled,
    /// Momentary: these bytes are sent on each connection, in addition to all replies.
    Say(Vec<u8>),
    /// Momentary: [`Close`](Fault::Close), then connections are refused for a while, then all is as before, on the same port.
    Restart {
        /// How long connections are refused.
        down: Duration,
    },
    /// Momentary: [`Reset`](Fault::Reset), then connections are refused for a while, then all is as before, on the same port.
    Crash {
        /// How long connections are refused.
        down: Duration,
    },
    /// Momentary: every lasting fault ends, as by [`heal`](super::FakeTsd::heal).
    Heal,
    /// Lasting: nothing is read, so that the sender's buffers fill up.
    StopReading,
    /// Lasting: reads at most so many bytes at a time, and then waits.
    Trickle {
        /// How much is read at a time.
        bytes: usize,
        /// The wait between two reads.
        every: Duration,
    },
    /// Lasting: the kernel is asked for a receive buffer of so many bytes (`SO_RCVBUF`) for each connection.
    ReceiveBuffer(usize),
    /// Lasting: each connection is reset (RST) when so many bytes have been read from it, as by a device in between.
    BreakAfter(usize),
    /// Lasting: lines are read and stored, but nothing is answered.
    Mute,
    /// Lasting: each answer comes so much later, and so does the close after the client's FIN.
    Delay(Duration),
    /// Lasting: a connection is not closed when the client has finished (FIN).
    HoldOpen,
    /// Lasting: sends garbage on each connection, as fast as the client reads.
    Flood,
    /// Lasting: no `put` is stored, each is answered with `put: Please throttle writes: …`.
    Throttle,
    /// Lasting: no `put` is stored, each is answered with this text and a line feed, as `put: HBase error: …`.
    Refusal(String),
    /// Lasting: `tsd.mode = ro`; `put` is an unknown command.
    ReadOnly,
    /// Lasting: `tsd.core.auto_create_metrics = false`; metrics that were never seen are refused.
    UnknownMetrics,
    /// Lasting: storage hangs. A point that needs a new metric, key or value blocks its connection, what was sent behind it
    /// included, until it is over; points of known ones are taken.
    FreezeStorage,
    /// Lasting: connections are refused, where the system allows that on a port that is kept; else as `ResetNew`.
    Refuse,
    /// Lasting: new connections are established by the kernel and never looked at.
    IgnoreNew,
    /// Lasting: new connections are accepted and reset.
    ResetNew,
    /// Lasting: new connections are accepted and closed, as by a TSD at `tsd.core.connections.limit`.
    CloseNew,
}

impl Fault {
    /// When so many more bytes have been read, and before the next one is.
    #[must_use]
    pub fn after_bytes(self, bytes: usize) -> Step {
        Step { when: When::Bytes(bytes), ..self.into() }
    }

    /// When so many more lines have been handled, commands and bad lines included, and before the next one is.
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

    /// Now, for the connections that are open but for none that is made later.
    #[must_use]
    pub fn for_open_connections(self) -> Step {
        Step::from(self).for_open_connections()
    }
}

/// A [`Fault`] and its moment, for [`FakeTsd::script`](super::FakeTsd::script).
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Fault, Step};
///
/// let step: Step = Fault::StopReading.after_lines(10).for_open_connections();
/// FakeTsd::start().script(step);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub(super) fault: Fault,
    pub(super) when: When,
    /// Whether connections that are made later are spared.
    pub(super) spares_new: bool,
}

impl Step {
    /// Spares the connections that are made later.
    #[must_use]
    pub fn for_open_connections(mut self) -> Step {
        self.spares_new = true;
        self
    }
}

impl From<Fault> for Step {
    fn from(fault: Fault) -> Self {
        Step { fault, when: When::Now, spares_new: false }
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
#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: VecDeque<Step>,
    /// Bytes read since the first step became the first.
    bytes: usize,
    /// Lines handled since then.
    lines: usize,
    /// When that was.
    since: Option<Instant>,
}

impl Plan {
    pub(super) fn push(&mut self, step: Step) {
        if self.steps.is_empty() {
            self.begin();
        }
        self.steps.push_back(step);
    }

    /// How many steps wait.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// How many bytes may be read before a step is due.
    pub(super) fn bytes_left(&self) -> usize {
        match self.steps.front().map(|step| step.when) {
            Some(When::Bytes(bytes)) => bytes.saturating_sub(self.bytes),
            _ => usize::MAX,
        }
    }

    /// How many lines may be handled before a step is due.
    pub(super) fn lines_left(&self) -> usize {
        match self.steps.front().map(|step| step.when) {
            Some(When::Lines(lines)) => lines.saturating_sub(self.lines),
            _ => usize::MAX,
        }
    }

    /// When a step is due, if time decides that.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.steps.front().map(|step| step.when) {
            Some(When::Time(wait)) => self.since.map(|since| since + wait),
            _ => None,
        }
    }

    pub(super) fn count(&mut self, bytes: usize, lines: usize) {
        self.bytes += bytes;
        self.lines += lines;
    }

    /// The step whose moment has come; [`begin`](Self::begin) when it is done.
    pub(super) fn due(&mut self, now: Instant) -> Option<Step> {
        let is_timely = self.deadline().is_some_and(|deadline| deadline <= now);
        let is_due = is_timely || self.bytes_left() == 0 || self.lines_left() == 0;
        if is_due { self.steps.pop_front() } else { None }
    }

    /// The step that waits for a connection, if it is the first.
    pub(super) fn due_at_connection(&mut self) -> Option<Step> {
        if self.steps.front()?.when == When::Connection { self.steps.pop_front() } else { None }
    }

    /// The step before is done: the first one counts from now on.
    pub(super) fn begin(&mut self) {
        self.bytes = 0;
        self.lines = 0;
        self.since = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::client::{Client, LONG, PATIENCE, expect, put};
    use super::super::{End, FakeTsd, Replies};
    use super::*;

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
        expect(&tsd, |log| log.accepted() == 1);
        tsd.script(Fault::Reset);
        assert_eq!(tsd.open_connections(), 0);
        client.expect_reset();
        assert_eq!(tsd.connection(0).unwrap().end, End::ByServer);
    }

    #[test]
    fn close_handles_and_answers_what_has_arrived() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1)).send(BAD);
        assert_eq!(tsd.accepted(), 0);
        tsd.heal();
        tsd.script(Fault::Close);
        assert_eq!((tsd.accepted(), tsd.open_connections()), (1, 0));
        assert_eq!(client.rest(), BAD_REPLY);
    }

    #[test]
    fn close_unread_throws_away_what_comes_later() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted() == 1);
        tsd.script(Fault::CloseUnread);
        assert_eq!(client.rest(), "");
        client.send(put(2, 2).repeat(100_000));
        assert_eq!(client.finish(), "");
        assert_eq!((tsd.accepted(), tsd.open_connections()), (1, 0));
        assert_eq!(tsd.connection(0).unwrap().end, End::ByServer);
    }

    #[test]
    fn close_unhandled_looks_like_the_end_of_work_that_was_never_done() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::FreezeStorage);
        client
            .send(put(1, 1))
            .send("version\n")
            .stream
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        expect(&tsd, |log| log.open_connections() == 0);
        tsd.script(Fault::CloseUnhandled);
        assert_eq!(client.rest(), "");
        let connection = tsd.connection(0).unwrap();
        assert_eq!(connection.bytes as usize, put(1, 1).len() + "version\n".len());
        assert_eq!(connection.end, End::ByServer);
        tsd.heal();
        assert_eq!((tsd.accepted(), tsd.commands()), (0, Vec::new()));
    }

    #[test]
    fn what_is_said_needs_no_line_feed() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Say(b"garbage without an end".to_vec()));
        client.expect("garbage without an end");
        assert!(client.is_quiet());
    }

    #[test]
    fn restart_refuses_for_a_while_and_returns_on_the_same_port() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted() == 1);
        tsd.script(Fault::Restart { down: A_WHILE });
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
        expect(&tsd, |log| log.accepted() == 2 && log.connections() == 2);
    }

    #[test]
    fn crash_resets_and_returns() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1));
        tsd.script(Fault::Crash { down: Duration::ZERO });
        client.expect_reset();
        assert_eq!(tsd.lines(), [""; 0]);
        tsd.heal();
        Client::connect(&tsd).send(put(1, 1));
        expect(&tsd, |log| log.accepted() == 1);
    }

    #[test]
    fn stopped_reading_fills_the_senders_buffer() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        let sent = client.fill();
        assert_eq!(tsd.connection(0).unwrap().bytes, 0);
        tsd.heal();
        expect(&tsd, |log| log.connection(0).unwrap().bytes == sent as u64);
        assert_eq!(tsd.accepted(), sent / LONG);
    }

    #[test]
    fn a_client_that_leaves_is_seen_without_reading() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::StopReading);
        client.send(put(1, 1));
        drop(client);
        expect(&tsd, |log| log.open_connections() == 0);
        assert_eq!((tsd.accepted(), tsd.connection(0).unwrap().end), (0, End::Open));
        tsd.heal();
        expect(&tsd, |log| log.connection(0).unwrap().end == End::ByClient);
        assert_eq!(tsd.accepted(), 1);
    }

    #[test]
    fn trickle_reads_a_few_bytes_at_a_time() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Trickle { bytes: 20, every: Duration::from_millis(2) });
        let began = Instant::now();
        client.send(put(1, 1).repeat(10)).finish();
        assert_eq!(tsd.accepted(), 10);
        let reads = put(1, 1).len() * 10 / 20;
        assert!(began.elapsed() >= Duration::from_millis(2) * (reads as u32 - 1));
    }

    #[test]
    fn each_connection_breaks_at_its_own_size() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::BreakAfter(put(1, 1).len() * 3));
        client.send(put(1, 1)).send(put(2, 2));
        expect(&tsd, |log| log.accepted() == 2);
        Client::connect(&tsd).send(put(1, 1)).send(put(2, 2)).finish();
        client.send(put(3, 3).repeat(2)).expect_reset();
        assert_eq!((tsd.accepted(), tsd.resent()), (5, 2));
        assert_eq!([0, 1].map(|n| tsd.connection(n).unwrap().end), [End::ByServer, End::ByClient]);
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
        expect(&tsd, |log| log.commands() == ["version"]);
        assert_eq!((tsd.accepted(), tsd.rejections()), (1, 1));
        assert!(client.is_quiet());
        tsd.heal();
        client.send(BAD).expect(BAD_REPLY);
    }

    #[test]
    fn held_open_outlives_the_clients_fin() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::HoldOpen);
        client.send(put(1, 1)).stream.shutdown(std::net::Shutdown::Write).unwrap();
        expect(&tsd, |log| log.accepted() == 1);
        assert!(client.is_quiet());
        tsd.heal();
        assert_eq!(client.rest(), "");
        assert_eq!(tsd.connection(0).unwrap().end, End::ByClient);
    }

    #[test]
    fn answers_and_the_close_are_delayed() {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(Fault::Delay(A_WHILE));
        let began = Instant::now();
        client.send(BAD).send("version\n");
        expect(&tsd, |log| !log.commands().is_empty());
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
        expect(&tsd, |log| log.accepted() == 1);
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
        assert_eq!((tsd.accepted(), tsd.rejections()), (0, 1));
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
        assert_eq!(tsd.rejected()[0], (put(1, 1).trim_end().into(), replies[..34].into()));
    }

    #[test]
    fn unknown_metrics_are_refused_and_known_ones_are_not() {
        let (tsd, mut client) = tsd_and_client();
        client.send(put(1, 1));
        expect(&tsd, |log| log.accepted() == 1);
        tsd.script(Fault::UnknownMetrics);
        tsd.make_metric("made");
        client.send("put made 1 1 k=v\nput n.unknown 1 1 k=v\n").send(put(2, 2));
        client.expect("put: unknown metric: No such name for 'metrics': 'n.unknown'\n");
        expect(&tsd, |log| log.accepted() == 3);
    }

    #[test]
    fn frozen_storage_blocks_behind_the_first_new_name() {
        let (tsd, mut client) = tsd_and_client();
        client.send("put m 1 1 host=a\nput m 1 1 host=b dc=x\n");
        expect(&tsd, |log| log.accepted() == 2);
        tsd.script(Fault::FreezeStorage);
        // A known series, then known names in a new series: neither needs storage at once.
        client.send("put m 2 1 host=a\nput m 2 1 dc=x\nversion\n").expect("net.opentsdb.tools ");
        assert_eq!(tsd.accepted(), 4);
        client.send("put m 3 1 host=new\nput m 3 1 host=a\nversion\n");
        let mut other = Client::connect(&tsd);
        other.send("put m 3 1 host=b dc=x\nversion\n").expect("net.opentsdb.tools ");
        assert_eq!((tsd.accepted(), tsd.commands().len()), (5, 2));
        tsd.heal();
        expect(&tsd, |log| log.accepted() == 7 && log.commands().len() == 3);
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
        assert_eq!(tsd.connections(), 3);
    }

    #[test]
    fn ignored_connections_are_served_once_it_is_over() {
        let tsd = FakeTsd::start();
        tsd.script(Fault::IgnoreNew);
        let mut client = Client::dial(&tsd).unwrap();
        client.send(put(1, 1)).send(BAD);
        assert_eq!(tsd.connections(), 0);
        tsd.heal();
        client.expect(BAD_REPLY);
        assert_eq!(tsd.connections(), 1);
    }

    #[test]
    fn new_connections_are_reset_or_closed() {
        let (tsd, mut before) = tsd_and_client();
        tsd.script(Fault::ResetNew);
        Client::connect(&tsd).expect_reset();
        tsd.script(Fault::CloseNew);
        assert_eq!(Client::connect(&tsd).rest(), "");
        before.send(BAD).expect(BAD_REPLY);
        assert_eq!((tsd.connections(), tsd.open_connections()), (3, 1));
    }

    #[test]
    fn a_step_comes_exactly_after_its_bytes() {
        let (tsd, mut client) = tsd_and_client();
        let line = put(1, 1);
        tsd.script(Fault::StopReading.after_bytes(3 * line.len() + 5));
        client.send(line.repeat(10));
        expect(&tsd, |log| log.connection(0).unwrap().bytes == 3 * line.len() as u64 + 5);
        assert_eq!((tsd.accepted(), tsd.steps_left()), (3, 0));
        tsd.heal();
        expect(&tsd, |log| log.accepted() == 10);
    }

    #[test]
    fn a_step_comes_exactly_after_its_lines_and_steps_follow_each_other() {
        let (tsd, mut client) = tsd_and_client();
        for _ in 0..50 {
            tsd.script(Fault::Reset.after_lines(2));
        }
        for round in 1..=50 {
            client.send(put(round, round).repeat(10)).expect_reset();
            assert_eq!(
                (tsd.accepted(), tsd.steps_left()),
                (2 * round as usize, 50 - round as usize)
            );
            client = Client::connect(&tsd);
        }
        client.send(put(60, 60).repeat(10)).finish();
        assert_eq!((tsd.accepted(), tsd.resent()), (110, 59));
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
        expect(&tsd, |log| log.rejections() == 3);
        assert!(muted.is_quiet());
    }

    #[test]
    fn a_step_after_a_time_comes_by_itself() {
        let (tsd, mut client) = tsd_and_client();
        let began = Instant::now();
        tsd.script(Fault::Close.after(A_WHILE));
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
        assert_eq!(tsd.rejections(), 1);
    }

    #[test]
    fn healing_keeps_the_flavour_and_the_steps() {
        let tsd = FakeTsd::builder().replies(Replies::Version("1".into())).start();
        tsd.script(Fault::Mute);
        tsd.script(Fault::Close.after_lines(1));
        tsd.heal();
        assert_eq!(tsd.steps_left(), 1);
        assert_eq!(Client::connect(&tsd).send("version\n").rest(), "1");
    }
}
