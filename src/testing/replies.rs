//! How each kind of server answers.

use super::parse::Rules;

/// Which server a [`FakeTsd`](super::FakeTsd) is: how it answers, and how strict it is.
///
/// | | bad line | `version` | first byte not `p` | line over 1024 bytes | last line without line feed |
/// |---|---|---|---|---|---|
/// | `Tsd` | one line of text | two lines | a capital is taken for HTTP: no reply | closes | dropped |
/// | `Silent` | nothing | nothing | HTTP 400 and close | stored | stored |
/// | `InfluxDb` | nothing | a word, no line feed | – | stored | stored |
/// | `KairosDb` | nothing | one line | – | that line dropped | dropped |
/// | `Version` | as `Tsd` | the given text | as `Tsd` | as `Tsd` | as `Tsd` |
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Replies};
///
/// let victoria = FakeTsd::builder().replies(Replies::Silent).start();
/// assert_eq!(victoria.connections(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replies {
    /// OpenTSDB 2.4.
    #[default]
    Tsd,
    /// VictoriaMetrics: never a reply.
    Silent,
    /// InfluxDB 1.x.
    InfluxDb,
    /// KairosDB 1.3.
    KairosDb,
    /// OpenTSDB, but with this text, to the byte, for an answer to `version`.
    Version(String),
}

/// A TSD's answer to `version`.
const TSD_VERSION: &str = "net.opentsdb.tools BuildData built at revision eb125a342 (MODIFIED)\n\
     Built on 2021/09/08 03:26:53 +0000 by fake@localhost:/usr/share/opentsdb\n";

/// What becomes of a line that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongLine {
    Close,
    Skip,
    Take,
}

impl Replies {
    /// The answer to `version`.
    pub(super) fn version(&self) -> &str {
        match self {
            Replies::Tsd => TSD_VERSION,
            Replies::Silent => "",
            Replies::InfluxDb => "InfluxDB TSDB proxy",
            Replies::KairosDb => "KairosDB 1.3.0-1.20210808220820\n",
            Replies::Version(text) => text,
        }
    }

    /// Whether it is a TSD, which says what was wrong.
    pub(super) fn is_tsd(&self) -> bool {
        matches!(self, Replies::Tsd | Replies::Version(_))
    }

    /// Whether a connection that begins with this byte gets HTTP 400 and is closed.
    pub(super) fn is_bad_request(&self, first: u8) -> bool {
        *self == Replies::Silent && first != b'p'
    }

    /// Whether a connection that begins with this byte is taken for HTTP.
    pub(super) fn is_http(&self, first: u8) -> bool {
        self.is_tsd() && first.is_ascii_uppercase()
    }

    /// Whether what has no line feed at the end of a connection is a line.
    pub(super) fn takes_tail(&self) -> bool {
        matches!(self, Replies::Silent | Replies::InfluxDb)
    }

    pub(super) fn long_line(&self) -> LongLine {
        match self {
            Replies::Tsd | Replies::Version(_) => LongLine::Close,
            Replies::KairosDb => LongLine::Skip,
            Replies::Silent | Replies::InfluxDb => LongLine::Take,
        }
    }

    pub(super) fn rules(&self, max_tags: usize) -> Rules {
        match self.is_tsd() {
            true => Rules { max_tags: Some(max_tags), any_character: false },
            false => Rules { max_tags: None, any_character: true },
        }
    }
}
