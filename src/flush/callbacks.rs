//! What the application does before each snapshot, on the flusher's thread.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// In the order in which they are called. The clones of a builder share them.
#[derive(Clone, Default)]
pub(crate) struct Callbacks(Vec<Arc<Mutex<dyn FnMut() + Send>>>);

impl Callbacks {
    pub(crate) fn add(&mut self, callback: impl FnMut() + Send + 'static) {
        self.0.push(Arc::new(Mutex::new(callback)));
    }

    /// Calls each one; returns what those that panicked said.
    pub(super) fn call(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|callback| {
            // Left out while another exporter calls it, which it may make wait for this one.
            let mut callback = callback.try_lock().ok()?;
            catch_unwind(AssertUnwindSafe(&mut *callback)).err().map(|panic| message(&*panic))
        })
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} callbacks", self.0.len())
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default().into()
}
