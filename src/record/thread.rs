//! The number of a thread, by which a cell knows the thread that owns it.
//!
//! Threads are numbered from 1 as they first ask; 0 stands for none. The thread-local has no
//! destructor, so a thread can read its number while it is torn down.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::sync::unmodelled::AtomicU64;

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread, or 0 if it has none yet.
#[inline]
pub(crate) fn thread_number() -> u64 {
    NUMBER.with(Cell::get)
}

/// The number of this thread, assigned now if it has none.
pub(crate) fn ensure_thread_number() -> u64 {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
