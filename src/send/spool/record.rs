//! How lines lie in a file: one record behind the other.
//!
//! | bytes | of a record |
//! |---|---|
//! | 4 | how long its lines are, little endian as all numbers |
//! | 4 | the CRC-32 of the rest: the length, the time, the lines |
//! | 8 | when it was written, in seconds since the Unix epoch |
//! | … | whole lines |
//!
//! There is nothing to find the next record by but the length of this one, so a bad record gives
//! up the rest of its file. A file is some MiB, and there are others.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

/// The most bytes of lines in a record: what memory a length that is read may ask for.
pub(super) const MAX_LINES: usize = 256 * 1024;
/// What stands before the lines.
pub(super) const HEADER: usize = 16;

/// Makes `record` one of these lines, which are at most [`MAX_LINES`].
pub(super) fn encode(lines: &[u8], wall: Duration, record: &mut Vec<u8>) {
    let (length, time) = ((lines.len() as u32).to_le_bytes(), wall.as_secs().to_le_bytes());
    record.clear();
    record.extend_from_slice(&length);
    record.extend_from_slice(&checksum(length, time, lines).to_le_bytes());
    record.extend_from_slice(&time);
    record.extend_from_slice(lines);
}

/// Reads the next record's lines into `lines`; answers when it was written, or `None` where the
/// file ends behind the last record.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for a record that is cut or damaged.
pub(super) fn read(file: &mut impl Read, lines: &mut Vec<u8>) -> io::Result<Option<Duration>> {
    lines.clear();
    file.by_ref().take(HEADER as u64).read_to_end(lines)?;
    if lines.is_empty() {
        return Ok(None);
    }
    let Some((header, [])) = lines.split_first_chunk::<HEADER>() else { return Err(damaged()) };
    let [l0, l1, l2, l3, c0, c1, c2, c3, time @ ..] = *header;
    let (length, sum) = ([l0, l1, l2, l3], u32::from_le_bytes([c0, c1, c2, c3]));
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes == 0 || bytes > MAX_LINES {
        return Err(damaged());
    }
    lines.clear();
    file.by_ref().take(bytes as u64).read_to_end(lines)?;
    if lines.len() < bytes || checksum(length, time, lines) != sum {
        return Err(damaged());
    }
    Ok(Some(Duration::from_secs(u64::from_le_bytes(time))))
}

fn checksum(length: [u8; 4], time: [u8; 8], lines: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [&length[..], &time, lines].into_iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a record is cut or damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WALL: Duration = Duration::from_secs(1_700_000_000);

    fn encoded(records: &[&[u8]]) -> Vec<u8> {
        let (mut file, mut record) = (Vec::new(), Vec::new());
        for lines in records {
            encode(lines, WALL, &mut record);
            file.extend_from_slice(&record);
        }
        file
    }

    /// The records up to the end or to the first bad one, and whether there is one.
    fn decoded(mut file: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let (mut records, mut lines) = (Vec::new(), Vec::new());
        loop {
            match read(&mut file, &mut lines) {
                Ok(Some(WALL)) => records.push(lines.clone()),
                Ok(Some(_)) => panic!("another time"),
                Ok(None) => return (records, false),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                    return (records, true);
                }
            }
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let longest = vec![b'x'; MAX_LINES];
        let records = [&b"a\n"[..], &longest, b"b\nc\n"];
        assert_eq!(decoded(&encoded(&records)), (records.map(<[u8]>::to_vec).to_vec(), false));
    }

    #[test]
    fn what_asks_for_too_much_memory_or_is_no_record_is_bad() {
        let too_long = encoded(&[&vec![b'x'; MAX_LINES + 1]]);
        for file in [&[0; 64][..], &[0xff; 64], &encoded(&[b""]), &too_long, b"put m 1 2 a=b\n"] {
            assert_eq!(decoded(file), (Vec::new(), true));
        }
    }

    proptest! {
        #[test]
        fn a_file_that_is_cut_or_flipped_gives_the_records_before_and_no_other(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 1..9),
            at: prop::sample::Index,
            flip in 0u8..=255,
        ) {
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            let mut file = encoded(&records);
            let at = at.index(file.len());
            if flip == 0 { file.truncate(at) } else { file[at] ^= flip }
            let before = (0..records.len()).filter(|n| encoded(&records[..=*n]).len() <= at).count();
            let is_whole = encoded(&records[..before]).len() == file.len();
            prop_assert_eq!(decoded(&file), (records[..before].iter().map(|r| r.to_vec()).collect(), !is_whole));
        }
    }
}
