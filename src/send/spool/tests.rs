//! The directory and its segments, without a queue: files as they may be found, and limits.

mod ruined;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::directory::Directory;
use super::options::Spool;
use super::record;
use super::store::Store;
use crate::wire::charset::Charset;
use crate::wire::line::LineRules;
use crate::wire::line::TSD_LINE;

pub(super) const RULES: LineRules = LineRules {
    charset: Charset::Tsd,
    max_line: TSD_LINE,
    max_tags: 8,
    has_millis: true,
    has_histograms: true,
};
/// After the files of any test were written, as the system's clock has it.
pub(super) const WALL: Duration = Duration::from_secs(4_000_000_000);
const YEARS: Duration = Duration::from_secs(4_000_000_000);

/// A name that nobody has, in the system's folder for such; what is there goes with it.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("opentsdb-spool-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    /// An empty spool that keeps everything.
    pub(super) fn spool(&self) -> Spool {
        Spool::new(&self.0).max_age(YEARS)
    }

    fn open(&self) -> Store {
        Store::open(&self.spool(), RULES).unwrap()
    }

    fn file(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.spool"))
    }

    /// Puts a file in its place.
    #[cfg(unix)]
    pub(super) fn hide(&self) {
        fs::rename(&self.0, self.0.with_extension("aside")).unwrap();
        fs::write(&self.0, "").unwrap();
    }

    /// Puts it back.
    #[cfg(unix)]
    pub(super) fn unhide(&self) {
        fs::remove_file(&self.0).unwrap();
        fs::rename(self.0.with_extension("aside"), &self.0).unwrap();
    }

    /// The names of the segments' files.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A line that tells its number.
fn line(n: usize) -> String {
    format!("put m 1700000000 {n} host=a\n")
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// Reads the backlog to its end, all of it settled, and answers the lines.
fn read_all(store: &mut Store) -> String {
    let (mut text, mut lines, mut turns) = (String::new(), Vec::new(), 0);
    while store.has_backlog() {
        let points = store.read(usize::MAX, &mut lines).unwrap();
        let read = std::str::from_utf8(&lines).unwrap();
        assert_eq!(points, read.lines().count());
        text += read;
        store.settle(u64::MAX);
        turns += 1;
        assert!(turns < 100_000, "it never ends");
    }
    text
}

#[test]
fn what_was_appended_is_read_in_order_by_whoever_opens_it_next() {
    let scratch = Scratch::new();
    for start in [0, 1000] {
        let mut store = scratch.open();
        store.append(lines(start..start + 500).as_bytes(), None, WALL).unwrap();
        store.append(lines(start + 500..start + 1000).as_bytes(), None, WALL).unwrap();
        store.sync().unwrap();
    }
    let mut store = scratch.open();
    assert_eq!(scratch.files().len(), 2);
    assert_eq!(
        store.bytes(),
        scratch.files().iter().map(|name| length(&scratch.0.join(name))).sum::<u64>()
    );
    assert_eq!(read_all(&mut store), lines(0..2000));
    assert_eq!((scratch.files(), store.bytes()), (Vec::new(), 0));
    assert_eq!(store.damaged, 0);
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_process_reads_what_it_has_just_written_and_writes_on() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    for round in 0..3 {
        store.append(line(round).as_bytes(), None, WALL).unwrap();
        store.sync().unwrap();
        assert_eq!(read_all(&mut store), line(round));
    }
}

#[test]
fn a_segment_that_is_not_settled_is_read_again_after_a_restart() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    store.append(lines(0..300).as_bytes(), None, WALL).unwrap();
    store.sync().unwrap();
    let mut read = Vec::new();
    for below in [100, 200] {
        assert_eq!(store.read(usize::MAX, &mut read).unwrap(), 128);
        store.read_below(below);
        store.settle(below);
    }
    drop(store);
    let mut store = scratch.open();
    assert_eq!(store.read(usize::MAX, &mut read).unwrap(), 128);
    store.rewind();
    assert_eq!(read_all(&mut store), lines(0..300));
}

#[test]
fn a_segment_that_was_read_stays_until_its_points_are_settled_and_the_next_waits() {
    let scratch = Scratch::new();
    let spool = scratch.spool().max_bytes(8 * 4096);
    let mut store = Store::open(&spool, RULES).unwrap();
    for start in [0, 100] {
        store.append(lines(start..start + 100).as_bytes(), None, WALL).unwrap();
    }
    store.sync().unwrap();
    let files = scratch.files();
    assert_eq!(files.len(), 2);
    let (mut read, mut below) = (Vec::new(), 0);
    while store.has_unread() {
        below += store.read(usize::MAX, &mut read).unwrap() as u64;
        store.read_below(below);
    }
    store.settle(below - 1);
    assert_eq!((scratch.files(), store.has_unread()), (files, false));
    store.settle(below);
    assert_eq!((scratch.files().len(), store.has_unread()), (1, true));
    assert_eq!(read_all(&mut store), lines(below as usize..200));
}

#[test]
fn copies_go_when_their_points_are_settled_or_become_backlog() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    for below in [10, 20] {
        store.append(lines(below - 10..below).as_bytes(), Some(below as u64), WALL).unwrap();
        store.sync().unwrap();
    }
    assert!(!store.has_backlog());
    store.settle(19);
    assert_eq!(scratch.files().len(), 1);
    store.settle(20);
    assert_eq!((scratch.files().len(), store.bytes()), (0, 0));
    for below in [30, 40] {
        store.append(lines(below - 10..below).as_bytes(), Some(below as u64), WALL).unwrap();
        store.sync().unwrap();
        assert_eq!(store.release_copies().unwrap(), Some(below as u64));
    }
    assert_eq!(store.release_copies().unwrap(), None);
    store.settle(u64::MAX);
    assert_eq!(read_all(&mut store), lines(20..40));
}

#[test]
fn beyond_the_limit_the_oldest_points_go_and_are_counted() {
    for max_bytes in [4096, 20_000, 100_000] {
        let scratch = Scratch::new();
        let mut store = Store::open(&scratch.spool().max_bytes(max_bytes), RULES).unwrap();
        let mut count = 0;
        while count < 20_000 {
            store.append(lines(count..count + 100).as_bytes(), None, WALL).unwrap();
            store.sync().unwrap();
            count += 100;
            assert!(store.bytes() <= max_bytes);
        }
        let left = read_all(&mut store);
        let dropped = store.dropped as usize;
        assert_eq!(left, lines(dropped..count));
        assert!(left.len() as u64 > max_bytes / 2, "{} of {max_bytes}", left.len());
    }
}

#[test]
fn a_line_that_is_longer_than_all_there_may_be_is_dropped() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.spool().max_bytes(100), RULES).unwrap();
    let long = format!("put {} 1700000000 1 host=a\n", "m".repeat(100));
    store.append((line(1) + &long + &line(2)).as_bytes(), None, WALL).unwrap();
    let left = read_all(&mut store);
    assert_eq!(left.lines().count() as u64 + store.dropped, 3);
    assert!(scratch.files().is_empty());
}

#[test]
fn points_that_are_too_old_go_and_are_counted() {
    let scratch = Scratch::new();
    let hour = Duration::from_secs(3600);
    let mut store = Store::open(&scratch.spool().max_age(8 * hour), RULES).unwrap();
    for n in 0..12 {
        store.append(line(n).as_bytes(), None, WALL + hour / 2 * n as u32).unwrap();
        store.sync().unwrap();
    }
    assert_eq!(scratch.files().len(), 6);
    assert_eq!(store.oldest(WALL + 7 * hour), Some(7 * hour));
    store.expire(WALL + 8 * hour - Duration::from_secs(1));
    assert_eq!(scratch.files().len(), 6);
    store.expire(WALL + 8 * hour);
    assert_eq!((scratch.files().len(), store.dropped), (5, 2));
    // What was begun is on its way.
    let mut read = Vec::new();
    assert_eq!(store.read(usize::MAX, &mut read).unwrap(), 1);
    store.expire(WALL + 9 * hour);
    assert_eq!((scratch.files().len(), store.dropped), (5, 2));
    store.rewind();
    assert_eq!(read_all(&mut store), lines(2..12));
}

/// Elsewhere no directory is moved while a file in it is open.
#[cfg(unix)]
#[test]
fn what_failed_half_way_is_not_there_twice() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.spool().max_bytes(8 * 4096), RULES).unwrap();
    store.append(line(1).as_bytes(), None, WALL).unwrap();
    store.sync().unwrap();
    store.append(line(2).as_bytes(), None, WALL).unwrap();
    // No directory, no next segment.
    let aside = scratch.0.with_extension("aside");
    fs::rename(&scratch.0, &aside).unwrap();
    assert!(store.append(lines(3..200).as_bytes(), None, WALL).is_err());
    fs::rename(&aside, &scratch.0).unwrap();
    store.append(lines(2..5).as_bytes(), None, WALL).unwrap();
    store.sync().unwrap();
    let read = read_all(&mut store);
    assert!(read.ends_with(&lines(2..5)), "{read}");
    assert_eq!(store.damaged, 0);
}

/// A file in the place of the directory: what is in that cannot be opened, and is still there.
#[cfg(unix)]
#[test]
fn what_cannot_be_opened_for_a_moment_is_read_later_and_never_deleted() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    store.append(lines(0..9).as_bytes(), None, WALL).unwrap();
    store.sync().unwrap();
    scratch.hide();
    let mut read = Vec::new();
    assert!(store.read(usize::MAX, &mut read).is_err());
    scratch.unhide();
    assert_eq!(store.read(usize::MAX, &mut read).unwrap(), 9);
    assert_eq!(store.damaged, 0);
    store.rewind();
    scratch.hide();
    store.expire(WALL + YEARS);
    scratch.unhide();
    assert_eq!((store.damaged, store.dropped, store.bytes()), (1, 0, 0));
    drop(store);
    assert_eq!(read_all(&mut scratch.open()), lines(0..9));
}

/// A file that cannot be written to, nor cut.
#[test]
fn what_was_written_before_a_failed_write_is_not_safe_until_it_is_synced() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    for is_synced in [true, false] {
        store.append(line(1).as_bytes(), None, WALL).unwrap();
        if is_synced {
            store.sync().unwrap();
        }
        store.writing = Some(File::open(scratch.0.join(scratch.files().pop().unwrap())).unwrap());
        assert!(store.append(line(2).as_bytes(), None, WALL).is_err());
        assert_eq!(store.sync().is_ok(), is_synced);
    }
    store.append(line(3).as_bytes(), None, WALL).unwrap();
    store.sync().unwrap();
    assert_eq!(read_all(&mut store), line(1) + &line(1) + &line(3));
    assert_eq!(store.damaged, 0);
}

#[test]
fn no_line_is_sent_that_is_no_point() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let planted = format!("{}diediedie\n\n{}put m 17", line(1), line(2));
    fs::write(scratch.file(7), record::encode(planted.as_bytes())).unwrap();
    let mut store = scratch.open();
    assert_eq!(read_all(&mut store), lines(1..3));
    assert_eq!(store.damaged, 3);
}

#[test]
fn a_held_directory_names_its_holder_and_is_free_when_that_ends() {
    let scratch = Scratch::new();
    let first = Directory::open(&scratch.0).unwrap();
    let error = Directory::open(&scratch.0).unwrap_err().to_string();
    if cfg!(unix) {
        assert!(error.contains(&format!("process {} uses it", std::process::id())), "{error}");
    }
    drop(first);
    Directory::open(&scratch.0).unwrap();
}

#[cfg(unix)]
#[test]
fn the_directory_is_private_and_no_link_in_it_is_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let scratch = Scratch::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let spool = scratch.spool();
    let mut store = Store::open(&Spool::new(scratch.0.join("new")), RULES).unwrap();
    store.append(line(1).as_bytes(), None, WALL).unwrap();
    drop(store);
    let paths = [("", 0o700), ("new", 0o700), ("new/lock", 0o600)];
    for (path, expected) in paths.into_iter().chain([("new/00000000000000000000.spool", 0o600)]) {
        assert_eq!(mode(&scratch.0.join(path)), expected, "{path}");
    }

    // A link to a directory, one that others may write to, a file.
    symlink(scratch.0.join("new"), scratch.0.join("link")).unwrap();
    fs::create_dir(scratch.0.join("open")).unwrap();
    fs::set_permissions(scratch.0.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    for path in ["link", "link/", "link/.", "open", "file"] {
        assert!(Directory::open(&scratch.0.join(path)).is_err(), "{path}");
    }

    // A link in the place of the lock, and of a segment.
    let outside = Scratch::new();
    fs::create_dir(&outside.0).unwrap();
    fs::write(outside.0.join("file"), line(1)).unwrap();
    symlink(outside.0.join("file"), scratch.0.join("lock")).unwrap();
    assert!(Store::open(&spool, RULES).is_err());
    fs::remove_file(scratch.0.join("lock")).unwrap();
    symlink(outside.0.join("file"), scratch.file(3)).unwrap();
    let mut store = Store::open(&spool, RULES).unwrap();
    assert_eq!(read_all(&mut store), "");
    assert_eq!(fs::read_to_string(outside.0.join("file")).unwrap(), line(1));
}
