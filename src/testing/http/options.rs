//! What a server of HTTP is from its start on.

/// What a server of HTTP is.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct HttpOptions {
    pub(super) path: String,
    /// Most bytes of a body, unless the flavor decides.
    pub(super) max_body_bytes: Option<usize>,
    pub(super) takes_gzip: bool,
    /// What one bad point makes of the whole request.
    pub(super) refuses_all: Option<u16>,
    /// A header, in small letters, without which there is a 401.
    pub(super) required: Option<(String, String)>,
    #[cfg(feature = "tls")]
    pub(in super::super) tls: Option<std::sync::Arc<rustls::ServerConfig>>,
}
