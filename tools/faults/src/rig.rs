//! An application under fault that knows what it recorded, and compares it with what the servers
//! got.

use std::time::{Duration, Instant};

use metrics::{Counter, counter, gauge};
use metrics_exporter_opentsdb::testing::{End, FakeTsd};
use metrics_exporter_opentsdb::{
    Confirmation, ConnectivityCheck, FlushReport, HostTag, InstanceTag, OpenTsdbBuilder,
    OpenTsdbHandle, OpenTsdbRecorder, Point, RateLimit, Stats, TimestampPrecision, Value,
};

/// Longer than anything takes that works, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Options of an exporter for tests, with short times.
pub fn builder(address: impl Into<String>, mode: Confirmation) -> OpenTsdbBuilder {
    OpenTsdbBuilder::new(address)
        .with_host_tag(HostTag::Value("a".into()))
        .with_instance_tag(InstanceTag::Off)
        .with_telemetry(false)
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_flush_interval(Duration::from_millis(50))
        .with_rate_limit(RateLimit::Unlimited)
        .with_backoff(Duration::from_millis(5), Duration::from_millis(50))
        .with_connect_timeout(Duration::from_secs(1))
        .with_write_timeout(Duration::from_millis(500))
        .with_confirmation(mode)
}

pub struct App {
    recorder: OpenTsdbRecorder,
    pub handle: OpenTsdbHandle,
    /// The counters `c`, each with its expected value.
    counters: Vec<(Counter, u64)>,
    /// How many series `once` and how many points `raw` there are.
    singles: u64,
}

impl App {
    pub fn start(builder: OpenTsdbBuilder, counters: usize) -> App {
        let (recorder, handle) = builder.build().unwrap();
        let mut app = App { recorder, handle, counters: Vec::new(), singles: 0 };
        for n in 0..counters {
            let counter =
                metrics::with_local_recorder(&app.recorder, || counter!("c", "n" => n.to_string()));
            app.counters.push((counter, 0));
        }
        app
    }

    /// Increments all counters, and adds one series and one raw point that are never changed again.
    pub fn work(&mut self) {
        self.count();
        let n = self.singles.to_string();
        metrics::with_local_recorder(&self.recorder, || {
            counter!("once", "n" => n.clone()).increment(self.singles + 1);
        });
        self.handle.send(Point::new("raw", self.singles as i64).tag("n", n)).unwrap();
        self.singles += 1;
    }

    /// Increments all counters.
    pub fn count(&mut self) {
        for (n, (counter, truth)) in self.counters.iter_mut().enumerate() {
            counter.increment(n as u64 + 1);
            *truth += n as u64 + 1;
        }
    }

    pub fn gauge(&self, name: &'static str, value: f64) {
        metrics::with_local_recorder(&self.recorder, || gauge!(name).set(value));
    }

    /// Flushes until nothing is pending, not even of a tick that came meanwhile.
    pub fn settle(&self) -> FlushReport {
        let end = Instant::now() + PATIENCE;
        loop {
            let report = self.handle.flush(PATIENCE).unwrap();
            if report.pending == 0 {
                return report;
            }
            assert!(Instant::now() < end, "{report:?} {:?}", self.handle.stats());
        }
    }

    /// Checks that the servers together have the last value of each counter, and each series `once`
    /// and point `raw`.
    #[track_caller]
    pub fn assert_exact(&self, servers: &[&FakeTsd]) {
        let stats = self.handle.stats();
        assert_eq!((stats.points_dropped.total(), stats.restarts), (0, 0), "{stats:?}");
        self.assert_last_values(servers);
    }

    /// The same where points may have been dropped or a thread may have panicked.
    #[track_caller]
    pub fn assert_last_values(&self, servers: &[&FakeTsd]) {
        for (n, (_, truth)) in self.counters.iter().enumerate() {
            let last = last(servers, "c", n);
            assert_eq!(last, Some(*truth as i64), "c{{n={n}}} {:?}", self.handle.stats());
        }
        for n in 0..self.singles {
            assert_eq!(last(servers, "once", n as usize), Some(n as i64 + 1), "once{{n={n}}}");
            assert_eq!(last(servers, "raw", n as usize), Some(n as i64), "raw{{n={n}}}");
        }
    }

    /// Checks what holds at any moment, whatever was done to the servers.
    #[track_caller]
    pub fn assert_lawful(&self, servers: &[&FakeTsd]) -> Stats {
        let stats = self.handle.stats();
        assert_law(&stats);
        let known: usize = servers
            .iter()
            .map(|tsd| {
                tsd.log().accepted_count() - tsd.log().resent_count() + tsd.log().rejected_count()
            })
            .sum();
        assert!(
            stats.points_confirmed <= known as u64,
            "more is confirmed than the servers' logs hold, {known}: {stats:?}"
        );
        servers.iter().for_each(|tsd| assert_whole(tsd));
        stats
    }
}

/// The law of the tally.
#[track_caller]
pub fn assert_law(stats: &Stats) {
    assert_eq!(
        stats.points_taken,
        stats.points_confirmed
            + stats.points_pending
            + stats.points_dropped.total()
            + stats.points_spooled,
        "{stats:?}"
    );
}

/// Checks that every line that came was whole and the same each time. A line that the server itself
/// cut off does not count.
#[track_caller]
pub fn assert_whole(tsd: &FakeTsd) {
    assert_eq!(tsd.log().poisoned(), [""; 0], "a line changed when it was sent again");
    let strays = tsd.log().rejected();
    let strays: Vec<_> = strays.iter().filter(|(line, _)| !is_ours(line)).take(3).collect();
    assert!(strays.is_empty(), "no line of ours: {strays:?}");
    for connection in connections(tsd) {
        if connection.end == End::ByClient {
            assert_eq!(connection.unterminated, b"", "we closed within a line");
        }
        if connection.bytes > 0 {
            assert_eq!(connection.first_bytes[0], b'p', "not a put");
        }
    }
}

fn is_ours(line: &str) -> bool {
    let words: Vec<_> = line.split(' ').collect();
    words.len() >= 5 && words[0] == "put" && words[2].len() == 13 && words[4..].contains(&"host=a")
}

pub fn connections(
    tsd: &FakeTsd,
) -> impl Iterator<Item = metrics_exporter_opentsdb::testing::Connection> + '_ {
    (0..tsd.log().connection_count()).filter_map(|index| tsd.log().connection(index))
}

/// How many connections the server has ended.
pub fn ended_by_server(tsd: &FakeTsd) -> usize {
    connections(tsd).filter(|connection| connection.end == End::ByServer).count()
}

fn last(servers: &[&FakeTsd], metric: &str, n: usize) -> Option<i64> {
    let n = n.to_string();
    let values = servers.iter().filter_map(|tsd| tsd.value(metric, &[("host", "a"), ("n", &n)]));
    let integers = values.filter_map(|value| match value {
        Value::Integer(integer) => Some(integer),
        Value::Float(_) => None,
    });
    // Counters only grow.
    integers.max()
}
