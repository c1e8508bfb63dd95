//! What an answer means.
//!
//! | answer | the request's points |
//! |---|---|
//! | 2xx, empty or JSON | are confirmed; with [`Ask::Stored`] sent again, seldom |
//! | 200 or 400 with a TSD's details | are confirmed, those that it names as refused; with [`Ask::Stored`] sent again if one is not stored |
//! | 413, or 400 `Chunked request not supported` | are too many bytes |
//! | 415 | are sent again without gzip; seldom, if they were |
//! | any other 400, 422 | hold at least one that the server does not take |
//! | 500 | hold one if it stays, unless it is HTML or says that a database is missing |
//! | 408, 429, 500 in HTML, any other 5xx | are sent again, after `Retry-After` where it is given |
//! | 3xx, 401, 403, 404, 405, any other 4xx, HTML, 400 of a VictoriaMetrics that takes no points there | are sent again, seldom: they need a change of the configuration |

use std::time::Duration;

use serde::de::IgnoredAny;

use super::answer::Answer;
use super::head::Ask;
use crate::send::backoff::Wait;
use crate::send::endpoint::redact;
use crate::send::url::Secret;
use crate::wire::details::Details;

/// How much of a text is logged.
const SHOWN: usize = 200;
/// How much of a body is looked at for that: what is hidden in it makes it shorter.
const MAX_READ: usize = 16 * 1024;
/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// How a TSD refuses what is longer than it reads (net.opentsdb.tsd.PipelineFactory).
const TOO_LONG: &str = "Chunked request not supported";
/// How InfluxDB refuses all points while the database of its listener is not there.
const NO_DATABASE: &str = "database not found";
/// How VictoriaMetrics answers where it takes no points: on its other ports and paths.
const NO_PATH: &str = "unsupported path requested";

#[derive(Debug)]
pub(super) enum Verdict<'a> {
    Taken(Option<Details<'a>>),
    TooLarge(String),
    /// All or none: one point at least cannot be taken.
    Refused(String),
    /// It is not known whether the points are at fault.
    Failing(String),
    /// It takes no bodies of this coding, or of this type.
    Unsupported(String),
    /// Not now.
    Later(String, Wait),
}

/// What an answer means to a request of points. What it shows holds none of the secrets.
pub(super) fn judge<'a>(answer: &'a Answer, ask: Ask, secrets: &[Secret]) -> Verdict<'a> {
    let body = answer.body.trim_ascii();
    let is_json = || serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let details = (ask != Ask::Status).then(|| Details::parse(body)).flatten();
    let is_tsd_s = |details: &Details<'_>| {
        answer.status == 200 || (answer.status == 400 && details.has_failures())
    };
    if let Some(details) = details.filter(is_tsd_s) {
        let is_lacking = matches!(ask, Ask::Stored(_)) && details.has_storage_failures();
        if !is_lacking {
            return Verdict::Taken(Some(details));
        }
        let first = shown(details.first(), secrets);
        let reason = format!("the server did not store every point: {first}");
        return Verdict::Later(reason, Wait::AtLeastMin);
    }
    let has = |words: &str| body.windows(words.len()).any(|window| window == words.as_bytes());
    let said = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(MAX_READ)]);
        format!("the server answered {}: {}", answer.status, shown(&text, secrets))
    };
    let as_told = answer.retry_after.map(|time| Wait::AtLeast(time.min(MAX_RETRY_AFTER)));
    match answer.status {
        200..=299 if body.is_empty() || is_json() => match ask {
            Ask::Stored(_) => {
                let advice = "does not say what it stored; does a proxy drop the query?";
                let reason = format!("the server answered {}: it {advice}", answer.status);
                Verdict::Later(reason, Wait::Slowest)
            }
            Ask::Status | Ask::Details => Verdict::Taken(None),
        },
        413 => Verdict::TooLarge(said()),
        400 if has(TOO_LONG) => Verdict::TooLarge(said()),
        400 if has(NO_PATH) => {
            let advice = "correct the port and the path of the address";
            Verdict::Later(format!("{}; {advice}", said()), Wait::Slowest)
        }
        400 | 422 if !body.starts_with(b"<") => Verdict::Refused(said()),
        415 => Verdict::Unsupported(mistake(answer, secrets)),
        500 if has(NO_DATABASE) => Verdict::Later(said(), Wait::Slowest),
        500 if !body.starts_with(b"<") => Verdict::Failing(said()),
        408 | 429 | 500 | 502..=599 => Verdict::Later(said(), as_told.unwrap_or(Wait::Jittered)),
        // Without what it says, which may hold what it was sent: a header, a token.
        _ => Verdict::Later(mistake(answer, secrets), Wait::Slowest),
    }
}

/// Why a server that was sent no points would take none, if it would not.
pub(super) fn judge_check(answer: &Answer, secrets: &[Secret]) -> Option<String> {
    match judge(answer, Ask::Status, secrets) {
        // A TSD refuses a request without points.
        Verdict::Taken(_) | Verdict::Refused(_) | Verdict::TooLarge(_) | Verdict::Failing(_) => {
            None
        }
        Verdict::Unsupported(reason) | Verdict::Later(reason, _) => Some(reason),
    }
}

/// What to change.
fn mistake(answer: &Answer, secrets: &[Secret]) -> String {
    let advice = match answer.status {
        401 | 407 => "give a user and a password in the address, or a token with add_http_header",
        403 => "the credentials in the address or of add_http_header may not write there",
        404 => "correct the path of the address",
        405 => "correct the path of the address: it takes no POST",
        200..=299 => "with text that is no JSON; is the address that of a proxy or of a web site?",
        300..=399 => {
            let place = answer.location.as_deref().map(redact).unwrap_or_default();
            return format!(
                "the server answered {}: redirects are not followed; give the address that \
                 it leads to: \"{}\"",
                answer.status,
                shown(&place, secrets)
            );
        }
        _ => "correct the address, or what it leads to",
    };
    format!("the server answered {}: {advice}", answer.status)
}

/// The beginning of a text on one line, without the secrets: a server may repeat the request's path
/// and headers.
pub(super) fn shown(text: &str, secrets: &[Secret]) -> String {
    let hide = |text: String, secret: &Secret| text.replace(&*secret.0, "***");
    let text = secrets.iter().fold(text.to_owned(), hide);
    text.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.into(), ..Answer::default() }
    }

    fn verdict(status: u16, body: &str, ask: Ask) -> String {
        let answer = answer(status, body);
        let verdict = format!("{:?}", judge(&answer, ask, &[]));
        let end = verdict.find(['(', ' ']).unwrap();
        let wait = verdict.rfind(", ").filter(|_| verdict.starts_with("Later"));
        format!("{}{}", &verdict[..end], wait.map_or("", |at| &verdict[at..]))
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let stored = Ask::Stored(Duration::from_secs(1));
        let unstored =
            r#"{"errors":[{"datapoint":null,"error":"Storage exception: x"}],"failed":1}"#;
        let refused = r#"{"errors":[{"datapoint":null,"error":"Unknown metric"}],"failed":1}"#;
        let others = r#"{"errors":[{"code":"x","message":"tenant missing"}]}"#;
        let none = r#"{"errors":[],"failed":0,"success":1}"#;
        let error = |message: &str| format!(r#"{{"error":{{"code":400,"message":"{message}"}}}}"#);
        let page = format!("<html>{}{TOO_LONG}", " ".repeat(5000));
        let (chunked, unparsed) = (error(TOO_LONG), error("Unable to parse the given JSON"));
        let cases = [
            (204, "", Ask::Status, "Taken"),
            (200, "{}", Ask::Status, "Taken"),
            (202, "\n", Ask::Status, "Taken"),
            (204, "", Ask::Details, "Taken"),
            (204, "", stored, "Later, Slowest)"),
            (200, "{}", stored, "Later, Slowest)"),
            (200, none, stored, "Taken"),
            (200, "<html>", Ask::Status, "Later, Slowest)"),
            (200, "{\"errors\":[", Ask::Details, "Later, Slowest)"),
            (200, unstored, Ask::Details, "Taken"),
            (200, unstored, stored, "Later, AtLeastMin)"),
            (400, unstored, stored, "Later, AtLeastMin)"),
            (400, refused, stored, "Taken"),
            (400, refused, Ask::Details, "Taken"),
            (400, refused, Ask::Status, "Refused"),
            (400, others, Ask::Details, "Refused"),
            (400, none, Ask::Details, "Refused"),
            (400, &chunked, Ask::Details, "TooLarge"),
            (400, &page, Ask::Details, "TooLarge"),
            (400, &unparsed, Ask::Details, "Refused"),
            (400, "cannot parse", Ask::Status, "Refused"),
            (400, "<html>", Ask::Status, "Later, Slowest)"),
            (400, "unsupported path requested: \"/x\"", Ask::Status, "Later, Slowest)"),
            (413, "<html>", Ask::Status, "TooLarge"),
            (415, "<html>", Ask::Status, "Unsupported"),
            (500, "x", Ask::Status, "Failing"),
            (500, "<html>", Ask::Status, "Later, Jittered)"),
            (500, "database not found: \"opentsdb\"", Ask::Status, "Later, Slowest)"),
            (503, "<html>", Ask::Status, "Later, Jittered)"),
            (429, "", Ask::Status, "Later, Jittered)"),
            (408, "", Ask::Status, "Later, Jittered)"),
            (301, "", Ask::Status, "Later, Slowest)"),
            (401, "", Ask::Status, "Later, Slowest)"),
            (403, "", Ask::Status, "Later, Slowest)"),
            (404, "", Ask::Status, "Later, Slowest)"),
            (405, "", Ask::Status, "Later, Slowest)"),
        ];
        for (status, body, ask, expected) in cases {
            assert_eq!(verdict(status, body, ask), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_wait_is_as_told_and_has_an_end() {
        for (told, expected) in [(7, 7), (1_000_000, 600)] {
            let retry_after = Some(Duration::from_secs(told));
            let answer = Answer { retry_after, ..answer(503, "busy") };
            let Verdict::Later(reason, wait) = judge(&answer, Ask::Status, &[]) else { panic!() };
            assert_eq!(wait, Wait::AtLeast(Duration::from_secs(expected)));
            assert_eq!(reason, "the server answered 503: busy");
        }
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_not_shown() {
        let secrets = ["t0ken", "s3cret"].map(|it| Secret(it.to_owned()));
        let body = format!("{}\n/api/put?a=t0ken\\u0026b=s3cret", "t0ken ".repeat(60));
        for status in [400, 413, 500, 503] {
            let answer = answer(status, &body);
            let verdict = format!("{:?}", judge(&answer, Ask::Status, &secrets));
            assert!(verdict.contains("***"), "{verdict}");
            assert!(!verdict.contains("t0k") && !verdict.contains("s3c"), "{verdict}");
        }
    }

    #[test]
    fn a_check_passes_what_a_server_says_to_no_points() {
        let empty = r#"{"error":{"code":400,"message":"No datapoints found in content"}}"#;
        for (status, body) in [(204, ""), (400, empty), (200, "{}"), (500, "")] {
            assert_eq!(judge_check(&answer(status, body), &[]), None, "{status}");
        }
        let location = Some("https://u:p@tsd/x?t=secret".to_owned());
        let redirect = Answer { location, ..answer(302, "") };
        let reason = judge_check(&redirect, &[]).unwrap();
        assert!(reason.ends_with("leads to: \"https://***@tsd/x?***\""), "{reason}");
        for (status, words) in [(401, "a user and a password"), (404, "the path"), (405, "no POST")]
        {
            let reason = judge_check(&answer(status, "t0ken"), &[]).unwrap();
            assert!(reason.contains(words) && !reason.contains("t0ken"), "{reason}");
        }
    }
}
