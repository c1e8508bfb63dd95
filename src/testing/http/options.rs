//! What a server of HTTP is from its start on.

use super::fault::TooLarge;
use crate::builder::Flavor;

/// The longest message that Netty's decoder gives as one, and so a TSD's limit.
const TSD_LIMIT: usize = 8192;
/// VictoriaMetrics' `-opentsdbhttp.maxInsertRequestSize`; InfluxDB has no limit.
const LENIENT_LIMIT: usize = 32 << 20;

/// What a server of HTTP is.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct HttpOptions {
    pub(super) path: String,
    /// Most bytes of a body, unless the flavor decides.
    pub(super) max_body_bytes: Option<usize>,
    pub(super) ignores_gzip: bool,
    /// What one bad point makes of the whole request.
    pub(super) refuses_all: Option<u16>,
    /// A header, in small letters, without which there is a 401.
    pub(super) required: Option<(String, String)>,
    #[cfg(feature = "tls")]
    pub(in super::super) tls: Option<std::sync::Arc<rustls::ServerConfig>>,
}

impl HttpOptions {
    /// The most bytes of a body, and how more are refused.
    pub(super) fn limit(&self, flavor: Flavor) -> (usize, TooLarge) {
        let (limit, how) = match flavor {
            Flavor::OpenTsdb => (TSD_LIMIT, TooLarge::NotSupported),
            _ => (LENIENT_LIMIT, TooLarge::Status(400)),
        };
        (self.max_body_bytes.unwrap_or(limit), how)
    }
}
