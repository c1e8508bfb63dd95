//! The synchronisation primitives of the cells, exchanged for loom's models under `--cfg loom`.
//!
//! A lock here guards a few plain fields and is never held across anything that can panic in the middle of an update, so a
//! poisoned one is taken as it is: a metric must not spread another thread's panic.

#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
