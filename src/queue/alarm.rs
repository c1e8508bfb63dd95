//! Wakes the writer if it sleeps.
//!
//! To wake a thread out of its wait for events costs a system call. So who has something for the writer rings, and only the first who
//! rings while it sleeps makes that call. A writer that was rung for while it was awake does not lie down before it has looked again.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU8, Ordering};

/// It will look at the queue before it sleeps.
const AWAKE: u8 = 0;
/// It was rung for since it last got up.
const RUNG: u8 = 1;
/// It waits for events.
const ASLEEP: u8 = 2;

/// See the module.
pub(crate) struct Alarm {
    state: AtomicU8,
    /// Ends the wait for events, and answers whether it could; set once.
    wake: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Alarm { state: AtomicU8::new(AWAKE), wake: OnceLock::new() }
    }

    /// Sets what ends the wait; a second call changes nothing.
    pub(super) fn set(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// There is something to look at.
    pub(super) fn ring(&self) {
        // This and the writer's exchange are in one order: either it sees that it was rung for, or it is seen to sleep.
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP
            && !self.wake.get().is_some_and(|wake| wake())
        {
            // The next who rings tries again. Should the writer be awake by now, it looks once too often.
            let _ = self.state.compare_exchange(RUNG, ASLEEP, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether the writer may wait for events now; if it was rung for, it has to look first.
    pub(crate) fn lie_down(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The writer looks at everything from here on.
    pub(crate) fn get_up(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn only_the_first_ring_wakes_and_one_that_fails_is_tried_again() {
        let (alarm, wakes) = (Alarm::new(), Arc::new(AtomicUsize::new(0)));
        alarm.set({
            let wakes = Arc::clone(&wakes);
            // The second one fails.
            move || wakes.fetch_add(1, Ordering::Relaxed) != 1
        });
        let rung = |times: usize| {
            (0..times).for_each(|_| alarm.ring());
            wakes.load(Ordering::Relaxed)
        };
        assert_eq!(rung(2), 0, "it is awake");
        assert!(!alarm.lie_down(), "it was rung for");
        alarm.get_up();
        assert!(alarm.lie_down());
        assert_eq!(rung(3), 1);
        alarm.get_up();
        assert!(alarm.lie_down());
        assert_eq!(rung(1), 2);
        assert_eq!(rung(2), 3);
        alarm.get_up();
        assert_eq!(rung(2), 3);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::atomic::AtomicBool;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn whoever_rings_is_seen_or_wakes() {
        loom::model(|| {
            let alarm = Arc::new(Alarm::new());
            let woken = Arc::new(AtomicBool::new(false));
            let works = [AtomicBool::new(false), AtomicBool::new(false)];
            let works = Arc::new(works);
            alarm.set({
                let woken = Arc::clone(&woken);
                move || {
                    woken.store(true, Ordering::Relaxed);
                    true
                }
            });
            let ringers: Vec<_> = [0, 1]
                .map(|n| {
                    let (alarm, works) = (Arc::clone(&alarm), Arc::clone(&works));
                    thread::spawn(move || {
                        works[n].store(true, Ordering::Relaxed);
                        alarm.ring();
                    })
                })
                .into();
            alarm.get_up();
            let seen: Vec<bool> = works.iter().map(|work| work.load(Ordering::Relaxed)).collect();
            let sleeps = alarm.lie_down();
            for ringer in ringers {
                ringer.join().unwrap();
            }
            let is_all_seen = seen == [true, true];
            assert!(is_all_seen || !sleeps || woken.load(Ordering::Relaxed));
        });
    }
}
