//! A hostile server by seed: whatever one or several servers do, the promises hold, and once they
//! are healed the last values are exact.
//!
//! 1. `server`: draws what it does to each connection;
//! 2. `evidence`: what all servers of an exporter have read;
//! 3. `http`: the same by HTTP, against `FakeHttpTsd`, at times through a `proxy`;
//! 4. here: the application, which records, sends raw points and flushes from several threads, and
//!    what is checked of it.
//!
//! | checked | when |
//! |---|---|
//! | the law of the tally; no more confirmed than was proven, unless a server lies or only the kernel is asked | after each flush |
//! | only lines of ours, no end within one, `version` never first, one value for each series and time | always |
//! | a flush and a shutdown end at their deadlines | always, with [`SLACK`] for a busy machine |
//! | at most what the queue and the window hold is pending | after each flush |
//! | the last value of each series | after healing; where nothing is proven, once old connections are gone |
//! | each raw point | after healing, unless nothing is proven or the queue was small |

mod evidence;
mod http;
mod proxy;
mod server;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use metrics_exporter_opentsdb::{
    Confirmation, FlushError, OpenTsdbHandle, OpenTsdbRecorder, Point, Stats,
};

use crate::rig::{PATIENCE, assert_law, builder};
use evidence::Evidence;
use server::{Character, Server};

/// How much later than its deadline a call may end where many seeds share few processors.
const SLACK: Duration = Duration::from_secs(5);
/// More points than a run makes.
const AMPLE: usize = 4_000_000;

/// The most points in flight beside those that wait: the 4 MiB of the writer's window, and a batch
/// that is just being taken, in lines of 30 bytes.
const IN_FLIGHT: u64 = (4 * 1024 + 64) * 1024 / 30;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub points: u64,
    pub confirmed: u64,
    pub resent: u64,
    pub connects: u64,
    pub disconnects: u64,
    /// Connections that the exporter reset within a line. It had given them up, read replies for
    /// another minute, or two seconds after its end, and the server was still behind.
    pub torn: u64,
}

impl Told {
    fn add(&mut self, other: Told) {
        self.points += other.points;
        self.confirmed += other.confirmed;
        self.resent += other.resent;
        self.connects += other.connects;
        self.disconnects += other.disconnects;
        self.torn += other.torn;
    }
}

/// What is drawn of a seed beside the servers.
#[derive(Debug)]
struct Plan {
    mode: Confirmation,
    queue: usize,
    counters: usize,
    flushers: usize,
    /// How long the servers are hostile.
    time: Duration,
    /// Whether the end is a shutdown of so long while the servers are still hostile.
    ends_early: Option<Duration>,
    /// Whether what is confirmed was read: no server lies, and not the kernel alone is asked.
    is_proven: bool,
}

impl Plan {
    fn of(random: &mut fastrand::Rng, characters: &[Character]) -> Plan {
        use Confirmation::{Auto, HalfClose, Version, Written};
        let mode = random.choice([Auto, Version, HalfClose, Written]).unwrap_or_default();
        let is_honest = !characters.iter().any(|character| character.is_liar);
        Plan {
            mode,
            queue: random.choice([AMPLE, AMPLE, 500]).unwrap_or(AMPLE),
            counters: random.choice([1, 20, 200, 1_000]).unwrap_or(1),
            flushers: random.usize(1..4),
            time: Duration::from_millis(random.u64(200..1_500)),
            ends_early: (random.u8(0..6) == 0).then(|| Duration::from_millis(random.u64(0..500))),
            is_proven: is_honest && mode != Written,
        }
    }
}

/// The application: what it recorded, to be compared with what came.
struct App {
    recorder: OpenTsdbRecorder,
    handle: OpenTsdbHandle,
    evidence: Arc<Evidence>,
    plan: Plan,
    counters: Vec<AtomicU64>,
    samples: AtomicU64,
    raw: AtomicU64,
}

/// One exporter against one to three servers; panics with the seed where a promise is broken. Every
/// fourth seed is one of HTTP.
pub fn run(seed: u64) -> Told {
    if seed % 4 == 3 {
        return http::run(seed);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let characters: Vec<_> = (0..random.usize(1..4)).map(|_| Character::of(&mut random)).collect();
    let plan = Plan::of(&mut random, &characters);
    let script = format!("seed {seed}: {plan:?}, {characters:?}");
    let evidence = Arc::new(Evidence::default());
    let servers: Vec<_> = characters
        .into_iter()
        .map(|character| Server::start(character, &evidence, random.u64(..)))
        .collect();
    let mut made = builder(servers[0].address.to_string(), plan.mode).with_queue_size(plan.queue);
    for other in &servers[1..] {
        made = made.add_endpoint(other.address.to_string());
    }
    let (recorder, handle) = made.build().unwrap();
    let counters = (0..plan.counters).map(|_| AtomicU64::new(0)).collect();
    let (samples, raw) = (AtomicU64::new(0), AtomicU64::new(0));
    let app = App { recorder, handle, evidence, plan, counters, samples, raw };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        app.live(&mut random);
        app.end(servers)
    }));
    match outcome {
        Ok(told) => told,
        Err(panic) => {
            println!("{script}\n{:?}", app.handle.stats());
            std::panic::resume_unwind(panic)
        }
    }
}

impl App {
    /// Records and flushes while the servers are hostile.
    fn live(&self, random: &mut fastrand::Rng) {
        let end = Instant::now() + self.plan.time;
        std::thread::scope(|scope| {
            for _ in 0..self.plan.flushers {
                let mut random = fastrand::Rng::with_seed(random.u64(..));
                scope.spawn(move || {
                    while Instant::now() < end {
                        self.flush(Duration::from_millis(random.u64(0..60)));
                        self.check();
                        // A snapshot each millisecond would be work without a new thought.
                        std::thread::park_timeout(Duration::from_millis(random.u64(0..30)));
                    }
                });
            }
            // Threads come and go, with what they own of the cells.
            while Instant::now() < end {
                let threads = random.usize(1..4);
                std::thread::scope(|scope| {
                    (0..threads).for_each(|_| drop(scope.spawn(|| self.record())));
                });
                if random.u8(0..5) == 0 {
                    self.send();
                }
                self.flush(Duration::from_millis(random.u64(0..20)));
                std::thread::park_timeout(Duration::from_millis(random.u64(0..10)));
            }
        });
    }

    /// Increments all counters and records a sample.
    fn record(&self) {
        metrics::with_local_recorder(&self.recorder, || {
            for (n, truth) in self.counters.iter().enumerate() {
                counter!("c", "n" => n.to_string()).increment(n as u64 + 1);
                truth.fetch_add(n as u64 + 1, Ordering::Relaxed);
            }
            histogram!("h").record(1.0);
            self.samples.fetch_add(1, Ordering::Relaxed);
        });
    }

    fn send(&self) {
        let n = self.raw.fetch_add(1, Ordering::Relaxed);
        self.handle.send(Point::new("raw", n).tag("n", n.to_string())).unwrap();
    }

    fn flush(&self, timeout: Duration) {
        let began = Instant::now();
        self.handle.flush(timeout).expect("it runs");
        let took = began.elapsed();
        assert!(took < timeout + SLACK, "a flush of {timeout:?} took {took:?}");
    }

    /// What holds at any moment.
    fn check(&self) -> Stats {
        let stats = self.handle.stats();
        assert_law(&stats);
        if self.plan.is_proven {
            let proven = self.evidence.proven_count();
            assert!(stats.points_confirmed <= proven, "{proven} are proven: {stats:?}");
        }
        let most = self.plan.queue as u64 + IN_FLIGHT;
        assert!(stats.points_pending <= most, "more than {most}: {stats:?}");
        assert_eq!(stats.restarts, 0, "{stats:?}");
        stats
    }

    fn end(&self, servers: Vec<Server>) -> Told {
        let began = Instant::now();
        match self.plan.ends_early {
            Some(timeout) => {
                let report = self.handle.shutdown(timeout).expect("the first");
                assert!(began.elapsed() < timeout + SLACK, "{:?}", began.elapsed());
                assert_eq!(report.pending, 0, "{report:?}");
            }
            None => {
                servers.iter().for_each(Server::heal);
                self.heal();
                let report = self.handle.shutdown(PATIENCE).expect("the first");
                assert_eq!(report.pending, 0, "{report:?}");
            }
        }
        assert_eq!(self.handle.shutdown(PATIENCE), Err(FlushError::AlreadyShutdown));
        let stats = self.check();
        assert_eq!(stats.points_pending, 0, "{stats:?}");
        // What is on its way yet is read.
        drop(servers);
        assert_eq!(self.evidence.faults(), [""; 0]);
        Told {
            points: stats.points_taken,
            confirmed: stats.points_confirmed,
            resent: stats.points_resent,
            connects: stats.connects,
            disconnects: stats.disconnects,
            torn: self.evidence.torn_count(),
        }
    }

    /// After healing everything arrives.
    fn heal(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.record();
            self.drain(end);
            if self.plan.is_proven || self.is_soon_right() || Instant::now() > end {
                break;
            }
        }
        let stats = self.check();
        assert_eq!(self.wrong(), None, "{stats:?}");
        if self.plan.queue == AMPLE {
            assert_eq!(stats.points_dropped.total(), 0, "{stats:?}");
        }
        if self.plan.is_proven && self.plan.queue == AMPLE {
            for n in 0..self.raw.load(Ordering::Relaxed) {
                let raw = self.evidence.last(&format!("raw host=a n={n}"));
                assert_eq!(raw, Some(n.to_string()), "raw{{n={n}}} {stats:?}");
            }
        }
    }

    /// Where nothing is proven: whether each last value is right soon after it was confirmed. What
    /// an old connection took nobody may have read; the next flush corrects it.
    fn is_soon_right(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(1);
        while self.wrong().is_some() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.wrong().is_none()
    }

    /// Flushes until nothing is pending.
    fn drain(&self, end: Instant) {
        loop {
            // While it is not connected yet, a small queue drops the oldest.
            let dropped = self.handle.stats().points_dropped.total();
            let report = self.handle.flush(PATIENCE).expect("it runs");
            if report.pending == 0 && self.handle.stats().points_dropped.total() == dropped {
                break;
            }
            assert!(Instant::now() < end, "not healed: {:?}", self.handle.stats());
        }
    }

    /// A series whose last value is not what was recorded, that value, and the right one.
    fn wrong(&self) -> Option<(String, Option<String>, u64)> {
        let samples = ("h.count host=a".to_owned(), &self.samples);
        let counters = self.counters.iter().enumerate();
        counters
            .map(|(n, truth)| (format!("c host=a n={n}"), truth))
            .chain([samples])
            .map(|(series, truth)| {
                (self.evidence.last(&series), truth.load(Ordering::Relaxed), series)
            })
            .find(|(last, truth, _)| *last != Some(truth.to_string()))
            .map(|(last, truth, series)| (series, last, truth))
    }
}

/// So many seeds from `first` on, on several threads; panics if any failed, with all that did.
pub fn run_seeds(first: u64, count: u64, threads: usize) -> Told {
    let (next, outcomes) = (AtomicU64::new(first), Mutex::new((Told::default(), Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let outcome = std::panic::catch_unwind(|| run(seed));
                    let mut outcomes = outcomes.lock().unwrap();
                    match outcome {
                        Ok(told) => outcomes.0.add(told),
                        Err(_) => outcomes.1.push(seed),
                    }
                }
            });
        }
    });
    let (sum, failed) = outcomes.into_inner().unwrap();
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    sum
}
