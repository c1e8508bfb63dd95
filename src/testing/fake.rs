//! The test's side: starts the server, tells it what to do, asks what it has received, waits.
//!
//! The server's thread holds the lock of the [`Server`] most of the time when there is much to do, and a lock is given to whoever
//! happens to be quick. So whoever wants it queues at the `gate` first: the server's thread cannot take the lock twice while a test
//! waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use super::fault::{Fault, Step};
use super::log::{Connection, Log};
use super::replies::Replies;
use super::server::{Server, WAKER};
use crate::wire::point::Point;
use crate::wire::value::Value;

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

/// How a [`FakeTsd`] is to be from its start on; made by [`FakeTsd::builder`].
///
/// ```
/// use metrics_exporter_opentsdb::testing::{FakeTsd, Replies};
///
/// let influx = FakeTsd::builder().replies(Replies::InfluxDb).keep_lines(false).start();
/// assert!(influx.address().starts_with("127.0.0.1:"));
/// ```
#[derive(Clone, Debug)]
pub struct FakeTsdBuilder {
    replies: Replies,
    keeps_lines: bool,
    takes_histograms: bool,
    max_tags: usize,
}

/// What the server's thread and the test's threads share.
#[derive(Debug)]
struct Shared {
    /// Held only while waiting for `server`, see above.
    gate: Mutex<()>,
    server: Mutex<Server>,
    /// Counts the turns of the server; changes after each.
    turns: Mutex<u64>,
    turned: Condvar,
    waker: Waker,
}

impl FakeTsdBuilder {
    /// Which server it is. Defaults to [`Replies::Tsd`].
    #[must_use]
    pub fn replies(mut self, replies: Replies) -> Self {
        self.replies = replies;
        self
    }

    /// Whether the text of all lines is kept. Without it, for tests of many millions, [`lines`](FakeTsd::lines),
    /// [`points`](FakeTsd::points), [`histograms`](FakeTsd::histograms) and [`rejected`](FakeTsd::rejected) are empty, and a value
    /// is compared with those of the last 64 times of its series only. Defaults to `true`.
    #[must_use]
    pub fn keep_lines(mut self, keeps_lines: bool) -> Self {
        self.keeps_lines = keeps_lines;
        self
    }

    /// Whether `tsd.core.histograms.config` is set, without which `histogram` is an error. Defaults to `false`, as a TSD's.
    #[must_use]
    pub fn histograms(mut self, takes_histograms: bool) -> Self {
        self.takes_histograms = takes_histograms;
        self
    }

    /// `tsd.storage.max_tags`. Defaults to 8.
    #[must_use]
    pub fn max_tags(mut self, max_tags: usize) -> Self {
        self.max_tags = max_tags;
        self
    }

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
        let mut server = Server::new(registry, self.keeps_lines).expect(REASON);
        server.replies = self.replies;
        server.takes_histograms = self.takes_histograms;
        server.max_tags = self.max_tags;
        let address = server.address();
        let shared = Arc::new(Shared {
            gate: Mutex::new(()),
            server: Mutex::new(server),
            turns: Mutex::new(0),
            turned: Condvar::new(),
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
            replies: Replies::Tsd,
            keeps_lines: true,
            takes_histograms: false,
            max_tags: 8,
        }
    }

    /// Where it listens, as `127.0.0.1:4242`; the same from start to end.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    // ---- what it does ----

    /// Does a fault now, or at the moment that its [`Step`] says, see [`Fault`].
    pub fn script(&self, step: impl Into<Step>) {
        self.change(|server| server.script(step.into()));
    }

    /// Ends every lasting fault, for all connections. Steps that wait for their moment still do.
    pub fn heal(&self) {
        self.script(Fault::Heal);
    }

    /// How many steps still wait for their moment.
    pub fn steps_left(&self) -> usize {
        self.shared.lock().plan.len()
    }

    /// Answers as another server from now on.
    pub fn replies(&self, replies: Replies) {
        self.change(|server| server.replies = replies);
    }

    /// Makes a metric known without a point, as `tsdb mkmetric` does; for [`Fault::UnknownMetrics`].
    pub fn make_metric(&self, metric: &str) {
        self.change(|server| server.log.make_metric(metric));
    }

    // ---- waiting ----

    /// Waits until at least `n` points and histograms were accepted, those sent again included; answers whether they were.
    pub fn wait_for(&self, n: usize, timeout: Duration) -> bool {
        self.wait_until(timeout, |log| log.accepted() >= n)
    }

    /// Waits until something is true of what was received; answers whether it is. `done` is asked after everything that happens,
    /// and must not ask the `FakeTsd` itself, only the [`Log`] that it is given.
    pub fn wait_until(&self, timeout: Duration, mut done: impl FnMut(&Log) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = *lock(&self.shared.turns);
            if done(&self.shared.lock().log) {
                return true;
            }
            let mut turns = lock(&self.shared.turns);
            while *turns == seen {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                let waited = self.shared.turned.wait_timeout(turns, left);
                turns = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    // ---- what it has received ----

    /// The accepted points, in the order of their arrival, each with its timestamp.
    pub fn points(&self) -> Vec<Point> {
        self.shared.lock().log.points()
    }

    /// Every complete line that was received, bad ones too, in order; commands such as `version` are not among them.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().log.lines()
    }

    /// The accepted `histogram` lines.
    pub fn histograms(&self) -> Vec<String> {
        self.shared.lock().log.histograms()
    }

    /// The commands that were received, as `version`.
    pub fn commands(&self) -> Vec<String> {
        self.shared.lock().log.commands()
    }

    /// The lines that were refused, each with the reply that a TSD gives for it, sent or not. A line that is too long gets none.
    pub fn rejected(&self) -> Vec<(String, String)> {
        self.shared.lock().log.rejected()
    }

    /// How many lines were refused.
    pub fn rejections(&self) -> usize {
        self.shared.lock().log.rejections()
    }

    /// How many points and histograms were accepted, those sent again included.
    pub fn accepted(&self) -> usize {
        self.shared.lock().log.accepted()
    }

    /// How many points were the same, to the byte of the value, as one before for that series and time.
    pub fn resent(&self) -> usize {
        self.shared.lock().log.resent()
    }

    /// The lines that gave a series a second, different value for one time. OpenTSDB accepts such a line and can no longer read
    /// that hour of the series: this should always be empty.
    pub fn poisoned(&self) -> Vec<String> {
        self.shared.lock().log.poisoned()
    }

    /// How many series have a point.
    pub fn series(&self) -> usize {
        self.shared.lock().log.series()
    }

    /// The value at the latest time of a series, whose tags may be given in any order.
    pub fn last(&self, metric: &str, tags: &[(&str, &str)]) -> Option<Value> {
        self.shared.lock().log.last(metric, tags)
    }

    /// When points arrived, and how many at once.
    pub fn arrivals(&self) -> Vec<(Instant, usize)> {
        self.shared.lock().log.arrivals()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().log.connections()
    }

    /// How many connections neither side has ended.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().log.open_connections()
    }

    /// The connection that was accepted as the `index`th, from 0.
    pub fn connection(&self, index: usize) -> Option<Connection> {
        self.shared.lock().log.connection(index)
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
        *lock(&self.turns) += 1;
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

/// Locks, whatever became of the last holder: a test that failed in its closure still wants to see the rest.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::client::{Client, PATIENCE, put};
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
            tsd.script(Fault::Reset);
        });
    }

    #[test]
    fn dropping_it_ends_every_connection_in_every_state() {
        for fault in [Fault::StopReading, Fault::FreezeStorage, Fault::Flood, Fault::HoldOpen] {
            let tsd = FakeTsd::start();
            let mut client = Client::connect(&tsd);
            tsd.script(fault.clone());
            tsd.script(Fault::Crash { down: PATIENCE }.after_bytes(1_000_000));
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
        assert_eq!((tsd.connections(), tsd.series()), (100, 100));
        for index in 0..100 {
            let lines = tsd.connection(index).unwrap().lines;
            assert!(
                (1..=10)
                    .zip(&lines)
                    .all(|(time, line)| line.starts_with(&format!("put m {time} ")))
            );
        }
    }
}
