//! The directory: ours alone, locked, with a file for each segment.
//!
//! Who can write into it can have anything sent that is a point, and who can read it reads all
//! metrics. So it is made for this user alone, refused where others may write, and no symbolic link
//! in it is followed. What it holds beside segments is left alone.
//!
//! The lock is on a file of its own that says who holds it. It belongs to the open file, not to the
//! process: two exporters of one process exclude each other too, and a child that was forked keeps
//! it until the exporter ends, which unlocks it for all, or until the child ends.
//!
//! Windows has no such modes, and locks a file by not sharing it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Behind the number of a segment, in the name of its file.
const SUFFIX: &str = ".spool";
/// How many digits a number has in a name.
const DIGITS: usize = 20;
/// The name of the file that is locked.
const LOCK: &str = "lock";

/// Open, and ours until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    #[cfg_attr(not(unix), expect(dead_code, reason = "its lock lasts as long as it is open"))]
    lock: File,
}

impl Directory {
    /// Makes it if it is not there, and locks it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Behind a slash at its end a link would be followed.
        let path: PathBuf = std::path::absolute(path)?.components().collect();
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&path)?;
        if !is_private(&fs::symlink_metadata(&path)?) {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "it has to be a directory, no link, that belongs to this user and that no other \
                 may write to; name one in it that is not there yet",
            ));
        }
        let lock = lock(&path.join(LOCK))?;
        Ok(Directory { path, lock })
    }

    /// The number of each segment, its length, and when it was last written as the time since the
    /// Unix epoch; in the order of the numbers.
    pub(super) fn segments(&self) -> io::Result<Vec<(u64, u64, Duration)>> {
        let segment = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let number = number(entry.file_name().to_str()?)?;
            let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
            let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some((number, metadata.len(), written))
        };
        let mut segments: Vec<_> = fs::read_dir(&self.path)?.filter_map(segment).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// A new segment.
    pub(super) fn create(&self, number: u64) -> io::Result<File> {
        private(OpenOptions::new().write(true).create_new(true)).open(self.segment(number))
    }

    /// Syncs the names of new segments, which Windows does by itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    pub(super) fn read(&self, number: u64) -> io::Result<File> {
        private(OpenOptions::new().read(true)).open(self.segment(number))
    }

    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.segment(number))
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:0DIGITS$}{SUFFIX}"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        #[cfg(unix)]
        let _ = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock);
    }
}

/// The number in the name of a segment; far from the end of all numbers, so that there is a next.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == DIGITS)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number < u64::MAX / 2)
}

/// Takes the lock and says in it who has it.
fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    private(options.write(true).create(true).truncate(false));
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1);
    let mut file = options.open(path)?;
    #[cfg(unix)]
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::WouldBlock, held_by(path)),
            _ => error.into(),
        },
    )?;
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Why it cannot be locked.
#[cfg(unix)]
fn held_by(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let holder = text.lines().next().unwrap_or("of another user");
    format!("process {holder} uses it; give each exporter a directory of its own")
}

/// Whether it is a directory that no other user may write to.
fn is_private(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_ours || metadata.mode() & 0o022 != 0 {
            return false;
        }
    }
    metadata.is_dir()
}

/// Whether what cannot be read now cannot be read later either.
pub(super) fn is_lasting(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return true;
    }
    matches!(
        error.kind(),
        ErrorKind::InvalidData
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
    )
}

/// For this user alone; no link is followed, and no pipe waited for.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits() as i32);
    }
    options
}
