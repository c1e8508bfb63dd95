//! What is answered, well or as a fault says.

use serde_json::{Value, json};

use super::super::rpc::Answer;
use super::fault::{HttpAnswer, HttpFault};

/// The most bytes of a chunk.
const CHUNK: usize = 12;

impl HttpAnswer {
    /// The connection is closed without a word.
    pub(super) fn none() -> Self {
        HttpAnswer::new(0)
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        let json = "application/json; charset=UTF-8";
        HttpAnswer::new(status).header("Content-Type", json).body(body.to_string())
    }

    /// A TSD's words for an error, some kilobytes.
    pub(super) fn error(status: u16, message: &str, details: &str) -> Self {
        let trace =
            "\tat net.opentsdb.tsd.PutDataPointRpc.execute(PutDataPointRpc.java:288)\n".repeat(99);
        let error =
            json!({ "code": status, "message": message, "details": details, "trace": trace });
        HttpAnswer::json(status, &json!({ "error": error }))
    }

    /// A page of a TSD, or of a proxy.
    pub(super) fn page(status: u16, text: &str) -> Self {
        let html = format!("<html><body><h1>{status}</h1>{text}</body></html>\n");
        HttpAnswer::new(status).header("Content-Type", "text/html; charset=UTF-8").body(html)
    }

    /// As it goes over the wire under these faults.
    pub(super) fn render(&self, faults: &[HttpFault]) -> Answer {
        let HttpAnswer { status, headers, body, after, .. } = self;
        if *status == 0 {
            return Answer { is_last: true, ..Answer::default() };
        }
        let with_length = |length: usize| format!("Content-Length: {length}\r\n");
        let (mut body, mut framing) = (body.clone().into_bytes(), with_length(body.len()));
        let (mut closing, mut is_last, mut cut) = ("", false, usize::MAX);
        for fault in faults {
            match fault {
                HttpFault::Chunked => {
                    body = in_chunks(&body);
                    framing = "Transfer-Encoding: chunked\r\n".into();
                }
                HttpFault::WrongLength(more) => {
                    framing = with_length(body.len().saturating_add_signed(*more));
                }
                HttpFault::UntilClose => framing.clear(),
                HttpFault::CloseAfter => closing = "Connection: close\r\n",
                HttpFault::Cut(bytes) => cut = *bytes,
                HttpFault::CloseSilently => {}
                _ => continue,
            }
            is_last |= !matches!(fault, HttpFault::Chunked | HttpFault::WrongLength(_));
        }
        if *status == 204 {
            (body, framing) = (Vec::new(), String::new());
        }
        let reason = if *status < 300 { "OK" } else { "Refused" };
        let head = format!("HTTP/1.1 {status} {reason}\r\n{headers}{framing}{closing}\r\n");
        let mut bytes = [head.as_bytes(), &body].concat();
        bytes.truncate(cut);
        Answer { bytes, is_last, after: *after, is_complaint: false }
    }
}

/// In small chunks, with all that may stand beside them.
fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for part in body.chunks(CHUNK) {
        chunks.extend_from_slice(format!("{:x};a=b\r\n", part.len()).as_bytes());
        chunks.extend_from_slice(&[part, b"\r\n"].concat());
    }
    chunks.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    chunks
}
