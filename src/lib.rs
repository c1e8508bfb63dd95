//! A [`metrics`] exporter for OpenTSDB and every server that speaks its telnet `put` protocol.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![allow(dead_code)] // until the threads are there

mod clock;
mod error;
mod host;
mod queue;
mod send;
mod stats;
mod sync;
mod wire;

pub use error::{BuildError, FlushError, SendError};
pub use stats::{Confirmation, Drops, Rejections, Stats};
pub use wire::point::Point;
pub use wire::value::Value;
