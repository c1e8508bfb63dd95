//! What was received, for the questions of a test.

#[cfg(feature = "http")]
use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use super::parse::{self, Put};
use super::store::Store;
use crate::wire::point::Point;
use crate::wire::value::Value;

/// How many of the first bytes of a connection are kept.
const FIRST_BYTES: usize = 64;
/// How many of the last lines are shown when something else was expected.
const SHOWN_LINES: usize = 20;

/// Everything that a [`FakeTsd`](super::FakeTsd) has received: of
/// [`FakeTsd::log`](super::FakeTsd::log) up to that moment.
///
/// Its `Display` is what a failed expectation prints: the counts, and the last lines that came.
///
/// ```
/// use metrics_exporter_opentsdb::testing::FakeTsd;
/// use std::{io::Write, net::TcpStream, time::Duration};
///
/// let tsd = FakeTsd::start();
/// TcpStream::connect(tsd.address())?.write_all(b"put m 1700000000 1 host=a\nput m\n")?;
/// tsd.expect_until(Duration::from_secs(5), |log| log.rejected_count() == 1);
///
/// let log = tsd.log();
/// assert_eq!((log.accepted_count(), log.connection_count()), (1, 1));
/// let (line, reply) = &log.rejected()[0];
/// assert_eq!(line, "put m");
/// assert_eq!(reply, "put: illegal argument: not enough arguments (need least 4, got 1)");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Whether lines are kept, or only counted.
    keeps_lines: bool,
    lines: Vec<Line>,
    accepted: usize,
    rejected: usize,
    pub(super) versions: usize,
    /// Without their lines, which are in `lines`.
    pub(super) connections: Vec<Connection>,
    arrivals: Vec<(Instant, usize)>,
    pub(super) store: Store,
    #[cfg(feature = "http")]
    http: HttpLog,
}

/// What was received by HTTP.
#[cfg(feature = "http")]
#[derive(Clone, Debug, Default)]
struct HttpLog {
    requests: Vec<HttpRequest>,
    request_count: usize,
    violations: Vec<String>,
    /// The JSON of each point, by its metric, time and tags.
    points: HashMap<String, Box<str>>,
}

/// A request, from [`Log::requests`]. Feature `http`.
#[cfg(feature = "http")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpRequest {
    /// The index of its connection.
    pub connection: usize,
    /// When it was handled.
    pub arrived: Instant,
    /// `POST`, usually.
    pub method: String,
    /// What was asked for, without the query.
    pub path: String,
    /// What stands behind the question mark.
    pub query: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed; empty if the request was refused by its head.
    pub body: Vec<u8>,
    /// How long the body was on the wire.
    pub wire_bytes: usize,
    /// What was answered; 0 for nothing.
    pub status: u16,
}

#[cfg(feature = "http")]
impl HttpRequest {
    /// A header by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug)]
struct Line {
    text: String,
    /// The index of its connection.
    connection: usize,
    /// The reply that a TSD gives, if it was refused.
    refusal: Option<String>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Not yet.
    Open,
    /// The client finished (FIN), and all it had sent was read.
    ByClient,
    /// The client reset it (RST), or vanished.
    ResetByClient,
    /// By an [`Action`](super::Action) or a [`Fault`](super::Fault), or because a line was too
    /// long.
    ByServer,
}

/// One connection, from [`Log::connection`].
///
/// ```
/// use metrics_exporter_opentsdb::testing::{End, FakeTsd};
/// use std::{io::Write, net::TcpStream, time::Duration};
///
/// let tsd = FakeTsd::start();
/// TcpStream::connect(tsd.address())?.write_all(b"put m 1700000000 1 host=a\nput m 17000")?;
/// tsd.expect_until(Duration::from_secs(5), |log| log.connection(0).is_some_and(|it| it.end != End::Open));
///
/// let connection = tsd.log().connection(0).unwrap();
/// assert_eq!(connection.lines, ["put m 1700000000 1 host=a"]);
/// assert_eq!(connection.unterminated, b"put m 17000");
/// assert_eq!(connection.end, End::ByClient);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The lines that came on it, as in [`Log::lines`].
    pub lines: Vec<String>,
    /// The first bytes that were read from it, at most 64.
    pub first_bytes: Vec<u8>,
    /// What was sent last and had no line feed when the client finished.
    pub unterminated: Vec<u8>,
    /// How many bytes were read from it.
    pub bytes: u64,
    /// How it ended.
    pub end: End,
    /// When it was accepted.
    pub opened: Instant,
    /// When it ended.
    pub closed: Option<Instant>,
    /// Whether the client has closed its side, though the server has not read so far.
    pub(super) is_left: bool,
}

impl Log {
    pub(super) fn new(keeps_lines: bool) -> Self {
        Log { keeps_lines, store: Store::new(!keeps_lines), ..Log::default() }
    }

    /// The accepted points, in the order of their arrival, each with its timestamp.
    pub fn points(&self) -> Vec<Point> {
        self.accepted("put ").map(|text| point(text.as_bytes())).collect()
    }

    /// Every complete line that was received, bad ones too, in order; `version` is not among them.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.text.clone()).collect()
    }

    /// The accepted `histogram` lines.
    pub fn histograms(&self) -> Vec<String> {
        self.accepted("histogram ").map(str::to_owned).collect()
    }

    /// The lines that were refused, each with the reply that a TSD gives for it, sent or not. The
    /// reply to a line that is too long is empty.
    pub fn rejected(&self) -> Vec<(String, String)> {
        let lines = self.lines.iter();
        lines.filter_map(|line| Some((line.text.clone(), line.refusal.clone()?))).collect()
    }

    /// The last value of the one series of this metric that has at least these tags, by the time of
    /// its points; `None` without such a series.
    ///
    /// # Panics
    ///
    /// When several series have these tags. The message names them.
    #[track_caller]
    pub fn value(&self, metric: &str, tags: &[(&str, &str)]) -> Option<Value> {
        match self.store.find(metric, tags).as_slice() {
            [] => None,
            [(_, value)] => *value,
            several => {
                let mut names: Vec<_> = several.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                panic!("several series fit {metric} {tags:?}:\n  {}", names.join("\n  "))
            }
        }
    }

    /// The lines that gave a series a second, different value for one time. OpenTSDB accepts such a
    /// line and can no longer read that hour of the series: this should always be empty.
    pub fn poisoned(&self) -> Vec<String> {
        self.store.poisoned.clone()
    }

    /// When points arrived, and how many at once.
    pub fn arrivals(&self) -> Vec<(Instant, usize)> {
        self.arrivals.clone()
    }

    /// The connection that was accepted as the `index`th, from 0.
    pub fn connection(&self, index: usize) -> Option<Connection> {
        let mut connection = self.connections.get(index)?.clone();
        let lines = self.lines.iter().filter(|line| line.connection == index);
        connection.lines = lines.map(|line| line.text.clone()).collect();
        Some(connection)
    }

    /// How many points and histograms were accepted, those sent again included.
    pub fn accepted_count(&self) -> usize {
        self.accepted
    }

    /// How many lines were refused.
    pub fn rejected_count(&self) -> usize {
        self.rejected
    }

    /// How many points were the same, to the byte of the value, as one before for that series and
    /// time.
    pub fn resent_count(&self) -> usize {
        self.store.resent
    }

    /// How many series have a point.
    pub fn series_count(&self) -> usize {
        self.store.series.len()
    }

    /// How often `version` was asked.
    pub fn version_count(&self) -> usize {
        self.versions
    }

    /// How many connections were accepted so far.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// How many connections neither side has ended.
    pub fn open_connection_count(&self) -> usize {
        self.connections.iter().filter(|it| it.end == End::Open && !it.is_left).count()
    }

    /// The lines with this command that were accepted.
    fn accepted<'a>(&'a self, command: &'a str) -> impl Iterator<Item = &'a str> {
        let accepted = self.lines.iter().filter(|line| line.refusal.is_none());
        accepted.map(|line| line.text.as_str()).filter(move |text| text.starts_with(command))
    }

    // ---- what the server writes down ----

    /// A new connection; returns its index.
    pub(super) fn open(&mut self, now: Instant) -> usize {
        self.connections.push(Connection {
            lines: Vec::new(),
            first_bytes: Vec::new(),
            unterminated: Vec::new(),
            bytes: 0,
            end: End::Open,
            opened: now,
            closed: None,
            is_left: false,
        });
        self.connections.len() - 1
    }

    pub(super) fn read(&mut self, connection: usize, bytes: &[u8]) {
        let connection = &mut self.connections[connection];
        let room = FIRST_BYTES - connection.first_bytes.len();
        connection.first_bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        connection.bytes += bytes.len() as u64;
    }

    /// The end of a connection; only the first one counts.
    pub(super) fn end(&mut self, connection: usize, end: End, now: Instant) {
        let connection = &mut self.connections[connection];
        if connection.end == End::Open {
            (connection.end, connection.closed) = (end, Some(now));
        }
    }

    pub(super) fn accept(&mut self, connection: usize, line: &[u8], put: Put<'_>) {
        self.accepted += 1;
        self.store.insert(put, line);
        self.keep(connection, line, None);
    }

    pub(super) fn reject(&mut self, connection: usize, line: &[u8], reply: &str) {
        self.rejected += 1;
        self.keep(connection, line, Some(reply));
    }

    pub(super) fn arrived(&mut self, points: usize, now: Instant) {
        if points > 0 {
            self.arrivals.push((now, points));
        }
    }

    fn keep(&mut self, connection: usize, line: &[u8], refusal: Option<&str>) {
        if self.keeps_lines {
            let refusal = refusal.map(str::to_owned);
            self.lines.push(Line { text: lossy(line), connection, refusal });
        }
    }
}

#[cfg(feature = "http")]
impl Log {
    /// The requests that were handled or refused, in order.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.http.requests.clone()
    }

    /// How many requests were handled or refused.
    pub fn request_count(&self) -> usize {
        self.http.request_count
    }

    /// What no client should send to a TSD: a header `Expect`, a body in chunks or without its
    /// length, a second request while one is in flight, a point that is sent again as other bytes,
    /// and what is no HTTP. This should always be empty.
    pub fn violations(&self) -> Vec<String> {
        self.http.violations.clone()
    }

    pub(super) fn request(&mut self, request: HttpRequest) {
        self.http.request_count += 1;
        if self.keeps_lines {
            self.http.requests.push(request);
        }
    }

    pub(super) fn violate(&mut self, what: &str) {
        self.http.violations.push(what.to_owned());
    }

    /// As [`accept`](Self::accept), of a point that came as this JSON.
    pub(super) fn accept_json(&mut self, connection: usize, line: &str, put: Put<'_>, json: &str) {
        if self.keeps_lines {
            let tags = put.tags.iter().map(|(key, value)| (lossy(key), lossy(value)));
            let key = format!("{} {} {:?}", lossy(put.metric), put.time, tags.collect::<Vec<_>>());
            let before = self.http.points.entry(key).or_insert_with(|| json.into());
            if **before != *json {
                let what = format!("a point as other bytes: {json} (before: {before})");
                self.http.violations.push(what);
            }
        }
        self.accept(connection, line.as_bytes(), put);
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Log { accepted, rejected, versions, .. } = self;
        let (all, open) = (self.connection_count(), self.open_connection_count());
        write!(f, "{accepted} accepted, {rejected} refused, {all} connections ({open} open)")?;
        write!(f, ", {versions} times `version`")?;
        let skipped = self.lines.len().saturating_sub(SHOWN_LINES);
        for Line { text, refusal, .. } in &self.lines[skipped..] {
            match refusal {
                None => write!(f, "\n  {text}")?,
                Some(refusal) => write!(f, "\n  {text} -> {refusal}")?,
            }
        }
        Ok(())
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn point(line: &[u8]) -> Point {
    let put = parse::put(line, None).expect("the line was accepted before");
    let value = put.value.expect("a put has a value");
    let point = Point::new(lossy(put.metric), value).timestamp(put.time);
    put.tags.iter().fold(point, |point, (key, value)| point.tag(lossy(key), lossy(value)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Client, expect, put};
    use super::super::{Action, FakeTsd};
    use super::*;

    #[test]
    fn points_keep_order_and_tags_as_they_were_sent() {
        let tsd = FakeTsd::start();
        Client::connect(&tsd).send("put m 5 1 z=1 a=2\nput m\nput m 6 1.0 a=2 z=1\n");
        expect(&tsd, |log| log.accepted_count() == 2);
        let point = |value: Value, time| Point::new("m", value).timestamp(time);
        let expected = [
            point(Value::Integer(1), 5).tag("z", "1").tag("a", "2"),
            point(Value::Float(1.0), 6).tag("a", "2").tag("z", "1"),
        ];
        assert_eq!(tsd.points(), expected);
        assert_eq!(tsd.lines(), ["put m 5 1 z=1 a=2", "put m", "put m 6 1.0 a=2 z=1"]);
        assert_eq!(tsd.log().rejected().len(), 1);
    }

    #[test]
    fn each_connection_has_its_own_lines_and_end() {
        let tsd = FakeTsd::start();
        let (mut first, mut second) = (Client::connect(&tsd), Client::connect(&tsd));
        first.send(put(1, 1));
        second.send(put(2, 2)).send("put half a li");
        expect(&tsd, |log| log.accepted_count() == 2);
        second.finish();
        tsd.script(Action::Reset);
        let (first, second) = (tsd.log().connection(0).unwrap(), tsd.log().connection(1).unwrap());
        assert_eq!(
            (first.lines, first.end),
            (vec![put(1, 1).trim_end().to_owned()], End::ByServer)
        );
        assert_eq!((second.lines.len(), second.end), (1, End::ByClient));
        assert_eq!(second.unterminated, b"put half a li");
        assert_eq!(second.first_bytes, (put(2, 2) + "put half a li").as_bytes());
        assert!(second.closed.unwrap() > second.opened);
        assert!(tsd.log().connection(2).is_none());
    }

    #[test]
    fn a_reset_by_the_client_is_told_from_its_fin() {
        let tsd = FakeTsd::start();
        let client = Client::connect(&tsd);
        let socket = socket2::SockRef::from(&client.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        expect(&tsd, |log| log.connection(0).unwrap().end == End::ResetByClient);
    }

    #[test]
    fn arrivals_add_up() {
        let tsd = FakeTsd::start();
        let mut client = Client::connect(&tsd);
        for time in 1..=10 {
            client.send(put(time, 1).repeat(2));
            expect(&tsd, |log| log.accepted_count() == 2 * time as usize);
        }
        let arrivals = tsd.log().arrivals();
        assert_eq!(arrivals.iter().map(|(_, points)| points).sum::<usize>(), 20);
        assert!(arrivals.len() >= 10 && arrivals.is_sorted());
    }

    #[test]
    fn lines_that_are_not_kept_are_counted() {
        let tsd = FakeTsd::builder().keep_lines(false).start();
        Client::connect(&tsd).send("put m\n").send(put(1, 1)).send(put(1, 2)).finish();
        assert_eq!((tsd.lines().len(), tsd.points().len(), tsd.log().rejected().len()), (0, 0, 0));
        assert_eq!(
            (tsd.log().accepted_count(), tsd.log().rejected_count(), tsd.log().poisoned().len()),
            (2, 1, 1)
        );
        assert_eq!(tsd.value("m", &[("host", "a")]), Some(Value::Integer(1)));
    }
}
