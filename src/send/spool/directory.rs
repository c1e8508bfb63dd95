//! The directory: ours alone, locked, with a file for each segment.
//!
//! Who can write into it can have anything sent that is a point, and who can read it reads all
//! metrics. So it is made for this user alone, refused where others may write, and no symbolic link
//! in it is followed. What it holds beside segments is left alone.
//!
//! The lock is on a file of its own that says who holds it. It belongs to the open file, not to the
//! process: two exporters of one process exclude each other too, and a child that was forked keeps
//! it until the exporter ends, which unlocks it for all, or until the child ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
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
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes it if it is not there, and locks it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut builder = DirBuilder::new();
        system::make_private(builder.recursive(true));
        builder.create(&path)?;
        if !system::is_private(&fs::symlink_metadata(&path)?) {
            return Err(refused(
                "it has to be a directory, no link, that belongs to this user and that no other \
                 may write to; name one in it that is not there yet",
            ));
        }
        let lock = lock(&path.join(LOCK))?;
        Ok(Directory { path, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of each segment, its length, and when it was last written as the time since the
    /// Unix epoch; in the order of the numbers.
    pub(super) fn segments(&self) -> io::Result<Vec<(u64, u64, Duration)>> {
        let segment = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let number = number(entry.file_name().to_str()?)?;
            let metadata = entry.metadata().ok()?;
            let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            metadata.is_file().then_some((number, metadata.len(), written))
        };
        let mut segments: Vec<_> = fs::read_dir(&self.path)?.filter_map(segment).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// A new segment, with the first number from this one on that nothing has.
    pub(super) fn create(&self, mut number: u64) -> io::Result<(u64, File)> {
        loop {
            let mut create = OpenOptions::new();
            let create = system::options(create.write(true).create_new(true));
            match create.open(self.segment(number)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                created => {
                    let file = created?;
                    system::sync_directory(&self.path)?;
                    return Ok((number, file));
                }
            }
        }
    }

    pub(super) fn read(&self, number: u64) -> io::Result<File> {
        let file = system::options(OpenOptions::new().read(true)).open(self.segment(number))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(refused("it is no file")) }
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
        system::unlock(&self.lock);
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
    let mut file = match system::lock(path) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(io::Error::new(ErrorKind::WouldBlock, held_by(path)));
        }
        locked => locked?,
    };
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Why it cannot be locked.
fn held_by(path: &Path) -> String {
    let mut text = String::new();
    let read = system::options(OpenOptions::new().read(true))
        .open(path)
        .and_then(|file| file.take(20).read_to_string(&mut text));
    let holder = match text.trim().parse::<u32>() {
        Ok(process) if read.is_ok() && process == std::process::id() => {
            format!("another exporter of this process ({process}) uses it")
        }
        Ok(process) if read.is_ok() => format!("process {process} uses it"),
        _ => "another process uses it".into(),
    };
    holder + "; give each exporter a directory of its own"
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, why)
}

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use rustix::fs::{FlockOperation, OFlags, flock};

    pub(super) fn make_private(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn is_private(metadata: &Metadata) -> bool {
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        metadata.is_dir() && is_ours && metadata.mode() & 0o022 == 0
    }

    /// For this user alone; no link is followed, and no pipe waited for.
    pub(super) fn options(options: &mut OpenOptions) -> &mut OpenOptions {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits() as i32)
    }

    /// [`io::ErrorKind::WouldBlock`] if it is locked.
    pub(super) fn lock(path: &Path) -> io::Result<File> {
        let mut create = OpenOptions::new();
        create.read(true).write(true).create(true).truncate(false);
        let file = options(&mut create).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    pub(super) fn unlock(file: &File) {
        let _ = flock(file, FlockOperation::Unlock);
    }

    /// So that a file in it is there after a power failure.
    pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Windows: what a user's own folder allows to others is the administrator's choice, and an open
/// file keeps others from writing to it.
#[cfg(not(unix))]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    pub(super) fn make_private(_: &mut DirBuilder) {}

    pub(super) fn is_private(metadata: &Metadata) -> bool {
        metadata.is_dir()
    }

    pub(super) fn options(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    /// [`io::ErrorKind::WouldBlock`] if it is open elsewhere.
    pub(super) fn lock(path: &Path) -> io::Result<File> {
        let mut create = OpenOptions::new();
        create.read(true).write(true).create(true).truncate(false);
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut create, SHARE_READ);
        create.open(path).map_err(|error| match error.raw_os_error() {
            Some(SHARING_VIOLATION) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    #[cfg(windows)]
    const SHARE_READ: u32 = 1;
    const SHARING_VIOLATION: i32 = 32;

    pub(super) fn unlock(_: &File) {}

    pub(super) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
