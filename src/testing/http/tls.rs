//! TLS in front of the server, with certificates that are always there.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use crate::send::tls;

const PROVIDER: &str = "a FakeHttpTsd with TLS needs the feature `tls-ring` or `tls-aws-lc-rs`, or \
                        an installed CryptoProvider";
const OUR_OWN: &str = "the certificates are our own";
const AUTHORITY: &[u8] = include_bytes!("certificates/authority.pem");
const KEY: &[u8] = include_bytes!("certificates/key.pem");

/// What a [`FakeHttpTsd`](super::super::FakeHttpTsd) shows to who connects. Feature `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificate {
    /// One for `localhost` and `127.0.0.1`, by an authority that
    /// [`exporter`](super::super::FakeHttpTsd::exporter) trusts.
    Valid,
    /// One for another name.
    WrongName,
    /// One whose time was the year 2000.
    Expired,
}

impl Certificate {
    pub(super) fn config(self) -> Arc<ServerConfig> {
        let certificate: &[u8] = match self {
            Certificate::Valid => include_bytes!("certificates/valid.pem"),
            Certificate::WrongName => include_bytes!("certificates/wrong-name.pem"),
            Certificate::Expired => include_bytes!("certificates/expired.pem"),
        };
        let config = ServerConfig::builder_with_provider(tls::provider().expect(PROVIDER));
        let config = config.with_safe_default_protocol_versions().expect(PROVIDER);
        let chain = vec![CertificateDer::from_pem_slice(certificate).expect(OUR_OWN)];
        let key = PrivateKeyDer::from_pem_slice(KEY).expect(OUR_OWN);
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect(OUR_OWN))
    }
}

/// A client that trusts the authority.
pub(super) fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(AUTHORITY).expect(OUR_OWN);
    roots.add(authority).expect(OUR_OWN);
    tls::config(roots).expect(PROVIDER)
}

/// The server's end of an encrypted connection.
#[derive(Debug)]
pub(in super::super) struct Tls(ServerConnection);

impl Tls {
    pub(in super::super) fn new(config: &Arc<ServerConfig>) -> Self {
        let mut connection = ServerConnection::new(Arc::clone(config)).expect(OUR_OWN);
        connection.set_buffer_limit(None);
        Tls(connection)
    }

    /// Adds what the bytes mean to `plain`. Returns whether the connection can go on.
    pub(in super::super) fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> bool {
        while !bytes.is_empty() {
            if self.0.read_tls(&mut bytes).is_err() || self.0.process_new_packets().is_err() {
                return false;
            }
            // That there is no more for now is an error here.
            let _ = self.0.reader().read_to_end(plain);
        }
        true
    }

    /// What is to be sent for these bytes, and for what TLS itself has to say.
    pub(in super::super) fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = self.0.writer().write_all(plain);
        while written.is_ok() && self.0.wants_write() {
            self.0.write_tls(&mut bytes).expect("a Vec takes any number of bytes");
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustls::{ClientConnection, StreamOwned};

    use super::super::super::tests::PATIENCE;
    use super::super::super::{FakeHttpTsd, HttpFault};
    use super::*;

    const REQUEST: &[u8] = b"POST /api/put HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\
        Content-Type: application/json\r\n\r\n\
        {\"metric\":\"m\",\"timestamp\":1700000000,\"value\":1,\"tags\":{\"h\":\"a\"}} ";

    fn dial(tsd: &FakeHttpTsd, name: &'static str) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(tsd.address().strip_prefix("https://").unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ClientConnection::new(client_config(), name.try_into().unwrap()).unwrap();
        StreamOwned::new(connection, socket)
    }

    #[test]
    fn requests_are_served_behind_tls_and_faults_too() {
        let tsd = FakeHttpTsd::builder().tls(Certificate::Valid).start();
        for name in ["localhost", "127.0.0.1"] {
            let mut client = dial(&tsd, name);
            client.write_all(REQUEST).unwrap();
            let mut answer = [0; 15];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 204 OK");
        }
        tsd.script(HttpFault::Cut(4));
        let mut client = dial(&tsd, "localhost");
        client.write_all(REQUEST).unwrap();
        let mut answer = Vec::new();
        // A TCP end without TLS's own.
        assert!(client.read_to_end(&mut answer).is_err());
        assert_eq!((answer.as_slice(), tsd.points().len()), (&b"HTTP"[..], 3));
        assert_eq!(tsd.log().violations(), [""; 0]);
    }

    #[test]
    fn a_certificate_is_as_bad_as_was_asked_for() {
        for (certificate, what) in [
            (Certificate::WrongName, "not valid for name \"localhost\""),
            (Certificate::Expired, "certificate expired"),
        ] {
            let tsd = FakeHttpTsd::builder().tls(certificate).start();
            let error = dial(&tsd, "localhost").write_all(REQUEST).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            tsd.expect_until(PATIENCE, |log| log.open_connection_count() == 0);
            assert_eq!(tsd.lines(), [""; 0]);
        }
    }

    #[test]
    fn what_is_no_tls_is_refused() {
        let tsd = FakeHttpTsd::builder().tls(Certificate::Valid).start();
        let mut socket =
            TcpStream::connect(tsd.address().strip_prefix("https://").unwrap()).unwrap();
        socket.write_all(REQUEST).unwrap();
        let mut alert = Vec::new();
        let _ = socket.read_to_end(&mut alert);
        assert_eq!((alert.first(), tsd.log().request_count()), (Some(&0x15), 0));
    }
}
