//! An exporter on a [`FakeTsd`], the way most tests want it: nothing is sent but what the test asks
//! for.

use std::time::Duration;

use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{
    Confirmation, ConnectivityCheck, HostTag, InstanceTag, OpenTsdbBuilder, OpenTsdbHandle,
    OpenTsdbRecorder, RateLimit, Stats,
};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What a promise about time may be late by, on a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

pub(crate) struct Rig {
    pub(crate) tsd: FakeTsd,
    pub(crate) handle: OpenTsdbHandle,
    pub(crate) recorder: OpenTsdbRecorder,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(FakeTsd::start(), |builder| builder)
    }

    /// On this server, with these options.
    pub(crate) fn with(
        tsd: FakeTsd,
        options: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder,
    ) -> Rig {
        let (recorder, handle) = options(builder(&tsd)).build().unwrap();
        Rig { tsd, handle, recorder }
    }

    /// Records, under the exporter's recorder.
    pub(crate) fn record<T>(&self, record: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, record)
    }

    /// Records, and has it confirmed.
    #[track_caller]
    pub(crate) fn deliver(&self, record: impl FnOnce()) {
        self.record(record);
        let report = self.handle.flush(PATIENCE).unwrap();
        assert_eq!(report.pending, 0, "{report:?} {:?}", self.handle.stats());
    }

    /// Waits until every point is confirmed or dropped, without a snapshot of its own.
    #[track_caller]
    pub(crate) fn settle(&self) {
        eventually("everything is confirmed", || self.stats().points_pending == 0);
    }

    /// The points as `metric value tags`, sorted, without their times.
    pub(crate) fn delivered(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.tsd.lines().iter().map(|line| without_time(line)).collect();
        lines.sort();
        lines
    }

    #[track_caller]
    pub(crate) fn stats(&self) -> Stats {
        lawful(self.handle.stats())
    }
}

impl Drop for Rig {
    /// What holds at the end of every test.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.tsd.log().poisoned(), [""; 0]);
            lawful(self.handle.stats());
        }
    }
}

/// Options that keep a test in command: no tick of itself, short pauses, one host.
pub(crate) fn builder(tsd: &FakeTsd) -> OpenTsdbBuilder {
    builder_to(&tsd.address())
}

/// The same for a process that knows the server by its address.
pub(crate) fn builder_to(address: &str) -> OpenTsdbBuilder {
    OpenTsdbBuilder::new(address)
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_flush_interval(Duration::from_secs(86_400))
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .with_rate_limit(RateLimit::Unlimited)
        .with_host_tag(HostTag::Value("a".into()))
        .with_instance_tag(InstanceTag::Off)
        .with_telemetry(false)
}

/// Both ways to know that a line was parsed.
pub(crate) const CONFIRMATIONS: [Confirmation; 2] =
    [Confirmation::Version, Confirmation::HalfClose];

/// The law: every point that was taken is confirmed, pending, dropped or spooled.
#[track_caller]
pub(crate) fn lawful(stats: Stats) -> Stats {
    let accounted = stats.points_confirmed
        + stats.points_pending
        + stats.points_dropped.total()
        + stats.points_spooled;
    assert_eq!(stats.points_taken, accounted, "{stats:?}");
    stats
}

fn without_time(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').collect();
    words.remove(2);
    words.join(" ")
}

/// Waits until it is true, asking again and again.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_true() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
