//! What a server of HTTP can be told to do wrong, beyond what any server can.

use std::fmt::Display;
use std::time::Duration;

/// What a [`FakeHttpTsd`](super::super::FakeHttpTsd) does wrong until it is healed, in addition to
/// every [`Fault`](super::super::Fault).
///
/// ```
/// use metrics_exporter_opentsdb::testing::{Action, FakeHttpTsd, HttpAnswer, HttpFault};
///
/// let tsd = FakeHttpTsd::start();
/// // Two requests are throttled, and the next ones are handled well.
/// tsd.script(HttpFault::Answer(HttpAnswer::new(429).header("Retry-After", "1")));
/// tsd.script(Action::Heal.after_lines(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpFault {
    /// Answers each request with this; handles none, unless it is [`storing`](HttpAnswer::storing).
    Answer(HttpAnswer),
    /// Answers in chunks (`Transfer-Encoding: chunked`), as is anybody's right.
    Chunked,
    /// Answers without a length: the body ends with the connection.
    UntilClose,
    /// Each answer ends after so many bytes, and the connection with it.
    Cut(usize),
    /// Says that the body of each answer is so much longer than it is, or shorter.
    WrongLength(isize),
    /// Reads a whole request, handles nothing of it and closes the connection without an answer,
    /// as a kept-alive connection ends that was idle for too long.
    CloseUnanswered,
    /// Answers with `Connection: close`, and closes.
    CloseAfter,
    /// Closes after each answer without having said so.
    CloseSilently,
    /// Takes bodies of at most so many bytes, and refuses larger ones in this way.
    Limit(usize, TooLarge),
    /// Storage fails: no point is stored. Who asked with `sync` is told, with status 200; who did
    /// not, is answered as if all were well.
    StorageFails,
}

/// How a body that is too large is refused, when its head is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooLarge {
    /// A TSD's 400, "Chunked request not supported". The connection goes on.
    NotSupported,
    /// This status: 413, or VictoriaMetrics' 400. The connection goes on.
    Status(u16),
    /// The connection is closed without an answer.
    Close,
}

/// An answer, for [`HttpFault::Answer`]. Its `Content-Length` is added.
///
/// ```
/// use metrics_exporter_opentsdb::testing::HttpAnswer;
///
/// let redirect = HttpAnswer::new(302).header("Location", "/login");
/// let proxy = HttpAnswer::new(502).body("<h1>Bad Gateway</h1>").storing();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct HttpAnswer {
    pub(super) status: u16,
    /// Whole lines.
    pub(super) headers: String,
    pub(super) body: String,
    pub(super) stores: bool,
    /// How much later it comes.
    pub(super) after: Duration,
}

impl HttpAnswer {
    /// One with this status and no body.
    pub fn new(status: u16) -> Self {
        HttpAnswer { status, ..HttpAnswer::default() }
    }

    /// With this header too.
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// In the place of the right one: the request is handled, and its points are stored.
    pub fn storing(mut self) -> Self {
        self.stores = true;
        self
    }
}
