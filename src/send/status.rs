//! How a connection ended, whether points are delivered, and what the log says of it.
//!
//! An outage begins with a failure and ends when a server has confirmed something. It is logged
//! when it begins and then once a minute and cause, with the points that wait and those that were
//! dropped. Its end is logged if its beginning was, and so is the first delivery. An outage that
//! begins within a minute of another is logged when the minute is over, if it still lasts.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Wait;
use crate::clock::Instant;
use crate::log_limiter::LogLimiter;
use crate::stats::{Confirmation, Counters};
use crate::wire::reply::Alien;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We closed it, and everything on it is confirmed.
    Finished,
    /// The server closed it, or it broke, after everything on it was confirmed.
    Closed(Failure),
    /// It ended before everything on it was confirmed.
    Failed(Failure),
}

/// An endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {address}")]
pub(crate) struct Unreached {
    /// What failed, as a verb.
    pub(super) action: &'static str,
    pub(crate) address: String,
    pub(crate) source: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("the connection was lost while {during}")]
    Lost { during: &'static str, source: io::Error },
    #[error("the server closed the connection before it had confirmed what was written")]
    Closed,
    #[error("the server {omission} for {time:?}")]
    Unresponsive { omission: &'static str, time: Duration },
    #[error("the server closed in good order without an answer to `version`, long after we did")]
    Silent,
    #[error("{0}")]
    Alien(Alien),
    /// What the server said, and what that means for the wait.
    #[error("{0}")]
    Refused(String, Wait),
}

impl Failure {
    /// What it means for the wait after it.
    pub(super) fn wait(&self) -> Wait {
        match self {
            Failure::Unresponsive { .. } => Wait::AtLeastMin,
            Failure::Refused(_, wait) => *wait,
            _ => Wait::Jittered,
        }
    }

    /// What failed, and why.
    fn with_source(&self) -> String {
        let source = self.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{self}{source}")
    }

    /// The cause by which log lines are limited.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Failure::Unreached(unreached) => unreached.action,
            Failure::Lost { during, .. } => during,
            Failure::Unresponsive { omission, .. } => omission,
            Failure::Refused(..) => "refuse",
            Failure::Closed | Failure::Silent | Failure::Alien(_) => "confirm",
        }
    }
}

#[derive(Debug)]
pub(super) struct Status {
    counters: Arc<Counters>,
    /// What was logged within the last minute, by the server's replies too.
    pub(super) log: LogLimiter,
    /// `None` while points are delivered.
    outage: Option<Outage>,
    /// Whether points were ever delivered.
    has_delivered: bool,
    /// How many points had been dropped for want of room when that was last logged.
    dropped: u64,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// How many points had been dropped for want of room before it.
    dropped: u64,
    is_logged: bool,
}

impl Status {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let log = LogLimiter::default();
        Status { counters, log, outage: None, has_delivered: false, dropped: 0 }
    }

    /// There is no connection, and the next attempt comes in this time.
    pub(super) fn failed(
        &mut self,
        endpoint: &dyn Display,
        failure: &Failure,
        retry_in: Duration,
        now: Instant,
    ) {
        let stats = self.counters.stats();
        let all_dropped = stats.points_dropped.queue_full;
        let outage = self.outage.get_or_insert(Outage {
            since: now,
            dropped: all_dropped,
            is_logged: false,
        });
        if !self.log.should_log(failure.cause(), now) {
            return;
        }
        outage.is_logged = true;
        let (error, points) = (failure.with_source(), stats.points_pending);
        let dropped = all_dropped - outage.dropped;
        let outage = now.saturating_duration_since(outage.since);
        tracing::warn!(%endpoint, error, points, dropped, ?outage, ?retry_in, "cannot deliver points");
    }

    /// An endpoint could not be reached, and another one took the connection.
    pub(super) fn skipped(
        &mut self,
        endpoint: &dyn Display,
        failure: &Failure,
        next: &dyn Display,
        now: Instant,
    ) {
        if self.log.should_log("skip", now) {
            let error = failure.with_source();
            tracing::warn!(%endpoint, error, %next, "an endpoint is away; points go to the next one");
        }
    }

    /// The server has confirmed something.
    pub(super) fn delivered(
        &mut self,
        endpoint: &dyn Display,
        confirmation: Confirmation,
        now: Instant,
    ) {
        let is_first = !std::mem::replace(&mut self.has_delivered, true);
        let Some(outage) = self.outage.take().filter(|outage| outage.is_logged) else {
            if is_first {
                tracing::info!(%endpoint, ?confirmation, "points are delivered");
            }
            return;
        };
        let stats = self.counters.stats();
        let dropped = stats.points_dropped.queue_full - outage.dropped;
        let (points, outage) = (stats.points_pending, now.saturating_duration_since(outage.since));
        tracing::info!(%endpoint, ?confirmation, points, dropped, ?outage, "points are delivered");
    }

    /// Logs how many points have been dropped for want of room since that was last logged.
    pub(super) fn log_drops(&mut self, now: Instant) {
        let dropped = self.counters.points_dropped.queue_full.get();
        if dropped > self.dropped && self.log.should_log("queue full", now) {
            let points = dropped - std::mem::replace(&mut self.dropped, dropped);
            tracing::warn!(points, "the queue is full: its oldest points are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use opentsdb_faults::log::lines_of;

    use super::*;

    /// What is logged by these events, each at its second: whether points arrive.
    fn log_of(events: &[(u64, bool)]) -> Vec<String> {
        let start = Instant::now();
        let counters = Arc::new(Counters::default());
        let mut status = Status::new(Arc::clone(&counters));
        counters.points_taken.add(1_000);
        lines_of(|| {
            for (second, is_delivered) in events {
                let now = start + Duration::from_secs(*second);
                if *is_delivered {
                    status.delivered(&"tsd:4242", Confirmation::Version, now);
                } else {
                    let wait = Duration::from_secs(2);
                    status.failed(&"tsd:4242", &Failure::Closed, wait, now);
                    counters.points_dropped.queue_full.add(10);
                }
            }
        })
    }

    #[test]
    fn an_outage_is_logged_at_its_start_and_each_minute_and_its_end_too() {
        let events = [(0, true), (1, true), (10, false), (40, false), (69, false), (70, false)];
        let lines = log_of(&[&events[..], &[(72, true), (73, true)]].concat());
        let is_as = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(
            is_as(&lines[0], &["message=points are delivered", "endpoint=tsd:4242"]),
            "{lines:#?}"
        );
        let error = Failure::Closed.to_string();
        let start = ["message=cannot deliver points", "points=1000", "dropped=0", "outage=0ns"];
        assert!(is_as(&lines[1], &start) && is_as(&lines[1], &[&error]), "{lines:#?}");
        assert!(is_as(&lines[2], &["points=970", "dropped=30", "outage=60s"]), "{lines:#?}");
        assert!(
            is_as(&lines[3], &["points are delivered", "dropped=40", "outage=62s"]),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_recovery_within_a_minute_of_the_last_is_logged() {
        let lines = log_of(&[(0, false), (50, true), (61, false), (62, true)]);
        let recoveries = lines.iter().filter(|line| line.contains("are delivered")).count();
        assert_eq!((lines.len(), recoveries), (4, 2), "{lines:#?}");
    }

    #[test]
    fn a_network_that_flaps_is_logged_once_a_minute() {
        let events: Vec<_> = (0..120).map(|second| (second, second % 2 == 1)).collect();
        let lines = log_of(&events);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[3].contains("are delivered"), "{lines:#?}");
    }

    #[test]
    fn an_endpoint_that_is_away_while_another_one_is_there_is_logged_once_a_minute() {
        let start = Instant::now();
        let mut status = Status::new(Arc::default());
        let lines = lines_of(|| {
            for second in 0..=60 {
                let source = io::ErrorKind::ConnectionRefused.into();
                let address = "10.0.0.1:4242".to_owned();
                let unreached = Unreached { action: "connect to", address, source };
                let now = start + Duration::from_secs(second);
                status.skipped(&"tsd1:4242", &unreached.into(), &"tsd2:4242", now);
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        let words = ["endpoint=tsd1:4242", "10.0.0.1:4242: connection refused", "next=tsd2:4242"];
        assert!(words.iter().all(|word| lines[0].contains(word)), "{lines:#?}");
    }

    #[test]
    fn dropped_points_are_logged_once_a_minute_with_their_number() {
        let start = Instant::now();
        let counters = Arc::new(Counters::default());
        let mut status = Status::new(Arc::clone(&counters));
        let lines = lines_of(|| {
            for second in 0..=60 {
                counters.points_dropped.queue_full.add(u64::from(second < 50));
                status.log_drops(start + Duration::from_secs(second));
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("points=1") && lines[1].contains("points=49"), "{lines:#?}");
    }
}
