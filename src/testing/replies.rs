//! How each kind of server answers.

use std::borrow::Cow;

use crate::builder::Flavor;

/// Which server a [`FakeTsd`](super::FakeTsd) is: how it answers, how strict it is, and its answer
/// to `version`. A [`Flavor`] becomes one.
///
/// | | bad line | `version` | first byte not `p` | line over 1024 bytes | last line without line feed |
/// |---|---|---|---|---|---|
/// | `OpenTsdb` | one line of text | two lines | a capital is taken for HTTP: no reply | closes | dropped |
/// | `VictoriaMetrics` | nothing | nothing | HTTP 400 and close | stored | stored |
/// | `InfluxDb` | nothing | a word, no line feed | – | stored | stored |
/// | `KairosDb` | nothing | one line | – | that line dropped | dropped |
///
/// ```
/// use metrics_exporter_opentsdb::{Flavor, testing::{FakeTsd, Replies}};
///
/// let victoria = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
/// victoria.replies(Replies::from(Flavor::OpenTsdb).with_version("1")); // and is another from now on
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    pub(super) flavor: Flavor,
    /// The answer to `version`.
    pub(super) version: Cow<'static, str>,
}

impl From<Flavor> for Replies {
    fn from(flavor: Flavor) -> Self {
        let version = match flavor {
            Flavor::OpenTsdb => TSD_VERSION,
            Flavor::VictoriaMetrics => "",
            Flavor::InfluxDb => "InfluxDB TSDB proxy",
            Flavor::KairosDb => "KairosDB 1.3.0-1.20210808220820\n",
        };
        Replies { flavor, version: version.into() }
    }
}

/// A TSD's answer to `version`.
const TSD_VERSION: &str = "net.opentsdb.tools BuildData built at revision eb125a342 (MODIFIED)\n\
     Built on 2021/09/08 03:26:53 +0000 by fake@localhost:/usr/share/opentsdb\n";

/// What VictoriaMetrics answers to what is not a `put`.
const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
     Connection: close\r\n\r\n400 Bad Request";
/// The longest line, with the line feed for OpenTSDB and without it for KairosDB.
const MAX_LINE: usize = 1024;

impl Replies {
    /// Answers `version` with this text, to the byte; with an empty one not at all.
    #[must_use]
    pub fn with_version(mut self, text: impl Into<String>) -> Self {
        self.version = text.into().into();
        self
    }

    /// Whether it is a TSD, which says what was wrong.
    pub(super) fn is_tsd(&self) -> bool {
        self.flavor == Flavor::OpenTsdb
    }

    /// What a connection that begins with this byte gets instead of being served; nothing at all
    /// when that is empty.
    pub(super) fn turns_away(&self, first: u8) -> Option<&'static str> {
        match self.flavor {
            Flavor::VictoriaMetrics if first != b'p' => Some(BAD_REQUEST),
            // It is taken for HTTP.
            Flavor::OpenTsdb if first.is_ascii_uppercase() => Some(""),
            _ => None,
        }
    }

    /// Whether what has no line feed at the end of a connection is a line.
    pub(super) fn takes_tail(&self) -> bool {
        matches!(self.flavor, Flavor::VictoriaMetrics | Flavor::InfluxDb)
    }

    /// The longest line that is handled, without its line feed. A TSD closes the connection on a
    /// longer one, others leave that line out.
    pub(super) fn max_line(&self) -> usize {
        match self.flavor {
            Flavor::OpenTsdb => MAX_LINE - 1,
            Flavor::KairosDb => MAX_LINE,
            Flavor::VictoriaMetrics | Flavor::InfluxDb => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Client, expect, put};
    use super::super::{End, FakeTsd};
    use super::*;

    fn tsd_and_client(replies: Flavor) -> (FakeTsd, Client) {
        let tsd = FakeTsd::builder().replies(replies).start();
        let client = Client::connect(&tsd);
        (tsd, client)
    }

    struct Case {
        replies: Flavor,
        sent: &'static str,
        answer: &'static str,
        accepted: usize,
        unterminated: &'static str,
    }

    const CASES: &[Case] = &[
        Case {
            replies: Flavor::OpenTsdb,
            sent: "put m 1 1 k=v\r\nput m 1 1\nversion\nfoo bar\n\nput m 1 2 k=v\nput m 2 2 k=v",
            answer: "put: illegal argument: not enough arguments (need least 4, got 3)\n\
                     net.opentsdb.tools BuildData built at revision eb125a342 (MODIFIED)\n\
                     Built on 2021/09/08 03:26:53 +0000 by fake@localhost:/usr/share/opentsdb\n\
                     unknown command: foo.  Try `help'.\n\
                     unknown command: .  Try `help'.\n",
            accepted: 2,
            unterminated: "put m 2 2 k=v",
        },
        Case {
            replies: Flavor::VictoriaMetrics,
            sent: "put m 1 1 k=v\nput m 1 1\nversion\nput ö 2 2 k=v",
            answer: "",
            accepted: 2,
            unterminated: "put ö 2 2 k=v",
        },
        Case {
            replies: Flavor::VictoriaMetrics,
            sent: "version\nput m 1 1 k=v\n",
            answer: BAD_REQUEST,
            accepted: 0,
            unterminated: "",
        },
        Case {
            replies: Flavor::InfluxDb,
            sent: "put m 1 1\nversion\nput m 1 1 k=v",
            answer: "InfluxDB TSDB proxy",
            accepted: 1,
            unterminated: "put m 1 1 k=v",
        },
        Case {
            replies: Flavor::KairosDb,
            sent: "put m 1 1\nversion\nput m 1 1 k=v",
            answer: "KairosDB 1.3.0-1.20210808220820\n",
            accepted: 0,
            unterminated: "put m 1 1 k=v",
        },
    ];

    #[test]
    fn each_server_answers_in_its_way() {
        for case in CASES {
            let (tsd, mut client) = tsd_and_client(case.replies);
            assert_eq!(client.send(case.sent).finish(), case.answer, "{:?}", case.replies);
            expect(&tsd, |log| log.open_connection_count() == 0);
            assert_eq!(tsd.log().accepted_count(), case.accepted, "{:?}", case.replies);
            let unterminated = tsd.log().connection(0).unwrap().unterminated;
            assert_eq!(String::from_utf8_lossy(&unterminated), case.unterminated);
        }
    }

    #[test]
    fn a_capital_first_is_http_and_gets_no_reply() {
        let (tsd, mut client) = tsd_and_client(Flavor::OpenTsdb);
        assert_eq!(client.send("Put m 1 1 k=v\nput m 1 1 k=v\n").finish(), "");
        assert_eq!(tsd.lines(), [""; 0]);
        assert_eq!(tsd.log().connection(0).unwrap().first_bytes, b"Put m 1 1 k=v\nput m 1 1 k=v\n");
    }

    #[test]
    fn a_line_of_1024_bytes_is_read_and_a_longer_one_closes_the_connection() {
        let line = |length: usize| format!("put {} 1 1 k=v\n", "m".repeat(length - 13));
        let (tsd, mut client) = tsd_and_client(Flavor::OpenTsdb);
        client.send(line(1024));
        expect(&tsd, |log| log.accepted_count() == 1);
        client.send(line(1025) + &put(2, 2));
        assert_eq!(client.rest(), "");
        assert_eq!(tsd.log().accepted_count(), 1);
        assert_eq!(tsd.log().rejected()[0].0.len(), 1024);
        assert_eq!(tsd.log().connection(0).unwrap().end, End::ByServer);
    }

    #[test]
    fn a_line_that_never_ends_closes_the_connection() {
        let (tsd, mut client) = tsd_and_client(Flavor::OpenTsdb);
        client.send("put ".to_owned() + &"m".repeat(1019));
        expect(&tsd, |log| log.connection(0).unwrap().bytes == 1023);
        assert_eq!(tsd.log().open_connection_count(), 1);
        client.send("m");
        assert_eq!(client.rest(), "");
    }

    #[test]
    fn a_line_too_long_for_kairos_is_left_out_alone() {
        let line = |length: usize| format!("put {} 1 1 k=v\n", "m".repeat(length - 13));
        let (tsd, mut client) = tsd_and_client(Flavor::KairosDb);
        client.send(line(1026)).send(line(1025)).send(put(2, 2)).finish();
        assert_eq!((tsd.log().accepted_count(), tsd.log().rejected_count()), (2, 1));
    }

    #[test]
    fn histograms_are_taken_when_they_are_configured() {
        const LINE: &str = "histogram m 1700000000 0,1=2 host=a";
        let (_tsd, mut client) = tsd_and_client(Flavor::OpenTsdb);
        client.send(format!("{LINE}\n")).expect(
            "histogram: illegal argument: Histogram storage has not been enabled. \
             Check the 'tsd.core.histograms.config' configuration.\n",
        );
        let tsd = FakeTsd::builder().histograms(true).start();
        let mut client = Client::connect(&tsd);
        client
            .send(format!("{LINE}\n{LINE}\nput m 1700000000 1 host=a\n{}3 host=a\n", &LINE[..27]));
        expect(&tsd, |log| log.accepted_count() == 4);
        assert_eq!((tsd.log().histograms().len(), tsd.points().len()), (3, 1));
        assert_eq!(
            (tsd.log().series_count(), tsd.log().resent_count(), tsd.log().poisoned().len()),
            (2, 1, 1)
        );
    }

    #[test]
    fn complaints_are_dropped_when_nobody_reads_them_and_answers_are_not() {
        let (tsd, mut client) = tsd_and_client(Flavor::OpenTsdb);
        let lines = 200_000;
        client.send("put\n".repeat(lines)).send("version\n");
        expect(&tsd, |log| log.version_count() == 1);
        assert_eq!(tsd.log().rejected_count(), lines);
        let replies = client.finish();
        assert!(replies.matches("need least 4").count() < lines);
        assert!(replies.ends_with("/usr/share/opentsdb\n"));
    }
}
