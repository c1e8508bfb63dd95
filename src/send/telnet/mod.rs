//! One connection that speaks the telnet protocol's `put`.
//!
//! 1. [`confirm`]: how a server proves what it has parsed, and what is known of each endpoint;
//! 2. [`agenda`]: what comes next between two lines;
//! 3. [`replies`]: what a turn of reading brought, counted and logged;
//! 4. [`session`]: the connection, from its first line to its end.
//!
//! The writer knows [`Session`] and [`Profile`] alone. Another protocol is a folder beside this one
//! with the same two.

mod agenda;
mod confirm;
mod replies;
mod session;

pub(super) use self::confirm::Profile;
#[cfg(test)]
pub(super) use self::confirm::{ANSWER_TIME, LEARNED_FOR, QUESTION};
pub(super) use self::session::{Context, Session};
