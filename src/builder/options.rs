//! The options that only the builder acts on.

use std::fmt;

use crate::send::endpoint::redact;
#[cfg(feature = "http")]
use crate::send::http::head::Header;
use crate::stats::Confirmation;
use crate::wire::charset::Charset;
use crate::wire::line::{LineRules, TSD_LINE};

/// The most tags that any server takes, and a round number.
pub(super) const MOST_TAGS: usize = 64;
/// The longest line for the servers that read longer ones than a TSD: VictoriaMetrics up to 256 KiB
/// (`lib/protoparser/protoparserutil`, `maxLineSize`), InfluxDB any, of which it stores series keys
/// up to 64 KiB (`models.MaxKeyLength`). A quarter of a batch.
const LENIENT_LINE: usize = 16 * 1024;

/// The server, where they differ.
///
/// | flavor | tags | bytes of a line | words | histograms besides `Summary` and `Buckets` | confirmed by ([`Confirmation::Auto`]) | timestamps |
/// |---|---|---|---|---|---|---|
/// | `OpenTsdb` | 8 | 1,024 | `[A-Za-z0-9._/-]` | `Native` | `version` | seconds or milliseconds |
/// | `VictoriaMetrics` | 29 | 16,384 | Unicode | `VmRange` | half-close | seconds; milliseconds from 1.88 on |
/// | `InfluxDb` | 64 | 16,384 | Unicode | – | half-close | seconds |
/// | `KairosDb` | 64 | 1,024 | `[A-Za-z0-9._/-]` | – | `version` | seconds or milliseconds |
///
/// Each was run against the real server (`compat/` in the repository, whose README has what was
/// seen), but for milliseconds. The rules' sources: OpenTSDB's `Tags.java`, `PutDataPointRpc.java`
/// and `tsd.storage.max_tags`; VictoriaMetrics' `lib/protoparser/opentsdb` and
/// `-maxLabelsPerTimeseries`; InfluxDB's `services/opentsdb/handler.go`; KairosDB's
/// `TelnetServer.java`.
///
/// *Not run:* TDengine's taosadapter, by its documentation, takes the default flavor: 1 to 128
/// tags, any word. Other servers that speak the protocol should: the default is what all of the
/// above take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flavor {
    /// OpenTSDB 2.x, and what every other server takes too: 8 tags (`tsd.storage.max_tags`),
    /// `[A-Za-z0-9._/-]`. The default.
    #[default]
    OpenTsdb,
    /// VictoriaMetrics: 29 tags, since the name is one of the 30 of `-maxLabelsPerTimeseries`, and
    /// any Unicode. It answers nothing, so [`Confirmation::Auto`] goes straight to
    /// [`Confirmation::HalfClose`]. It keeps at least 11 digits of a number, and stores some
    /// numbers below 1e-297 as 0.
    VictoriaMetrics,
    /// InfluxDB 1.x with an `[[opentsdb]]` listener: any Unicode; timestamps in seconds only,
    /// others are stored wrong. While it shuts down it still reads its connections and answers
    /// `version`, and keeps nothing of what it reads. So [`Confirmation::Auto`] goes straight to
    /// [`Confirmation::HalfClose`].
    InfluxDb,
    /// KairosDB: any number of tags, `[A-Za-z0-9._/-]`, since it reads each byte as a character of
    /// ISO-8859-1. When it is stopped it loses the points of the last moment, confirmed or not.
    KairosDb,
}

/// Whether bodies are compressed; set by
/// [`with_http_compression`](crate::OpenTsdbBuilder::with_http_compression).
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpCompression {
    /// With gzip, at its fastest level: a tenth of the bytes. A server that refuses the first body
    /// is sent the same as plain text, and nothing else from then on if it takes that. The default.
    #[default]
    Gzip,
    /// Not at all.
    Off,
}

/// An address as it was given, which shows no password.
#[derive(Clone)]
pub(super) struct Address(pub(super) String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact(&self.0).fmt(f)
    }
}

/// The options of HTTP as they were set.
#[cfg(feature = "http")]
#[derive(Clone, Default)]
pub(super) struct Http {
    pub(super) headers: Vec<Header>,
    pub(super) compression: HttpCompression,
    pub(super) batch_bytes: Option<usize>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

/// Without what a configuration of TLS may show.
#[cfg(feature = "http")]
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Http { headers, compression, batch_bytes, .. } = self;
        f.debug_tuple("Http").field(headers).field(compression).field(batch_bytes).finish()
    }
}

impl Flavor {
    pub(super) fn limits(self) -> LineRules {
        let (max_tags, max_line, charset) = match self {
            Flavor::OpenTsdb => (8, TSD_LINE, Charset::Tsd),
            Flavor::VictoriaMetrics => (29, LENIENT_LINE, Charset::Unicode),
            Flavor::InfluxDb => (MOST_TAGS, LENIENT_LINE, Charset::Unicode),
            Flavor::KairosDb => (MOST_TAGS, TSD_LINE, Charset::Tsd),
        };
        let (has_millis, has_histograms) = (self != Flavor::InfluxDb, self == Flavor::OpenTsdb);
        LineRules { charset, max_line, max_tags, has_millis, has_histograms }
    }

    pub(super) fn confirmation(self, asked: Confirmation) -> Confirmation {
        match (self, asked) {
            (Flavor::VictoriaMetrics | Flavor::InfluxDb, Confirmation::Auto) => {
                Confirmation::HalfClose
            }
            _ => asked,
        }
    }
}

/// Whether `build` looks for the server before it returns; potsdb's `check_host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectivityCheck {
    /// Tries the addresses until one takes a connection, for at most 3 s, and closes it at once
    /// without sending anything. An `http://` or `https://` endpoint is sent a request without
    /// points, and has to answer as if it would take some. The default.
    #[default]
    Connect,
    /// No: the application starts while the server is away, and the exporter connects when it has
    /// something to send.
    Off,
}

/// The tag that says which machine a series is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostTag {
    /// `host=` and the machine's host name. The default.
    #[default]
    Auto,
    /// `host=` and this.
    Value(String),
    /// No such tag. A point needs at least one tag, so `build` then asks for a global label.
    None,
}

/// The tag `instance`, which tells exporters on one machine apart where nothing else does.
///
/// Every series must have one writer: with two values of a series for one second, OpenTSDB cannot
/// read that hour of it any more.
///
/// A label or a global label `instance` keeps its key, and this tag is called `instance_` there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceTag {
    /// None, unless another exporter on this machine has the same endpoints, prefix, host and
    /// global tags: then `instance=2`, or the lowest number above 1 that is free, and one warning.
    /// It is found out when the exporter is built; a number is free again when its exporter has
    /// ended. The default.
    ///
    /// It works on Linux, within a network namespace: processes of one machine, of one container or
    /// of one pod. *Elsewhere it does nothing.*
    #[default]
    Auto,
    /// None, and other exporters do not see this one.
    Off,
    /// `instance=` and this, which should stay the same when the process is started again: the
    /// number of a worker, the name of a pod.
    Value(String),
}
