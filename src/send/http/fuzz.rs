//! What the fuzz targets of HTTP check; see `crate::fuzzing`.

use std::io;

use super::answer::{Answer, Reader};
use super::head::Ask;
use super::status;
use crate::wire::details::Details;

/// More than this in one piece the writer never reads.
const MOST: usize = 8 * 1024;

/// Any bytes are the same answer in any cut, and whatever it is, something is made of it.
pub fn http_answer(data: &[u8]) {
    let Some((&[is_ended, piece], bytes)) = data.split_first_chunk() else { return };
    let is_ended = is_ended % 2 == 1;
    let bytes = &bytes[..bytes.len().min(MOST)];
    let whole = read([bytes], is_ended);
    let said = |reader: &io::Result<Reader>| match reader {
        Ok(reader) => Ok(format!("{:?}", reader.answer())),
        Err(error) => Err(error.to_string()),
    };
    for size in [1, 1 + usize::from(piece)] {
        assert_eq!(said(&whole), said(&read(bytes.chunks(size), is_ended)), "by {size}");
    }
    if let Some(answer) = whole.ok().as_ref().and_then(Reader::answer) {
        judge(answer);
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, is_ended: bool) -> io::Result<Reader> {
    let mut reader = Reader::default();
    pieces.into_iter().try_for_each(|piece| reader.feed(piece))?;
    if is_ended {
        reader.end();
    }
    Ok(reader)
}

fn judge(answer: &Answer) {
    let lines: [&[u8]; 2] = [b"put m 1700000000 1 host=a\n", b"put n 1700000000 1.5 a=b c=d\n"];
    for ask in [Ask::Status, Ask::Details, Ask::Stored(std::time::Duration::from_secs(1))] {
        let said = match status::judge(answer, ask, &[]) {
            status::Verdict::Taken(details) => {
                let mut errors = 0;
                let each =
                    |details: Details<'_>| details.each(lines.into_iter(), |_, _| errors += 1);
                details.map(each);
                assert!(errors <= lines.len(), "no more than there are points");
                assert!((200..300).contains(&answer.status) || answer.status == 400);
                continue;
            }
            status::Verdict::TooLarge(said)
            | status::Verdict::Refused(said)
            | status::Verdict::Failing(said)
            | status::Verdict::Unsupported(said)
            | status::Verdict::Later(said, _) => said,
        };
        assert!(!said.contains(|c: char| c.is_control()) && said.len() < 8 * 1024, "{said:?}");
    }
}
