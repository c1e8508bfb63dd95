//! What concerns `http://` and `https://` endpoints alone.

#[cfg(feature = "tls")]
use std::sync::Arc;

use std::time::Duration;

use super::OpenTsdbBuilder;
use super::check::check;
use super::options::{Flavor, Http, HttpCompression};
use crate::error::BuildError;
use crate::send::endpoint::Endpoint;
use crate::send::http::head::{self, Ask, Header};
use crate::send::stream::Trust;
use crate::stats::Confirmation;

/// Most bytes of a body for a TSD, whose limit is 8,192 unless it is set otherwise.
const TSD_BATCH: usize = 8_000;
/// The same for the other servers, which take tens of megabytes.
const LENIENT_BATCH: usize = 1024 * 1024;
/// Less holds no point.
const LEAST_BATCH: usize = 64;
/// The time that a TSD has for storing, as a part of the write timeout: it answers before it is
/// given up. With none it would have all the time there is.
const SYNC_SHARE: f64 = 0.8;
const LEAST_SYNC: Duration = Duration::from_millis(1);
/// Headers that are the exporter's own to send or not.
const OWN_HEADERS: [&str; 7] = [
    // An answer is read as it comes.
    "Accept-Encoding",
    "Content-Length",
    "Content-Encoding",
    "Content-Type",
    "Transfer-Encoding",
    "Connection",
    "Expect",
];

impl OpenTsdbBuilder {
    /// Checks the options that depend on no other.
    pub(super) fn check_http(&self) -> Result<(), BuildError> {
        let Http { headers, batch_bytes, .. } = &self.http;
        for Header { name, value } in headers {
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&it));
            let is_value = value.0.bytes().all(|it| it == b'\t' || (it >= b' ' && it != 0x7f));
            let is_own = OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
            const OPTION: &str = "add_http_header";
            // Without the name, which may be the value by mistake.
            check(OPTION, "***", is_name, "give a name of letters, digits and hyphens")?;
            check(OPTION, name, is_value, "give a value without control characters")?;
            check(OPTION, name, !is_own, "leave it out: the exporter decides on it")?;
        }
        let is_enough = batch_bytes.is_none_or(|bytes| bytes >= LEAST_BATCH);
        check("with_http_batch_bytes", batch_bytes, is_enough, "give at least 64")
    }

    /// How requests are made.
    pub(super) fn http(&self, endpoints: &[Endpoint]) -> Result<head::Options, BuildError> {
        let is_tsd = self.flavor == Flavor::OpenTsdb;
        let default = if is_tsd { TSD_BATCH } else { LENIENT_BATCH };
        let _ = endpoints;
        Ok(head::Options {
            ask: match self.confirmation {
                Confirmation::Stored => {
                    Ask::Stored(self.write_timeout.mul_f64(SYNC_SHARE).max(LEAST_SYNC))
                }
                _ if is_tsd => Ask::Details,
                _ => Ask::Status,
            },
            headers: self.http.headers.clone(),
            is_gzip: self.http.compression == HttpCompression::Gzip,
            batch_bytes: self.http.batch_bytes.unwrap_or(default),
            trust: Trust {
                #[cfg(feature = "tls")]
                config: self.tls_config(endpoints)?,
            },
        })
    }

    #[cfg(feature = "tls")]
    fn tls_config(
        &self,
        endpoints: &[Endpoint],
    ) -> Result<Option<Arc<rustls::ClientConfig>>, BuildError> {
        use crate::send::tls::default_config;
        if self.http.tls.is_some() || !endpoints.iter().any(Endpoint::is_tls) {
            return Ok(self.http.tls.clone());
        }
        let invalid = |fix| BuildError::invalid("with_tls_config", None::<()>, fix);
        default_config().map(Some).map_err(invalid)
    }
}
