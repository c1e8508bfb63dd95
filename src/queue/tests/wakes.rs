//! When the writer is woken.

use super::*;

/// Counts how often the writer is woken.
pub(in crate::queue) fn count_wakes(queue: &Queue) -> Arc<AtomicUsize> {
    let wakes = Arc::new(AtomicUsize::new(0));
    queue.set_waker({
        let wakes = Arc::clone(&wakes);
        move || {
            wakes.fetch_add(1, Ordering::Relaxed);
            true
        }
    });
    wakes
}

#[test]
fn in_the_midst_of_a_snapshot_the_writer_is_woken_for_much_for_raw_points_and_at_its_end() {
    let (queue, _) = queue(10_000_000);
    let wakes = count_wakes(&queue);
    let batch = "a\n".repeat(BATCH_BYTES / 2);
    for batches in [1, 7, 8, 15] {
        let before = wakes.load(Ordering::Relaxed);
        let cork = queue.cork();
        (0..batches).for_each(|_| push(&queue, &batch));
        assert_eq!(wakes.load(Ordering::Relaxed) - before, batches / 8, "{batches} batches");
        queue.waker().unpark();
        assert!(queue.append(b"a\n".into(), Instant::now()));
        queue.waker().unpark();
        drop(cork);
        let raw_and_end = 2;
        assert_eq!(wakes.load(Ordering::Relaxed) - before, batches / 8 + raw_and_end);
        queue.waker().unpark();
        while queue.pop().is_some() {}
    }
    push(&queue, "a\n");
    queue.waker().unpark();
    assert_eq!(wakes.load(Ordering::Relaxed), 2 + 4 * 2 + 1, "no snapshot is under way");
}

#[test]
fn the_writer_is_woken_for_the_first_batch_that_waits() {
    let (queue, _) = queue(10);
    let wakes = count_wakes(&queue);
    let wakes_after = |pushes: usize| {
        (0..pushes).for_each(|_| push(&queue, "a\n"));
        wakes.load(Ordering::Relaxed)
    };
    assert_eq!(wakes_after(2), 1);
    queue.waker().unpark();
    assert_eq!(wakes_after(1), 1, "it was woken for what waits already");
    while queue.pop().is_some() {}
    assert_eq!(wakes_after(1), 2);
    queue.waker().unpark();
    while queue.pop().is_some() {}
    assert!(queue.append(b"a\n".into(), Instant::now()));
    assert_eq!(wakes_after(0), 3);
    queue.waker().unpark();
    assert!(queue.append(b"a\n".into(), Instant::now()));
    assert_eq!(wakes_after(0), 3);
    queue.close();
    assert_eq!(wakes_after(0), 4);
}
