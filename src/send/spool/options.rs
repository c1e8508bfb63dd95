//! What the user says of the spool.

use std::path::PathBuf;
use std::time::Duration;

/// The most bytes on disk, unless set.
const MAX_BYTES: u64 = 1 << 30;
/// The age at which points are dropped, unless set: a week.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A directory that keeps what memory has no room for; given to
/// [`with_spool`](crate::OpenTsdbBuilder::with_spool).
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use metrics_exporter_opentsdb::{OpenTsdbBuilder, Spool};
///
/// let spool = Spool::new("/var/lib/checkout/metrics")
///     .max_bytes(100 << 20)
///     .max_age(Duration::from_secs(24 * 3600));
/// let handle = OpenTsdbBuilder::new("tsd").with_spool(spool).install()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a spool is used by the exporter that it is given to: `with_spool`"]
pub struct Spool {
    pub(crate) directory: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) max_age: Duration,
    pub(crate) write_ahead: bool,
}

impl Spool {
    /// In this directory, which is made, for this user alone, if it is not there. One exporter can
    /// use it at a time; what it finds there it delivers, whoever left it.
    ///
    /// Choose a disk that outlives what the spool is to bridge: a restart of the process, of the
    /// container, or of the machine. One that exists has to belong to the user of the process and
    /// be writable for no other, so name a new directory in a shared one.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Spool {
            directory: directory.into(),
            max_bytes: MAX_BYTES,
            max_age: MAX_AGE,
            write_ahead: false,
        }
    }

    /// Sets how many bytes there may be on disk; a point takes some 80. Beyond it the oldest points
    /// are dropped, a segment of up to 4 MiB or an eighth of it at a time, and counted
    /// (`points_dropped.spool`). With less than a MiB there may be no room for one batch. Defaults
    /// to 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the age at which points on disk are dropped instead of sent, and counted
    /// (`points_dropped.spool`). They go a segment at a time, so that some are up to an eighth of
    /// it younger. Defaults to a week.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets whether each snapshot is written to disk before it is sent, so that a process that is
    /// killed loses at most what it recorded since the last snapshot. That costs a write and an
    /// `fsync` for each snapshot. Off, the disk is idle while the server is there, and a killed
    /// process loses what is in memory. Defaults to off.
    pub fn write_ahead(mut self, write_ahead: bool) -> Self {
        self.write_ahead = write_ahead;
        self
    }
}
