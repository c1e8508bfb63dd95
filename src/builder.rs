//! From options to a running exporter.
//!
//! The setters only keep what they are given. [`OpenTsdbBuilder::build`] checks everything, so that
//! each error names the option, the value and the fix, and then starts the two threads. This is the
//! one module that knows all the others.

mod check;
mod env;
#[cfg(feature = "http")]
mod http;
mod instance;
mod options;
#[cfg(feature = "spool")]
mod spool;
mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{Label, Level};
use metrics_util::MetricKindMask;

use self::options::Address;
#[cfg(feature = "http")]
pub use self::options::HttpCompression;
pub use self::options::{ConnectivityCheck, Flavor, HostTag, InstanceTag};
use crate::clock::Clock;
use crate::error::BuildError;
use crate::flush::callbacks::Callbacks;
use crate::flush::distribution::{self, Distribution, Matcher};
use crate::flush::idle::Idle;
use crate::flush::reading::CounterMode;
use crate::flush::schedule::TimestampPrecision;
use crate::handle::OpenTsdbHandle;
use crate::record::recorder::OpenTsdbRecorder;
#[cfg(feature = "http")]
use crate::send::http::head::Header;
use crate::send::limiter::RateLimit;
use crate::send::rotation::EndpointOrder;
#[cfg(feature = "spool")]
use crate::send::spool::options::Spool;
use crate::stats::Confirmation;

/// Between two snapshots.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// The most points that wait in the queue.
const QUEUE_SIZE: usize = 100_000;
/// For the start-up check, and for connecting to an endpoint: all its addresses together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may make no progress. A TSD answers late while its storage is away, and
/// each connection that is given up leaves one of its workers blocked.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time for which an endpoint is used; the shortest is half of it.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// The first and the last upper bound of the random wait after a failed connection.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The most series.
const SERIES_LIMIT: usize = 1_000_000;
/// Whether this crate has installed a recorder in this process.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Declares the options that a setter takes as they are, each with its default, and the fields
/// beside them.
macro_rules! options {
    (
        $(#[$about:meta])* $Builder:ident
        $($(#[$doc:meta])* $visible:vis fn $setter:ident($option:ident: $Type:ty = $default:expr);)*
        { $($(#[doc = $note:literal])* $(#[cfg($cfg:meta)])* $field:ident: $Field:ty = $initial:expr,)* }
    ) => {
        $(#[$about])*
        pub struct $Builder {
            $($option: $Type,)*
            $($(#[doc = $note])* $(#[cfg($cfg)])* $field: $Field,)*
        }

        impl $Builder {
            fn with_defaults() -> Self {
                $Builder {
                    $($option: $default,)*
                    $($(#[cfg($cfg)])* $field: $initial,)*
                }
            }

            $($(#[$doc])*
            $visible fn $setter(mut self, $option: $Type) -> Self {
                self.$option = $option;
                self
            })*
        }
    };
}

impl OpenTsdbBuilder {
    /// An exporter to the TSD at `address`: `"tsd"`, `"tsd:4242"`, `"10.0.0.7"`, `"[::1]:4242"` or
    /// `"tcp://tsd:4242"`. The port defaults to 4242.
    ///
    /// With the feature `http` also a URL, `"http://tsd"` or
    /// `"https://user:secret@tsd.example.com/insert/0/opentsdb/api/put?db=x"`, with port 4242 or
    /// 443 and path `/api/put` where none is given: points are sent by `POST` then. A user and a
    /// password become HTTP Basic authentication; percent-encode what is not a letter or a digit in
    /// them. `https` needs the feature `tls-ring` or `tls-aws-lc-rs`, or `tls` and
    /// `with_tls_config`.
    #[doc(alias = "Client")]
    pub fn new(address: impl Into<String>) -> Self {
        OpenTsdbBuilder { addresses: vec![Address(address.into())], ..Self::with_defaults() }
    }

    #[doc = include_str!("../docs/environment.md")]
    ///
    /// ```no_run
    /// # fn main() -> Result<(), metrics_exporter_opentsdb::BuildError> {
    /// use metrics_exporter_opentsdb::OpenTsdbBuilder;
    ///
    /// let exporter =
    ///     OpenTsdbBuilder::from_env()?.add_global_label("service", "checkout").install()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BuildError::InvalidConfiguration`], which names the variable and the fix, if
    /// `OPENTSDB_ADDRESS` is not set or a variable has a value that cannot work.
    pub fn from_env() -> Result<Self, BuildError> {
        Self::from_variables(std::env::vars_os())
    }

    /// Adds a further TSD, which is used while those before it cannot be reached.
    pub fn add_endpoint(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(Address(address.into()));
        self
    }

    /// Sets the wait after a failed connection: random, from 0 to an upper bound that begins at
    /// `min` and doubles with each failure up to `max`. A confirmation sets it back to `min`.
    /// Both above 0 and at most a day. Defaults to 1 s and 30 s.
    pub fn with_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = (min, max);
        self
    }

    /// Adds a tag to every series that has none of this key; a later one of the same key replaces
    /// it. Neither key nor value may be empty.
    pub fn add_global_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.global_labels.push(Label::new(key.into(), value.into()));
        self
    }

    /// Sets what comes before the name of each metric, raw point and series of the exporter's own,
    /// with a dot between: `set_global_prefix("shop")` sends `shop.requests`. Defaults to none.
    pub fn set_global_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the quantiles that a [`Distribution::Summary`] sends, each from 0 to 1. Count, sum, min
    /// and max are always sent. Defaults to 0.5, 0.95 and 0.99.
    pub fn set_quantiles(mut self, quantiles: &[f64]) -> Self {
        self.distributions.quantiles.general = Some(quantiles.to_vec());
        self
    }

    /// Sets the quantiles of the metrics that match, and makes these a [`Distribution::Summary`]
    /// unless [`set_distribution_for_metric`](Self::set_distribution_for_metric) says otherwise.
    pub fn set_quantiles_for_metric(mut self, matcher: Matcher, quantiles: &[f64]) -> Self {
        self.distributions.quantiles.special.push((matcher, quantiles.to_vec()));
        self
    }

    /// Makes every histogram a [`Distribution::Buckets`] with these upper bounds, ascending, unless
    /// [`set_distribution`](Self::set_distribution) says otherwise.
    pub fn set_buckets(mut self, bounds: &[f64]) -> Self {
        self.distributions.buckets.general = Some(bounds.to_vec());
        self
    }

    /// Makes the histograms that match a [`Distribution::Buckets`] with these upper bounds,
    /// ascending.
    pub fn set_buckets_for_metric(mut self, matcher: Matcher, bounds: &[f64]) -> Self {
        self.distributions.buckets.special.push((matcher, bounds.to_vec()));
        self
    }

    /// Sets what a histogram becomes. Defaults to [`Distribution::Summary`].
    pub fn set_distribution(mut self, distribution: Distribution) -> Self {
        self.distributions.distribution.general = Some(distribution);
        self
    }

    /// Sets what the histograms that match become.
    pub fn set_distribution_for_metric(
        mut self,
        matcher: Matcher,
        distribution: Distribution,
    ) -> Self {
        self.distributions.distribution.special.push((matcher, distribution));
        self
    }

    /// Sends no points of a series of these kinds once nothing was recorded in it for `timeout`, in
    /// whole seconds, until something is. If no handle of it is held either, the series is
    /// forgotten. Setting a gauge to the value that it has is recording, adding 0 to a counter is
    /// not. `None`, the default, sends every series as long as the exporter runs.
    ///
    /// No update is lost: a handle that is kept goes on where it was. A series that was forgotten
    /// and comes back starts anew, a counter from zero. What servers make of that:
    ///
    /// | query | a counter at 100 is forgotten and comes back at 7 |
    /// |---|---|
    /// | OpenTSDB `rate` | one negative rate, -93 over the time between |
    /// | OpenTSDB `rate{counter}` | one absurdly high rate, for it is taken for an overflow at 2^63; `rate{counter,,1000000}` answers 0 for a rate above a million, `rate{dropcounter}` leaves the point out |
    /// | VictoriaMetrics `rate`, `increase` | a reset: it counts 7 |
    /// | [`CounterMode::Delta`] | nothing to tell: it counts 7 |
    ///
    /// While a series is dormant OpenTSDB has no points of it, and a query that adds series up
    /// interpolates across the gap. VictoriaMetrics ends the line five minutes after the last
    /// point.
    pub fn idle_timeout(mut self, kinds: MetricKindMask, timeout: Option<Duration>) -> Self {
        self.idle.general = timeout.map(|timeout| (kinds, timeout));
        self
    }

    /// Sets [`idle_timeout`](Self::idle_timeout) for the metrics that match, of whatever kind:
    /// `None` sends them as long as the exporter runs.
    pub fn idle_timeout_for_metric(mut self, matcher: Matcher, timeout: Option<Duration>) -> Self {
        self.idle.special.push((matcher, timeout));
        self
    }

    /// Sets how many tags a series may have, 1 to 64, global labels and the host tag counted.
    /// Beyond it, a metric's own labels are left out, from the last; each is counted
    /// (`tags_dropped`). Metrics that differ only in what is left out are one series. The global
    /// labels and the host tag stay, since they tell senders apart. A histogram whose buckets are
    /// told apart by a tag has one tag fewer. Defaults to what the flavor's server takes: 8 for
    /// OpenTSDB.
    pub fn with_max_tags(mut self, tags: usize) -> Self {
        self.max_tags = Some(tags);
        self
    }

    /// Sets the least level of the metrics whose target begins with `prefix`, in place of
    /// [`with_min_level`](Self::with_min_level)'s. A metric's target is the path of its module
    /// unless its macro says otherwise, so `with_min_level_for_target("sqlx", Level::WARN)` quiets
    /// a library. The longest prefix counts, of equal ones the last. It may not be empty.
    pub fn with_min_level_for_target(mut self, prefix: impl Into<String>, level: Level) -> Self {
        self.target_levels.push((prefix.into(), level));
        self
    }

    /// Adds a callback that is called before each snapshot, on the exporter's own thread: for
    /// values that are read when they are sent, as a queue's length or a collector's.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), metrics_exporter_opentsdb::BuildError> {
    /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// use metrics::gauge;
    /// use metrics_exporter_opentsdb::OpenTsdbBuilder;
    ///
    /// let queued = Arc::new(AtomicU32::new(0));
    /// let read = Arc::clone(&queued);
    /// OpenTsdbBuilder::new("tsd")
    ///     .on_snapshot(move || gauge!("mail.queued").set(read.load(Ordering::Relaxed)))
    ///     .install()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What it records is in the snapshot. It is called at ticks, flushes and the shutdown, not for
    /// [`render`](OpenTsdbHandle::render). A panic in it is caught, counted
    /// ([`restarts`](crate::Stats::restarts)) and logged, and the snapshot is taken.
    ///
    /// Keep it short: the snapshot waits for it, and so does a flush, but no longer than its
    /// deadline. In it [`flush`](OpenTsdbHandle::flush) and [`shutdown`](OpenTsdbHandle::shutdown)
    /// answer [`FlushError::OnSnapshot`](crate::FlushError) at once, and
    /// [`wait`](OpenTsdbHandle::wait) does nothing. An exporter whose callback owns its handle or
    /// recorder ends by `shutdown` alone. Clones of a builder share the callback: while it runs for
    /// one exporter, the other takes its snapshot without it.
    pub fn on_snapshot(mut self, callback: impl FnMut() + Send + 'static) -> Self {
        self.callbacks.add(callback);
        self
    }

    /// Adds a header to every request to `http://` and `https://` endpoints: a token, a tenant. One
    /// that the exporter would send by itself (`Authorization` of an address with a user, `Host`,
    /// `User-Agent`) is replaced. The value is taken for a secret: no error, log line and `Debug`
    /// has it. Needs the feature `http`.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn add_http_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.http.headers.push(Header::new(name.into(), value.into()));
        self
    }

    /// Sets whether the bodies of requests are compressed. Defaults to [`HttpCompression::Gzip`].
    /// Needs the feature `http`.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn with_http_compression(mut self, compression: HttpCompression) -> Self {
        self.http.compression = compression;
        self
    }

    /// Sets the most bytes of a request's body on the wire, which is after compression. A point
    /// that needs more alone is dropped and counted (`too_long`). A server that refuses a body as
    /// too large is sent half as much, then more again, until one is refused a second time; for ten
    /// minutes then no body is larger than the largest that it took. At least 64. Defaults to 8,000 for
    /// [`Flavor::OpenTsdb`], since a TSD reads no more than 8,192 unless it is set otherwise
    /// (`tsd.http.request.max_chunk` with `enable_chunked`), and to 1 MiB for the others. Needs the
    /// feature `http`.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn with_http_batch_bytes(mut self, bytes: usize) -> Self {
        self.http.batch_bytes = Some(bytes);
        self
    }

    /// Sets how `https://` endpoints are spoken to: which certificates are trusted, a certificate
    /// of the client's own. Without it, the cryptography is the process's default provider or that
    /// of the feature `tls-aws-lc-rs` or `tls-ring`, and the system's root certificates are
    /// trusted. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn with_tls_config(mut self, config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        self.http.tls = Some(config);
        self
    }

    /// Keeps on disk what memory has no room for while the server is away, and what is not
    /// confirmed when the exporter ends; it is delivered when the server is there, by the next
    /// process too. What that costs and promises is in
    /// [the chapter on the spool](crate::docs::spool). Defaults to none: nothing is written to
    /// disk.
    ///
    /// A second exporter that the default [`InstanceTag::Auto`] gives a number keeps its points in
    /// the subdirectory of that number. Any other finds the directory locked, which is an error.
    #[cfg(feature = "spool")]
    #[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
    pub fn with_spool(mut self, spool: Spool) -> Self {
        self.spool = Some(spool);
        self
    }

    /// Checks all options, looks for the server, and starts the exporter's threads; installs
    /// nothing.
    ///
    /// # Errors
    /// If an option cannot work, no server was reached, or a thread could not be started; see
    /// [`BuildError`]. Nothing is left running then.
    pub fn build(self) -> Result<(OpenTsdbRecorder, OpenTsdbHandle), BuildError> {
        self.start().map(|(recorder, handle, _)| (recorder, handle))
    }

    /// [`build`](Self::build), and installs the recorder as the global one.
    ///
    /// # Errors
    /// As `build`, and if there is a global recorder already.
    pub fn install(self) -> Result<OpenTsdbHandle, BuildError> {
        if IS_INSTALLED.load(Ordering::SeqCst) {
            return Err(BuildError::FailedToSetGlobalRecorder);
        }
        let (recorder, handle, threads) = self.start()?;
        if metrics::set_global_recorder(recorder).is_err() {
            // Another crate's recorder is there. These threads have done nothing yet, so they end
            // at once.
            let _ = handle.shutdown(Duration::ZERO);
            let _ = (threads.flusher.join(), threads.writer.join());
            return Err(BuildError::FailedToSetGlobalRecorder);
        }
        IS_INSTALLED.store(true, Ordering::SeqCst);
        Ok(handle)
    }
}

options! {
    /// Sets an exporter up and starts it.
    ///
    /// A setter never fails; [`build`](Self::build) checks all options and says what to change.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), metrics_exporter_opentsdb::BuildError> {
    /// use std::time::Duration;
    /// use metrics_exporter_opentsdb::OpenTsdbBuilder;
    ///
    /// let handle = OpenTsdbBuilder::new("tsd-1:4242")
    ///     .add_endpoint("tsd-2:4242")
    ///     .with_flush_interval(Duration::from_secs(15))
    ///     .add_global_label("service", "checkout")
    ///     .install()?;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Clone, Debug)]
    #[must_use = "a builder does nothing until `build` or `install`"]
    OpenTsdbBuilder

    /// Sets with which endpoint, and with which address of a name, the exporter begins. With
    /// [`EndpointOrder::Spread`] the exporters of many processes share several servers evenly.
    /// Defaults to [`EndpointOrder::Preferred`].
    pub fn with_endpoint_order(endpoint_order: EndpointOrder = EndpointOrder::default());

    /// Sets how long an endpoint is used at most before its name is resolved anew and the preferred
    /// endpoint is tried again. Each time is drawn from the second half, 30 to 60 minutes, so that
    /// not all exporters move at one moment; a connection is closed only when everything is
    /// confirmed, and never while a [`flush`](OpenTsdbHandle::flush) waits. `None` keeps it for as
    /// long as it works. At most a day. Defaults to 1 h.
    ///
    /// *Not promised:* that a server that was added has its share at once; it takes this long.
    pub fn with_max_connection_age(max_connection_age: Option<Duration> = Some(MAX_CONNECTION_AGE));

    /// Selects server-specific limits: tags, bytes of a line, characters. Defaults to
    /// [`Flavor::OpenTsdb`], whose lines every server takes.
    pub fn with_flavor(flavor: Flavor = Flavor::default());

    /// Sets the time between two snapshots, from a millisecond to a day. Snapshots are taken at
    /// multiples of it on the wall clock, in [`TimestampPrecision::Seconds`] at most one a second.
    /// Defaults to 10 s.
    pub fn with_flush_interval(flush_interval: Duration = FLUSH_INTERVAL);

    /// Sets the unit of timestamps. Defaults to [`TimestampPrecision::Seconds`].
    pub fn with_timestamp_precision(precision: TimestampPrecision = TimestampPrecision::default());

    /// Sets how fast points are sent; potsdb's `mps`. Defaults to [`RateLimit::Auto`].
    #[doc(alias = "mps")]
    pub fn with_rate_limit(rate_limit: RateLimit = RateLimit::default());

    /// Sets how many points may wait to be sent, at 128 bytes each on average; potsdb's `qsize`.
    /// When more come while the server is away, the oldest are dropped, or go to the spool if there
    /// is one (feature `spool`); while it is there, snapshots are skipped instead. At least 1.
    /// Defaults to 100,000 points, 12.8 MB.
    #[doc(alias = "qsize")]
    pub fn with_queue_size(queue_size: usize = QUEUE_SIZE);

    /// Sets whether `build` fails when no server can be reached; potsdb's `check_host`. Defaults to
    /// [`ConnectivityCheck::Connect`].
    #[doc(alias = "check_host")]
    pub fn with_connectivity_check(
        connectivity_check: ConnectivityCheck = ConnectivityCheck::default()
    );

    /// Sets how long connecting to an endpoint may take, which includes resolving its name and
    /// trying all its addresses. The next endpoint has as long again. At most a day. Defaults to
    /// 3 s.
    pub fn with_connect_timeout(connect_timeout: Duration = CONNECT_TIMEOUT);

    /// Sets how long a connection may make no progress, neither a byte taken nor a confirmation,
    /// before it is given up and its points are sent again on another one. At most a day. Defaults
    /// to 30 s.
    pub fn with_write_timeout(write_timeout: Duration = WRITE_TIMEOUT);

    /// Sets how the exporter knows that points were parsed. What each mode proves of which server,
    /// behind which proxy and on which system is the table of [`Confirmation`]. Defaults to
    /// [`Confirmation::Auto`].
    pub fn with_confirmation(confirmation: Confirmation = Confirmation::default());

    /// Sets the `host` tag of every series; potsdb's `host_tag`. A label `host`, of the metric or a
    /// global one, wins over it. Defaults to [`HostTag::Auto`].
    #[doc(alias = "host_tag")]
    pub fn with_host_tag(host_tag: HostTag = HostTag::default());

    /// Sets the tag that tells exporters on one machine apart where nothing else does. It is never
    /// left out, whatever [`with_max_tags`](Self::with_max_tags) says. Defaults to
    /// [`InstanceTag::Auto`].
    pub fn with_instance_tag(instance_tag: InstanceTag = InstanceTag::default());

    /// Sets the tags of every series that has none of these keys, in place of those set before.
    pub fn with_global_labels(global_labels: Vec<Label> = Vec::new());

    /// Sets whether a counter's line is its count or a difference. Defaults to
    /// [`CounterMode::Cumulative`].
    pub fn with_counter_mode(counter_mode: CounterMode = CounterMode::default());

    /// Sets whether a counter that is first recorded between two snapshots gets a zero, one
    /// interval before its first value, so that a `rate` or `increase` over it has the first counts
    /// too: without it a counter that appears with 5 has risen by nothing. It costs a point for
    /// each new series. Of no use for a counter that is set by `absolute` from one that has long
    /// counted. Never with [`CounterMode::Delta`]. Defaults to `false`.
    ///
    /// *Not promised:* a zero for each. None is sent where the series may have a value of that
    /// time: for what is recorded before the first snapshot of the process, in its first interval,
    /// or within an interval of the eviction of an idle series.
    pub fn with_birth_zeros(birth_zeros: bool = false);

    /// Sets how many series there may be. Beyond it, new keys of a metric share one series whose
    /// only own tag is `overflow=true`. Raw points may have as many series again. At least 1.
    /// Defaults to 1,000,000.
    pub fn with_series_limit(series_limit: usize = SERIES_LIMIT);

    /// Sets whether a metric with a unit (`describe_histogram!("latency", Unit::Seconds, "…")`) has
    /// it in its name: `latency_seconds`. Describe the metric before it is first recorded.
    /// `Unit::Count` adds nothing, nor does a unit that the name says already, as `wait_seconds` or
    /// `cpu_seconds_total`. Of at most 10,000 names. Defaults to `false`.
    pub fn with_unit_suffixes(unit_suffixes: bool = false);

    /// Sets the least level of a metric that is recorded; what is below it gets a handle that does
    /// nothing, and makes no series. A metric's level is `INFO` unless its macro says otherwise:
    /// `counter!(level: metrics::Level::DEBUG, "cache.hits")`. Defaults to `TRACE`, every metric.
    pub fn with_min_level(min_level: Level = Level::TRACE);

    /// Sets whether the exporter sends its own series, `opentsdb.client.*` behind the global
    /// prefix: at most seven in good days, for what was never anything but zero makes no line.
    /// Defaults to `true`.
    pub fn with_telemetry(telemetry: bool = true);

    {
        addresses: Vec<Address> = Vec::new(),
        backoff: (Duration, Duration) = BACKOFF,
        prefix: String = String::new(),
        distributions: distribution::Options = distribution::Options::default(),
        idle: Idle = Idle::default(),
        max_tags: Option<usize> = None,
        callbacks: Callbacks = Callbacks::default(),
        target_levels: Vec<(String, Level)> = Vec::new(),
        #[cfg(feature = "spool")]
        spool: Option<Spool> = None,
        #[cfg(feature = "http")]
        http: options::Http = options::Http::default(),
        /// Mocked by tests.
        clock: Clock = Clock::default(),
    }
}
