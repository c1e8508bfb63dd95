//! The test's side: starts the server, tells it what to do, asks what it has received, waits.
//!
//! A busy server's thread holds the lock of the [`Server`] most of the time, and could take it
//! again and again while a test waits for it. So both take the `gate` first.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use super::fault::{Action, Step};
use super::log::Log;
use super::options::FakeTsdBuilder;
use super::replies::Replies;
use super::server::{Server, WAKER};
use crate::builder::{ConnectivityCheck, Flavor, HostTag, InstanceTag, OpenTsdbBuilder};
use crate::send::limiter::RateLimit;
use crate::wire::point::Point;
use crate::wire::value::Value;

/// The interval of [`FakeTsd::exporter`]: the longest there is, but for a second, which keeps its
/// ticks away from midnight, when test runs are scheduled.
const LONG_INTERVAL: Duration = Duration::from_secs(86_399);

/// A TSD that does what it is told, on a free port of 127.0.0.1. It stops when it is dropped.
///
/// ```
/// use metrics_exporter_opentsdb::testing::FakeTsd;
/// use std::{io::{Read, Write}, net::TcpStream};
///
/// let tsd = FakeTsd::start();
/// let mut client = TcpStream::connect(tsd.address())?;
/// client.write_all(b"put m 1700000000 1\n")?;
/// client.shutdown(std::net::Shutdown::Write)?;
///
/// let mut reply = String::new();
/// client.read_to_string(&mut reply)?;
/// assert_eq!(reply, "put: illegal argument: not enough arguments (need least 4, got 3)\n");
/// assert_eq!(tsd.lines(), ["put m 1700000000 1"]);
/// assert!(tsd.points().is_empty());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct FakeTsd {
    address: String,
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    thread: Option<JoinHandle<()>>,
}

/// What the server's thread and the test's threads share.
#[derive(Debug)]
struct Shared {
    /// Held only while waiting for `server`; see the module. Counts the turns of the server.
    gate: Mutex<u64>,
    /// Notified after each turn.
    turned: Condvar,
    server: Mutex<Server>,
    waker: Waker,
}

impl FakeTsdBuilder {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// When no port of 127.0.0.1 can be bound, or no thread started.
    pub fn start(self) -> FakeTsd {
        const REASON: &str = "a FakeTsd needs a free port of 127.0.0.1 and an event queue";
        let poll = Poll::new().expect(REASON);
        let waker = Waker::new(poll.registry(), WAKER).expect(REASON);
        let registry = poll.registry().try_clone().expect(REASON);
        let server = Server::new(registry, self).expect(REASON);
        let address = server.port.address.to_string();
        let shared = Arc::new(Shared {
            gate: Mutex::new(0),
            turned: Condvar::new(),
            server: Mutex::new(server),
            waker,
        });
        let thread = std::thread::Builder::new().name("fake-tsd".into());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, poll)
        });
        FakeTsd { address, shared, thread: Some(thread.expect("a FakeTsd needs a thread")) }
    }
}

impl FakeTsd {
    /// Starts a TSD with an empty store that does everything right.
    ///
    /// # Panics
    ///
    /// When no port of 127.0.0.1 can be bound, or no thread started.
    pub fn start() -> FakeTsd {
        FakeTsd::builder().start()
    }

    /// For one that is different from the start.
    pub fn builder() -> FakeTsdBuilder {
        FakeTsdBuilder {
            replies: Flavor::OpenTsdb.into(),
            keeps_lines: true,
            takes_histograms: false,
            max_tags: 8,
            #[cfg(feature = "http")]
            http: None,
        }
    }

    /// Where it listens, as `127.0.0.1:4242`; the same from start to end.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// An exporter to this TSD for a test that is in command of what is sent: the host tag is
    /// `host=test`, there is no instance tag and no telemetry, nothing is sent between two flushes
    /// but raw points, and it connects when it first has something to send. It has the [`Flavor`]
    /// of this server, no rate limit, and connects again within 20 ms. Every option may be set
    /// anew.
    ///
    /// *Not promised:* the interval is a second less than a day, so a tick comes about once a day.
    ///
    /// ```
    /// use metrics::counter;
    /// use metrics_exporter_opentsdb::{Value, testing::FakeTsd};
    /// use std::time::Duration;
    ///
    /// let tsd = FakeTsd::start();
    /// let (recorder, exporter) = tsd.exporter().build()?;
    /// metrics::with_local_recorder(&recorder, || counter!("cups", "tea" => "assam").increment(2));
    /// exporter.flush(Duration::from_secs(5))?;
    /// assert_eq!(tsd.value("cups", &[("tea", "assam")]), Some(Value::Integer(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exporter(&self) -> OpenTsdbBuilder {
        self.exporter_to(self.address())
    }

    /// The same to an address that leads here.
    pub(super) fn exporter_to(&self, address: String) -> OpenTsdbBuilder {
        OpenTsdbBuilder::new(address)
            .with_flavor(self.shared.lock().options.replies.flavor)
            .with_connectivity_check(ConnectivityCheck::Off)
            .with_flush_interval(LONG_INTERVAL)
            .with_rate_limit(RateLimit::Unlimited)
            .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
            .with_host_tag(HostTag::Value("test".into()))
            .with_instance_tag(InstanceTag::Off)
            .with_telemetry(false)
    }

    // ---- what it does ----

    /// Does an [`Action`] or begins a [`Fault`](super::Fault), now or at the moment that its
    /// [`Step`] says.
    pub fn script(&self, step: impl Into<Step>) {
        self.change(|server| server.script(step.into()));
    }

    /// Ends every [`Fault`](super::Fault), for all connections. Steps that wait for their moment
    /// still do.
    pub fn heal(&self) {
        self.script(Action::Heal);
    }

    /// How many steps still wait for their moment.
    pub fn pending_step_count(&self) -> usize {
        self.shared.lock().script.steps.len()
    }

    /// Answers as another server from now on, for example as a [`Flavor`].
    pub fn replies(&self, replies: impl Into<Replies>) {
        self.change(|server| server.options.replies = replies.into());
    }

    // ---- waiting ----

    /// Waits until at least `n` points and histograms were accepted, those sent again included.
    /// Returns whether they were; [`expect_points`](FakeTsd::expect_points) panics instead.
    #[must_use = "assert it, or use `expect_points`"]
    pub fn wait_for(&self, n: usize, timeout: Duration) -> bool {
        self.wait_until(timeout, |log| log.accepted_count() >= n)
    }

    /// Waits until something is true of what was received. Returns whether it is;
    /// [`expect_until`](FakeTsd::expect_until) panics instead.
    ///
    /// `done` is asked after everything that happens. It must not ask the `FakeTsd` itself, only
    /// the [`Log`] that it is given.
    #[must_use = "assert it, or use `expect_until`"]
    pub fn wait_until(&self, timeout: Duration, mut done: impl FnMut(&Log) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let Shared { gate, turned, server, .. } = &*self.shared;
        let mut gate = lock(gate);
        while !done(&lock(server).log) {
            let (seen, left) = (*gate, deadline.saturating_duration_since(Instant::now()));
            let waited = turned.wait_timeout_while(gate, left, |turns| *turns == seen);
            let (turns, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return false;
            }
            gate = turns;
        }
        true
    }

    /// Waits until at least `n` points and histograms were accepted, and returns all
    /// [points](FakeTsd::points).
    ///
    /// # Panics
    ///
    /// When they do not come in time. The message says what came instead.
    #[track_caller]
    pub fn expect_points(&self, n: usize, timeout: Duration) -> Vec<Point> {
        let came = self.wait_for(n, timeout);
        assert!(came, "{n} points expected within {timeout:?}, there are {}", self.log());
        self.points()
    }

    /// Waits until something is true of what was received, as [`wait_until`](FakeTsd::wait_until).
    ///
    /// # Panics
    ///
    /// When it does not become true in time. The message says what was received.
    #[track_caller]
    pub fn expect_until(&self, timeout: Duration, done: impl FnMut(&Log) -> bool) {
        let came = self.wait_until(timeout, done);
        assert!(came, "not within {timeout:?}: {}", self.log());
    }

    // ---- what it has received ----

    /// The accepted points, in the order of their arrival, each with its timestamp.
    pub fn points(&self) -> Vec<Point> {
        self.shared.lock().log.points()
    }

    /// Every complete line that was received, bad ones too, in order; `version` is not among them.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().log.lines()
    }

    /// The last value of the one series of this metric that has at least these tags, by the time of
    /// its points; `None` without such a series.
    ///
    /// # Panics
    ///
    /// When several series have these tags. The message names them.
    #[track_caller]
    pub fn value(&self, metric: &str, tags: &[(&str, &str)]) -> Option<Value> {
        self.log().value(metric, tags)
    }

    /// The [value](FakeTsd::value) of the one series of this metric that has at least these tags.
    ///
    /// # Panics
    ///
    /// When there is none, or several. The message names what was received instead.
    #[track_caller]
    pub fn expect_value(&self, metric: &str, tags: &[(&str, &str)]) -> Value {
        let log = self.log();
        log.value(metric, tags).unwrap_or_else(|| {
            panic!("no point of {metric} with the tags {tags:?} among {log}");
        })
    }

    /// All that was received up to now. What comes later does not change it.
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.shared.lock().log)
    }

    /// Changes the server between two of its turns, and lets it go on from there.
    fn change(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.shared.lock());
        self.shared.turn_is_over();
        // Only a closed event queue fails here, and then there is nobody to wake.
        let _ = self.shared.waker.wake();
    }
}

impl Drop for FakeTsd {
    fn drop(&mut self) {
        self.change(|server| server.is_stopped = true);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened; a second one here would abort the test.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        let _gate = lock(&self.gate);
        lock(&self.server)
    }

    fn turn_is_over(&self) {
        *lock(&self.gate) += 1;
        self.turned.notify_all();
    }
}

fn run(shared: &Shared, mut poll: Poll) {
    let mut events = Events::with_capacity(256);
    let mut wait = Some(Duration::ZERO);
    loop {
        // A signal ends the wait early, and that is all it does.
        let _ = poll.poll(&mut events, wait);
        let mut server = shared.lock();
        if server.is_stopped {
            return;
        }
        events.iter().for_each(|event| server.note(event));
        wait = server.turn();
        drop(server);
        shared.turn_is_over();
    }
}

/// Locks, whatever became of the last holder: a test that failed in its closure still wants to see
/// the rest.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::Fault;
    use super::super::tests::{Client, PATIENCE, put};
    use super::*;

    #[test]
    fn waiting_ends_at_its_deadline() {
        let tsd = FakeTsd::start();
        let began = Instant::now();
        assert!(!tsd.wait_for(1, Duration::from_millis(20)));
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(tsd.wait_for(0, Duration::ZERO));
    }

    #[test]
    fn an_exporter_of_a_test_sends_what_it_is_told_to() {
        let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
        let (recorder, exporter) = tsd.exporter().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            for tea in ["assam", "größe"] {
                metrics::counter!("cups", "tea" => tea).increment(2);
            }
        });
        assert_eq!(tsd.log().connection_count(), 0);
        exporter.flush(PATIENCE).unwrap();
        exporter.send(Point::new("raw", 1)).unwrap();
        let points = tsd.expect_points(3, PATIENCE);
        assert!(points.iter().all(|point| point.tags.contains(&("host".into(), "test".into()))));
        assert_eq!(tsd.value("cups", &[("tea", "größe")]), Some(Value::Integer(2)));
        assert_eq!((tsd.value("cups", &[("tea", "x")]), tsd.value("cup", &[])), (None, None));
        exporter.shutdown(PATIENCE).unwrap();
    }

    #[test]
    #[should_panic(expected = "several series fit m [(\"a\", \"1\")]:\n  m a=1 b=1\n  m a=1 b=2")]
    fn a_value_of_several_series_is_none_and_names_them() {
        let tsd = FakeTsd::start();
        Client::connect(&tsd).send("put m 1 1 a=1 b=2\nput m 1 1 b=1 a=1\nput m 1 1 b=1 a=2\n");
        let _ = tsd.expect_points(3, PATIENCE);
        tsd.value("m", &[("a", "1")]);
    }

    #[test]
    #[should_panic(
        expected = "3 points expected within 0ns, there are 1 accepted, 1 refused, 1 connections (1 open), 1 times `version`\n  \
                    put m 1 1 host=a\n  put m -> put: illegal argument: not enough arguments (need least 4, got 1)"
    )]
    fn who_expects_points_is_told_what_came_instead() {
        let tsd = FakeTsd::start();
        let mut client = Client::connect(&tsd);
        client.send(put(1, 1)).send("put m\nversion\n");
        tsd.expect_until(PATIENCE, |log| log.version_count() == 1);
        let _ = tsd.expect_points(3, Duration::ZERO);
    }

    #[test]
    fn what_was_asked_for_does_not_change() {
        let tsd = FakeTsd::start();
        let mut client = Client::connect(&tsd);
        let before = tsd.log();
        client.send(put(1, 1));
        assert_eq!((tsd.expect_points(1, PATIENCE).len(), before.accepted_count()), (1, 0));
    }

    #[test]
    fn a_test_gets_its_turn_while_the_server_is_flooded() {
        let tsd = FakeTsd::builder().keep_lines(false).start();
        tsd.script(Fault::Flood);
        let mut client = Client::connect(&tsd);
        let mut reader = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || while client.stream.write_all(put(1, 1).as_bytes()).is_ok() {});
            scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            for n in 1..100 {
                assert!(tsd.wait_for(n * 10, PATIENCE));
            }
            tsd.script(Action::Reset);
        });
    }

    #[test]
    fn dropping_it_ends_every_connection_in_every_state() {
        for fault in [Fault::StopReading, Fault::FreezeStorage, Fault::Flood, Fault::HoldOpen] {
            let tsd = FakeTsd::start();
            let mut client = Client::connect(&tsd);
            tsd.script(fault.clone());
            tsd.script(Action::Crash { down: PATIENCE }.after_bytes(1_000_000));
            client.send(put(1, 1));
            let began = Instant::now();
            drop(tsd);
            assert!(began.elapsed() < PATIENCE, "{fault:?}");
            while client.stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        }
    }

    #[test]
    fn a_hundred_clients_are_served_each_in_order() {
        let tsd = FakeTsd::start();
        let mut clients: Vec<_> = (0..100).map(|_| Client::dial(&tsd).unwrap()).collect();
        for time in 1..=10 {
            for (host, client) in clients.iter_mut().enumerate() {
                client.send(format!("put m {time} {time} host=h{host}\n"));
            }
        }
        assert!(tsd.wait_for(1000, PATIENCE));
        assert_eq!((tsd.log().connection_count(), tsd.log().series_count()), (100, 100));
        for index in 0..100 {
            let lines = tsd.log().connection(index).unwrap().lines;
            assert!(
                (1..=10)
                    .zip(&lines)
                    .all(|(time, line)| line.starts_with(&format!("put m {time} ")))
            );
        }
    }
}
