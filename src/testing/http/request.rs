//! Bytes become a request.

/// The longest head: Netty's 4,096 for the first line and 8,192 for the headers.
const MAX_HEAD: usize = 12 * 1024;

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Without its question mark.
    pub(super) query: &'a str,
    /// Names in small letters.
    pub(super) headers: Vec<(String, &'a str)>,
    /// How many bytes it has.
    pub(super) size: usize,
}

impl<'a> Head<'a> {
    /// The head that `bytes` begin with; `None` while it has no end.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Result<Head<'a>, &'static str>> {
        match bytes.windows(4).take(MAX_HEAD).position(|end| end == b"\r\n\r\n") {
            Some(end) => Some(Head::parse(&bytes[..end], end + 4).ok_or("no head of a request")),
            None if bytes.len() > MAX_HEAD => Some(Err("a head that is too long")),
            None => None,
        }
    }

    fn parse(bytes: &'a [u8], size: usize) -> Option<Head<'a>> {
        let mut lines = std::str::from_utf8(bytes).ok()?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let is_first_line = words.next() == Some("HTTP/1.1") && words.next().is_none();
        if !is_first_line || !target.starts_with('/') {
            return None;
        }
        let header = |line: &'a str| {
            let (name, value) = line.split_once(':')?;
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            is_name.then(|| (name.to_ascii_lowercase(), value.trim()))
        };
        let headers = lines.map(header).collect::<Option<_>>()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Head { method, path, query, headers, size })
    }

    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| *value)
    }

    /// A parameter of the query, empty if it has no value.
    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        let parameters = self.query.split('&').map(|it| it.split_once('=').unwrap_or((it, "")));
        parameters.into_iter().find(|(it, _)| *it == name).map(|(_, value)| value)
    }

    /// How long the body is, as far as that is said.
    pub(super) fn body_size(&self) -> usize {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }

    /// Whether a TSD takes the request for one in chunks.
    pub(super) fn is_in_chunks(&self) -> bool {
        self.header("transfer-encoding").is_some() || self.header("expect").is_some()
    }

    /// What no client of a TSD may send.
    pub(super) fn violations(&self) -> impl Iterator<Item = String> {
        let name_is = |name: &str| self.header(name).is_some();
        let length = self.header("content-length").map(|length| length.parse::<usize>().is_ok());
        let rules = [
            (name_is("expect"), "a header Expect"),
            (name_is("transfer-encoding"), "a body in chunks"),
            (length.is_none() && self.method == "POST", "no Content-Length"),
            (length == Some(false), "a Content-Length that is no number"),
            (!name_is("host"), "no Host"),
            (
                self.method == "POST" && self.header("content-type") != Some("application/json"),
                "a Content-Type that is not application/json",
            ),
        ];
        let broken = rules.into_iter().filter(|(is_broken, _)| *is_broken);
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let twice = names.iter().enumerate().filter(|(index, name)| names[..*index].contains(name));
        let twice: Vec<_> = twice.map(|(_, name)| format!("the header {name} twice")).collect();
        broken.map(|(_, what)| what.to_owned()).chain(twice)
    }
}

/// Whether a whole request, or what can never become one, is there.
pub(in super::super) fn is_complete(bytes: &[u8]) -> bool {
    Head::read(bytes)
        .is_some_and(|head| head.map_or(true, |head| bytes.len() - head.size >= head.body_size()))
}
