//! The keeper with a queue and a clock that stands still: what it asks for after a failure.

// A window shows its lines to requests alone.
#[cfg(feature = "http")]
mod by_seed;

use super::super::tests::{RULES, Scratch, WALL};
use super::*;
use crate::clock::Mock;
use crate::queue::Link;

const SECOND: Duration = Duration::from_secs(1);
/// The points of a batch, of a KiB each: two batches do not fit in one buffer.
const BATCH: usize = 60;

struct Rig {
    keeper: Keeper,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    clock: Clock,
    mock: Mock,
    #[cfg_attr(not(unix), expect(dead_code, reason = "it goes with the test"))]
    scratch: Scratch,
}

impl Rig {
    /// Its queue has room for 20 batches.
    fn new(change: impl FnOnce(Spool) -> Spool) -> Self {
        let scratch = Scratch::new();
        let (clock, mock) = Clock::mock(WALL);
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(20 * BATCH * 1024 / 128, Arc::clone(&counters)));
        let (ours, theirs) = (Arc::clone(&queue), Arc::clone(&counters));
        let spool = change(scratch.spool());
        let keeper = Keeper::open(&spool, RULES, ours, theirs, clock.clone()).unwrap();
        let mut rig = Rig { keeper, queue, counters, clock, mock, scratch };
        rig.turn();
        rig
    }

    fn push(&self, batches: usize) {
        for _ in 0..batches {
            let line = format!("{}\n", "x".repeat(1023));
            self.queue.push(line.repeat(BATCH).into(), BATCH, self.clock.now());
        }
    }

    fn turn(&mut self) -> Option<Instant> {
        self.keeper.turn(&Window::new())
    }

    /// Turns until it would wait; returns how long.
    fn turn_until_idle(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        for _ in 0..100 {
            match self.turn() {
                Some(at) if at <= now => {}
                until => return until.map(|at| at - now),
            }
        }
        panic!("it is busy for ever");
    }
}

#[test]
fn copies_that_fill_the_disk_wait_for_the_retry_and_then_give_way_to_younger_points() {
    // Room for six batches.
    let mut rig = Rig::new(|spool| spool.write_ahead(true).max_bytes(400 * 1024));
    rig.queue.set_link(Link::Down);
    rig.push(1);
    rig.turn_until_idle();
    rig.mock.advance(2 * SECOND);
    rig.push(6);
    assert_eq!(rig.turn_until_idle(), Some(PAUSE.0));
    assert!(!rig.keeper.store.is_dirty);
    assert_eq!(rig.counters.spool_errors.get(), 1);

    rig.push(6);
    rig.mock.advance(PAUSE.0);
    assert!(rig.turn_until_idle() > Some(Duration::ZERO));
    let stats = rig.queue.stats(rig.clock.now());
    assert_eq!(stats.points_dropped.queue_full, 0, "{stats:?}");
    assert_eq!(stats.points_spooled, 3 * BATCH as u64, "{stats:?}");
}

#[test]
fn points_are_sent_at_once_when_they_cannot_be_written_ahead() {
    let mut rig = Rig::new(|spool| spool.write_ahead(true).max_bytes(100));
    rig.push(1);
    assert!(rig.queue.pop().is_none());
    assert_eq!(rig.turn(), Some(rig.clock.now()));
    assert_eq!(rig.queue.pop().map(|batch| batch.points()), Some(BATCH));
    assert_eq!(rig.turn(), Some(rig.clock.now() + PAUSE.0));
}

#[cfg(unix)]
#[test]
fn a_backlog_that_cannot_be_opened_is_tried_again_a_second_later() {
    let mut rig = Rig::new(|spool| spool);
    let lines = b"put m 1700000000 1 host=a\n";
    rig.keeper.store.append(lines, None, WALL).unwrap();
    rig.keeper.store.sync().unwrap();
    rig.counters.connected.store(true, Ordering::Relaxed);
    rig.scratch.hide();
    assert_eq!(rig.turn_until_idle(), Some(PAUSE.0));
    rig.scratch.unhide();
    assert_eq!(rig.counters.spool_errors.get(), 1);
    rig.mock.advance(PAUSE.0);
    rig.turn();
    assert_eq!(rig.queue.pop().map(|batch| batch.lines().to_vec()), Some(lines.to_vec()));
}

/// A clock that only goes forward begins with the machine, and a spool outlives that.
#[test]
fn a_backlog_from_before_the_machine_started_has_its_age() {
    let mut rig = Rig::new(|spool| spool);
    let age = 48 * 3600 * SECOND;
    rig.keeper.store.append(b"put m 1700000000 1 host=a\n", None, WALL - age).unwrap();
    rig.turn();
    rig.mock.advance(SECOND);
    assert_eq!(rig.queue.stats(rig.clock.now()).oldest_spooled, Some(age + SECOND));
}

/// At the end the points that were read and not confirmed are taken for what is on disk.
#[test]
fn points_that_were_read_and_whose_segment_gives_way_at_the_end_count_as_dropped() {
    let mut rig = Rig::new(|spool| spool.max_bytes(200 * 1024));
    let line = format!("put m 1700000000 1 host={}\n", "x".repeat(1000 - 25));
    // Two segments, and the batches that follow have room for neither.
    for _ in 0..2 {
        rig.keeper.store.append(line.repeat(BATCH).as_bytes(), None, WALL).unwrap();
    }
    rig.keeper.store.sync().unwrap();
    rig.counters.connected.store(true, Ordering::Relaxed);
    rig.turn();
    assert_eq!(rig.counters.points_taken.get(), BATCH as u64, "one is read");
    rig.push(3);
    rig.queue.close();
    rig.queue.set_deadline(Some(rig.clock.now()));
    rig.turn();
    let stats = rig.queue.stats(rig.clock.now());
    assert_eq!((stats.points_spooled, stats.points_pending), (4 * BATCH as u64, 0));
    assert_eq!(stats.points_dropped.spool, 2 * BATCH as u64, "{stats:?}");
}
