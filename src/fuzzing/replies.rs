use super::input::Input;
use crate::wire::reply::{Parser, Reply};

/// What section 6 of the contract says of a reply that begins so.
const CONTRACT: &[(&str, Reply)] = &[
    ("put: illegal argument: ", Reply::IllegalArgument),
    ("put: invalid value: ", Reply::InvalidValue),
    ("put: unknown metric: ", Reply::UnknownMetric),
    ("put: Please throttle writes: ", Reply::Throttled),
    ("put: Throttling exception: ", Reply::Throttled),
    ("put: HBase error: ", Reply::Storage),
    ("put: Request timed out: ", Reply::Storage),
    ("unknown command: put.", Reply::UnknownCommand),
    ("histogram: illegal argument: ", Reply::IllegalArgument),
    ("net.opentsdb.tools BuildData built at ", Reply::Version),
    ("Built on ", Reply::Nothing),
    ("KairosDB 1.3.0-1.2021", Reply::Version),
];
/// How much of a reply is kept.
const KEPT: usize = 256;

/// What a connection said: the replies, and whether its peer is no TSD.
type Said = (Vec<(Reply, String)>, Option<String>);

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: bool, is_ended: bool) -> Said {
    let (mut parser, mut replies) = (Parser::default(), Vec::new());
    let mut on_reply = |reply, text: &str| replies.push((reply, text.to_owned()));
    for piece in pieces {
        parser.feed(piece, asked, &mut on_reply);
    }
    if is_ended {
        parser.end(&mut on_reply);
    }
    (replies, parser.alien().map(ToString::to_string))
}

/// Any bytes are the same replies in any cut, each line is one reply, and those of the contract
/// have their class.
pub fn replies(data: &[u8]) {
    let mut input = Input(data);
    let cuts: Vec<_> = (0..input.below(16)).map(|_| usize::from(input.byte())).collect();
    let bytes = input.0;
    let mut pieces: Vec<_> = cuts.iter().map(|&cut| input.take(cut)).collect();
    pieces.push(input.0);

    let whole = read([bytes], false, true);
    assert_eq!(whole, read(pieces.iter().copied(), false, true), "cut at {cuts:?}");
    let single = bytes.chunks(1);
    assert_eq!(whole, read(single, false, true), "byte by byte");

    let mut lines: Vec<_> = bytes.split(|&byte| byte == b'\n').collect();
    // What stands behind the last line feed is a reply if it is anything.
    let is_unended = !lines.pop().unwrap_or_default().is_empty();
    if is_unended {
        lines = bytes.split(|&byte| byte == b'\n').collect();
    }
    assert_eq!(lines.len(), whole.0.len(), "one reply a line");
    for (line, (reply, text)) in lines.iter().zip(&whole.0) {
        assert_eq!(*text, String::from_utf8_lossy(&line[..line.len().min(KEPT)]));
        let known = CONTRACT.iter().find(|(beginning, _)| line.starts_with(beginning.as_bytes()));
        match known {
            // An answer may stand behind a reply that lacked its line feed.
            _ if *reply == Reply::Version && text.contains("net.opentsdb.tools ") => {}
            Some((beginning, class)) => assert_eq!(reply, class, "{beginning}"),
            None => {}
        }
    }
    assert!(!is_unended || whole.1.is_some(), "a line without its end is of no TSD");

    // Asked for its version a server may answer without a line feed; no byte is lost or said twice.
    let asked = read(pieces, true, true).0;
    let joined =
        |said: &[(Reply, String)]| said.iter().map(|(_, text)| &**text).collect::<String>();
    assert!(asked.len() >= whole.0.len());
    if lines.iter().all(|line| line.len() <= KEPT) && bytes.is_ascii() {
        assert_eq!(joined(&asked), joined(&whole.0));
    }
}
