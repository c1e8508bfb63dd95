//! What was received, for the questions of a test.
//!
//! A test may send millions of lines, so the text of all lines lies in one buffer; strings and points are made when they are asked
//! for.

use std::time::Instant;

use super::parse::{self, Put, Rules};
use super::store::Store;
use crate::wire::point::Point;
use crate::wire::value::Value;

/// How many of the first bytes of a connection are kept.
const FIRST_BYTES: usize = 64;

/// Everything that a [`FakeTsd`](super::FakeTsd) has received, for [`wait_until`](super::FakeTsd::wait_until); `FakeTsd` itself
/// answers the same questions.
///
/// ```
/// use metrics_exporter_opentsdb::testing::FakeTsd;
/// use std::{io::Write, net::TcpStream, time::Duration};
///
/// let tsd = FakeTsd::start();
/// TcpStream::connect(tsd.address())?.write_all(b"put m 1700000000 1 host=a\nput m\n")?;
/// assert!(tsd.wait_until(Duration::from_secs(5), |log| log.accepted() == 1 && log.rejected().len() == 1));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Default)]
pub struct Log {
    /// Whether lines are kept, or only counted.
    keeps_lines: bool,
    /// The lines, one after the other, without line feeds.
    text: Vec<u8>,
    /// One for each line in `text`.
    lines: Vec<Line>,
    accepted: usize,
    rejections: usize,
    rejected: Vec<(String, String)>,
    commands: Vec<String>,
    connections: Vec<Record>,
    arrivals: Vec<(Instant, usize)>,
    pub(super) store: Store,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Where it ends in the text; it begins where the one before ends.
    end: usize,
    connection: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Point,
    Histogram,
    Rejected,
}

/// What is known of a connection beside its lines.
#[derive(Debug)]
struct Record {
    first_bytes: Vec<u8>,
    unterminated: Vec<u8>,
    bytes: u64,
    end: End,
    /// Whether the client has closed its side, though the server has not read so far.
    is_left: bool,
    opened: Instant,
    closed: Option<Instant>,
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
    /// By a [`Fault`](super::Fault), or because a line was too long, as a TSD does.
    ByServer,
}

/// One connection, from [`FakeTsd::connection`](super::FakeTsd::connection).
///
/// ```
/// use metrics_exporter_opentsdb::testing::{End, FakeTsd};
/// use std::{io::Write, net::TcpStream, time::Duration};
///
/// let tsd = FakeTsd::start();
/// TcpStream::connect(tsd.address())?.write_all(b"put m 1700000000 1 host=a\nput m 17000")?;
/// assert!(tsd.wait_until(Duration::from_secs(5), |log| log.connections() == 1 && log.open_connections() == 0));
///
/// let connection = tsd.connection(0).unwrap();
/// assert_eq!(connection.lines, ["put m 1700000000 1 host=a"]);
/// assert_eq!(connection.unterminated, b"put m 17000");
/// assert_eq!(connection.end, End::ByClient);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The lines that came on it, as in [`FakeTsd::lines`](super::FakeTsd::lines).
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
}

impl Log {
    pub(super) fn new(keeps_lines: bool) -> Self {
        Log { keeps_lines, store: Store::new(!keeps_lines), ..Log::default() }
    }

    /// The accepted points, in the order of their arrival, each with its timestamp.
    pub fn points(&self) -> Vec<Point> {
        self.texts()
            .filter(|(line, _)| line.kind == Kind::Point)
            .map(|(_, text)| point(text))
            .collect()
    }

    /// Every complete line that was received, bad ones too, in order; commands such as `version` are not among them.
    pub fn lines(&self) -> Vec<String> {
        self.texts().map(|(_, text)| lossy(text)).collect()
    }

    /// The accepted `histogram` lines.
    pub fn histograms(&self) -> Vec<String> {
        let histograms = self.texts().filter(|(line, _)| line.kind == Kind::Histogram);
        histograms.map(|(_, text)| lossy(text)).collect()
    }

    /// The commands that were received, as `version`.
    pub fn commands(&self) -> Vec<String> {
        self.commands.clone()
    }

    /// The lines that were refused, each with the reply that a TSD gives for it, sent or not.
    pub fn rejected(&self) -> Vec<(String, String)> {
        self.rejected.clone()
    }

    /// How many lines were refused.
    pub fn rejections(&self) -> usize {
        self.rejections
    }

    /// How many points and histograms were accepted, those sent again included.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// How many points were the same, to the byte of the value, as one before for that series and time.
    pub fn resent(&self) -> usize {
        self.store.resent
    }

    /// The lines that gave a series a second, different value for one time. OpenTSDB accepts such a line and can no longer read
    /// that hour of the series: this should always be empty.
    pub fn poisoned(&self) -> Vec<String> {
        self.store.poisoned.clone()
    }

    /// How many series have a point.
    pub fn series(&self) -> usize {
        self.store.len()
    }

    /// The value at the latest time of a series, whose tags may be given in any order.
    pub fn last(&self, metric: &str, tags: &[(&str, &str)]) -> Option<Value> {
        self.store.last(metric, tags)
    }

    /// When points arrived, and how many at once.
    pub fn arrivals(&self) -> Vec<(Instant, usize)> {
        self.arrivals.clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many connections neither side has ended.
    pub fn open_connections(&self) -> usize {
        self.connections.iter().filter(|record| record.end == End::Open && !record.is_left).count()
    }

    /// The connection that was accepted as the `index`th, from 0.
    pub fn connection(&self, index: usize) -> Option<Connection> {
        let record = self.connections.get(index)?;
        let lines = self.texts().filter(|(line, _)| line.connection == index);
        Some(Connection {
            lines: lines.map(|(_, text)| lossy(text)).collect(),
            first_bytes: record.first_bytes.clone(),
            unterminated: record.unterminated.clone(),
            bytes: record.bytes,
            end: record.end,
            opened: record.opened,
            closed: record.closed,
        })
    }

    /// Makes a metric known.
    pub(super) fn make_metric(&mut self, metric: &str) {
        self.store.make_metric(metric.as_bytes());
    }

    fn texts(&self) -> impl Iterator<Item = (&Line, &[u8])> {
        let starts = std::iter::once(0).chain(self.lines.iter().map(|line| line.end));
        self.lines.iter().zip(starts).map(|(line, start)| (line, &self.text[start..line.end]))
    }

    // ---- what the server writes down ----

    /// A new connection; answers its index.
    pub(super) fn open(&mut self, now: Instant) -> usize {
        self.connections.push(Record {
            first_bytes: Vec::new(),
            unterminated: Vec::new(),
            bytes: 0,
            end: End::Open,
            is_left: false,
            opened: now,
            closed: None,
        });
        self.connections.len() - 1
    }

    pub(super) fn read(&mut self, connection: usize, bytes: &[u8]) {
        let record = &mut self.connections[connection];
        let room = FIRST_BYTES - record.first_bytes.len();
        record.first_bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        record.bytes += bytes.len() as u64;
    }

    pub(super) fn leave_tail(&mut self, connection: usize, tail: &[u8]) {
        self.connections[connection].unterminated = tail.to_vec();
    }

    pub(super) fn left(&mut self, connection: usize) {
        self.connections[connection].is_left = true;
    }

    /// The end of a connection; only the first one counts.
    pub(super) fn end(&mut self, connection: usize, end: End, now: Instant) {
        let record = &mut self.connections[connection];
        if record.end == End::Open {
            record.end = end;
            record.closed = Some(now);
        }
    }

    pub(super) fn accept(&mut self, connection: usize, line: &[u8], put: Put<'_>) {
        let kind = if put.value.is_some() { Kind::Point } else { Kind::Histogram };
        self.accepted += 1;
        self.store.insert(put, line);
        self.keep(connection, line, kind);
    }

    pub(super) fn reject(&mut self, connection: usize, line: &[u8], reply: &str) {
        self.rejections += 1;
        if self.keeps_lines {
            self.rejected.push((lossy(line), reply.to_owned()));
        }
        self.keep(connection, line, Kind::Rejected);
    }

    pub(super) fn command(&mut self, line: &[u8]) {
        self.commands.push(lossy(line));
    }

    pub(super) fn arrived(&mut self, points: usize, now: Instant) {
        if points > 0 {
            self.arrivals.push((now, points));
        }
    }

    fn keep(&mut self, connection: usize, line: &[u8], kind: Kind) {
        if self.keeps_lines {
            self.text.extend_from_slice(line);
            self.lines.push(Line { end: self.text.len(), connection, kind });
        }
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn point(line: &[u8]) -> Point {
    let rules = Rules { max_tags: None, any_character: true };
    let put = parse::put(line, rules).expect("the line was accepted before");
    let value = put.value.expect("a put has a value");
    let point = Point::new(lossy(put.metric), value).timestamp(put.time);
    put.tags.iter().fold(point, |point, (key, value)| point.tag(lossy(key), lossy(value)))
}

#[cfg(test)]
mod tests {
    use super::super::client::{Client, expect, put};
    use super::super::{FakeTsd, Fault};
    use super::*;

    #[test]
    fn points_keep_order_and_tags_as_they_were_sent() {
        let tsd = FakeTsd::start();
        Client::connect(&tsd).send("put m 5 1 z=1 a=2\nput m\nput m 6 1.0 a=2 z=1\n");
        expect(&tsd, |log| log.accepted() == 2);
        let point = |value: Value, time| Point::new("m", value).timestamp(time);
        let expected = [
            point(Value::Integer(1), 5).tag("z", "1").tag("a", "2"),
            point(Value::Float(1.0), 6).tag("a", "2").tag("z", "1"),
        ];
        assert_eq!(tsd.points(), expected);
        assert_eq!(tsd.lines(), ["put m 5 1 z=1 a=2", "put m", "put m 6 1.0 a=2 z=1"]);
        assert_eq!(tsd.rejected().len(), 1);
    }

    #[test]
    fn each_connection_has_its_own_lines_and_end() {
        let tsd = FakeTsd::start();
        let (mut first, mut second) = (Client::connect(&tsd), Client::connect(&tsd));
        first.send(put(1, 1));
        second.send(put(2, 2)).send("put half a li");
        expect(&tsd, |log| log.accepted() == 2);
        second.finish();
        tsd.script(Fault::Reset);
        let (first, second) = (tsd.connection(0).unwrap(), tsd.connection(1).unwrap());
        assert_eq!(
            (first.lines, first.end),
            (vec![put(1, 1).trim_end().to_owned()], End::ByServer)
        );
        assert_eq!((second.lines.len(), second.end), (1, End::ByClient));
        assert_eq!(second.unterminated, b"put half a li");
        assert_eq!(second.first_bytes, (put(2, 2) + "put half a li").as_bytes());
        assert!(second.closed.unwrap() > second.opened);
        assert!(tsd.connection(2).is_none());
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
            expect(&tsd, |log| log.accepted() == 2 * time as usize);
        }
        let arrivals = tsd.arrivals();
        assert_eq!(arrivals.iter().map(|(_, points)| points).sum::<usize>(), 20);
        assert!(arrivals.len() >= 10 && arrivals.is_sorted());
    }

    #[test]
    fn lines_that_are_not_kept_are_counted() {
        let tsd = FakeTsd::builder().keep_lines(false).start();
        Client::connect(&tsd).send("put m\n").send(put(1, 1)).send(put(1, 2)).finish();
        assert_eq!((tsd.lines().len(), tsd.points().len(), tsd.rejected().len()), (0, 0, 0));
        assert_eq!((tsd.accepted(), tsd.rejections(), tsd.poisoned().len()), (2, 1, 1));
        assert_eq!(tsd.last("m", &[("host", "a")]), Some(Value::Integer(1)));
    }
}
