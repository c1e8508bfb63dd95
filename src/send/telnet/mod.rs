//! One connection that speaks the telnet protocol's `put`.
//!
//! 1. [`confirm`]: how a server proves what it has parsed, when it is asked to, and what is known of
//!    each endpoint;
//! 2. [`replies`]: what a turn of reading brought, counted and logged;
//! 3. [`session`]: the connection, from its first line to its end.
//!
//! The writer knows [`Session`] and [`Profile`] alone. Another protocol is a folder beside this one
//! with the same two.

pub(super) mod confirm;
mod replies;
mod session;

pub(super) use self::confirm::Profile;
pub(super) use self::session::{Context, Session};
