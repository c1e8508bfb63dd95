//! A request is handled.

use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::super::fault::Mode;
use super::super::log::HttpRequest;
use super::super::rpc::{Answer, Desk, Outcome};
use super::fault::{HttpAnswer, HttpFault, TooLarge};
use super::options::HttpOptions;
use super::put::{self, DataPoint};
use super::request::Head;
use crate::builder::Flavor;

/// The most that a body may become.
const MAX_INFLATED: u64 = 256 << 20;

const SEE_LOGS: &str = "Please see the TSD logs or append \"details\" to the put request";

/// Handles the request that `bytes` begin with, if enough of it is there; answers how long it is.
pub(in super::super) fn handle(
    bytes: &[u8],
    desk: &mut Desk<'_>,
    mode: &Mode,
    is_busy: bool,
) -> Option<(usize, Outcome)> {
    let options = desk.options.http.as_ref()?;
    let head = match Head::read(bytes)? {
        Ok(head) => head,
        Err(what) => {
            desk.log.violate(what.to_owned());
            let answer = HttpAnswer::page(400, what).render(&mode.http);
            return Some((bytes.len(), Outcome::Answer(Answer { is_last: true, ..answer })));
        }
    };
    let exchange = Exchange { head: &head, mode, options, flavor: desk.options.replies.flavor };
    let size = head.size + head.body_size();
    let refusal = exchange.refusal();
    if refusal.is_none() && bytes.len() < size {
        return None;
    }
    let wire = bytes.get(head.size..size).unwrap_or_default();
    let (body, handled) = match refusal {
        Some(handled) => (Vec::new(), handled),
        None => match exchange.inflate(wire) {
            Some(body) => {
                let handled = exchange.route(desk, &body);
                (body, handled)
            }
            None => (Vec::new(), Handled::Close),
        },
    };
    if handled == Handled::Blocked {
        return Some((size, Outcome::Blocked));
    }
    let violations = head.violations().chain(is_busy.then(|| "two requests in flight".into()));
    violations.for_each(|what| desk.log.violate(what));
    let (status, mut answer) = exchange.answer(handled);
    // Where the body ends, nobody knows.
    answer.is_last |= head.header("transfer-encoding").is_some();
    answer.is_last |= head.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    desk.log.request(HttpRequest {
        connection: desk.connection,
        arrived: Instant::now(),
        method: head.method.to_owned(),
        path: head.path.to_owned(),
        query: head.query.to_owned(),
        headers: head.headers.iter().map(|(name, it)| (name.clone(), (*it).to_owned())).collect(),
        body,
        wire_bytes: head.body_size(),
        status,
    });
    Some((size, Outcome::Answer(answer)))
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Handled {
    Answer(HttpAnswer),
    /// An answer after so much time.
    Later(HttpAnswer, Duration),
    /// The connection is closed without an answer.
    Close,
    /// It waits for storage.
    Blocked,
}

/// All that it takes to handle a request, but the desk.
struct Exchange<'a> {
    head: &'a Head<'a>,
    mode: &'a Mode,
    options: &'a HttpOptions,
    flavor: Flavor,
}

impl Exchange<'_> {
    /// What is said to the head alone.
    fn refusal(&self) -> Option<Handled> {
        let limit = self.mode.http.iter().rev().find_map(|fault| match fault {
            HttpFault::Limit(bytes, how) => Some((*bytes, *how)),
            _ => None,
        });
        let (limit, how) = limit.unwrap_or_else(|| self.options.limit(self.flavor));
        if self.head.body_size() <= limit && !self.head.is_in_chunks() {
            return None;
        }
        Some(match how {
            TooLarge::NotSupported => {
                Handled::Answer(HttpAnswer::page(400, "Chunked request not supported."))
            }
            TooLarge::Status413 => Handled::Answer(HttpAnswer::page(413, "")),
            TooLarge::Close => Handled::Close,
        })
    }

    /// The body as it was before it was compressed; `None` where a TSD closes the connection.
    fn inflate(&self, wire: &[u8]) -> Option<Vec<u8>> {
        if self.head.header("content-encoding") != Some("gzip") || !self.options.takes_gzip {
            return Some(wire.to_vec());
        }
        let mut body = Vec::new();
        let inflated = MultiGzDecoder::new(wire).take(MAX_INFLATED).read_to_end(&mut body);
        match inflated {
            Ok(_) => Some(body),
            Err(_) if self.flavor == Flavor::OpenTsdb => None,
            Err(_) => Some(wire.to_vec()),
        }
    }

    fn route(&self, desk: &mut Desk<'_>, body: &[u8]) -> Handled {
        if let Some(answer) = self.other_answer().filter(|answer| !answer.stores) {
            return Handled::Answer(answer.clone());
        }
        if self.mode.http.contains(&HttpFault::CloseUnanswered) {
            return Handled::Close;
        }
        let required = self.options.required.as_ref();
        if required.is_some_and(|(name, value)| self.head.header(name) != Some(value)) {
            return Handled::Answer(HttpAnswer::page(401, ""));
        }
        if self.head.path != self.options.path || self.mode.is_read_only {
            let details = "The requested endpoint was not found";
            return Handled::Answer(HttpAnswer::error(404, "Endpoint not found", details));
        }
        if self.head.method != "POST" {
            let details = format!("The HTTP method [{}] is not permitted", self.head.method);
            return Handled::Answer(HttpAnswer::error(405, "Method not allowed", &details));
        }
        match put::points(body) {
            Ok(points) => self.put(desk, &points),
            Err(_) if self.flavor != Flavor::OpenTsdb && body.trim_ascii() == b"[]" => {
                Handled::Answer(HttpAnswer::new(204))
            }
            Err(what) => Handled::Answer(HttpAnswer::error(400, what, "")),
        }
    }

    /// Stores the good points, or none.
    fn put(&self, desk: &mut Desk<'_>, points: &[DataPoint<'_>]) -> Handled {
        let is_sync = self.asks("sync");
        let timeout = self.head.parameter("sync_timeout").and_then(|it| it.parse().ok());
        let timeout = timeout.filter(|&millis| is_sync && millis > 0).map(Duration::from_millis);
        let checked: Vec<_> = points.iter().map(|point| point.check(desk, self.mode)).collect();
        let is_stuck = checked.iter().flatten().any(|put| desk.is_stuck(put, self.mode));
        let is_late = self.mode.is_frozen && is_sync;
        if is_stuck || (is_late && timeout.is_none()) {
            return Handled::Blocked;
        }
        let storage_fails = self.mode.http.contains(&HttpFault::StorageFails);
        let failure = match () {
            () if is_late => Some("Write timedout"),
            () if storage_fails && is_sync => Some("Storage exception: Region not available"),
            () => None,
        };
        let errors = points.iter().zip(&checked).filter_map(|(point, put)| {
            let what = put.as_ref().err().map(String::as_str).or(failure)?;
            Some(point.error(what))
        });
        let errors: Vec<_> = errors.collect();
        let invalid = checked.iter().filter(|put| put.is_err()).count();
        let stores = !storage_fails && (invalid == 0 || self.options.refuses_all.is_none());
        for (point, put) in points.iter().zip(checked) {
            match put {
                Ok(put) if stores => {
                    desk.log.accept_json(desk.connection, &point.line(), put, point.json);
                }
                Ok(_) => {}
                Err(what) => desk.log.reject(desk.connection, point.line().as_bytes(), &what),
            }
        }
        let timeouts = if is_late { points.len() - invalid } else { 0 };
        let mut summary = json!({
            "success": points.len() - errors.len(),
            "failed": errors.len() - timeouts,
        });
        if timeout.is_some() {
            summary["timeouts"] = timeouts.into();
        }
        let answer = self.verdict(invalid + timeouts > 0, errors, summary);
        timeout
            .filter(|_| is_late)
            .map_or(Handled::Answer(answer.clone()), |timeout| Handled::Later(answer, timeout))
    }

    fn verdict(&self, is_bad: bool, errors: Vec<Value>, mut summary: Value) -> HttpAnswer {
        if let Some(status) = self.options.refuses_all.filter(|_| is_bad) {
            return HttpAnswer::json(status, &json!({ "error": errors[0]["error"] }));
        }
        if self.asks("details") {
            summary["errors"] = errors.into();
        } else if !self.asks("summary") {
            return match self.flavor == Flavor::OpenTsdb && !errors.is_empty() {
                true => HttpAnswer::error(400, "One or more data points had errors", SEE_LOGS),
                false => HttpAnswer::new(204),
            };
        }
        HttpAnswer::json(if is_bad { 400 } else { 200 }, &summary)
    }

    /// The answer, and its status, 0 without one.
    fn answer(&self, handled: Handled) -> (u16, Answer) {
        let (answer, after) = match handled {
            Handled::Answer(answer) => (answer, Duration::ZERO),
            Handled::Later(answer, after) => (answer, after),
            Handled::Close | Handled::Blocked => {
                return (0, Answer { is_last: true, ..Answer::default() });
            }
        };
        let answer = self.other_answer().unwrap_or(&answer);
        (answer.status, Answer { after, ..answer.render(&self.mode.http) })
    }

    /// What is answered in the place of the right answer.
    fn other_answer(&self) -> Option<&HttpAnswer> {
        self.mode.http.iter().rev().find_map(|fault| match fault {
            HttpFault::Answer(answer) => Some(answer),
            _ => None,
        })
    }

    fn asks(&self, parameter: &str) -> bool {
        self.flavor == Flavor::OpenTsdb && self.head.parameter(parameter).is_some()
    }
}
