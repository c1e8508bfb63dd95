//! Whom to trust.
//!
//! The cryptography is the application's: a configuration of its own, or the provider that the
//! process has installed, or that of the features `tls-ring` and `tls-aws-lc-rs`. The roots are the
//! system's, which `SSL_CERT_FILE` and `SSL_CERT_DIR` replace.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The configuration of an application that gives none; the error says what to do.
pub(crate) fn default_config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("give a rustls::ClientConfig, or install root certificates (Debian: \
                    ca-certificates): the system has none"
            .to_owned());
    }
    config(roots)
}

/// A configuration that trusts these.
pub(crate) fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = provider().ok_or(
        "give a rustls::ClientConfig, install a default CryptoProvider before, or turn on the \
         feature `tls-ring` or `tls-aws-lc-rs` of metrics-exporter-opentsdb",
    )?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("give a rustls::ClientConfig: {error}"))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The process's cryptography, or our own.
pub(crate) fn provider() -> Option<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned().or_else(own_provider)
}

fn own_provider() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "tls-aws-lc-rs")]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}

/// The name that a server's certificate must have: a domain, or an address.
pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_end_matches('.').to_owned()).ok()
}

/// The client's end of an encrypted connection.
pub(super) fn connect(config: &Arc<ClientConfig>, host: &str) -> io::Result<ClientConnection> {
    let name = server_name(host).ok_or(io::ErrorKind::InvalidInput)?;
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}

/// Says of a certificate that is not accepted what to do about it.
pub(super) fn error(error: rustls::Error) -> io::Error {
    if !matches!(error, rustls::Error::InvalidCertificate(_)) {
        return io::Error::other(error);
    }
    let text = format!(
        "the server's certificate is not accepted ({error}); correct the name in the address or the \
         certificate, or trust its issuer by with_tls_config or SSL_CERT_FILE"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
