//! A directory in which somebody has cut, flipped, emptied and planted.

use super::*;

/// What a directory may come to, by a seed: good segments, of which some are cut, flipped, empty,
/// of another kind, unreadable, huge, or not ours at all. Returns how many lines there were, and
/// those of the segments that were left as they are.
fn ruin(scratch: &Scratch, seed: u64) -> (usize, String) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut written, mut intact) = (0, String::new());
    for number in 0..random.u64(1..6) {
        let path = scratch.file((number << 40) + random.u64(..1 << 40));
        let (mut file, first) = (Vec::new(), written);
        for _ in 0..random.usize(0..4) {
            let end = written + random.usize(1..50);
            file.extend(record::encode(lines(written..end).as_bytes()));
            written = end;
        }
        let at = random.usize(0..=file.len());
        let kind = random.u8(0..12);
        match kind {
            0 => file.truncate(at),
            1 => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= random.u8(1..=255)),
            2 => file.iter_mut().skip(at).take(20).for_each(|byte| *byte = 0),
            3 => file = std::iter::repeat_with(|| random.u8(..)).take(at).collect(),
            4 => {
                file.truncate(at);
                file.extend(b"diediedie\nput m 1700000000 12");
            }
            5 => {
                let planted: String =
                    lines(0..9).chars().filter(|_| random.u8(0..20) > 0).collect();
                file.extend(record::encode(planted.as_bytes()));
            }
            6 => file.extend_from_within(at..),
            _ => {}
        }
        fs::write(&path, &file).unwrap();
        let fate = random.u8(0..40);
        match fate {
            // Longer than all memory, and empty behind its records.
            0 => File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap(),
            1 => fs::rename(&path, path.with_extension("spool.tmp")).unwrap(),
            2 => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
            #[cfg(unix)]
            3 => {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
            }
            _ if kind > 6 => intact += &lines(first..written),
            _ => {}
        }
    }
    (written, intact)
}

/// How many seeds; `tools/faults/run` sets more.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SPOOL_SEEDS").map_or(1_000, |seeds| seeds.parse().unwrap());
    let start = fastrand::u64(..1 << 40);
    start..start + count
}

#[test]
fn whatever_is_in_the_directory_is_read_to_its_end_and_only_points_are_sent() {
    let all: std::collections::HashSet<String> = (0..2_000).map(line).collect();
    for seed in seeds() {
        let scratch = Scratch::new();
        drop(scratch.open());
        let (written, intact) = ruin(&scratch, seed);
        let mut store = Store::open(&scratch.spool().max_bytes(u64::MAX), RULES).unwrap();
        let read = read_all(&mut store);
        for line in read.split_inclusive('\n') {
            // What was planted with a good checksum lacks characters, and may be a point.
            assert!(RULES.allow(line.as_bytes()), "seed {seed}: {line:?}");
            assert!(
                all.contains(line) || line.len() < self::line(9).len(),
                "seed {seed}: {line:?}"
            );
        }
        let points = read.lines().count();
        assert!(points <= 3 * written + 5 * 9, "seed {seed}: {points} of {written}");
        assert!(intact.lines().all(|line| read.contains(line)), "seed {seed}");
        if seed % 16 > 0 {
            continue;
        }
        // Where something else has the name of a segment, the next name does.
        while store.append(lines(0..9).as_bytes(), None, WALL).is_err() {}
        store.sync().unwrap();
        assert_eq!(read_all(&mut store), lines(0..9), "seed {seed}");
    }
}
