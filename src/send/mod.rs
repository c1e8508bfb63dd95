//! The writer thread: from the queue to a server, confirmed, or sent again.
//!
//! 1. [`endpoint`]: where a server is, as it was written; `url`: what a URL says beyond that;
//! 2. [`writer`]: the loop, and its three states;
//! 3. [`dial`]: an attempt to reach a server, with [`resolve`] and [`rotation`] behind it;
//! 4. [`backoff`]: how long to stay away when it failed;
//! 5. [`connection`]: one socket; `stream`: the same, encrypted or not, by `tls`;
//! 6. [`deadline`]: how long its server is waited for;
//! 7. [`peer`]: an endpoint and the connection to it, in one of the [`protocols`]: [`telnet`] or
//!    `http`;
//! 8. [`delivery`]: what outlives a connection: the [`window`] of unconfirmed lines, and the
//!    [`limiter`];
//! 9. [`replies`]: what a server says of points, counted and logged;
//! 10. [`status`]: how a connection ended, and what the log says of it;
//! 11. [`check`](mod@check): the start-up check;
//! 12. `spool`: what is kept on disk.

#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "HTTP needs all of it"))]
mod backoff;
mod check;
mod connection;
mod deadline;
mod delivery;
mod dial;
pub(crate) mod endpoint;
#[cfg(feature = "http")]
pub(crate) mod http;
pub(crate) mod limiter;
mod peer;
mod protocols;
mod replies;
mod resolve;
pub(crate) mod rotation;
#[cfg(feature = "spool")]
pub(crate) mod spool;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "HTTP needs all of it"))]
mod status;
#[cfg(feature = "http")]
pub(crate) mod stream;
mod telnet;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "http")]
pub(crate) mod url;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "HTTP needs all of it"))]
mod window;
mod writer;

pub(crate) use self::check::check;
pub(crate) use self::delivery::Keep;
pub(crate) use self::protocols::Protocols;
pub(crate) use self::writer::{Options, THREAD, Writer};
