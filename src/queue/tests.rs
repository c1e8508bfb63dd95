pub(super) mod wakes;

use self::wakes::count_wakes;
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn queue(limit: usize) -> (Queue, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Queue::new(limit, Arc::clone(&counters)), counters)
}

fn push(queue: &Queue, lines: &str) {
    queue.push(lines.into(), lines.lines().count(), Instant::now());
}

fn popped(queue: &Queue) -> String {
    queue.pop().map(|batch| String::from_utf8(batch.lines().to_vec()).unwrap()).unwrap_or_default()
}

#[test]
fn a_batch_larger_than_the_queue_keeps_its_newest_points() {
    let (queue, counters) = queue(2);
    push(&queue, "a\nb\nc\nd\ne\n");
    assert_eq!(counters.points_dropped.queue_full.get(), 3);
    assert_eq!(popped(&queue), "d\ne\n");
}

#[test]
fn raw_points_share_a_batch_and_drop_the_oldest() {
    let (queue, counters) = queue(3);
    for line in ["a\n", "b\n", "c\n", "d\n"] {
        assert!(queue.append(line.into(), Instant::now()));
    }
    assert_eq!(counters.points_dropped.queue_full.get(), 1);
    assert_eq!(popped(&queue), "b\nc\nd\n");
    queue.close();
    assert!(!queue.append(b"e\n".into(), Instant::now()));
}

#[test]
fn a_full_queue_holds_the_flusher_back_while_the_link_is_up() {
    let (queue, counters) = queue(2);
    push(&queue, "a\nb\n");
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| push(&queue, "c\nd\n"));
        assert_eq!(popped(&queue), "a\nb\n");
        pusher.join().unwrap();
    });
    assert_eq!(popped(&queue), "c\nd\n");
    assert_eq!(counters.points_dropped.queue_full.get(), 0);
}

#[test]
fn a_flush_hears_that_its_points_were_dropped_for_newer_ones() {
    let (queue, _) = queue(1);
    queue.set_link(Link::Down);
    push(&queue, "a\n");
    let watermark = queue.watermark();
    std::thread::scope(|scope| {
        let waiting = &queue;
        // Without a deadline: unheard, it waits for ever.
        let waiter = scope.spawn(move || waiting.wait_settled(watermark, None));
        // Long enough for it to wait, which nothing shows.
        std::thread::park_timeout(Duration::from_millis(50));
        push(&queue, "b\n");
        assert!(waiter.join().unwrap());
    });
}

/// As many lines of so many bytes, each with a letter of its own.
fn lines(letters: &str, length: usize) -> String {
    letters.chars().map(|letter| format!("{}\n", letter.to_string().repeat(length - 1))).collect()
}

fn confirm(queue: &Queue, batch: Batch) {
    queue.confirm(batch.points(), std::iter::empty());
    queue.recycle(batch);
}

fn assert_law(counters: &Counters, pending: u64) {
    let stats = counters.stats();
    assert_eq!(stats.points_pending, pending, "{stats:?}");
    let known = stats.points_confirmed + stats.points_dropped.total();
    assert_eq!(stats.points_taken, known + pending, "{stats:?}");
}

#[test]
fn oldest_point_is_dropped_first() {
    let (queue, counters) = queue(4);
    queue.set_link(Link::Down);
    push(&queue, "a\nb\nc\n");
    queue.set_link(Link::Down);
    push(&queue, "d\ne\nf\n");
    assert_eq!(counters.points_dropped.queue_full.get(), 2);
    assert_eq!(popped(&queue), "c\n");
    assert_eq!(popped(&queue), "d\ne\nf\n");
    assert_law(&counters, 4);
    let inner = queue.lock();
    assert_eq!((inner.backlog.bytes(), inner.fresh.bytes()), (0, 0));
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    const POINTS: usize = 1000;
    let (queue, counters) = queue(POINTS);
    queue.set_link(Link::Down);
    for _ in 0..5 {
        push(&queue, &lines("abcdefgh", 16 * 1024));
    }
    let waiting = queue.waiting().fresh;
    assert_eq!(waiting, POINTS * 128 / (16 * 1024));
    assert_eq!(counters.points_dropped.queue_full.get() as usize, 5 * 8 - waiting);
    assert_law(&counters, waiting as u64);
    // The newest are there.
    let rest = std::iter::from_fn(|| Some(popped(&queue)).filter(|lines| !lines.is_empty()));
    assert_eq!(rest.collect::<String>(), lines("bcdefgh", 16 * 1024));
}

#[test]
fn a_line_that_is_longer_than_a_queue_may_be_replaces_all_others() {
    let (queue, counters) = queue(10);
    queue.set_link(Link::Down);
    push(&queue, "a\nb\n");
    queue.set_link(Link::Down);
    push(&queue, &lines("c", 200_000));
    assert_eq!((queue.waiting().fresh, queue.waiting().has_backlog), (1, false));
    assert_eq!(counters.points_dropped.queue_full.get(), 2);
    push(&queue, &format!("d\n{}", lines("e", 200_000)));
    assert_eq!(counters.points_dropped.queue_full.get(), 4);
    assert_eq!(popped(&queue), lines("e", 200_000));
}

#[test]
fn a_push_waits_for_room_where_points_or_bytes_are_too_many() {
    let (queue, _) = queue(1_000);
    assert!(!queue.lock().must_wait(5_000, 1_000_000), "there is nothing to wait for");
    push(&queue, &lines("ab", 50_000));
    let cases = [(998, 28_000, false), (999, 1, true), (1, 28_001, true)];
    for (points, bytes, waits) in cases {
        assert_eq!(queue.lock().must_wait(points, bytes), waits, "{points} {bytes}");
    }
    queue.set_link(Link::Down);
    assert!(!queue.lock().must_wait(5_000, 1_000_000), "it drops the oldest");
}

#[test]
fn a_queue_of_one_point_keeps_the_newest() {
    let (queue, counters) = queue(1);
    queue.set_link(Link::Down);
    for n in 0..100_000 {
        push(&queue, &format!("put m 1 {n} a=b\n"));
    }
    assert_eq!(popped(&queue), "put m 1 99999 a=b\n");
    assert_eq!(counters.points_dropped.queue_full.get(), 99_999);
}

#[test]
fn small_snapshots_share_buffers_also_when_the_connection_comes_and_goes() {
    let (queue, _) = queue(1_000);
    for n in 0..1_000 {
        let mut buffer = queue.buffer();
        buffer.truncate(0);
        buffer.extend_from_slice(b"put m 1 2 a=b\n");
        queue.push(buffer, 1, Instant::now());
        if n % 3 == 0 {
            queue.set_link(Link::Down);
            queue.set_link(Link::Up);
        }
    }
    let batches: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert!(batches.len() <= 2, "{} batches for 14 kB", batches.len());
    assert_eq!(batches.iter().map(Batch::points).sum::<usize>(), 1_000);
}

#[test]
fn only_so_many_buffers_are_kept_and_those_that_hold_a_batch() {
    let (queue, _) = queue(10);
    push(&queue, "a\n");
    let batch = queue.pop().unwrap();
    confirm(&queue, batch);
    assert!(queue.lock().spare.is_empty());
    (0..1_000).for_each(|_| {
        queue.lock().keep_spare(Batch::new(Vec::with_capacity(BATCH_BYTES), 0, 0, Instant::now()));
    });
    let kept = queue.lock().spare.len();
    assert!((1..500).contains(&kept), "{kept}");
}

#[test]
fn after_a_lost_connection_old_and_new_batches_take_turns() {
    let (queue, _) = queue(10_000);
    let batch = |letter| lines(letter, 40_000);
    ["a", "b", "c"].into_iter().for_each(|letter| push(&queue, &batch(letter)));
    queue.set_link(Link::Down);
    queue.set_link(Link::Up);
    ["d", "e"].into_iter().for_each(|letter| push(&queue, &batch(letter)));
    assert_eq!((queue.waiting().fresh, queue.waiting().unsent), (2, 5));
    let order: String = (0..5).filter_map(|_| popped(&queue).chars().next()).collect();
    assert_eq!(order, "adbec");
    assert_eq!(queue.waiting(), Demand::default());
    assert!(queue.pop().is_none());
}

#[test]
fn a_watermark_is_settled_when_nothing_below_it_is_held() {
    let (queue, counters) = queue(10);
    let now = Some(Instant::now());
    push(&queue, "a\n");
    let first = queue.watermark();
    assert!(!queue.wait_settled(first, now));
    let batch = queue.pop().unwrap();
    assert!(!queue.wait_settled(first, now));
    push(&queue, "b\n");
    let second = queue.watermark();
    confirm(&queue, batch);
    assert_law(&counters, 1);
    assert!(queue.wait_settled(first, now));
    assert!(!queue.wait_settled(second, now));
}

#[test]
fn the_age_of_the_oldest_point_covers_lanes_and_flight() {
    let (queue, _) = queue(10);
    let early = Instant::now();
    let late = early + Duration::from_secs(5);
    let age = || queue.stats(late).oldest_pending;
    queue.push(b"a\n".to_vec(), 1, early);
    assert_eq!(age(), Some(late - early));
    let first = queue.pop().unwrap();
    queue.push(b"b\n".to_vec(), 1, late);
    assert_eq!(age(), Some(late - early));
    confirm(&queue, first);
    assert_eq!(age(), Some(Duration::ZERO));
    queue.abandon();
    assert_eq!(age(), None);
}

#[test]
fn abandoned_points_are_dropped_wherever_they_are() {
    let (queue, counters) = queue(10);
    push(&queue, "a\n");
    let in_flight = queue.pop().unwrap();
    queue.set_link(Link::Down);
    push(&queue, "b\n");
    queue.set_link(Link::Down);
    push(&queue, "c\n");
    queue.close();
    queue.abandon();
    assert_law(&counters, 0);
    assert_eq!(counters.points_dropped.shutdown.get(), 3);
    assert_eq!((queue.waiting().unsent, queue.waiting().has_backlog), (0, false));
    // Too late, each of them.
    confirm(&queue, in_flight);
    push(&queue, "d\n");
    queue.abandon();
    queue.finish();
    assert!(!queue.append(b"e\n".into(), Instant::now()));
    assert_law(&counters, 0);
    assert_eq!((counters.points_taken.get(), counters.points_confirmed.get()), (4, 0));
    assert!(queue.lock().given_up.is_empty(), "the writer frees it");
}

#[test]
fn a_writer_that_ends_early_leaves_nothing_pending() {
    let (queue, counters) = queue(10);
    push(&queue, "a\nb\n");
    let in_flight = queue.pop();
    queue.confirm(1, in_flight.iter());
    push(&queue, "c\n");
    queue.finish();
    assert_law(&counters, 0);
    assert_eq!(counters.points_dropped.shutdown.get(), 2);
}

#[test]
fn who_waits_for_a_flush_hears_of_the_end() {
    let (queue, _) = queue(10);
    push(&queue, "a\n");
    let _in_flight = queue.pop();
    let watermark = queue.watermark();
    std::thread::scope(|scope| {
        let waiting = &queue;
        let waiter = scope.spawn(move || waiting.wait_settled(watermark, None));
        until(|| queue.lock().awaited.is_some());
        queue.abandon();
        assert!(waiter.join().unwrap());
    });
}

/// Until another thread has come so far.
fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn sending_is_not_spread_until_all_have_returned_who_wait_for_it() {
    let (queue, _) = queue(10);
    assert!(!queue.waiting().is_expedited);
    let (first, second) = (queue.expedite(), queue.expedite());
    assert!(queue.waiting().is_expedited);
    drop(first);
    assert!(queue.waiting().is_expedited);
    drop(second);
    assert!(!queue.waiting().is_expedited);
}

#[test]
fn raw_points_are_no_snapshot_that_waits() {
    let (queue, _) = queue(10);
    let raw = || assert!(queue.append(b"raw\n".into(), Instant::now()));
    let waits = || [queue.waiting().unsent > 0, queue.risks_snapshot(), queue.is_busy()];
    assert_eq!(waits(), [false, false, false]);
    raw();
    assert_eq!(waits(), [true, false, false]);
    popped(&queue);
    push(&queue, "a\n");
    raw();
    assert_eq!(waits(), [true, true, true]);
    popped(&queue);
    assert_eq!(waits(), [false, false, false]);
    raw();
    assert_eq!(waits(), [true, false, false]);
    popped(&queue);
    push(&queue, "b\n");
    queue.set_link(Link::Down);
    assert_eq!(waits(), [true, true, false], "it waits as a backlog");
}

#[test]
fn a_queue_fills_when_more_than_half_is_used_or_the_flusher_waits() {
    let (queue, _) = queue(4);
    push(&queue, "a\nb\n");
    assert!(!queue.waiting().is_filling);
    push(&queue, "c\n");
    assert!(queue.waiting().is_filling);
    let wakes = count_wakes(&queue);
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| push(&queue, "d\ne\nf\n"));
        until(|| queue.lock().wants_room);
        assert!(queue.waiting().is_filling);
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "the writer hears of it");
        popped(&queue);
        pusher.join().unwrap();
    });
    queue.set_snapshot_points(6);
    assert_eq!((queue.waiting().snapshot_points, queue.waiting().fresh), (6, 3));
}

#[test]
fn bytes_fill_a_queue_like_points() {
    let (queue, _) = queue(1000);
    push(&queue, &lines("ab", 32_000));
    assert!(!queue.waiting().is_filling);
    push(&queue, &lines("c", 1));
    assert!(queue.waiting().is_filling);
}
