//! The synchronisation primitives of the cells and the queue, exchanged for loom's models under
//! `--cfg loom`; on targets without atomics of 64 bits those are portable-atomic's, as the facade's
//! are.
//!
//! `Arc` is std's in the models too: loom's has no `Weak`, which the caches of threads live by. So
//! a model sees the steps of its counts only where it puts one of its own beside them.
//!
//! A lock here guards a few plain fields and is never held across anything that can panic in the
//! middle of an update, so a poisoned one is taken as it is: a metric must not spread another
//! thread's panic.

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread::yield_now,
};
#[cfg(loom)]
pub(crate) use once::OnceLock;
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Condvar, Mutex, MutexGuard, OnceLock},
    thread::yield_now,
};

#[cfg(not(loom))]
pub(crate) use unmodelled as atomic;

/// Never loom's: for what is in no model.
pub(crate) mod unmodelled {
    #[cfg(not(target_has_atomic = "64"))]
    pub(crate) use portable_atomic::AtomicU64;
    #[cfg(target_has_atomic = "64")]
    pub(crate) use std::sync::atomic::AtomicU64;
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

/// Locks, also after a holder has panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Loom has no `OnceLock` and does not see what std's publishes; a flag beside it shows it.
#[cfg(loom)]
mod once {
    use loom::sync::atomic::{AtomicBool, Ordering};

    pub(crate) struct OnceLock<T> {
        inner: std::sync::OnceLock<T>,
        is_set: AtomicBool,
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            OnceLock::new()
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            OnceLock { inner: std::sync::OnceLock::new(), is_set: AtomicBool::new(false) }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.is_set.load(Ordering::Acquire).then(|| self.inner.get()).flatten()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let result = self.inner.set(value);
            match &result {
                Ok(()) => self.is_set.store(true, Ordering::Release),
                // Like std's, it returns once the value is there.
                Err(_) => {
                    while self.get().is_none() {
                        loom::thread::yield_now();
                    }
                }
            }
            result
        }
    }
}
