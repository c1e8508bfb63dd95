//! This crate and its peers, each installed as an application installs it: one global recorder, one
//! process.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_global_recorder,
};
use metrics_exporter_dogstatsd::DogStatsDBuilder;
use metrics_exporter_opentsdb::{
    Confirmation, HostTag, OpenTsdbBuilder, OpenTsdbHandle, RateLimit, Spool, TimestampPrecision,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_exporter_statsd::StatsdBuilder;
use metrics_util::registry::{AtomicStorage, Registry};

use crate::sink::Sink;

/// More than any benchmark makes.
const SERIES_LIMIT: usize = 4_000_000;
/// No exporter flushes on its own while something else is measured.
const NEVER: Duration = Duration::from_secs(86_400);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// The facade with its no-op recorder: what no exporter can save.
    Facade,
    /// A recorder over metrics-util's registry and nothing else.
    Plain,
    /// This crate.
    OpenTsdb,
    Prometheus,
    DogStatsD,
    StatsD,
}

/// What came of installing it; it runs until the process ends.
#[derive(Default)]
pub struct Running {
    pub opentsdb: Option<(OpenTsdbHandle, Sink)>,
    pub prometheus: Option<PrometheusHandle>,
    /// Where the statsd exporters send to: a socket that is bound, so that the kernel takes the
    /// packets, and never read.
    udp: Option<UdpSocket>,
}

impl Exporter {
    /// All of them.
    pub const ALL: &[Exporter] = &[
        Exporter::Facade,
        Exporter::Plain,
        Exporter::OpenTsdb,
        Exporter::Prometheus,
        Exporter::DogStatsD,
        Exporter::StatsD,
    ];

    /// The name by which a command line chooses it.
    pub fn name(self) -> &'static str {
        match self {
            Exporter::Facade => "facade",
            Exporter::Plain => "plain",
            Exporter::OpenTsdb => "opentsdb",
            Exporter::Prometheus => "prometheus",
            Exporter::DogStatsD => "dogstatsd",
            Exporter::StatsD => "statsd",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|exporter| exporter.name() == name)
    }

    /// The one that the environment names in `EXPORTER`; else this crate.
    pub fn from_env() -> Self {
        match std::env::var("EXPORTER") {
            Ok(name) => Self::from_name(&name).expect("EXPORTER names no exporter"),
            Err(_) => Exporter::OpenTsdb,
        }
    }

    /// Installs it as the global recorder. Only dogstatsd cannot be told to flush, so it alone gets
    /// an interval.
    pub fn install(self, interval: Option<Duration>) -> Running {
        let mut running = Running::default();
        match self {
            Exporter::Facade => {}
            Exporter::Plain => set_global_recorder(PlainRecorder::new()).expect("the only one"),
            Exporter::OpenTsdb => return install_ours(Confirmation::Written),
            Exporter::Prometheus => {
                running.prometheus =
                    Some(PrometheusBuilder::new().install_recorder().expect("the only one"));
            }
            Exporter::DogStatsD => {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
                let address = udp.local_addr().expect("it is bound").to_string();
                DogStatsDBuilder::default()
                    .with_remote_address(address)
                    .expect("an address")
                    .with_maximum_payload_length(65_000)
                    .expect("below 64 KiB")
                    .with_flush_interval(interval.unwrap_or(NEVER))
                    .install()
                    .expect("the only one");
                running.udp = Some(udp);
            }
            Exporter::StatsD => {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
                let port = udp.local_addr().expect("it is bound").port();
                let recorder = StatsdBuilder::from("127.0.0.1", port).build(None).expect("a port");
                set_global_recorder(recorder).expect("the only one");
                running.udp = Some(udp);
            }
        }
        running
    }
}

/// Installs this crate, with a sink to send to.
pub fn install_ours(confirmation: Confirmation) -> Running {
    let sink = Sink::start(false).expect("a port");
    let handle = install_ours_at(sink.address(), confirmation);
    Running { opentsdb: Some((handle, sink)), ..Running::default() }
}

/// Installs this crate, which sends to a sink that is there.
pub fn install_ours_at(address: &str, confirmation: Confirmation) -> OpenTsdbHandle {
    with_spool(OpenTsdbBuilder::new(address))
        .with_host_tag(HostTag::Value("web-17".into()))
        .with_flush_interval(NEVER)
        // A flush in a used second would wait for the next one.
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_rate_limit(RateLimit::Unlimited)
        .with_confirmation(confirmation)
        .with_series_limit(SERIES_LIMIT)
        .install()
        .expect("the sink is there")
}

/// With a spool, in a folder of this process, if the environment names a way in `SPOOL`.
fn with_spool(builder: OpenTsdbBuilder) -> OpenTsdbBuilder {
    let Ok(way) = std::env::var("SPOOL") else { return builder };
    let folder = std::env::temp_dir().join(format!("opentsdb-benches-{}", std::process::id()));
    builder.with_spool(Spool::new(folder).write_ahead(way == "ahead"))
}

/// A recorder over metrics-util's registry and nothing else.
struct PlainRecorder {
    registry: Registry<Key, AtomicStorage>,
}

impl PlainRecorder {
    fn new() -> Self {
        PlainRecorder { registry: Registry::atomic() }
    }
}

impl Recorder for PlainRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registry.get_or_create_counter(key, |cell| Counter::from_arc(Arc::clone(cell)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registry.get_or_create_gauge(key, |cell| Gauge::from_arc(Arc::clone(cell)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.registry.get_or_create_histogram(key, |cell| Histogram::from_arc(Arc::clone(cell)))
    }
}
