//! What the exporter did, counted.
//!
//! Each thread adds to the [`Counters`]; a user reads one [`Stats`]. The law `points_taken =
//! points_confirmed + points_pending + points_dropped.total()` holds in every reading, because
//! `points_pending` is what the others leave over, and because a point is counted as taken before
//! it can be counted as confirmed or dropped.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// How the exporter knows that the server has parsed a point; set by
/// [`with_confirmation`](crate::OpenTsdbBuilder::with_confirmation).
///
/// What is confirmed was parsed, not stored. What a mode proves depends on what is between the
/// exporter and the server, and on the system that the exporter runs on:
///
/// | | [`Version`](Self::Version) | [`HalfClose`](Self::HalfClose) | [`Auto`](Self::Auto) | [`Written`](Self::Written) |
/// |---|---|---|---|---|
/// | OpenTSDB, InfluxDB, KairosDB | parsed | parsed | parsed | nothing |
/// | VictoriaMetrics | confirms nothing | parsed | parsed | nothing |
/// | a server that is no TSD but replies (HTTP, TLS, …) | confirms nothing | confirms nothing | confirms nothing | nothing |
/// | one that reads and never replies (netcat) | confirms nothing | nothing | nothing | nothing |
/// | a TCP proxy (HAProxy, a load balancer) before a server that answers `version` | parsed | the proxy has read it, and may lose it while its server is away | parsed; in the first 2 s of an outage that begins before the first answer, as `HalfClose` by chance | nothing |
/// | the same before VictoriaMetrics | confirms nothing | the proxy has read it | as `HalfClose` | nothing |
/// | on Linux, macOS and BSD | as above | as above | as above | as above |
/// | on Windows and gVisor | as above | no reset came within 2 s of the server's end | as `HalfClose` where the server does not answer `version` | as above |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// Asks `version` behind the first points. An endpoint that answers is confirmed by
    /// [`Version`](Self::Version) from then on. One that has not answered within 2 s, and closes
    /// when the exporter does, is confirmed by [`HalfClose`](Self::HalfClose) until it is asked
    /// again: after 10 minutes, or after a failure. An endpoint that has answered counts as silent
    /// no sooner than 10 minutes after its last answer. The default.
    #[default]
    Auto,
    /// Sends `version` behind the points. A server handles one connection in order, so its answer
    /// proves that everything before was parsed. OpenTSDB, InfluxDB and KairosDB answer;
    /// VictoriaMetrics does not.
    Version,
    /// Ends a burst of points with a half-close and waits for the server to close its side, which
    /// every server does only when it has read everything. Each burst needs a connection of its
    /// own.
    HalfClose,
    /// Believes the kernel: what `write` took counts as confirmed. When a connection is reset
    /// points are lost unseen, as with every other client of this protocol.
    Written,
}

/// Points that were never parsed by a server, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// The oldest points of a full queue.
    pub queue_full: u64,
    /// The line is longer than the server reads; see [`Flavor`](crate::Flavor).
    pub too_long: u64,
    /// NaN or an infinity, which no server stores.
    pub not_finite: u64,
    /// Raw points refused with [`SendError::Duplicate`](crate::SendError::Duplicate): a second one
    /// of a series and time would make an OpenTSDB row unreadable.
    pub duplicate: u64,
    /// Not confirmed when [`shutdown`](crate::OpenTsdbHandle::shutdown) ran out of time, or 30 s
    /// after the last handle and the recorder were dropped.
    pub shutdown: u64,
}

impl Drops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.queue_full + self.too_long + self.not_finite + self.duplicate + self.shutdown
    }
}

/// Points that the server parsed and refused, by the kind of its reply. They are among the
/// confirmed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejections {
    /// `put: illegal argument: …`
    pub illegal_argument: u64,
    /// `put: invalid value: …`
    pub invalid_value: u64,
    /// `put: unknown metric: …`: the server creates no metrics by itself
    /// (`tsd.core.auto_create_metrics`).
    pub unknown_metric: u64,
    /// `put: HBase error: …` and `put: Request timed out: …`
    pub storage: u64,
    /// `put: Please throttle writes: …` and `put: Throttling exception: …`
    pub throttled: u64,
    /// `unknown command: put`, the reply of a read-only TSD.
    pub unknown_command: u64,
    /// Any other reply.
    pub other: u64,
}

impl Rejections {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.illegal_argument
            + self.invalid_value
            + self.unknown_metric
            + self.storage
            + self.throttled
            + self.unknown_command
            + self.other
    }
}

/// One reading of every counter of the exporter, taken by
/// [`OpenTsdbHandle::stats`](crate::OpenTsdbHandle::stats).
///
/// In each reading `points_taken = points_confirmed + points_pending + points_dropped.total()`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Points that a snapshot or `send` made, those dropped before the wire included.
    pub points_taken: u64,
    /// Points written to a socket; one that is sent again counts again.
    pub points_sent: u64,
    /// Points that the server has parsed.
    pub points_confirmed: u64,
    /// Points that wait in the queue, or were written and are not confirmed yet.
    pub points_pending: u64,
    /// Points written once more after a connection was lost.
    pub points_resent: u64,
    /// Points that were given up, by cause.
    pub points_dropped: Drops,
    /// Points that the server refused, by kind of reply.
    pub points_rejected: Rejections,
    /// Bytes written to sockets.
    pub bytes_sent: u64,
    /// Snapshots left out because the one before was still being sent.
    pub ticks_skipped: u64,
    /// Connections that were made.
    pub connects: u64,
    /// Attempts to connect, resolving included, that failed.
    pub connect_failures: u64,
    /// Connections that ended otherwise than by our own orderly close: lost, given up, or closed by
    /// the server.
    pub disconnects: u64,
    /// Whether there is a connection, or the last one ended by our own orderly close, as each burst
    /// of [`Confirmation::HalfClose`] does.
    pub connected: bool,
    /// How points are confirmed now, never [`Confirmation::Auto`]; `None` until that is known.
    pub confirmation: Option<Confirmation>,
    /// The age of the oldest pending point.
    pub oldest_pending: Option<Duration>,
    /// Series that are known.
    pub series: u64,
    /// Keys that became the same series as another key when they were cleaned.
    pub series_merged: u64,
    /// Idle series that are not sent, see [`idle_timeout`](crate::OpenTsdbBuilder::idle_timeout).
    pub series_dormant: u64,
    /// Idle series that were forgotten.
    pub series_evicted: u64,
    /// Keys, counted at each look-up, that were recorded in an `overflow=true` series of their
    /// metric, or nowhere once there are too many of these.
    pub series_overflow: u64,
    /// Keys that were not taken because another kind of metric has their name and tags already:
    /// counted at each look-up.
    pub series_refused: u64,
    /// Tags left out because a series had more than it may.
    pub tags_dropped: u64,
    /// Times that the wall clock stepped.
    pub clock_steps: u64,
    /// Panics of the exporter's own threads, each of which went on.
    pub restarts: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters that the threads add to; [`Counters::stats`] reads them.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Count,)*
            /// As in [`Stats`].
            pub(crate) connected: AtomicBool,
            /// The [`Confirmation`] in force, coded by [`confirmation_code`].
            confirmation: AtomicU8,
        }
    };
}

counters! {
    points_taken, points_sent, points_confirmed, points_resent, bytes_sent,
    dropped_queue_full, dropped_too_long, dropped_not_finite, dropped_duplicate, dropped_shutdown,
    rejected_illegal_argument, rejected_invalid_value, rejected_unknown_metric, rejected_storage, rejected_throttled,
    rejected_unknown_command, rejected_other,
    ticks_skipped, connects, connect_failures, disconnects,
    series, series_merged, series_dormant, series_evicted, series_overflow, series_refused, tags_dropped, clock_steps, restarts,
}

/// A number that several threads add to.
///
/// Sequentially consistent, since a reading compares several of them; they change per batch, never
/// per update of a metric.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Counters {
    /// Says which way of confirming is in force.
    pub(crate) fn set_confirmation(&self, confirmation: Confirmation) {
        self.confirmation.store(confirmation_code(confirmation), Ordering::Relaxed);
    }

    /// All counters now, `oldest_pending` still empty: only the queue knows it.
    pub(crate) fn stats(&self) -> Stats {
        // Read before `points_taken`, which grows first: so the difference below is never negative.
        let points_confirmed = self.points_confirmed.get();
        let points_dropped = self.drops();
        let points_taken = self.points_taken.get();
        Stats {
            points_taken,
            points_sent: self.points_sent.get(),
            points_confirmed,
            points_pending: points_taken.saturating_sub(points_confirmed + points_dropped.total()),
            points_resent: self.points_resent.get(),
            points_dropped,
            points_rejected: self.rejections(),
            bytes_sent: self.bytes_sent.get(),
            ticks_skipped: self.ticks_skipped.get(),
            connects: self.connects.get(),
            connect_failures: self.connect_failures.get(),
            disconnects: self.disconnects.get(),
            connected: self.connected.load(Ordering::Relaxed),
            confirmation: decode_confirmation(self.confirmation.load(Ordering::Relaxed)),
            oldest_pending: None,
            series: self.series.get(),
            series_merged: self.series_merged.get(),
            series_dormant: self.series_dormant.get(),
            series_evicted: self.series_evicted.get(),
            series_overflow: self.series_overflow.get(),
            series_refused: self.series_refused.get(),
            tags_dropped: self.tags_dropped.get(),
            clock_steps: self.clock_steps.get(),
            restarts: self.restarts.get(),
        }
    }

    fn drops(&self) -> Drops {
        Drops {
            queue_full: self.dropped_queue_full.get(),
            too_long: self.dropped_too_long.get(),
            not_finite: self.dropped_not_finite.get(),
            duplicate: self.dropped_duplicate.get(),
            shutdown: self.dropped_shutdown.get(),
        }
    }

    fn rejections(&self) -> Rejections {
        Rejections {
            illegal_argument: self.rejected_illegal_argument.get(),
            invalid_value: self.rejected_invalid_value.get(),
            unknown_metric: self.rejected_unknown_metric.get(),
            storage: self.rejected_storage.get(),
            throttled: self.rejected_throttled.get(),
            unknown_command: self.rejected_unknown_command.get(),
            other: self.rejected_other.get(),
        }
    }
}

fn confirmation_code(confirmation: Confirmation) -> u8 {
    match confirmation {
        Confirmation::Auto => 0,
        Confirmation::Version => 1,
        Confirmation::HalfClose => 2,
        Confirmation::Written => 3,
    }
}

fn decode_confirmation(code: u8) -> Option<Confirmation> {
    [Confirmation::Version, Confirmation::HalfClose, Confirmation::Written]
        .into_iter()
        .find(|&confirmation| confirmation_code(confirmation) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_is_what_confirmed_and_dropped_leave_over() {
        let counters = Counters::default();
        counters.points_taken.add(10);
        counters.points_confirmed.add(4);
        counters.dropped_queue_full.add(1);
        counters.dropped_shutdown.add(2);
        let stats = counters.stats();
        assert_eq!(stats.points_pending, 3);
        assert_eq!(
            stats.points_taken,
            stats.points_confirmed + stats.points_pending + stats.points_dropped.total()
        );
    }

    #[test]
    fn a_confirmation_in_force_is_never_auto() {
        let counters = Counters::default();
        assert_eq!(counters.stats().confirmation, None);
        for confirmation in [Confirmation::Version, Confirmation::HalfClose, Confirmation::Written]
        {
            counters.set_confirmation(confirmation);
            assert_eq!(counters.stats().confirmation, Some(confirmation));
        }
        counters.set_confirmation(Confirmation::Auto);
        assert_eq!(counters.stats().confirmation, None);
    }
}
