//! The options of a test, and the start.

use super::super::options::FakeTsdBuilder;
use super::super::replies::Replies;
use super::options::HttpOptions;

/// The options of a [`FakeHttpTsd`](super::super::FakeHttpTsd), from
/// [`FakeHttpTsd::builder`](super::super::FakeHttpTsd::builder).
///
/// ```
/// use metrics_exporter_opentsdb::{Flavor, testing::FakeHttpTsd};
///
/// let tenant = FakeHttpTsd::builder()
///     .replies(Flavor::VictoriaMetrics)
///     .path("/insert/0/opentsdb/api/put")
///     .require_header("Authorization", "Basic dXNlcjpzZWNyZXQ=")
///     .start();
/// let greptime = FakeHttpTsd::builder()
///     .path("/v1/opentsdb/api/put")
///     .refuse_all(400)
///     .gzip(false)
///     .max_body_bytes(64 << 20)
///     .start();
/// assert!(greptime.address().starts_with("http://127.0.0.1:"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FakeHttpTsdBuilder {
    pub(super) tsd: FakeTsdBuilder,
    pub(super) http: HttpOptions,
    pub(super) scheme: &'static str,
}

impl FakeHttpTsdBuilder {
    /// Which server it is, for example a [`Flavor`](crate::Flavor). Defaults to
    /// [`Flavor::OpenTsdb`](crate::Flavor::OpenTsdb).
    ///
    /// | | bad point beside good ones | `?details`, `?summary`, `?sync` | most bytes of a body |
    /// |---|---|---|---|
    /// | `OpenTsdb` | 400, the good ones stored | as a TSD | 8,192 |
    /// | others | 204, the good ones stored | passed over: 204 | 32 MiB |
    pub fn replies(mut self, replies: impl Into<Replies>) -> Self {
        self.tsd = self.tsd.replies(replies);
        self
    }

    /// As [`FakeTsdBuilder::keep_lines`]; without it there is no list of requests either.
    pub fn keep_lines(mut self, keeps_lines: bool) -> Self {
        self.tsd = self.tsd.keep_lines(keeps_lines);
        self
    }

    /// The one path that is known; all others are answered with 404. Defaults to `/api/put`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.http.path = path.into();
        self
    }

    /// Most bytes of a body on the wire. Defaults to 8,192 for OpenTSDB, 32 MiB for others.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.http.max_body_bytes = Some(bytes);
        self
    }

    /// Whether gzip is known. Without it a compressed body is bad JSON. Defaults to `true`.
    pub fn gzip(mut self, takes_gzip: bool) -> Self {
        self.http.takes_gzip = takes_gzip;
        self
    }

    /// One bad point refuses the whole request, with this status: GreptimeDB answers 400 or 500.
    pub fn refuse_all(mut self, status: u16) -> Self {
        self.http.refuses_all = Some(status);
        self
    }

    /// Answers 401 to a request without this header, `Authorization` for one.
    pub fn require_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.http.required = Some((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// TLS, with this certificate. Feature `tls`.
    ///
    /// # Panics
    ///
    /// Without a provider of cryptography: neither `tls-ring` nor `tls-aws-lc-rs` is on, and the
    /// process has installed none.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, certificate: super::tls::Certificate) -> Self {
        (self.http.tls, self.scheme) = (Some(certificate.config()), "https");
        self
    }
}
