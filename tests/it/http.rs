//! `POST /api/put`: what every server takes, and what a well-behaved server says to it.

use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_opentsdb::testing::{Action, FakeHttpTsd, FakeTsd};
use metrics_exporter_opentsdb::{
    BuildError, Confirmation, ConnectivityCheck, Distribution, Flavor, HttpCompression,
    OpenTsdbBuilder, OpenTsdbHandle, OpenTsdbRecorder, Point, RateLimit, TimestampPrecision, Value,
};

use crate::rig::{PATIENCE, builder_to, eventually, lawful};

/// An exporter by HTTP that sends nothing but what the test asks for.
pub(crate) struct HttpRig {
    pub(crate) tsd: FakeHttpTsd,
    pub(crate) recorder: OpenTsdbRecorder,
    pub(crate) handle: OpenTsdbHandle,
}

impl HttpRig {
    pub(crate) fn new() -> Self {
        Self::with(FakeHttpTsd::start(), |builder| builder)
    }

    pub(crate) fn with(
        tsd: FakeHttpTsd,
        options: impl FnOnce(OpenTsdbBuilder) -> OpenTsdbBuilder,
    ) -> Self {
        let (recorder, handle) = options(builder(&tsd.address())).build().unwrap();
        HttpRig { tsd, recorder, handle }
    }

    /// Sends raw points `m` of `from..upto`, each a series of its own.
    pub(crate) fn send(&self, points: std::ops::Range<usize>) {
        for n in points {
            self.handle.send(point(n)).unwrap();
        }
    }

    /// Has everything confirmed.
    #[track_caller]
    pub(crate) fn flush(&self) {
        let report = self.handle.flush(PATIENCE).unwrap();
        assert_eq!(report.pending, 0, "{report:?} {:?}", self.handle.stats());
    }

    /// Each of the points arrived, and once at least.
    #[track_caller]
    pub(crate) fn assert_stored(&self, points: std::ops::Range<usize>) {
        for n in points {
            let value = self.tsd.value("m", &[("n", &n.to_string())]);
            assert_eq!(value, Some(Value::Integer(n as i64)), "{n}");
        }
    }
}

impl Drop for HttpRig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.tsd.log().violations(), [""; 0]);
            assert_eq!(self.tsd.log().poisoned(), [""; 0]);
            lawful(self.handle.stats());
        }
    }
}

pub(crate) fn builder(address: &str) -> OpenTsdbBuilder {
    builder_to(address).with_timestamp_precision(TimestampPrecision::Milliseconds)
}

pub(crate) fn point(n: usize) -> Point {
    Point::new("m", n as i64).tag("n", n.to_string()).timestamp(1_700_000_000_000)
}

#[test]
fn points_arrive_compressed_on_one_connection_and_are_confirmed_by_the_answer() {
    let rig = HttpRig::new();
    for round in 0..3 {
        metrics::with_local_recorder(&rig.recorder, || {
            counter!("requests", "path" => "/x").increment(1);
            gauge!("load").set(0.25 * f64::from(round));
        });
        rig.flush();
    }
    rig.send(0..2000);
    rig.flush();
    rig.assert_stored(0..2000);
    assert_eq!(rig.tsd.value("requests", &[("path", "/x")]), Some(Value::Integer(3)));
    assert_eq!(rig.tsd.value("load", &[("host", "a")]), Some(Value::Float(0.5)));
    let (log, stats) = (rig.tsd.log(), rig.handle.stats());
    assert_eq!(log.connection_count(), 1);
    for request in log.requests() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/put"));
        assert_eq!((request.query.as_str(), request.status), ("details", 200));
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(request.wire_bytes <= 8000);
    }
    assert!(log.request_count() < 20, "{}", log.request_count());
    assert_eq!(stats.confirmation, Some(Confirmation::Response));
    assert_eq!((stats.points_sent, stats.points_resent, stats.disconnects), (2008, 0, 0));
    let report = rig.handle.shutdown(PATIENCE).unwrap();
    assert_eq!((report.pending, report.dropped), (0, 0));
}

#[test]
fn bodies_are_cut_by_their_size_on_the_wire_and_a_line_above_it_is_dropped() {
    for compression in [HttpCompression::Off, HttpCompression::Gzip] {
        let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
            builder.with_http_compression(compression).with_http_batch_bytes(400)
        });
        let noise = (0..700).map(|_| fastrand_alphanumeric()).collect::<String>();
        rig.send(0..50);
        rig.handle.send(Point::new("long", 1).tag("noise", noise)).unwrap();
        rig.send(50..100);
        rig.flush();
        rig.assert_stored(0..100);
        let stats = rig.handle.stats();
        assert_eq!((stats.points_dropped.too_long, stats.points_confirmed), (1, 100));
        let requests = rig.tsd.log().requests();
        assert!(requests.iter().all(|request| request.wire_bytes <= 400));
        let is_gzip = compression == HttpCompression::Gzip;
        assert!(requests.iter().all(|it| it.header("content-encoding").is_some() == is_gzip));
    }
}

/// A letter or a digit, without a pattern that gzip would find.
fn fastrand_alphanumeric() -> char {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(0);
    char::from(
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(hash % 62) as usize],
    )
}

#[test]
fn the_address_and_the_headers_say_who_and_where() {
    let tsd = FakeHttpTsd::builder()
        .replies(Flavor::VictoriaMetrics)
        .path("/insert/0/opentsdb/api/put")
        .require_header("Authorization", "Basic bWU6czpjcmV0")
        .start();
    let host = tsd.address().replace("http://", "");
    let address = format!("http://me:s%3Acret@{host}/insert/0/opentsdb/api/put?db=x");
    let (_, handle) = builder(&address)
        .with_flavor(Flavor::VictoriaMetrics)
        .with_connectivity_check(ConnectivityCheck::Connect)
        .add_http_header("X-Scope-OrgID", "7")
        .build()
        .unwrap();
    handle.send(point(1)).unwrap();
    assert_eq!(handle.flush(PATIENCE).unwrap().pending, 0);
    let log = tsd.log();
    let last = log.requests().pop().unwrap();
    assert_eq!((last.query.as_str(), last.status), ("db=x", 204));
    assert_eq!(last.header("x-scope-orgid"), Some("7"));
    assert_eq!(last.header("host"), Some(host.as_str()));
}

#[test]
fn endpoints_of_both_protocols_take_over_from_each_other() {
    let (telnet, http) = (FakeTsd::start(), FakeHttpTsd::start());
    let (_, handle) = builder(&telnet.address()).add_endpoint(http.address()).build().unwrap();
    let deliver = |n| {
        handle.send(point(n)).unwrap();
        assert_eq!(handle.flush(PATIENCE).unwrap().pending, 0);
        lawful(handle.stats()).confirmation
    };
    assert_eq!(deliver(1), Some(Confirmation::Version));
    telnet.script(metrics_exporter_opentsdb::testing::Fault::Refuse);
    telnet.script(Action::Reset);
    assert_eq!(deliver(2), Some(Confirmation::Response));
    telnet.heal();
    http.script(metrics_exporter_opentsdb::testing::Fault::Refuse);
    http.script(Action::Reset);
    assert_eq!(deliver(3), Some(Confirmation::Version));
    assert_eq!((telnet.points().len(), http.points().len()), (2, 1));
}

#[test]
fn a_server_that_wants_to_be_left_alone_keeps_nobody_from_the_next() {
    use metrics_exporter_opentsdb::testing::{HttpAnswer, HttpFault};
    for answer in [HttpAnswer::new(429).header("Retry-After", "600"), HttpAnswer::new(401)] {
        let (busy, free) = (FakeHttpTsd::start(), FakeHttpTsd::start());
        busy.script(HttpFault::Answer(answer));
        let (_, handle) = builder(&busy.address())
            .add_endpoint(free.address())
            .with_backoff(Duration::from_millis(1), Duration::from_secs(3600))
            .build()
            .unwrap();
        handle.send(point(1)).unwrap();
        assert_eq!(handle.flush(PATIENCE).unwrap().pending, 0);
        assert_eq!((busy.points().len(), free.points().len()), (0, 1));
        lawful(handle.stats());
    }
}

#[test]
fn a_rate_is_kept_and_requests_are_few() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_rate_limit(RateLimit::PerSecond(1000.try_into().unwrap()))
    });
    rig.send(0..1500);
    rig.flush();
    rig.assert_stored(0..1500);
    let arrivals = rig.tsd.log().arrivals();
    let within = arrivals.last().unwrap().0 - arrivals[0].0;
    // The first 100 at once, and the last with what was allowed since the one before.
    assert!(within >= Duration::from_millis(1200), "{within:?}");
    assert!(rig.tsd.log().request_count() <= 30, "{}", rig.tsd.log().request_count());
}

#[test]
fn stored_asks_for_it_and_gives_the_server_less_time_than_it_has() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_confirmation(Confirmation::Stored).with_write_timeout(Duration::from_secs(10))
    });
    rig.send(0..10);
    rig.flush();
    assert_eq!(rig.handle.stats().confirmation, Some(Confirmation::Stored));
    let request = rig.tsd.log().requests().pop().unwrap();
    assert_eq!(request.query, "details&sync&sync_timeout=8000");
}

#[test]
fn an_idle_exporter_s_connection_ends_at_its_age() {
    let rig = HttpRig::with(FakeHttpTsd::start(), |builder| {
        builder.with_max_connection_age(Some(Duration::from_millis(50)))
    });
    rig.send(0..1);
    rig.flush();
    eventually("it is closed", || rig.tsd.log().open_connection_count() == 0);
    rig.send(1..2);
    rig.flush();
    let stats = rig.handle.stats();
    assert_eq!((stats.connects, stats.disconnects, stats.points_resent), (2, 0, 0));
}

#[test]
fn what_cannot_work_is_said_by_build_and_shows_no_secret() {
    let address = "http://me:s3cret@tsd/x?t=s3cret";
    let new = || OpenTsdbBuilder::new(address);
    let cases = [
        (OpenTsdbBuilder::new("tsd").with_confirmation(Confirmation::Stored), "with_confirmation"),
        (new().add_endpoint("tsd").with_confirmation(Confirmation::Response), "with_confirmation"),
        (
            new().with_flavor(Flavor::VictoriaMetrics).with_confirmation(Confirmation::Stored),
            "Flavor::OpenTsdb",
        ),
        (new().set_distribution(Distribution::Native), "set_distribution"),
        (new().with_http_batch_bytes(0), "with_http_batch_bytes"),
        (new().add_http_header("a b", "s3cret"), "a name of letters"),
        (new().add_http_header("a", "s3cret\r\nb: c"), "control characters"),
        (new().add_http_header("content-length", "s3cret"), "decides on it"),
        (new().add_http_header("Accept-Encoding", "s3cret"), "decides on it"),
        (OpenTsdbBuilder::new("http://me:s3/cret@tsd"), "percent-encode"),
        (OpenTsdbBuilder::new("http://me:s3cret@tsd:x"), "no port"),
        #[cfg(not(feature = "tls"))]
        (OpenTsdbBuilder::new("https://me:s3cret@tsd"), "`tls-ring`"),
    ];
    for (builder, words) in cases {
        assert!(!format!("{builder:?}").contains("s3cret"), "{builder:?}");
        let error = builder.with_connectivity_check(ConnectivityCheck::Off).build().unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(words) && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn the_start_up_check_says_what_a_server_answers() {
    use metrics_exporter_opentsdb::testing::{HttpAnswer, HttpFault};
    let cases = [
        (HttpAnswer::new(401), "401: give a user"),
        (HttpAnswer::new(403), "may not write"),
        (HttpAnswer::new(404), "correct the path"),
        // VictoriaMetrics on its own port.
        (HttpAnswer::new(400).body("unsupported path requested: \"/api/put\""), "correct the port"),
        (HttpAnswer::new(405), "no POST"),
        (
            HttpAnswer::new(302).header("Location", "https://me:s3cret@x/?s3cret"),
            "\"https://***@x/?***\"",
        ),
        (HttpAnswer::new(200).body("<html>s3cret</html>"), "no JSON"),
        (HttpAnswer::new(503).body("busy"), "503: busy"),
        // VictoriaMetrics repeats the request's path and query.
        (HttpAnswer::new(503).body("/api/put?t=t0ken: busy"), "/api/put?t=***: busy"),
    ];
    for (answer, words) in cases {
        let tsd = FakeHttpTsd::start();
        tsd.script(HttpFault::Answer(answer));
        let address = tsd.address().replace("http://", "http://me:s3cret@") + "?t=t0ken";
        let check = || builder(&address).with_connectivity_check(ConnectivityCheck::Connect);
        let error = check().build().unwrap_err();
        assert!(matches!(error, BuildError::Unreachable { .. }), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(words) && !text.contains("s3cret"), "{text}");
        assert_eq!(tsd.log().requests()[0].body, b"[]");
        tsd.heal();
        check().build().unwrap();
        assert_eq!(tsd.points(), []);
    }
}
