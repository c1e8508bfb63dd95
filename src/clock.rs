//! Time, handed in.
//!
//! Nothing else in the crate asks the operating system what time it is, so that a test can say it.
//! Two times are told apart: [`Clock::now`] only goes forward and measures waits; [`Clock::wall`]
//! is the date, may step, and is what a point is stamped with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use quanta::Instant;

/// Where a thread reads both times. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    monotonic: quanta::Clock,
    /// The date since the epoch, when a test sets it.
    #[cfg(test)]
    wall: Option<std::sync::Arc<std::sync::Mutex<Duration>>>,
}

impl Clock {
    /// The monotonic time, for waits and ages.
    pub(crate) fn now(&self) -> Instant {
        self.monotonic.now()
    }

    /// The wall clock, as the time since the Unix epoch; a clock set before 1970 reads as the epoch
    /// itself.
    pub(crate) fn wall(&self) -> Duration {
        #[cfg(test)]
        if let Some(wall) = &self.wall {
            return *wall.lock().unwrap();
        }
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// A clock that stands still until a test moves it, and what moves it.
    #[cfg(test)]
    pub(crate) fn mock(wall: Duration) -> (Self, Mock) {
        let (monotonic, mock) = quanta::Clock::mock();
        // Not at its zero, so that a test can look at times before the first one.
        mock.increment(Duration::from_secs(24 * 3600));
        let wall = std::sync::Arc::new(std::sync::Mutex::new(wall));
        (
            Clock { monotonic, wall: Some(std::sync::Arc::clone(&wall)) },
            Mock { monotonic: mock, wall },
        )
    }
}

/// Moves a clock of [`Clock::mock`].
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Mock {
    monotonic: std::sync::Arc<quanta::Mock>,
    wall: std::sync::Arc<std::sync::Mutex<Duration>>,
}

#[cfg(test)]
impl Mock {
    /// Lets both times pass.
    pub(crate) fn advance(&self, by: Duration) {
        self.monotonic.increment(by);
        *self.wall.lock().unwrap() += by;
    }

    /// Sets the wall clock, as NTP or an administrator does.
    pub(crate) fn step_to(&self, wall: Duration) {
        *self.wall.lock().unwrap() = wall;
    }
}
