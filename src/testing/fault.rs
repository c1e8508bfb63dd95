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
    /// Momentary: what has arrived is handled and answered, then each connection is closed (FIN).
    Close,
    /// Momentary: each connection gets a FIN at once, and whatever comes on it from now on is accepted and thrown away.
    CloseUnread,
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

    /// The step whose moment has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Step> {
        let is_timely = self.deadline().is_some_and(|deadline| deadline <= now);
        (is_timely || self.bytes_left() == 0 || self.lines_left() == 0).then(|| self.pop())?
    }

    /// The step that waits for a connection, if it is the first.
    pub(super) fn due_at_connection(&mut self) -> Option<Step> {
        (self.steps.front()?.when == When::Connection).then(|| self.pop())?
    }

    fn pop(&mut self) -> Option<Step> {
        let step = self.steps.pop_front();
        self.begin();
        step
    }

    fn begin(&mut self) {
        self.bytes = 0;
        self.lines = 0;
        self.since = Some(Instant::now());
    }
}
