//! The handshake of flusher, writer and handle: whatever the order of their steps, nobody waits for
//! ever and no point is lost without being counted.

use super::*;
use loom::sync::Arc as Shared;
use loom::thread::{self, JoinHandle};

/// The writer's wait for events: it is remembered when nobody waits yet.
#[derive(Default)]
struct Bell {
    is_rung: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *sync::lock(&self.is_rung) = true;
        self.rung.notify_all();
    }

    fn wait(&self) {
        let mut is_rung = sync::lock(&self.is_rung);
        while !*is_rung {
            is_rung = self.rung.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

/// The three threads' common ground, with room for so many points.
fn ground(limit: usize) -> (Shared<Queue>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Shared::new(Queue::new(limit, Arc::clone(&counters))), counters)
}

/// Takes points and has them confirmed at once, as long as the real one would. `first` is what it
/// says of the link.
fn writer(queue: &Shared<Queue>, first: Link) -> JoinHandle<()> {
    let queue = Shared::clone(queue);
    thread::spawn(move || {
        let bell = Shared::new(Bell::default());
        let ringer = Shared::clone(&bell);
        queue.set_waker(move || {
            ringer.ring();
            true
        });
        if first == Link::Down {
            queue.set_link(Link::Down);
        }
        loop {
            let phase = queue.phase();
            if phase >= Phase::Abandoned {
                break;
            }
            if let Some(batch) = queue.pop() {
                queue.confirm(batch.points(), std::iter::empty());
                queue.recycle(batch);
            } else if phase >= Phase::Closing {
                break;
            } else {
                bell.wait();
                queue.waker().unpark();
            }
        }
        queue.finish();
    })
}

fn push(queue: &Queue, line: &str) {
    queue.push(line.into(), 1, Instant::now());
}

fn flusher(queue: &Shared<Queue>) -> JoinHandle<()> {
    let queue = Shared::clone(queue);
    thread::spawn(move || {
        push(&queue, "a\n");
        push(&queue, "b\n");
        queue.close();
    })
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn a_shutdown_ends_with_every_point_confirmed() {
    check(3, || {
        let (queue, counters) = ground(1);
        let threads = [writer(&queue, Link::Up), flusher(&queue)];
        assert!(queue.wait_finished(None));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = counters.stats();
        assert_eq!((stats.points_taken, stats.points_confirmed), (2, 2));
    });
}

#[test]
fn an_abandoned_queue_ends_everybody_and_accounts_for_every_point() {
    check(2, || {
        let (queue, counters) = ground(1);
        let threads = [writer(&queue, Link::Up), flusher(&queue)];
        queue.close();
        queue.abandon();
        assert!(queue.wait_finished(None));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = counters.stats();
        assert_eq!((stats.points_taken, stats.points_pending), (2, 0), "{stats:?}");
        assert_eq!(stats.points_confirmed + stats.points_dropped.shutdown, 2);
    });
}

#[test]
fn a_lost_link_lets_the_flusher_go_on() {
    check(2, || {
        let (queue, counters) = ground(1);
        let threads = [writer(&queue, Link::Down), flusher(&queue)];
        assert!(queue.wait_finished(None));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = counters.stats();
        assert_eq!((stats.points_taken, stats.points_pending), (2, 0), "{stats:?}");
        assert_eq!(stats.points_confirmed + stats.points_dropped.queue_full, 2);
    });
}

#[test]
fn a_flush_returns_once_what_is_below_its_watermark_is_settled() {
    check(3, || {
        let (queue, counters) = ground(10);
        let thread = writer(&queue, Link::Up);
        push(&queue, "a\n");
        let watermark = queue.watermark();
        let _expedite = queue.expedite();
        assert!(queue.append(b"raw\n", Instant::now()));
        assert!(queue.wait_settled(watermark, None));
        assert!(counters.points_confirmed.get() >= 1);
        queue.close();
        assert!(queue.wait_finished(None));
        thread.join().unwrap();
        assert_eq!(counters.points_confirmed.get(), 2);
    });
}

#[test]
fn a_confirmation_and_the_end_count_each_point_once() {
    check(3, || {
        let (queue, counters) = ground(10);
        push(&queue, "a\n");
        let in_flight = queue.pop().unwrap();
        push(&queue, "b\n");
        let watermark = queue.watermark();
        let writer = {
            let queue = Shared::clone(&queue);
            thread::spawn(move || {
                queue.confirm(in_flight.points(), std::iter::empty());
                queue.recycle(in_flight);
                if let Some(batch) = queue.pop() {
                    queue.confirm(batch.points(), std::iter::empty());
                }
            })
        };
        let reader = {
            let queue = Shared::clone(&queue);
            thread::spawn(move || queue.stats(Instant::now()))
        };
        queue.abandon();
        assert!(queue.wait_settled(watermark, None));
        let end = queue.stats(Instant::now());
        assert_eq!(end.points_pending, 0);
        writer.join().unwrap();
        let reading = reader.join().unwrap();
        for stats in [reading, end] {
            let known = stats.points_confirmed + stats.points_dropped.total();
            assert_eq!(stats.points_taken, known + stats.points_pending, "{stats:?}");
        }
        let after = counters.stats();
        assert_eq!(after.points_confirmed, end.points_confirmed, "nothing after the end");
        assert_eq!(after.points_confirmed + after.points_dropped.shutdown, 2);
    });
}
