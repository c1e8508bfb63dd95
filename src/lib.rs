//! A [`metrics`] exporter for OpenTSDB and every server that speaks its telnet `put` protocol: VictoriaMetrics, InfluxDB 1.x, KairosDB.
//!
//! It aggregates in the process, sends a snapshot each interval from a thread of its own, knows which points a server has *parsed*,
//! and sends the others again after a lost connection. No application thread ever waits for it.
//!
//! ```no_run
#![doc = include_str!("../examples/basic.rs")]
//! ```
//!
//! # In the order in which a value travels
//!
//! | | |
//! |---|---|
//! | [`OpenTsdbBuilder`] | sets an exporter up and starts it |
//! | [`OpenTsdbRecorder`] | takes what the application records: installed globally, or under a layer of `metrics_util` |
//! | [`Distribution`], [`CounterMode`] | what becomes of histograms and counters |
//! | [`OpenTsdbHandle`] | flush, shutdown, raw points, statistics |
//! | [`FlushGuard`] | delivers what is left at the end of `main` |
//! | [`Stats`] | where every point went: `points_taken = points_confirmed + points_pending + points_dropped.total()` |
//!
//! # What is promised, and what is not
//!
//! A confirmed point was parsed by the server, in order; see [`Confirmation`]. It may have been refused, which is counted
//! ([`Rejections`]), and it may not be stored yet: OpenTSDB answers before its storage has written. Nothing is kept on disk, so what
//! was not sent is lost with a killed process. What was sent but not confirmed when a connection broke is sent again, as the same
//! bytes: OpenTSDB, InfluxDB and KairosDB keep one such point, VictoriaMetrics keeps both unless it deduplicates.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `testing`: [`testing::FakeTsd`](https://docs.rs/metrics-exporter-opentsdb/latest/metrics_exporter_opentsdb/testing/), a scripted
//!   TSD in the process, for your tests and ours.
//! - `log`: emits the crate's `tracing` events as `log` records too, for applications without a tracing subscriber.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(
        clippy::dbg_macro,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::todo,
        clippy::too_many_lines,
        clippy::unimplemented,
        clippy::unwrap_used
    )
)]

mod builder;
#[expect(clippy::disallowed_types, reason = "the one place that reads the date")]
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
#[expect(clippy::expect_used, reason = "a test double says in a panic what keeps it from running")]
#[expect(clippy::disallowed_types, reason = "its log has the times of the system's clock")]
pub mod testing;
mod wire;

pub use builder::{ConnectivityCheck, Flavor, HostTag, OpenTsdbBuilder};
pub use error::{BuildError, FlushError, SendError};
pub use flush::distribution::{Distribution, Matcher};
pub use flush::reading::CounterMode;
pub use flush::schedule::TimestampPrecision;
pub use handle::{FlushGuard, FlushReport, OpenTsdbHandle};
pub use metrics_util::{MetricKind, MetricKindMask};
pub use record::descriptions::Description;
pub use record::recorder::OpenTsdbRecorder;
pub use send::limiter::RateLimit;
pub use stats::{Confirmation, Drops, Rejections, Stats};
pub use wire::point::Point;
pub use wire::value::Value;

/// The README's examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
