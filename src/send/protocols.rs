//! Which protocol is spoken to an endpoint: its address chooses.

use super::endpoint::Endpoint;
#[cfg(feature = "http")]
use super::http;
use super::peer::Peer;
use super::telnet::TelnetPeer;
use crate::stats::Confirmation;

/// How the protocols are spoken.
pub(crate) struct Protocols {
    /// How telnet endpoints confirm.
    pub(crate) confirmation: Confirmation,
    #[cfg(feature = "http")]
    pub(crate) http: http::head::Options,
}

impl Protocols {
    /// The peer at this endpoint.
    pub(super) fn peer(&self, endpoint: &Endpoint) -> Box<dyn Peer> {
        #[cfg(feature = "http")]
        if let Some(url) = &endpoint.url {
            return Box::new(http::HttpPeer::new(endpoint, url, &self.http));
        }
        let _ = endpoint;
        Box::new(TelnetPeer::new(self.confirmation))
    }
}
