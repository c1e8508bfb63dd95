//! The head of a request: rendered once for an endpoint, but for the length of the body.

use std::time::Duration;

use crate::send::stream::Trust;
use crate::send::url::{Secret, Url};
use crate::stats::Confirmation;

/// A header that the user adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: Secret,
}

impl Header {
    pub(crate) fn new(name: String, value: String) -> Self {
        Header { name, value: Secret(value) }
    }
}

/// What requests are made by.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) ask: Ask,
    pub(crate) headers: Vec<Header>,
    pub(crate) is_gzip: bool,
    /// The most bytes of a body.
    pub(crate) batch_bytes: usize,
    pub(crate) trust: Trust,
}

/// What an answer has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whether the request was taken.
    #[default]
    Status,
    /// What was wrong with which point, as a TSD tells.
    Details,
    /// The same, when it is stored or after this time at the latest.
    Stored(Duration),
}

impl Ask {
    /// What a 2xx proves then.
    pub(super) fn confirmation(self) -> Confirmation {
        if matches!(self, Ask::Stored(_)) { Confirmation::Stored } else { Confirmation::Response }
    }

    /// How a TSD is asked.
    fn words(self) -> String {
        match self {
            Ask::Status => String::new(),
            Ask::Details => "details".to_owned(),
            Ask::Stored(within) => format!("details&sync&sync_timeout={}", within.as_millis()),
        }
    }
}

/// The head of every request to one endpoint, which ends where the body's length stands.
pub(super) struct Head(String);

impl Head {
    /// `host` is as it stands in a URL, with the port.
    pub(super) fn new(url: &Url, host: &str, ask: Ask, options: &Options) -> Self {
        let mut head = format!("POST {} HTTP/1.1\r\n", url.target(&ask.words()));
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let own = [("Host", host), ("User-Agent", agent), ("Content-Type", "application/json")];
        let is_set =
            |name: &str| options.headers.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let authorization = url.authorization.as_ref().map(|value| ("Authorization", &*value.0));
        let own = own.into_iter().chain(authorization).filter(|(name, _)| !is_set(name));
        let added = options.headers.iter().map(|header| (&*header.name, &*header.value.0));
        for (name, value) in own.chain(added) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        Head(head)
    }

    /// Puts a whole request into the buffer.
    pub(super) fn write(&self, is_gzip: bool, body: &[u8], request: &mut Vec<u8>) {
        let encoding = if is_gzip { "Content-Encoding: gzip\r\n" } else { "" };
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len());
        request.clear();
        for part in [&self.0, encoding, "Content-Length: ", length, "\r\n\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
        request.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_everything_once_and_what_the_user_sets_wins() {
        let header =
            |name: &str, value: &str| Header { name: name.into(), value: Secret(value.into()) };
        let headers = vec![header("X-Scope-OrgID", "7"), header("authorization", "Bearer b")];
        let options = Options { headers, ..Options::default() };
        let (_, url) = Url::parse(false, "u:p@tsd:1/x").unwrap();
        let ask = Ask::Stored(Duration::from_secs(24));
        let mut request = Vec::new();
        Head::new(&url, "tsd:1", ask, &options).write(true, b"[]", &mut request);
        let text = String::from_utf8(request).unwrap();
        let start = "POST /x?details&sync&sync_timeout=24000 HTTP/1.1\r\nHost: tsd:1\r\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with(
            "X-Scope-OrgID: 7\r\nauthorization: Bearer b\r\nContent-Encoding: gzip\r\n\
             Content-Length: 2\r\n\r\n[]"
        ));
        assert!(!text.contains("Basic"));
        let shown = format!("{:?}", options.headers);
        assert!(shown.contains("X-Scope-OrgID") && !shown.contains("Bearer"), "{shown}");
    }
}
