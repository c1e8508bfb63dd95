//! What the exporter did, counted.
//!
//! Each thread adds to the [`Counters`]; a user reads one [`Stats`]. The law `points_taken =
//! points_confirmed + points_pending + points_dropped.total() + points_spooled` holds in every
//! reading, because `points_pending` is what the others leave over, and because a point is counted
//! as taken before it can be counted as anything else.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crate::sync::unmodelled::AtomicU64;

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
    /// An answer of 2xx to each request: how every `http://` and `https://` endpoint confirms,
    /// whatever is set here, unless that is [`Stored`](Self::Stored). It proves what the server
    /// means by it: OpenTSDB, VictoriaMetrics and InfluxDB have parsed the points then.
    Response,
    /// For `http://` and `https://` endpoints of an OpenTSDB: asks it to answer when it has stored
    /// the points (`?sync`), and has it give up before the exporter does. A point that is not
    /// stored is sent again, not counted as rejected; what a TSD refuses for good is.
    Stored,
}

/// Declares a reading for the user, and the counters that the threads add to and it is taken from.
macro_rules! counted {
    ($(#[$about:meta])* $Reading:ident = $Counters:ident {
        $($(#[$doc:meta])* $name:ident: $Type:ty = $Counter:ty,)*
    }) => {
        $(#[$about])*
        #[non_exhaustive]
        pub struct $Reading {
            $($(#[$doc])* pub $name: $Type,)*
        }

        #[doc = concat!("The counters behind [`", stringify!($Reading), "`].")]
        #[derive(Debug, Default)]
        pub(crate) struct $Counters {
            $(pub(crate) $name: $Counter,)*
        }

        impl Read<$Reading> for $Counters {
            fn read(&self) -> $Reading {
                $Reading { $($name: self.$name.read(),)* }
            }
        }
    };
}

/// As [`counted`], for counts of one thing by its cause.
macro_rules! counted_by_cause {
    ($(#[$about:meta])* $Reading:ident = $Counters:ident {
        $($(#[$doc:meta])* $name:ident,)*
    }) => {
        counted! {
            $(#[$about])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            $Reading = $Counters { $($(#[$doc])* $name: u64 = Count,)* }
        }

        impl $Reading {
            /// All of them.
            pub fn total(&self) -> u64 {
                self.by_cause().map(|(_, count)| count).sum()
            }

            /// Each cause with its count.
            pub(crate) fn by_cause(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counted_by_cause! {
    /// Points that were never parsed by a server, by cause.
    Drops = DropCounters {
        /// The oldest points of a full queue.
        queue_full,
        /// The line is longer than the server reads; see [`Flavor`](crate::Flavor). Of a key, each
        /// look-up counts as a point that was taken and dropped.
        too_long,
        /// NaN or an infinity, which no server stores.
        not_finite,
        /// Raw points refused with [`SendError::Duplicate`](crate::SendError::Duplicate): a second
        /// one of a series and time would make an OpenTSDB row unreadable.
        duplicate,
        /// Not confirmed when [`shutdown`](crate::OpenTsdbHandle::shutdown) ran out of time, or
        /// 30 s after the last handle and the recorder were dropped.
        shutdown,
        /// On disk and too old, or more than the spool may hold. Always 0 without the feature
        /// `spool`.
        spool,
    }
}

counted_by_cause! {
    /// Points that the server parsed and refused, by the kind of its reply. They are among the
    /// confirmed ones.
    Rejections = RejectionCounters {
        /// `put: illegal argument: …`
        illegal_argument,
        /// `put: invalid value: …`
        invalid_value,
        /// `put: unknown metric: …`: the server creates no metrics by itself
        /// (`tsd.core.auto_create_metrics`).
        unknown_metric,
        /// `put: HBase error: …` and `put: Request timed out: …`
        storage,
        /// `put: Please throttle writes: …` and `put: Throttling exception: …`
        throttled,
        /// `unknown command: put`, the reply of a read-only TSD.
        unknown_command,
        /// Any other reply, also of a peer that is no TSD: then more than there are points.
        other,
    }
}

counted! {
    /// One reading of every counter of the exporter, taken by
    /// [`OpenTsdbHandle::stats`](crate::OpenTsdbHandle::stats).
    ///
    /// In each reading `points_taken = points_confirmed + points_pending + points_dropped.total()`,
    /// and without a spool that is all. With one, a point that moves from memory to disk is no
    /// longer of this account: it is counted in `points_spooled`, and taken anew when it is read
    /// back, by this process or by another one. So then `points_taken = points_confirmed +
    /// points_pending + points_dropped.total() + points_spooled`, and `points_spooled` is not what
    /// is on disk now, but what was ever moved there.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    Stats = Counters {
        /// Points that a snapshot or `send` made, those dropped before the wire included, and those
        /// that were read back from the spool.
        points_taken: u64 = Count,
        /// Points written to a socket; one that is sent again counts again.
        points_sent: u64 = Count,
        /// Points that the server has parsed.
        points_confirmed: u64 = Count,
        /// Points that wait in the queue, or were written and are not confirmed yet.
        points_pending: u64 = Derived,
        /// Points written once more after a connection was lost.
        points_resent: u64 = Count,
        /// Points that were given up, by cause.
        points_dropped: Drops = DropCounters,
        /// Points moved from memory to the spool: what the queue had no room for, and what was left
        /// at the shutdown. Always 0 without the feature `spool`, as is what follows of it.
        points_spooled: u64 = Count,
        /// Points that the server refused, by kind of reply.
        points_rejected: Rejections = RejectionCounters,
        /// Bytes written to sockets.
        bytes_sent: u64 = Count,
        /// Snapshots left out because the one before was still being sent.
        ticks_skipped: u64 = Count,
        /// Connections that were made.
        connects: u64 = Count,
        /// Attempts to connect, resolving included, that reached no endpoint.
        connect_failures: u64 = Count,
        /// Connections that ended otherwise than by our own orderly close: lost, given up, or
        /// closed by the server.
        disconnects: u64 = Count,
        /// Whether points flow: there is a connection, or the last one was closed in good order
        /// when everything on it was confirmed, as after each burst of [`Confirmation::HalfClose`].
        connected: bool = AtomicBool,
        /// How points are confirmed now, never [`Confirmation::Auto`]; `None` until that is known.
        confirmation: Option<Confirmation> = InForce,
        /// The age of the oldest pending point.
        oldest_pending: Option<Duration> = Derived,
        /// Bytes that the spool has on disk.
        spool_bytes: u64 = Count,
        /// Times that the spool could not write or read: a disk that is full, a record, a line or a
        /// file that is damaged.
        spool_errors: u64 = Count,
        /// The time since the oldest part of the spool was written.
        oldest_spooled: Option<Duration> = Derived,
        /// Series that are known.
        series: u64 = Count,
        /// Keys that became the same series as another key when they were cleaned.
        series_merged: u64 = Count,
        /// Idle series that are not sent, see
        /// [`idle_timeout`](crate::OpenTsdbBuilder::idle_timeout).
        series_dormant: u64 = Count,
        /// Idle series that were forgotten.
        series_evicted: u64 = Count,
        /// Keys, counted at each look-up, that were recorded in an `overflow=true` series of their
        /// metric, or nowhere once there are too many of these.
        series_overflow: u64 = Count,
        /// Keys that were not taken, because another metric writes lines of their name or their
        /// line is too long: counted at each look-up.
        series_refused: u64 = Count,
        /// Tags left out because a series had more than it may.
        tags_dropped: u64 = Count,
        /// Times that the wall clock stepped.
        clock_steps: u64 = Count,
        /// Panics on the exporter's own threads, each of which went on: in
        /// [`on_snapshot`](crate::OpenTsdbBuilder::on_snapshot), or in a log subscriber.
        restarts: u64 = Count,
    }
}

/// A counter that can be read.
trait Read<T> {
    fn read(&self) -> T;
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

impl Read<u64> for Count {
    fn read(&self) -> u64 {
        self.get()
    }
}

impl Read<bool> for AtomicBool {
    fn read(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

/// The [`Confirmation`] in force, as a number.
#[derive(Debug, Default)]
pub(crate) struct InForce(AtomicU8);

impl Read<Option<Confirmation>> for InForce {
    fn read(&self) -> Option<Confirmation> {
        use Confirmation::{HalfClose, Response, Stored, Version, Written};
        [Version, HalfClose, Written, Response, Stored]
            .into_iter()
            .find(|&confirmation| confirmation as u8 == self.0.load(Ordering::Relaxed))
    }
}

/// What is worked out when the counters have been read.
#[derive(Debug, Default)]
pub(crate) struct Derived;

impl<T: Default> Read<T> for Derived {
    fn read(&self) -> T {
        T::default()
    }
}

impl Counters {
    /// Says which way of confirming is in force.
    pub(crate) fn set_confirmation(&self, confirmation: Confirmation) {
        self.confirmation.0.store(confirmation as u8, Ordering::Relaxed);
    }

    /// All counters now, but for the ages: only the queue knows them.
    pub(crate) fn stats(&self) -> Stats {
        let stats: Stats = self.read();
        // Read last, since it grows first: so the difference is never negative.
        let points_taken = self.points_taken.get();
        let settled = stats.points_confirmed + stats.points_dropped.total() + stats.points_spooled;
        Stats { points_taken, points_pending: points_taken.saturating_sub(settled), ..stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_is_what_confirmed_and_dropped_leave_over() {
        let counters = Counters::default();
        counters.points_taken.add(10);
        counters.points_confirmed.add(4);
        counters.points_dropped.queue_full.add(1);
        counters.points_dropped.shutdown.add(2);
        counters.points_spooled.add(1);
        let stats = counters.stats();
        assert_eq!(stats.points_pending, 2);
        assert_eq!(
            stats.points_taken,
            stats.points_confirmed
                + stats.points_pending
                + stats.points_dropped.total()
                + stats.points_spooled
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
