//! The head of a request: rendered once for an endpoint, but for the length of the body.

use std::cmp::Reverse;
use std::time::Duration;

use crate::send::stream::Trust;
use crate::send::url::{Secret, Url};
use crate::stats::Confirmation;

/// A shorter value is no secret, and may be a part of any word.
const MIN_SECRET: usize = 4;

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
pub(super) struct Head {
    text: String,
    /// What a server may repeat and nobody is to be shown; the longest first.
    pub(super) secrets: Vec<Secret>,
}

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
        Head { text: head, secrets: secrets(url, options) }
    }

    /// Puts a whole request into the buffer.
    pub(super) fn write(&self, is_gzip: bool, body: &[u8], request: &mut Vec<u8>) {
        let encoding = if is_gzip { "Content-Encoding: gzip\r\n" } else { "" };
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len());
        request.clear();
        for part in [&self.text, encoding, "Content-Length: ", length, "\r\n\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
        request.extend_from_slice(body);
    }
}

/// The values of the query, and the words of the headers' values.
fn secrets(url: &Url, options: &Options) -> Vec<Secret> {
    let value = |pair| str::split_once(pair, '=').map_or(pair, |(_, value)| value);
    let headers = url.authorization.iter().chain(options.headers.iter().map(|it| &it.value));
    let words = headers.flat_map(|value| value.0.split(' '));
    let all = url.query.0.split('&').map(value).chain(words);
    let mut secrets: Vec<_> =
        all.filter(|it| it.len() >= MIN_SECRET).map(|it| Secret(it.to_owned())).collect();
    secrets.sort_by_key(|it| Reverse(it.0.len()));
    secrets
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

    #[test]
    fn the_secrets_of_a_request_are_its_values() {
        let headers = vec![
            Header::new("X-Scope-OrgID".into(), "7".into()),
            Header::new("X-Key".into(), "Bearer b3arer-t0ken".into()),
        ];
        let options = Options { headers, ..Options::default() };
        let (_, url) = Url::parse(false, "u:p@tsd:1/x?db=x&token=t0ken&k3y").unwrap();
        let head = Head::new(&url, "tsd:1", Ask::Status, &options);
        let secrets: Vec<_> = head.secrets.iter().map(|it| &*it.0).collect();
        assert_eq!(secrets, ["b3arer-t0ken", "Bearer", "t0ken", "Basic", "dTpw"]);
    }
}
