//! `put` lines become the JSON of a request, compressed and cut by its size on the wire.
//!
//! A line is valid JSON in pieces: the characters that JSON would have escaped are in no name and
//! in no tag, and every number of a line is one of JSON. So a line is copied word by word, and the
//! same line is the same JSON whenever it is made.
//!
//! How large a body becomes when it is compressed is known only when it was. So it is filled to
//! what the last full one of its endpoint came to, and made anew with fewer lines when that was too
//! much.

use flate2::{Compress, Compression, FlushCompress, Status};

/// The most bytes of a body before compression, where the limit on the wire is not above that.
const MAX_PLAIN: usize = 1024 * 1024;
/// What compression is taken to save before that is known.
const FIRST_RATIO: f64 = 4.0;
/// How far a body is filled by what is known, so that the next is seldom too large.
const FILL: f64 = 0.95;
/// JSON in bytes of lines: a line of 90 bytes is 139 of JSON.
const JSON_PER_LINE: f64 = 1.5;

/// Makes bodies, in buffers that are used again.
pub(super) struct Body {
    json: Vec<u8>,
    gzip: Vec<u8>,
    compress: Option<Compress>,
    /// Bytes of JSON for each on the wire, as the last full body had it.
    ratio: f64,
    /// How many bytes of lines the last body was made of.
    pub(super) line_bytes: usize,
}

impl Body {
    pub(super) fn new() -> Self {
        let (json, gzip) = (Vec::new(), Vec::new());
        Body { json, gzip, compress: None, ratio: FIRST_RATIO, line_bytes: 0 }
    }

    /// How many bytes of lines fill a body, about.
    pub(super) fn capacity(&self, limit: usize, is_gzip: bool) -> usize {
        (self.fill(limit, is_gzip) as f64 / JSON_PER_LINE) as usize
    }

    /// How many bytes of JSON to begin with.
    fn fill(&self, limit: usize, is_gzip: bool) -> usize {
        if !is_gzip {
            return limit;
        }
        ((limit as f64 * self.ratio * FILL) as usize).min(MAX_PLAIN.max(limit))
    }

    /// The body that was made last.
    pub(super) fn bytes(&self, is_gzip: bool) -> &[u8] {
        if is_gzip { &self.gzip } else { &self.json }
    }

    /// Makes a body of the first lines: at most `points`, at most `limit` bytes. Returns how many
    /// lines it holds: none when the first alone is too long.
    pub(super) fn make<'a>(
        &mut self,
        lines: &(impl Iterator<Item = &'a [u8]> + Clone),
        points: usize,
        limit: usize,
        is_gzip: bool,
    ) -> usize {
        let mut fill = self.fill(limit, is_gzip);
        loop {
            let (count, is_cut) = self.render(lines.clone(), points, fill, is_gzip);
            if !is_gzip {
                return count;
            }
            if self.compress(limit) {
                if is_cut {
                    self.ratio = self.json.len() as f64 / self.gzip.len().max(1) as f64;
                }
                return count;
            }
            if count <= 1 {
                return 0;
            }
            // A little less each time, however the sizes of the lines differ.
            fill = fill.min(self.json.len()) * 3 / 4;
            self.ratio = (fill as f64 / (limit as f64 * FILL)).max(1.0);
        }
    }

    /// Renders lines until `fill` bytes; returns how many, and whether there were more. With
    /// `at_least_one`, the first is rendered whatever its length.
    fn render<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a [u8]>,
        points: usize,
        fill: usize,
        at_least_one: bool,
    ) -> (usize, bool) {
        self.json.clear();
        self.json.push(b'[');
        self.line_bytes = 0;
        let mut count = 0;
        for line in lines {
            let end = self.json.len();
            if count == points {
                break;
            }
            if count > 0 {
                self.json.push(b',');
            }
            push_point(line, &mut self.json);
            if self.json.len() >= fill && (count > 0 || !at_least_one) {
                self.json.truncate(end);
                self.json.push(b']');
                return (count, true);
            }
            count += 1;
            self.line_bytes += line.len();
        }
        self.json.push(b']');
        (count, false)
    }

    /// Whether the JSON takes at most `limit` bytes when it is compressed.
    fn compress(&mut self, limit: usize) -> bool {
        let compress =
            self.compress.get_or_insert_with(|| Compress::new_gzip(Compression::fast(), 15));
        compress.reset();
        self.gzip.clear();
        self.gzip.reserve(limit.min(self.json.len() + GZIP_OVERHEAD));
        let status = compress.compress_vec(&self.json, &mut self.gzip, FlushCompress::Finish);
        matches!(status, Ok(Status::StreamEnd)) && self.gzip.len() <= limit
    }
}

/// More than gzip adds to a short body that it cannot compress.
const GZIP_OVERHEAD: usize = 1024;

/// Adds a point in JSON. What is no `put` line adds one that no server takes.
fn push_point(line: &[u8], json: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.split(|&byte| byte == b' ').skip(1);
    for part in ["{\"metric\":\"", "\",\"timestamp\":", ",\"value\":"] {
        json.extend_from_slice(part.as_bytes());
        json.extend_from_slice(words.next().unwrap_or_default());
    }
    json.extend_from_slice(b",\"tags\":{\"");
    for (index, tag) in words.enumerate() {
        if index > 0 {
            json.extend_from_slice(b"\",\"");
        }
        let split = tag.iter().position(|&byte| byte == b'=').unwrap_or(tag.len());
        json.extend_from_slice(&tag[..split]);
        json.extend_from_slice(b"\":\"");
        json.extend_from_slice(tag.get(split + 1..).unwrap_or_default());
    }
    json.extend_from_slice(b"\"}}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn json(line: &str) -> String {
        let mut json = Vec::new();
        push_point(line.as_bytes(), &mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn a_line_is_the_json_of_its_point() {
        let cases = [
            (
                "put a.b/c-d_e 1700000000 1 host=web\n",
                r#"{"metric":"a.b/c-d_e","timestamp":1700000000,"value":1,"tags":{"host":"web"}}"#,
            ),
            (
                "put m 1700000000123 -1.8446744073709552e19 a=1 le=0.5 zone=müll:/x\n",
                r#"{"metric":"m","timestamp":1700000000123,"value":-1.8446744073709552e19,"tags":{"a":"1","le":"0.5","zone":"müll:/x"}}"#,
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(json(line), expected);
            assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok());
        }
    }

    /// Lines that differ as a snapshot's do.
    fn lines(count: usize) -> Vec<String> {
        (0..count)
            .map(|n| {
                let value = n.wrapping_mul(2_654_435_761);
                format!(
                    "put http.requests.{} 1700000000 {value} host=web{} path=/a/{n}\n",
                    n % 7,
                    n % 3
                )
            })
            .collect()
    }

    /// The bodies of all lines, each with its points.
    fn bodies(lines: &[String], limit: usize, is_gzip: bool) -> Vec<(Vec<u8>, usize)> {
        let (mut body, mut rest, mut bodies) = (Body::new(), lines, Vec::new());
        while !rest.is_empty() {
            let slices = rest.iter().map(String::as_bytes);
            let count = body.make(&slices, usize::MAX, limit, is_gzip);
            assert!(count > 0);
            bodies.push((body.bytes(is_gzip).to_vec(), count));
            let taken: usize = rest[..count].iter().map(String::len).sum();
            assert_eq!(body.line_bytes, taken);
            rest = &rest[count..];
        }
        bodies
    }

    #[test]
    fn bodies_hold_every_line_once_and_none_is_too_large() {
        let lines = lines(3000);
        let expected: Vec<_> = lines.iter().map(|line| json(line)).collect();
        for (limit, is_gzip, most) in [
            (8000, true, 30),
            (8000, false, 60),
            (300, true, 3000),
            (300, false, 3000),
            (1 << 20, true, 1),
        ] {
            let mut found = Vec::new();
            let bodies = bodies(&lines, limit, is_gzip);
            assert!(bodies.len() <= most, "{} bodies of {limit}, gzip: {is_gzip}", bodies.len());
            for (bytes, count) in bodies {
                assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
                let mut text = String::new();
                if is_gzip {
                    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
                } else {
                    text = String::from_utf8(bytes).unwrap();
                }
                let points: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
                assert_eq!(points.len(), count);
                let text = text.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
                found.extend(
                    text.split_inclusive("}}").map(|it| it.trim_start_matches(',').to_owned()),
                );
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_body_is_filled_once_its_ratio_is_known() {
        let sizes: Vec<_> = bodies(&lines(6000), 8000, true).iter().map(|it| it.0.len()).collect();
        let full = &sizes[2..sizes.len() - 1];
        assert!(full.iter().all(|&size| size > 6000), "{sizes:?}");
    }

    #[test]
    fn a_line_that_is_too_long_alone_makes_no_body() {
        for is_gzip in [true, false] {
            let noise: String = (0..4000).map(|_| fastrand::alphanumeric()).collect();
            let line = format!("put {noise} 1 1 a=b\n");
            let lines = [line.as_bytes(), b"put m 1 1 a=b\n"];
            let made = Body::new().make(&lines.into_iter(), usize::MAX, 1000, is_gzip);
            assert_eq!(made, 0, "gzip: {is_gzip}");
        }
    }

    #[test]
    fn a_steady_body_moves_no_buffer() {
        let lines = lines(2000);
        let mut body = Body::new();
        let mut place = None;
        for _ in 0..10 {
            body.make(&lines.iter().map(String::as_bytes), usize::MAX, 8000, true);
            let now = (body.json.capacity(), body.gzip.as_ptr());
            assert!(place.replace(now).is_none_or(|before| before.1 == now.1));
        }
    }
}
