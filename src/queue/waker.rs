//! Wakes the writer out of its wait for events.
//!
//! To wake a thread costs a system call. The flag saves all but the first call of those between two
//! looks of the writer: whoever has something for it sets the flag, and the writer clears it before
//! it looks. What wakes it is kept by the system (an event, not a notification), so a wake between
//! the look and the wait ends the wait at once.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What ends the wait; returns whether it could.
type Wake = Box<dyn Fn() -> bool + Send + Sync>;

/// See the module.
pub(crate) struct Waker {
    /// Whether the writer was woken since it last looked.
    is_woken: AtomicBool,
    /// Set once.
    wake: OnceLock<Wake>,
}

impl Waker {
    pub(super) fn new() -> Self {
        Waker { is_woken: AtomicBool::new(false), wake: OnceLock::new() }
    }

    /// Sets what ends the wait; a second call changes nothing. The caller looks afterwards.
    pub(super) fn set(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
        self.unpark();
    }

    /// There is something to look at.
    pub(super) fn wake(&self) {
        // Release: pairs with `unpark`, so that the writer sees what it is woken for.
        if !self.is_woken.swap(true, Ordering::AcqRel)
            && !self.wake.get().is_some_and(|wake| wake())
        {
            // The next caller tries again. A swap, so that the writer sees also what others set the
            // flag for in between.
            self.is_woken.swap(false, Ordering::AcqRel);
        }
    }

    /// The writer looks at everything from here on.
    pub(crate) fn unpark(&self) {
        // Acquire: pairs with `wake`.
        self.is_woken.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
impl Waker {
    pub(crate) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn one_call_wakes_for_many_and_one_that_fails_is_tried_again() {
        let (waker, calls) = (Waker::new(), Arc::new(AtomicUsize::new(0)));
        waker.wake();
        waker.set({
            let calls = Arc::clone(&calls);
            // The second one fails.
            move || calls.fetch_add(1, Ordering::Relaxed) != 1
        });
        let calls_after = |times: usize| {
            (0..times).for_each(|_| waker.wake());
            calls.load(Ordering::Relaxed)
        };
        assert_eq!(calls_after(3), 1);
        waker.unpark();
        assert_eq!(calls_after(1), 2);
        assert_eq!(calls_after(2), 3);
        waker.unpark();
        assert_eq!(calls_after(2), 4);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn a_wake_is_seen_or_ends_the_wait() {
        loom::model(|| {
            let waker = Arc::new(Waker::new());
            let is_signalled = Arc::new(AtomicBool::new(false));
            let works = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let wakers: Vec<_> = [0, 1]
                .map(|n| {
                    let (waker, works) = (Arc::clone(&waker), Arc::clone(&works));
                    thread::spawn(move || {
                        works[n].store(true, Ordering::Relaxed);
                        waker.wake();
                    })
                })
                .into();
            waker.set({
                let is_signalled = Arc::clone(&is_signalled);
                move || {
                    is_signalled.store(true, Ordering::Relaxed);
                    true
                }
            });
            let seen: Vec<bool> = works.iter().map(|work| work.load(Ordering::Relaxed)).collect();
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
            assert!(seen == [true, true] || is_signalled.load(Ordering::Relaxed));
        });
    }
}
