//! One connection that speaks the telnet protocol's `put`.
//!
//! 1. [`confirm`]: how a server proves what it has parsed, when it is asked to, and what is known
//!    of each endpoint;
//! 2. [`session`]: the connection, from its first line to its end;
//! 3. [`peer`]: all of it for one endpoint.

pub(super) mod confirm;
mod peer;
mod session;

pub(super) use self::peer::TelnetPeer;
