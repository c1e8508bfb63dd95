//! Keeper, queue and window together, through random steps by seed, on a clock that the test moves:
//! no point is gone that is not counted.

use super::*;
use crate::send::delivery::Delivery;
use crate::send::limiter::{Limiter, RateLimit};
use crate::send::status::Status;
use crate::stats::Stats;

/// The bytes of a line: of some dozens of them a buffer is full.
const LINE: usize = 1000;
const STEPS: usize = 150;

struct Model {
    delivery: Delivery,
    clock: Clock,
    mock: Mock,
    _scratch: Scratch,
    spool: Spool,
    /// The most points that the queue takes.
    limit: usize,
    is_up: bool,
    /// Of each line that was ever made, by the number in it, whether it was confirmed.
    confirmed: Vec<bool>,
    /// Points that processes before this one have dropped.
    dropped: u64,
}

impl Model {
    fn new(random: &mut fastrand::Rng) -> Self {
        const FOR_EVER: u32 = u32::MAX;
        let scratch = Scratch::new();
        let (clock, mock) = Clock::mock(WALL);
        let limit = [600, 1_500, 4_000][random.usize(..3)];
        let spool = scratch
            .spool()
            .write_ahead(random.bool())
            .max_bytes([150_000, 400_000, 1 << 30][random.usize(..3)])
            .max_age(SECOND * [FOR_EVER, FOR_EVER, 8, 30][random.usize(..4)]);
        let delivery = begin(&spool, limit, &clock);
        let (is_up, confirmed, dropped) = (true, Vec::new(), 0);
        Model { delivery, clock, mock, _scratch: scratch, spool, limit, is_up, confirmed, dropped }
    }

    fn line(&mut self) -> String {
        let head = format!("put m 1700000000 {} host=", self.confirmed.len());
        self.confirmed.push(false);
        format!("{head}{}\n", "x".repeat(LINE - 1 - head.len()))
    }

    /// As the flusher, which waits where the queue is full.
    fn push(&mut self, points: usize) {
        let waiting = self.delivery.queue.waiting().unsent;
        if (waiting + points) * LINE <= (self.limit * 128).max(64 * 1024) {
            let lines: String = (0..points).map(|_| self.line()).collect();
            self.delivery.queue.push(lines.into(), points, self.clock.now());
        }
    }

    /// Raw points.
    fn append(&mut self, points: usize) {
        for _ in 0..points {
            let line = self.line();
            assert!(self.delivery.queue.append(line.into(), self.clock.now()));
        }
    }

    fn set_link(&mut self, is_up: bool) {
        self.is_up = is_up;
        self.delivery.counters.connected.store(is_up, Ordering::Relaxed);
        if is_up {
            self.delivery.window.rewind();
        }
        self.delivery.queue.set_link(if is_up { Link::Up } else { Link::Down });
    }

    fn send(&mut self, points: usize) {
        if self.is_up && !self.delivery.window.is_full() {
            self.delivery.grant(points);
            let bytes = self.delivery.window.to_write().len();
            self.delivery.wrote(bytes);
        }
    }

    fn confirm(&mut self) {
        if !self.is_up {
            return;
        }
        let window = &self.delivery.window;
        for line in window.lines(window.confirmed()..window.written()) {
            let number = std::str::from_utf8(line).unwrap().split(' ').nth(3).unwrap();
            self.confirmed[number.parse::<usize>().unwrap()] = true;
        }
        self.delivery.confirm(window.written());
    }

    /// Ends the process and starts the next one.
    fn restart(&mut self) {
        self.delivery.abandon();
        let stats = self.delivery.queue.stats(self.clock.now());
        assert_eq!(stats.points_pending, 0);
        self.dropped += stats.points_dropped.total();
        // It lets the directory go.
        self.delivery.keeper = None;
        self.delivery = begin(&self.spool, self.limit, &self.clock);
        self.set_link(true);
    }

    fn check(&self, step: &str) -> Stats {
        let stats = self.delivery.queue.stats(self.clock.now());
        let known = stats.points_confirmed + stats.points_pending + stats.points_spooled;
        assert_eq!(stats.points_taken, known + stats.points_dropped.total(), "{step}: {stats:?}");
        let window = &self.delivery.window;
        let held = self.delivery.queue.waiting().unsent + window.granted() + window.ungranted();
        assert_eq!(stats.points_pending, held as u64, "{step}: {stats:?}");
        stats
    }

    fn step(&mut self, random: &mut fastrand::Rng) -> usize {
        let kind = random.usize(..15);
        match kind {
            0..=2 => self.push(random.usize(1..60)),
            3 => self.append(random.usize(1..30)),
            4 | 5 => self.set_link(false),
            6 => self.set_link(true),
            7..=9 => {
                for _ in 0..random.usize(1..6) {
                    self.delivery.keep();
                }
            }
            10 | 11 => self.send(random.usize(1..100)),
            12 => self.confirm(),
            13 => self.mock.advance(SECOND * random.u32(0..3)),
            _ if random.u8(..6) == 0 => self.restart(),
            _ => {}
        }
        kind
    }

    /// A server that takes everything, until nothing is left.
    fn drain(&mut self, seed: u64) {
        self.set_link(true);
        for _ in 0..20_000 {
            self.delivery.keep();
            self.send(1_000);
            self.confirm();
            self.mock.advance(SECOND);
            let stats = self.check("at the end");
            if stats.points_pending == 0 && stats.spool_bytes == 0 {
                self.dropped += stats.points_dropped.total();
                let lost = self.confirmed.iter().filter(|is_confirmed| !**is_confirmed).count();
                assert!(lost as u64 <= self.dropped, "seed {seed}: {lost} are lost, {stats:?}");
                return;
            }
        }
        panic!("seed {seed} never ends");
    }
}

fn begin(spool: &Spool, limit: usize, clock: &Clock) -> Delivery {
    let counters = Arc::new(Counters::default());
    let queue = Arc::new(Queue::new(limit, Arc::clone(&counters)));
    let (ours, theirs) = (Arc::clone(&queue), Arc::clone(&counters));
    let keeper = Keeper::open(spool, RULES, ours, theirs, clock.clone()).unwrap();
    let mut delivery = Delivery {
        queue,
        status: Status::new(Arc::clone(&counters)),
        counters,
        window: Window::new(),
        limiter: Limiter::new(RateLimit::Unlimited, SECOND, clock.now()),
        leave_at: None,
        write_timeout: SECOND,
        keeper: Some(Box::new(keeper)),
    };
    delivery.keep();
    delivery
}

/// On a disk that works. `SPOOL_SEEDS` of them if it is set.
#[test]
fn no_point_is_gone_that_is_not_counted() {
    let seeds = std::env::var("SPOOL_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(100) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model = Model::new(&mut random);
        for n in 0..STEPS {
            let kind = model.step(&mut random);
            model.check(&format!("seed {seed}, step {n} of kind {kind}"));
        }
        model.drain(seed);
    }
}
