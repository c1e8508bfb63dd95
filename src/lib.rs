//! A [`metrics`] exporter for OpenTSDB and every server that speaks its telnet `put` protocol.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod builder;
mod clock;
mod error;
mod flush;
mod handle;
mod host;
mod queue;
mod record;
mod send;
mod stats;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod wire;

pub use builder::{ConnectivityCheck, Flavor, HostTag, OpenTsdbBuilder};
pub use error::{BuildError, FlushError, SendError};
pub use flush::distribution::{Distribution, Matcher};
pub use flush::schedule::TimestampPrecision;
pub use flush::snapshot::CounterMode;
pub use handle::{FlushGuard, FlushReport, OpenTsdbHandle};
pub use metrics_util::MetricKindMask;
pub use record::recorder::OpenTsdbRecorder;
pub use send::limiter::RateLimit;
pub use stats::{Confirmation, Drops, Rejections, Stats};
pub use wire::point::Point;
pub use wire::value::Value;
