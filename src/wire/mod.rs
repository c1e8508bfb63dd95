//! The protocol: bytes and nothing else. No thread, no I/O, no clock.
//!
//! 1. [`charset`]: which characters a server takes, and what becomes of the others;
//! 2. [`series`]: a name and its labels become one identity, rendered once;
//! 3. [`value`]: how a number is written;
//! 4. [`point`]: a raw point;
//! 5. [`line`](mod@line): series, time and number become a `put` line;
//! 6. [`sendable`]: whether a line that was kept elsewhere may be sent;
//! 7. [`reply`]: what a server says, and what it means; `details`: what a TSD answers to a request.

pub(crate) mod charset;
#[cfg(feature = "http")]
pub(crate) mod details;
pub(crate) mod line;
pub(crate) mod point;
pub(crate) mod reply;
#[cfg(feature = "spool")]
pub(crate) mod sendable;
pub(crate) mod series;
pub(crate) mod value;
