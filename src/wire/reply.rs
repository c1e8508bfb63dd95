//! What a server says, and what it means.
//!
//! A good line gets no reply; a bad one may get a line of text that does not name the point;
//! `version` gets one or two lines, from some servers without a line feed. A reply may come in
//! pieces, span lines, hold anything, or never end. So the parser keeps the beginning of one line,
//! at most [`KEPT`] bytes, and skips the rest of a longer one.
//!
//! What comes on a connection also tells whether the peer is a TSD at all. Everything that one says
//! begins with a reply of a known form; what follows may be the rest of a long one. So a connection
//! on which something else comes first, or whose last line never ends, is [`Alien`].

use std::fmt;

/// How much of a line is kept: enough to tell its class and to log it.
const KEPT: usize = 256;

/// The kind of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    IllegalArgument,
    InvalidValue,
    UnknownMetric,
    Storage,
    Throttled,
    UnknownCommand,
    /// An answer to `version`.
    Version,
    /// The rest of an answer to `version`, or an empty line: it means nothing by itself.
    Nothing,
    Other,
}

/// How everything begins that a TSD says to a point, known to us or not.
const FAMILIES: [&[u8]; 2] = [b"put: ", b"histogram: "];
/// How the rest of that begins (net.opentsdb.tsd.PutDataPointRpc).
const REFUSALS: &[(&str, Reply)] = &[
    ("illegal argument: ", Reply::IllegalArgument),
    ("invalid value: ", Reply::InvalidValue),
    ("unknown metric: ", Reply::UnknownMetric),
    ("HBase error: ", Reply::Storage),
    ("Request timed out: ", Reply::Storage),
    ("Please throttle writes: ", Reply::Throttled),
    ("Throttling exception: ", Reply::Throttled),
];
/// How other replies begin (RpcHandler, and the answers of each server to `version`).
const OTHERS: &[(&str, Reply)] = &[
    // Said in its place among the other replies, this proves as much as an answer.
    ("unknown command: version", Reply::Version),
    ("unknown command: ", Reply::UnknownCommand),
    ("Built on ", Reply::Nothing),
    ("KairosDB ", Reply::Version),
];

/// TDengine's answer to `version`. It says nothing else, ever; from a server that does, a line of
/// this kind proves nothing.
const TDENGINE_VERSION: &[u8] = b"1";
/// Answers to `version` that come without a line feed: InfluxDB's and TDengine's.
const UNENDED_VERSIONS: [&[u8]; 2] = [b"InfluxDB TSDB proxy", TDENGINE_VERSION];

/// What shows that the peer is no TSD: the beginning of a line that no TSD sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alien(Vec<u8>);

impl Alien {
    /// What the peer seems to be.
    fn kind(&self) -> &'static str {
        let begins = |text: &[u8]| self.0.starts_with(text);
        match self.0.trim_ascii_start() {
            _ if begins(b"HTTP/") => "a web server",
            [b'<', ..] => "a web server",
            // A record of TLS: its type, and the major version of the protocol.
            [0x14..=0x17, 0x03, ..] => "a server that expects TLS",
            _ if begins(b"SSH-") => "an SSH server",
            _ => "no OpenTSDB server",
        }
    }
}

impl fmt::Display for Alien {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        write!(f, "the peer seems to be {}: it said \"{}\"", self.kind(), text.escape_debug())
    }
}

/// Takes bytes as they come and tells the replies in them.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The beginning of the line that is being read, at most `KEPT` bytes.
    line: Vec<u8>,
    /// Whether the server has said anything but [`TDENGINE_VERSION`].
    has_talked: bool,
    /// Whether the server has said something that a TSD says.
    is_tsd: bool,
    alien: Option<Alien>,
}

impl Parser {
    /// Reads on. `on_reply` gets each reply and its text. Only with `asked`, while an answer to
    /// `version` is outstanding, does one that lacks its line feed count.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        asked: bool,
        mut on_reply: impl FnMut(Reply, &str),
    ) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = KEPT - self.line.len().min(KEPT);
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            let is_ended = piece.len() > text.len();
            if is_ended {
                self.take_line(&mut on_reply);
            }
        }
        let is_version = |line: &[u8]| {
            UNENDED_VERSIONS.contains(&line) && !(line == TDENGINE_VERSION && self.has_talked)
        };
        if asked && is_version(&self.line) {
            self.take_line(&mut on_reply);
        }
    }

    /// The stream has ended. A line that has not is a reply all the same, and of no TSD.
    pub(crate) fn end(&mut self, mut on_reply: impl FnMut(Reply, &str)) {
        if !self.line.is_empty() {
            self.alien.get_or_insert_with(|| Alien(self.line.clone()));
            self.take_line(&mut on_reply);
        }
    }

    /// What shows that the peer is no TSD, if anything has.
    pub(crate) fn alien(&self) -> Option<&Alien> {
        self.alien.as_ref()
    }

    fn take_line(&mut self, on_reply: &mut impl FnMut(Reply, &str)) {
        let reply = self.judge();
        on_reply(reply, &String::from_utf8_lossy(&self.line));
        self.line.clear();
    }

    /// What the line means after all that came before it.
    fn judge(&mut self) -> Reply {
        let is_bare = self.line == TDENGINE_VERSION;
        self.has_talked |= !is_bare;
        let reply = if is_bare && self.has_talked { Reply::Other } else { classify(&self.line) };
        match reply {
            Reply::Other if refusal(&self.line).is_none() && !self.is_tsd => {
                self.alien.get_or_insert_with(|| Alien(self.line.clone()));
            }
            Reply::Nothing if self.line.trim_ascii().is_empty() => {}
            _ => self.is_tsd = true,
        }
        reply
    }
}

/// Whether a TSD's answer to `version` is in this line: `net.opentsdb.tools 2.4.1 built at …`,
/// perhaps behind a reply that lacked its line feed. A Java exception begins with the package too.
fn is_version_of_tsd(line: &[u8]) -> bool {
    let has = |words: &[u8]| line.windows(words.len()).any(|window| window == words);
    has(b" built ") && (line.starts_with(b"net.opentsdb") || has(b"net.opentsdb.tools "))
}

fn classify(line: &[u8]) -> Reply {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Reply::Nothing;
    }
    if UNENDED_VERSIONS.contains(&line) || is_version_of_tsd(line) {
        return Reply::Version;
    }
    let (line, known) = refusal(line).map_or((line, OTHERS), |refusal| (refusal, REFUSALS));
    let found = known.iter().find(|(beginning, _)| line.starts_with(beginning.as_bytes()));
    found.map_or(Reply::Other, |&(_, reply)| reply)
}

/// What a TSD says to a point, behind the command.
fn refusal(line: &[u8]) -> Option<&[u8]> {
    FAMILIES.iter().find_map(|family| line.strip_prefix(*family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies(pieces: &[&[u8]], asked: bool) -> Vec<Reply> {
        let mut parser = Parser::default();
        let mut replies = Vec::new();
        for piece in pieces {
            parser.feed(piece, asked, |reply, _| replies.push(reply));
            assert!(parser.line.len() <= KEPT);
        }
        replies
    }

    /// Among random bytes such a line would confirm points that no server has seen
    /// (`tools/faults/run mixed` sends them).
    #[test]
    fn a_bare_1_is_an_answer_only_of_a_server_that_says_nothing_else() {
        use Reply::{Other, Version};
        let cases: &[(&[&[u8]], &[Reply])] = &[
            (&[b"1"], &[Version]),
            (&[b"1", b"1"], &[Version, Version]),
            (&[b"1\n", b"1\n"], &[Version, Version]),
            (&[b"garbage\n1"], &[Other]),
            (&[b"garbage\n1\n"], &[Other, Other]),
            (&[b"1", b"garbage\n", b"1"], &[Version, Other]),
            (&[b"garbage\nInfluxDB TSDB proxy"], &[Other, Version]),
        ];
        for (pieces, expected) in cases {
            assert_eq!(replies(pieces, true), *expected, "{pieces:?}");
        }
    }

    #[test]
    fn each_reply_of_a_tsd_has_its_class() {
        let cases: &[(&str, Reply)] = &[
            (
                "put: illegal argument: not enough arguments (need least 4, got 3)",
                Reply::IllegalArgument,
            ),
            ("put: invalid value: Overflow in 9223372036854775808", Reply::InvalidValue),
            ("put: unknown metric: No such name for 'metrics': 'n.unknown'", Reply::UnknownMetric),
            ("put: HBase error: gone", Reply::Storage),
            ("put: Request timed out: gone", Reply::Storage),
            ("put: Please throttle writes: slow", Reply::Throttled),
            ("put: Throttling exception: slow", Reply::Throttled),
            ("unknown command: put.  Try `help'.", Reply::UnknownCommand),
            (
                "histogram: illegal argument: Histogram storage has not been enabled.",
                Reply::IllegalArgument,
            ),
            ("histogram: HBase error: No codec found mapped to ID 7", Reply::Storage),
            ("net.opentsdb.tools BuildData built at revision eb125a342 (MODIFIED)", Reply::Version),
            ("net.opentsdb.tools 2.3.0 built at revision x (MINT)", Reply::Version),
            ("net.opentsdb.uid.NoSuchUniqueName: No such name for 'metrics': 'm'", Reply::Other),
            ("unknown command: version.  Try `help'.", Reply::Version),
            ("net.opentsdb.tools 2.3.0 built at revision abc (MINT)", Reply::Version),
            (
                "no line feednet.opentsdb.tools BuildData built at revision eb125a342 (MODIFIED)",
                Reply::Version,
            ),
            ("net.opentsdb.uid.NoSuchUniqueName: No such name for 'metrics': 'm'", Reply::Other),
            ("Built on 2021/09/08 03:26:53 +0000 by a@b:/c", Reply::Nothing),
            ("KairosDB 1.3.0-1.20210808220820", Reply::Version),
            ("\tat java.lang.Thread.run(Thread.java:840)", Reply::Other),
            ("HTTP/1.1 400 Bad Request\r", Reply::Other),
            ("\r", Reply::Nothing),
        ];
        for &(text, expected) in cases {
            assert_eq!(replies(&[format!("{text}\n").as_bytes()], false), [expected], "{text}");
        }
    }

    #[test]
    fn what_no_tsd_says_first_or_never_ends_is_alien() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some("a web server")),
            (b"<html><body>400</body></html>\n", Some("a web server")),
            (b"\x15\x03\x01\x00\x02\x02\x50", Some("a server that expects TLS")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Some("an SSH server")),
            (b"-ERR unknown command 'put'\r\n", Some("no OpenTSDB server")),
            (b"ERROR\r\n", Some("no OpenTSDB server")),
            (b"\n\nERROR\r\n", Some("no OpenTSDB server")),
            (b"put: HBase error: half a li", Some("no OpenTSDB server")),
            (b"", None),
            (b"\n", None),
            (b"put: HBase error: one\n\tat two\nHTTP/1.1 is three\n", None),
            (b"put: a reply that is new to us\n", None),
            (b"KairosDB 1.3.0\n", None),
            (b"Built on 2021\nwhat\n", None),
        ];
        for (bytes, expected) in cases {
            let mut parser = Parser::default();
            let mut replies = 0;
            parser.feed(bytes, false, |_, _| replies += 1);
            parser.end(|_, _| replies += 1);
            let alien = parser.alien().map(ToString::to_string);
            let text = String::from_utf8_lossy(bytes);
            match expected {
                Some(kind) => assert!(alien.is_some_and(|alien| alien.contains(kind)), "{text:?}"),
                None => assert_eq!(alien, None, "{text:?}"),
            }
            assert_eq!(replies > 0, !bytes.is_empty(), "all of it is counted: {text:?}");
        }
    }

    #[test]
    fn an_answer_without_its_line_feed_counts_only_when_asked_for() {
        assert_eq!(replies(&[b"InfluxDB TSDB", b" proxy"], true), [Reply::Version]);
        assert_eq!(replies(&[b"1"], true), [Reply::Version]);
        assert_eq!(replies(&[b"1"], false), []);
        assert_eq!(replies(&[b"1", b"7 points\n"], false), [Reply::Other]);
    }

    #[test]
    fn a_megabyte_without_a_line_feed_is_one_reply_and_little_memory() {
        let mut pieces = vec![&[0xffu8; 4096][..]; 256];
        pieces.push(b"\nput: HBase error: x\n");
        assert_eq!(replies(&pieces, true), [Reply::Other, Reply::Storage]);
    }

    proptest! {
        #[test]
        fn replies_do_not_depend_on_where_the_network_cut_them(
            lines in proptest::collection::vec("(put: HBase error: |put: unknown metric: |Built on )?[a-z\u{e9} ]{0,20}", 0..6),
            cuts in proptest::collection::vec(0usize..200, 0..5),
        ) {
            let bytes: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut <= bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(replies(&pieces, false), replies(&[&bytes], false));
        }
    }
}
