//! A request is handled.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::super::fault::{Fault, Mode};
use super::super::log::HttpRequest;
use super::super::rpc::{Answer, Desk};
use super::fault::{HttpAnswer, HttpFault, TooLarge};
use super::options::HttpOptions;
use super::put::{self, DataPoint};
use crate::builder::Flavor;

/// The longest message that Netty's decoder gives as one, and so a TSD's limit.
const TSD_LIMIT: usize = 8192;
/// VictoriaMetrics' `-opentsdbhttp.maxInsertRequestSize`; InfluxDB has no limit.
const LENIENT_LIMIT: usize = 32 << 20;
/// The most that a body may become.
const MAX_INFLATED: u64 = 256 << 20;
const BAD_POINTS: &str = "One or more data points had errors";
const SEE_LOGS: &str = "Please see the TSD logs or append \"details\" to the put request";

/// Handles the request that `bytes` begin with, if enough of it is there. Returns how long it is,
/// and the answer unless it waits for storage.
pub(in super::super) fn handle(
    bytes: &[u8],
    desk: &mut Desk<'_>,
    is_busy: bool,
) -> Option<(usize, Option<Answer>)> {
    let options = desk.options.http.as_ref()?;
    let (mut request, head) = match HttpRequest::read(bytes)? {
        Ok(read) => read,
        Err(what) => {
            desk.log.violate(what);
            return Some((bytes.len(), Some(HttpAnswer::none().render(&[]))));
        }
    };
    let (mode, flavor) = (desk.mode, desk.options.replies.flavor);
    let exchange = Exchange { request: &request, mode, options, flavor };
    let size = head.saturating_add(request.wire_bytes);
    let mut body = Vec::new();
    let handled = match exchange.refuse() {
        Some(refusal) => Some(refusal),
        None if bytes.len() < size => return None,
        None if !exchange.inflate(&bytes[head..size], &mut body) => Some(HttpAnswer::none()),
        None => exchange.route(desk, &body),
    };
    let Some(right) = handled else { return Some((size, None)) };
    let answer = exchange.other_answer().filter(|_| right.status > 0).unwrap_or(&right);
    let mut rendered = answer.render(&mode.http);
    // Where a body in chunks ends, nobody knows.
    rendered.is_last |= request.header("transfer-encoding").is_some()
        || request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    let in_flight = is_busy.then_some("two requests in flight");
    request.violations().chain(in_flight).for_each(|what| desk.log.violate(what));
    (request.connection, request.status, request.body) = (desk.connection, answer.status, body);
    desk.log.request(request);
    Some((size, Some(rendered)))
}

/// All that it takes to handle a request, but the desk.
struct Exchange<'a> {
    request: &'a HttpRequest,
    mode: &'a Mode,
    options: &'a HttpOptions,
    flavor: Flavor,
}

impl Exchange<'_> {
    /// What is said to the head alone.
    fn refuse(&self) -> Option<HttpAnswer> {
        let limit = self.mode.http.iter().rev().find_map(|fault| match fault {
            HttpFault::Limit(bytes, how) => Some((*bytes, *how)),
            _ => None,
        });
        let (most, how) = match self.flavor {
            Flavor::OpenTsdb => (TSD_LIMIT, TooLarge::NotSupported),
            _ => (LENIENT_LIMIT, TooLarge::Status(400)),
        };
        let (limit, how) = limit.unwrap_or((self.options.max_body_bytes.unwrap_or(most), how));
        let is_refused = self.request.wire_bytes > limit || self.request.is_in_chunks();
        is_refused.then(|| match how {
            TooLarge::NotSupported => HttpAnswer::page(400, "Chunked request not supported."),
            TooLarge::Status(status) => HttpAnswer::page(status, "too large"),
            TooLarge::Close => HttpAnswer::none(),
        })
    }

    /// Puts down the body as it was before it was compressed; returns whether it could be read.
    fn inflate(&self, wire: &[u8], body: &mut Vec<u8>) -> bool {
        if self.request.header("content-encoding") != Some("gzip") || !self.options.takes_gzip {
            body.extend_from_slice(wire);
            return true;
        }
        let inflated = MultiGzDecoder::new(wire).take(MAX_INFLATED).read_to_end(body);
        // A TSD closes the connection, others answer 400.
        inflated.is_ok() || self.flavor != Flavor::OpenTsdb
    }

    /// The right answer, unless the request waits for storage.
    fn route(&self, desk: &mut Desk<'_>, body: &[u8]) -> Option<HttpAnswer> {
        if let Some(answer) = self.other_answer().filter(|answer| !answer.stores) {
            return Some(answer.clone());
        }
        if self.mode.http.contains(&HttpFault::CloseUnanswered) {
            return Some(HttpAnswer::none());
        }
        let required = self.options.required.as_ref();
        if required.is_some_and(|(name, value)| self.request.header(name) != Some(value)) {
            return Some(HttpAnswer::page(401, ""));
        }
        if self.request.path != self.options.path || self.mode.has(&Fault::ReadOnly) {
            return Some(HttpAnswer::error(404, "Endpoint not found", ""));
        }
        if self.request.method != "POST" {
            return Some(HttpAnswer::error(405, "Method not allowed", ""));
        }
        match put::points(body) {
            Ok(points) => self.put(desk, &points),
            Err(_) if self.flavor != Flavor::OpenTsdb && body == b"[]" => {
                Some(HttpAnswer::new(204))
            }
            Err(what) => Some(HttpAnswer::error(400, what, "")),
        }
    }

    /// Stores the good points, or none.
    fn put(&self, desk: &mut Desk<'_>, points: &[DataPoint<'_>]) -> Option<HttpAnswer> {
        let is_sync = self.asks("sync");
        let timeout = self.request.parameter("sync_timeout").and_then(|it| it.parse().ok());
        let timeout = timeout.filter(|&millis| is_sync && millis > 0).map(Duration::from_millis);
        let is_late = is_sync && self.mode.has(&Fault::FreezeStorage);
        let checked: Vec<_> = points.iter().map(|point| point.check(desk)).collect();
        let is_stuck = checked.iter().flatten().any(|put| desk.is_stuck(put));
        if is_stuck || (is_late && timeout.is_none()) {
            return None;
        }
        let is_lost = self.mode.http.contains(&HttpFault::StorageFails);
        let unstored = (is_lost && is_sync).then_some("Storage exception: Region not available");
        let failure = if is_late { Some("Write timedout") } else { unstored };
        let errors = points.iter().zip(&checked).filter_map(|(point, put)| {
            let what = put.as_ref().err().map(String::as_str).or(failure)?;
            Some(point.error(what))
        });
        let errors: Vec<_> = errors.collect();
        let good = checked.iter().flatten().count();
        let stores = !is_lost && (good == points.len() || self.options.refuses_all.is_none());
        for (DataPoint { line, json, .. }, put) in points.iter().zip(checked) {
            match put {
                Ok(put) if stores => desk.log.accept_json(desk.connection, line, put, json),
                Ok(_) => {}
                Err(what) => desk.log.reject(desk.connection, line.as_bytes(), &what),
            }
        }
        let timeouts = if is_late { good } else { 0 };
        let (success, failed) = (points.len() - errors.len(), errors.len() - timeouts);
        let mut summary = json!({ "success": success, "failed": failed });
        if timeout.is_some() {
            summary["timeouts"] = timeouts.into();
        }
        let answer = self.verdict(is_late || good < points.len(), errors, summary);
        Some(HttpAnswer { after: timeout.filter(|_| is_late).unwrap_or_default(), ..answer })
    }

    fn verdict(&self, is_bad: bool, errors: Vec<Value>, mut summary: Value) -> HttpAnswer {
        let is_short = !self.asks("details") && !self.asks("summary");
        match self.options.refuses_all.filter(|_| is_bad) {
            Some(status) => HttpAnswer::json(status, &json!({ "error": errors[0]["error"] })),
            None if is_short && self.flavor == Flavor::OpenTsdb && !errors.is_empty() => {
                HttpAnswer::error(400, BAD_POINTS, SEE_LOGS)
            }
            None if is_short => HttpAnswer::new(204),
            None => {
                if self.asks("details") {
                    summary["errors"] = errors.into();
                }
                HttpAnswer::json(if is_bad { 400 } else { 200 }, &summary)
            }
        }
    }

    /// What is answered in the place of the right answer.
    fn other_answer(&self) -> Option<&HttpAnswer> {
        self.mode.http.iter().rev().find_map(|fault| match fault {
            HttpFault::Answer(answer) => Some(answer),
            _ => None,
        })
    }

    /// Whether a TSD is asked for this.
    fn asks(&self, parameter: &str) -> bool {
        self.flavor == Flavor::OpenTsdb && self.request.parameter(parameter).is_some()
    }
}
