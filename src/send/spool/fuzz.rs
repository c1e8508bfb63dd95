//! What the fuzz target of the spool checks; see `crate::fuzzing`.

use super::record::{HEADER, MAX_LINES, encode, read};

/// Of any file each record that is read is there to the byte, up to the first that is none.
pub fn spool(data: &[u8]) {
    let (mut file, mut lines) = (data, Vec::new());
    loop {
        let before = file;
        match read(&mut file, &mut lines) {
            Ok(true) => {
                assert!((1..=MAX_LINES).contains(&lines.len()));
                let record = encode(&lines);
                assert!(before.starts_with(&record));
                assert_eq!(file.len(), before.len() - record.len());
            }
            Ok(false) => break assert!(before.is_empty()),
            Err(_) => break assert!(!before.is_empty()),
        }
        assert!(lines.capacity() <= 2 * MAX_LINES);
    }
    // A file of ours, cut anywhere.
    let Some((&[cut], data)) = data.split_first_chunk() else { return };
    let record = encode(data);
    let end = (HEADER + data.len()).saturating_sub(usize::from(cut) / 16);
    let outcome = read(&mut &record[..end.min(record.len())], &mut lines);
    let is_whole = end == record.len() && (1..=MAX_LINES).contains(&data.len());
    assert_eq!(outcome.is_ok_and(|is_there| is_there), is_whole);
    assert!(!is_whole || lines == data);
}
