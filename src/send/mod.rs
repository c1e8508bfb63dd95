//! The writer thread: from the queue to a server, confirmed, or sent again.
//!
//! 1. [`endpoint`]: where a server is, as it was written;
//! 2. [`check`](mod@check): whether any is there, asked once at the start;
//! 3. [`writer`]: the loop, and its three states;
//! 4. [`dial`]: an attempt to reach one, with [`resolve`] and [`rotation`] behind it;
//! 5. [`backoff`]: how long to stay away when it failed;
//! 6. [`connection`]: one socket;
//! 7. [`telnet`]: what is written to it and read from it;
//! 8. [`delivery`]: what outlives a connection: the [`window`] of unconfirmed lines, and the
//!    [`limiter`];
//! 9. [`failure`] and [`status`]: what went wrong, and what the log says of it.

mod backoff;
mod check;
mod connection;
mod delivery;
mod dial;
pub(crate) mod endpoint;
mod failure;
pub(crate) mod limiter;
mod resolve;
pub(crate) mod rotation;
mod status;
mod telnet;
#[cfg(test)]
mod tests;
mod window;
mod writer;

pub(crate) use self::check::check;
pub(crate) use self::writer::{Options, THREAD, Writer};
