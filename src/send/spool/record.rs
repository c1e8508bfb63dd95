//! How lines lie in a file: one record behind the other.
//!
//! | bytes | of a record |
//! |---|---|
//! | 4 | how long its lines are, little endian |
//! | 4 | the CRC-32 of the length and the lines, little endian |
//! | … | whole lines |
//!
//! There is nothing to find the next record by but the length of this one, so a bad record gives
//! up the rest of its file. A file is some MiB, and there are others.

use std::io::{self, ErrorKind, Read};

/// The most bytes of lines in a record, several batches: what memory a length may ask for.
pub(super) const MAX_LINES: usize = 256 * 1024;
/// What stands before the lines.
pub(super) const HEADER: usize = 8;

/// A record of these lines.
pub(super) fn encode(lines: &[u8]) -> Vec<u8> {
    let length = (lines.len() as u32).to_le_bytes();
    [&length[..], &checksum(length, lines), lines].concat()
}

/// Reads the next record's lines into `lines`; `false` where the file ends behind the last record.
/// Without a record `lines` is of no meaning.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for a record that is cut or damaged.
pub(super) fn read(file: &mut impl Read, lines: &mut Vec<u8>) -> io::Result<bool> {
    lines.clear();
    file.take(HEADER as u64).read_to_end(lines)?;
    if lines.is_empty() {
        return Ok(false);
    }
    let damaged = || io::Error::new(ErrorKind::InvalidData, "a record is cut or damaged");
    let header: [u8; HEADER] = lines[..].try_into().map_err(|_| damaged())?;
    let [l0, l1, l2, l3, sum @ ..] = header;
    let length = [l0, l1, l2, l3];
    let bytes = u32::from_le_bytes(length) as usize;
    lines.clear();
    if bytes == 0 || bytes > MAX_LINES {
        return Err(damaged());
    }
    file.take(bytes as u64).read_to_end(lines)?;
    if lines.len() < bytes || checksum(length, lines) != sum {
        return Err(damaged());
    }
    Ok(true)
}

fn checksum(length: [u8; 4], lines: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(lines);
    hasher.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(records: &[&[u8]]) -> Vec<u8> {
        records.iter().flat_map(|lines| encode(lines)).collect()
    }

    /// The records up to the end or to the first bad one, and whether there is one.
    fn decoded(mut file: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let (mut records, mut lines) = (Vec::new(), Vec::new());
        loop {
            match read(&mut file, &mut lines) {
                Ok(true) => records.push(lines.clone()),
                Ok(false) => return (records, false),
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
