//! The handshake of flusher, writer and handle: whatever the order of their steps, nobody waits for
//! ever and no point is lost without being counted.

use super::*;
use crate::sync::atomic::{AtomicBool, Ordering};
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
        assert!(queue.append(b"raw\n".into(), Instant::now()));
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

/// Where handles ask the flusher for a snapshot.
#[derive(Default)]
struct Desk {
    state: Mutex<DeskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DeskState {
    /// How many snapshots were asked for, and how many of these requests are answered.
    asked: usize,
    answered: usize,
    /// Whether one of them is to be the last.
    has_last: bool,
    is_closed: bool,
}

impl Desk {
    /// Asks for a snapshot; `None` if the flusher has ended without one.
    fn ask(&self, queue: &Queue, is_last: bool) -> Option<Watermark> {
        let mut state = sync::lock(&self.state);
        state.asked += 1;
        state.has_last |= is_last;
        let number = state.asked;
        self.changed.notify_all();
        while state.answered < number && !state.is_closed {
            state = self.changed.wait(state).unwrap();
        }
        (state.answered >= number).then(|| queue.watermark())
    }

    /// The flusher: each snapshot is one line, and a tick comes before the first request.
    fn serve(desk: &Shared<Desk>, queue: &Shared<Queue>) -> JoinHandle<()> {
        let (desk, queue) = (Shared::clone(desk), Shared::clone(queue));
        thread::spawn(move || {
            push(&queue, "tick\n");
            let mut is_last = false;
            while !is_last {
                let mut state = sync::lock(&desk.state);
                while state.asked == state.answered {
                    state = desk.changed.wait(state).unwrap();
                }
                let asked = state.asked;
                is_last = state.has_last;
                drop(state);
                push(&queue, "snapshot\n");
                if is_last {
                    queue.close();
                }
                let mut state = sync::lock(&desk.state);
                (state.answered, state.is_closed) = (asked, is_last);
                desk.changed.notify_all();
            }
        })
    }
}

/// As a handle does it; returns whether it was the first.
fn shut_down(queue: &Queue, desk: &Desk, is_shut_down: &AtomicBool) -> bool {
    let is_first = !is_shut_down.swap(true, Ordering::SeqCst);
    if is_first {
        let _expedite = queue.expedite();
        let _ = desk.ask(queue, true);
        queue.close();
    }
    assert!(queue.wait_finished(None));
    is_first
}

#[test]
fn of_two_shutdowns_one_is_the_first_and_neither_returns_before_the_end() {
    // Four threads: one preemption is what there is time for.
    check(1, || {
        let (queue, counters) = ground(10);
        let (desk, is_shut_down) =
            (Shared::new(Desk::default()), Shared::new(AtomicBool::new(false)));
        let threads = [writer(&queue, Link::Up), Desk::serve(&desk, &queue)];
        let other = {
            let (queue, desk, flag) =
                (Shared::clone(&queue), Shared::clone(&desk), Shared::clone(&is_shut_down));
            let counters = Arc::clone(&counters);
            thread::spawn(move || {
                let is_first = shut_down(&queue, &desk, &flag);
                assert_eq!(counters.points_confirmed.get(), 2);
                is_first
            })
        };
        let is_first = shut_down(&queue, &desk, &is_shut_down);
        assert_eq!(counters.points_confirmed.get(), 2, "the tick and the last snapshot");
        assert_ne!(is_first, other.join().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_flush_beside_a_shutdown_returns_when_its_points_are_confirmed() {
    check(1, || {
        let (queue, counters) = ground(10);
        let (desk, is_shut_down) =
            (Shared::new(Desk::default()), Shared::new(AtomicBool::new(false)));
        let threads = [writer(&queue, Link::Up), Desk::serve(&desk, &queue)];
        let other = {
            let (queue, desk) = (Shared::clone(&queue), Shared::clone(&desk));
            thread::spawn(move || assert!(shut_down(&queue, &desk, &is_shut_down)))
        };
        let expedite = queue.expedite();
        match desk.ask(&queue, false) {
            Some(watermark) => assert!(queue.wait_settled(watermark, None)),
            None => assert!(queue.wait_finished(None)),
        }
        drop(expedite);
        assert!(counters.points_confirmed.get() >= 2, "the tick and a snapshot");
        other.join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = counters.stats();
        assert_eq!((stats.points_confirmed, stats.points_pending), (stats.points_taken, 0));
    });
}
