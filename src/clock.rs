//! Time, handed in.
//!
//! Nothing else in the crate asks the operating system what time it is, so that a test can say it. Two times are told apart:
//! [`Clock::now`] only goes forward and measures waits; [`Clock::wall`] is the date, may step, and is what a point is stamped with.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a thread reads both times. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The machine's own clocks.
    #[default]
    System,
    /// A clock that a test moves.
    #[cfg(test)]
    Mock(std::sync::Arc<Mock>),
}

impl Clock {
    /// The monotonic time, for waits and ages.
    pub(crate) fn now(&self) -> Instant {
        match self {
            Clock::System => Instant::now(),
            #[cfg(test)]
            Clock::Mock(mock) => mock.start + mock.monotonic(),
        }
    }

    /// The wall clock, as the time since the Unix epoch; a clock set before 1970 reads as the epoch itself.
    pub(crate) fn wall(&self) -> Duration {
        match self {
            Clock::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            #[cfg(test)]
            Clock::Mock(mock) => mock.wall(),
        }
    }
}

/// A clock that stands still until a test moves it.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Mock {
    start: Instant,
    /// Monotonic time since `start` and wall time since the epoch.
    times: std::sync::Mutex<(Duration, Duration)>,
}

#[cfg(test)]
impl Mock {
    /// A clock whose wall time is `wall` since the epoch.
    pub(crate) fn at(wall: Duration) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Mock {
            start: Instant::now(),
            times: std::sync::Mutex::new((Duration::ZERO, wall)),
        })
    }

    /// Lets both times pass.
    pub(crate) fn advance(&self, by: Duration) {
        let mut times = self.times.lock().unwrap();
        times.0 += by;
        times.1 += by;
    }

    /// Sets the wall clock, as NTP or an administrator does.
    pub(crate) fn step_to(&self, wall: Duration) {
        self.times.lock().unwrap().1 = wall;
    }

    fn monotonic(&self) -> Duration {
        self.times.lock().unwrap().0
    }

    fn wall(&self) -> Duration {
        self.times.lock().unwrap().1
    }
}
