//! A [`metrics`](https://docs.rs/metrics) exporter for OpenTSDB, VictoriaMetrics, InfluxDB 1.x and
//! KairosDB, by their telnet `put` protocol or over HTTP.
//!
//! It aggregates in the process, sends a snapshot at each interval from a thread of its own, knows
//! which points a server has *parsed*, and sends the others again after a lost connection. No
//! application thread ever waits for it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use metrics::{counter, gauge, histogram};
//! use metrics_exporter_opentsdb::{ConnectivityCheck, Flavor, OpenTsdbBuilder};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let exporter = OpenTsdbBuilder::new("tsd.example.com:4242")
//!         .with_flavor(Flavor::OpenTsdb)
//!         .with_connectivity_check(ConnectivityCheck::Off) // start although the server is away
//!         .add_global_label("service", "checkout")
//!         .install()?;
//!     let _guard = exporter.guard(Duration::from_secs(5)); // last snapshot, delivered
//!
//!     counter!("http.requests", "path" => "/login", "code" => "200").increment(1);
//!     gauge!("mail.queued").set(17.0);
//!     histogram!("http.seconds", "path" => "/login").record(0.042);
//!     Ok(())
//! }
//! ```
//!
//! # The book
//!
//! | chapter | answers |
//! |---|---|
//! | [servers](docs::servers) | what to set on the server, and which queries to begin with |
//! | [identity](docs::identity) | what a series is called, and what to do with several processes, containers, Kubernetes |
//! | [timestamps](docs::timestamps) | when a snapshot is taken, and what its values say |
//! | [delivery](docs::delivery) | what a confirmation proves, and what is not promised |
//! | [shutdown](docs::shutdown) | SIGTERM, tokio, fork |
#![cfg_attr(
    feature = "http",
    doc = "| [http](docs::http) | addresses, TLS, credentials, what a request costs |"
)]
#![cfg_attr(
    not(feature = "http"),
    doc = "| http (feature `http`) | addresses, TLS, credentials, what a request costs |"
)]
#![cfg_attr(
    feature = "spool",
    doc = "| [spool](docs::spool) | points kept on disk over an outage, a restart or a kill |"
)]
#![cfg_attr(
    not(feature = "spool"),
    doc = "| spool (feature `spool`) | points kept on disk over an outage, a restart or a kill |"
)]
//! | [cost](docs::cost) | nanoseconds and bytes |
//! | [troubleshooting](docs::troubleshooting) | my metric is missing |
#![cfg_attr(
    feature = "testing",
    doc = "| [testing](docs::testing) | testing your metrics without a server |"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "| testing (feature `testing`) | testing your metrics without a server |"
)]
//! | [coming from](docs::coming_from) | prometheus, dogstatsd, statsd, potsdb, tcollector |
//!
//! # Items, in the order in which a value travels
//!
//! | item | role |
//! |---|---|
//! | [`OpenTsdbBuilder`] | sets an exporter up and starts it |
//! | [`OpenTsdbRecorder`] | takes what the application records: installed globally, or under a layer of `metrics_util` |
//! | [`Distribution`], [`CounterMode`] | what becomes of histograms and counters |
//! | [`OpenTsdbHandle`] | flush, shutdown, raw points, statistics |
//! | [`FlushGuard`] | delivers what is left at the end of `main` |
//! | [`Stats`] | where every point went |
//!
//! # Settings
//!
//! | [`OpenTsdbBuilder`] | default |
//! |---|---|
//! | [`new(address)`](OpenTsdbBuilder::new), [`from_env()`](OpenTsdbBuilder::from_env) | port 4242 |
//! | [`add_endpoint`](OpenTsdbBuilder::add_endpoint) | none |
//! | [`with_endpoint_order`](OpenTsdbBuilder::with_endpoint_order) | [`EndpointOrder::Preferred`] |
//! | [`with_max_connection_age`](OpenTsdbBuilder::with_max_connection_age) | 1 h, each time drawn from its second half |
//! | [`with_flavor`](OpenTsdbBuilder::with_flavor) | [`Flavor::OpenTsdb`] |
//! | [`with_flush_interval`](OpenTsdbBuilder::with_flush_interval) | 10 s |
//! | [`with_timestamp_precision`](OpenTsdbBuilder::with_timestamp_precision) | [`TimestampPrecision::Seconds`] |
//! | [`with_rate_limit`](OpenTsdbBuilder::with_rate_limit) | [`RateLimit::Auto`]: 100 points a second, more if a snapshot needs it |
//! | [`with_queue_size`](OpenTsdbBuilder::with_queue_size) | 100,000 points |
//! | [`with_connectivity_check`](OpenTsdbBuilder::with_connectivity_check) | [`ConnectivityCheck::Connect`], 3 s |
//! | [`with_connect_timeout`](OpenTsdbBuilder::with_connect_timeout) | 3 s |
//! | [`with_write_timeout`](OpenTsdbBuilder::with_write_timeout) | 30 s without progress |
//! | [`with_backoff`](OpenTsdbBuilder::with_backoff) | 1 s to 30 s, full jitter |
//! | [`with_confirmation`](OpenTsdbBuilder::with_confirmation) | [`Confirmation::Auto`] |
//! | [`with_host_tag`](OpenTsdbBuilder::with_host_tag) | [`HostTag::Auto`]: this machine's name |
//! | [`with_instance_tag`](OpenTsdbBuilder::with_instance_tag) | [`InstanceTag::Auto`]: none, `instance=2` for the second process of a kind on a machine |
//! | [`add_global_label`](OpenTsdbBuilder::add_global_label), [`with_global_labels`](OpenTsdbBuilder::with_global_labels) | none |
//! | [`set_global_prefix`](OpenTsdbBuilder::set_global_prefix) | none |
//! | [`with_counter_mode`](OpenTsdbBuilder::with_counter_mode) | [`CounterMode::Cumulative`] |
//! | [`with_birth_zeros`](OpenTsdbBuilder::with_birth_zeros) | off |
//! | [`set_distribution`](OpenTsdbBuilder::set_distribution), [`set_distribution_for_metric`](OpenTsdbBuilder::set_distribution_for_metric) | [`Distribution::Summary`] |
//! | [`set_quantiles`](OpenTsdbBuilder::set_quantiles), [`set_quantiles_for_metric`](OpenTsdbBuilder::set_quantiles_for_metric) | 0.5, 0.95, 0.99 |
//! | [`set_buckets`](OpenTsdbBuilder::set_buckets), [`set_buckets_for_metric`](OpenTsdbBuilder::set_buckets_for_metric) | those of the Prometheus clients, where buckets are sent |
//! | [`on_snapshot`](OpenTsdbBuilder::on_snapshot) | no callback |
//! | [`idle_timeout`](OpenTsdbBuilder::idle_timeout), [`idle_timeout_for_metric`](OpenTsdbBuilder::idle_timeout_for_metric) | off |
//! | [`with_series_limit`](OpenTsdbBuilder::with_series_limit) | 1,000,000 |
//! | [`with_max_tags`](OpenTsdbBuilder::with_max_tags) | the flavor's: 8 for OpenTSDB |
//! | [`with_min_level`](OpenTsdbBuilder::with_min_level), [`with_min_level_for_target`](OpenTsdbBuilder::with_min_level_for_target) | every metric |
//! | [`with_unit_suffixes`](OpenTsdbBuilder::with_unit_suffixes) | off |
#![cfg_attr(
    feature = "spool",
    doc = "| [`with_spool`](OpenTsdbBuilder::with_spool) | none; 1 GiB and a week where there is one |"
)]
#![cfg_attr(
    not(feature = "spool"),
    doc = "| `with_spool` (feature `spool`) | none; 1 GiB and a week where there is one |"
)]
//! | [`with_telemetry`](OpenTsdbBuilder::with_telemetry) | on |
#![cfg_attr(
    feature = "http",
    doc = "| [`add_http_header`](OpenTsdbBuilder::add_http_header) | none |"
)]
#![cfg_attr(
    feature = "http",
    doc = "| [`with_http_compression`](OpenTsdbBuilder::with_http_compression) | [`HttpCompression::Gzip`] |"
)]
#![cfg_attr(
    feature = "http",
    doc = "| [`with_http_batch_bytes`](OpenTsdbBuilder::with_http_batch_bytes) | 8,000 bytes for OpenTSDB, 1 MiB for others |"
)]
#![cfg_attr(
    feature = "tls",
    doc = "| [`with_tls_config`](OpenTsdbBuilder::with_tls_config) | the system's root certificates |"
)]
//!
//! # Telemetry
//!
//! With each snapshot, under the prefix, with the global labels and the host tag. What was never
//! anything but zero makes no line: in good days there are at most seven, and each kind of trouble
//! adds its own. [What to alert on](docs::troubleshooting) is in the book. [`Stats`] has all of
//! these, and alone `points_sent`, `bytes_sent`, `series_merged`, `series_dormant` and
//! `series_evicted`.
//!
//! | `opentsdb.client.…` | meaning |
//! |---|---|
//! | `points.taken`, `points.confirmed`, `points.pending` | made by snapshots and `send`; parsed by the server; waiting, or written and not confirmed |
//! | `points.resent` | written once more after a lost connection |
//! | `points.dropped` with `reason=` | `queue_full`, `too_long`, `not_finite`, `duplicate`, `shutdown`, `spool` |
//! | `points.rejected` with `class=` | `illegal_argument`, `invalid_value`, `unknown_metric`, `storage`, `throttled`, `unknown_command`, `other`: confirmed, and refused |
//! | `points.spooled`, `spool.bytes`, `spool.age`, `spool.errors` | moved from memory to disk; on disk now; seconds since the oldest of that was written; failed writes, damaged parts. None without a spool |
//! | `pending.age` | seconds since the oldest pending point was taken |
//! | `ticks.skipped`, `clock.steps` | snapshots left out because the last was still being sent; steps of the wall clock |
//! | `connected`, `connects`, `connect.failures`, `disconnects` | 1.0 while points flow, also where each burst has a connection of its own, else 0.0; connections made; attempts that failed; connections that were lost or given up |
//! | `series`, `series.overflow`, `series.refused` | series known; look-ups of keys beyond the limit, and of a name that another metric has |
//! | `tags.dropped`, `restarts` | tags beyond `with_max_tags`; panics of the exporter's own threads, which went on |
//!
//! # What is promised, and what is not
//!
//! A confirmed point was parsed by the server, in order; see [`Confirmation`]. It may have been
//! refused, which is counted ([`Rejections`]), and it may not be stored yet: OpenTSDB answers
//! before its storage has written, but over HTTP with [`Confirmation::Stored`]. Without a spool
//! nothing is kept on disk, so what was not sent is lost with a killed process. What was sent but
//! not confirmed when a connection broke is sent again, as the same bytes: OpenTSDB, InfluxDB and
//! KairosDB keep one such point, VictoriaMetrics keeps both unless it deduplicates. At every moment
//! `points_taken = points_confirmed + points_pending + points_dropped.total()`, and with a spool
//! `+ points_spooled`.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `http`: `http://` addresses, to which points are sent by `POST /api/put`. No C compiler.
//! - `tls`: `https://` addresses, by rustls with the cryptography that your application brings: by
//!   `with_tls_config`, or as the process's default provider.
//! - `tls-ring`, `tls-aws-lc-rs`: the same with cryptography of its own, which needs a C compiler.
//! - `testing`: `testing::FakeTsd`, a scripted TSD in the process, for your tests and ours; with
//!   `http` also `testing::FakeHttpTsd`.
//! - `spool`: `OpenTsdbBuilder::with_spool`, a directory for what memory has no room for.
//! - `log`: emits the crate's `tracing` events as `log` records too, for applications without a
//!   tracing subscriber.
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
#[cfg(any(doc, doctest))]
pub mod docs;
mod error;
mod flush;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod host;
mod log_limiter;
mod queue;
mod record;
mod send;
mod stats;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
#[cfg_attr(
    not(test),
    expect(
        clippy::expect_used,
        clippy::panic,
        reason = "a test double says in a panic what keeps it from running, and what came instead"
    )
)]
#[expect(clippy::disallowed_types, reason = "its log has the times of the system's clock")]
pub mod testing;
mod wire;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use builder::HttpCompression;
pub use builder::{ConnectivityCheck, Flavor, HostTag, InstanceTag, OpenTsdbBuilder};
pub use error::{BuildError, FlushError, SendError};
pub use flush::distribution::{Distribution, Matcher};
pub use flush::reading::CounterMode;
pub use flush::schedule::TimestampPrecision;
pub use handle::{FlushGuard, FlushReport, OpenTsdbHandle};
pub use metrics_util::{MetricKind, MetricKindMask};
pub use record::descriptions::Description;
pub use record::recorder::OpenTsdbRecorder;
pub use send::limiter::RateLimit;
pub use send::rotation::EndpointOrder;
#[cfg(feature = "spool")]
#[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
pub use send::spool::options::Spool;
pub use stats::{Confirmation, Drops, Rejections, Stats};
pub use wire::point::Point;
pub use wire::value::Value;

/// The README's examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
