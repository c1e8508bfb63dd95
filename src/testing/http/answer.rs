//! What is answered, well or as a fault says.

use serde_json::{Value, json};

use super::super::rpc::Answer;
use super::fault::{HttpAnswer, HttpFault};

/// The most bytes of a chunk.
const CHUNK: usize = 12;

impl HttpAnswer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let json = "application/json; charset=UTF-8";
        HttpAnswer::new(status).header("Content-Type", json).body(body.to_string())
    }

    /// A TSD's words for an error.
    pub(super) fn error(status: u16, message: &str, details: &str) -> Self {
        let error = json!({ "code": status, "message": message, "details": details });
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
        let (mut added, mut body, mut is_last) = (String::new(), body.clone().into_bytes(), false);
        let (mut length, mut cut, mut is_chunked) = (body.len(), usize::MAX, false);
        for fault in faults {
            match fault {
                HttpFault::Chunked => is_chunked = *status != 204,
                HttpFault::Cut(bytes) => cut = *bytes,
                HttpFault::WrongLength(more) => length = length.saturating_add_signed(*more),
                HttpFault::CloseAfter => added += "Connection: close\r\n",
                _ => continue,
            }
            is_last |= matches!(fault, HttpFault::CloseAfter | HttpFault::Cut(_));
        }
        is_last |= faults.contains(&HttpFault::CloseSilently);
        if is_chunked {
            let chunk = |part: &[u8]| {
                [format!("{:x};a=b\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
            };
            let mut chunks: Vec<_> = body.chunks(CHUNK).map(chunk).collect();
            chunks.push(b"0\r\nX-Trailer: 1\r\n\r\n".to_vec());
            body = chunks.concat();
            added += "Transfer-Encoding: chunked\r\n";
        } else if *status != 204 {
            added += &format!("Content-Length: {length}\r\n");
        }
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        let reason = if *status < 300 { "OK" } else { "Refused" };
        let head = format!("HTTP/1.1 {status} {reason}\r\n{headers}{added}\r\n");
        let mut bytes = [head.as_bytes(), &body].concat();
        bytes.truncate(cut);
        Answer { bytes, is_last, after: *after }
    }
}
