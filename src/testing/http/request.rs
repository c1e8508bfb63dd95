//! Bytes become a request.

use std::collections::BTreeSet;
use std::time::Instant;

use httparse::Status;

use super::super::log::HttpRequest;

/// The longest head: Netty's 4,096 for the first line and 8,192 for the headers.
const MAX_HEAD: usize = 12 * 1024;
const MAX_HEADERS: usize = 64;

impl HttpRequest {
    /// The request that `bytes` begin with, still without its body, and the size of its head; or
    /// what is wrong with it. `None` while its head has no end.
    pub(super) fn read(bytes: &[u8]) -> Option<Result<(HttpRequest, usize), &'static str>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let size = match request.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
            Ok(Status::Complete(size)) if request.version == Some(1) => size,
            Ok(Status::Partial) if bytes.len() < MAX_HEAD => return None,
            Ok(Status::Partial) => return Some(Err("a head that is too long")),
            _ => return Some(Err("no head of a request")),
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = request.headers.iter();
        let headers = headers.map(|it| (it.name.to_ascii_lowercase(), text(it.value))).collect();
        let (path, query) = request.path?.split_once('?').unwrap_or((request.path?, ""));
        let mut request = HttpRequest {
            connection: 0,
            arrived: Instant::now(),
            method: request.method?.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
            wire_bytes: 0,
            status: 0,
        };
        request.wire_bytes =
            request.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        Some(Ok((request, size)))
    }

    /// A parameter of the query, empty if it has no value.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.query.split('&').map(|it| it.split_once('=').unwrap_or((it, "")));
        parameters.find(|(it, _)| *it == name).map(|(_, value)| value)
    }

    /// Whether a TSD takes the request for one in chunks.
    pub(super) fn is_in_chunks(&self) -> bool {
        self.header("transfer-encoding").is_some() || self.header("expect").is_some()
    }

    /// What no client of a TSD may send.
    pub(super) fn violations(&self) -> impl Iterator<Item = &'static str> {
        let has = |name| self.header(name).is_some();
        let is_post = self.method == "POST";
        let is_json = self.header("content-type") == Some("application/json");
        let length = self.header("content-length").map(|length| length.parse::<usize>().is_ok());
        let names: BTreeSet<_> = self.headers.iter().map(|(name, _)| name).collect();
        let rules = [
            (has("expect"), "a header Expect"),
            (has("transfer-encoding"), "a body in chunks"),
            (is_post && length.is_none(), "no Content-Length"),
            (length == Some(false), "a Content-Length that is no number"),
            (is_post && !is_json, "a Content-Type that is not application/json"),
            (!has("host"), "no Host"),
            (names.len() < self.headers.len(), "a header twice"),
        ];
        rules.into_iter().filter(|(is_broken, _)| *is_broken).map(|(_, what)| what)
    }
}
