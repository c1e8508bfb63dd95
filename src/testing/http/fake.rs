//! The test's side: a [`FakeTsd`] that is reached by HTTP.

use std::ops::Deref;

use super::super::fake::FakeTsd;
use super::builder::FakeHttpTsdBuilder;
use super::options::HttpOptions;
use crate::builder::OpenTsdbBuilder;

/// A TSD that takes `POST /api/put`, and does what it is told. Features `testing` and `http`.
///
/// It is a [`FakeTsd`] in all else: [`points`](FakeTsd::points), [`value`](FakeTsd::value),
/// [`wait_for`](FakeTsd::wait_for), [`log`](FakeTsd::log), [`script`](FakeTsd::script) and the rest
/// are the same, and so is every [`Fault`](super::super::Fault); an
/// [`HttpFault`](super::super::HttpFault) is for this one alone. [`lines`](FakeTsd::lines) has the
/// points as `put` lines, so that a test can expect the same of both.
/// [`Log::requests`](super::super::Log::requests) has the requests, and
/// [`Log::violations`](super::super::Log::violations) what no client should send.
///
/// ```
/// use metrics::counter;
/// use metrics_exporter_opentsdb::{Value, testing::FakeHttpTsd};
/// use std::time::Duration;
///
/// let tsd = FakeHttpTsd::start();
/// let (recorder, exporter) = tsd.exporter().build()?;
/// metrics::with_local_recorder(&recorder, || counter!("cups", "tea" => "assam").increment(2));
/// exporter.flush(Duration::from_secs(5))?;
/// assert_eq!(tsd.value("cups", &[("tea", "assam")]), Some(Value::Integer(2)));
/// assert_eq!(tsd.log().violations(), [""; 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FakeHttpTsd {
    tsd: FakeTsd,
    scheme: &'static str,
    path: String,
}

impl FakeHttpTsdBuilder {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// When no port of 127.0.0.1 can be bound, or no thread started.
    pub fn start(self) -> FakeHttpTsd {
        let FakeHttpTsdBuilder { mut tsd, http, scheme } = self;
        let path = http.path.clone();
        tsd.http = Some(http);
        FakeHttpTsd { tsd: tsd.start(), scheme, path }
    }
}

impl FakeHttpTsd {
    /// Starts a TSD with an empty store that does everything right.
    ///
    /// # Panics
    ///
    /// When no port of 127.0.0.1 can be bound, or no thread started.
    pub fn start() -> FakeHttpTsd {
        FakeHttpTsd::builder().start()
    }

    /// For one that is different from the start.
    pub fn builder() -> FakeHttpTsdBuilder {
        let path = "/api/put".into();
        let http = HttpOptions { path, takes_gzip: true, ..HttpOptions::default() };
        FakeHttpTsdBuilder { tsd: FakeTsd::builder(), http, scheme: "http" }
    }

    /// Where it listens, as `http://127.0.0.1:4242`, without the path; with TLS `https://`.
    pub fn address(&self) -> String {
        format!("{}://{}", self.scheme, self.tsd.address())
    }

    /// As [`FakeTsd::exporter`], by HTTP. It trusts the authority of every
    /// [`Certificate`](super::super::Certificate).
    pub fn exporter(&self) -> OpenTsdbBuilder {
        let exporter = self.tsd.exporter_to(self.address() + &self.path);
        #[cfg(feature = "tls")]
        if self.scheme == "https" {
            return exporter.with_tls_config(super::tls::client_config());
        }
        exporter
    }
}

impl Deref for FakeHttpTsd {
    type Target = FakeTsd;

    fn deref(&self) -> &FakeTsd {
        &self.tsd
    }
}
