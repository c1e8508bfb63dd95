//! The server by a raw client.

mod faults;

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};

use super::super::tests::{Client, PATIENCE, expect};
use super::super::{Action, FakeHttpTsd, Fault, HttpAnswer, HttpFault, TooLarge};
use crate::builder::Flavor;
use crate::wire::value::Value;

const GOOD: &str = r#"{"metric":"m","timestamp":1700000000,"value":1,"tags":{"host":"a"}}"#;
const BAD: &str = r#"{"metric":"m:","timestamp":1700000000,"value":1,"tags":{"host":"a"}}"#;

/// A request with a body, as a careful client sends it.
fn post(target: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with(target, "", body)
}

fn post_with(target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: tsd\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

impl Client {
    /// The head of the next answer, and its body by its length.
    fn answer(&mut self) -> (String, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &self.read(1);
        }
        let length = head
            .split("Content-Length: ")
            .nth(1)
            .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        let body = self.read(length.unwrap_or(0));
        (head, body)
    }

    fn status(&mut self) -> u16 {
        status(&self.answer().0)
    }

    fn json(&mut self) -> (u16, Json) {
        let (head, body) = self.answer();
        (status(&head), serde_json::from_str(&body).unwrap())
    }
}

fn status(head: &str) -> u16 {
    head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap()
}

fn tsd_and_client() -> (FakeHttpTsd, Client) {
    let tsd = FakeHttpTsd::start();
    let client = Client::connect(&tsd);
    (tsd, client)
}

#[track_caller]
fn no_violations(tsd: &FakeHttpTsd) {
    assert_eq!(tsd.log().violations(), [""; 0]);
}

#[test]
fn points_are_stored_and_kept_as_lines() {
    let (tsd, mut client) = tsd_and_client();
    let other =
        r#"{"tags":{"z":"1","a":"2"},"metric":"n.o","value":1.50,"timestamp":1700000000123}"#;
    client.send(post("/api/put", format!(" [{GOOD},\n{other}]")));
    assert_eq!(client.answer(), ("HTTP/1.1 204 OK\r\n\r\n".into(), String::new()));
    // One object is a point too, and its value may be a text.
    client
        .send(post("/api/put?details", GOOD.replace(":1,", ":\"2.5\",").replace("\"a\"", "\"b\"")));
    assert_eq!(client.json(), (200, json!({"success": 1, "failed": 0, "errors": []})));
    assert_eq!(
        tsd.lines(),
        [
            "put m 1700000000 1 host=a",
            "put n.o 1700000000123 1.50 a=2 z=1",
            "put m 1700000000 2.5 host=b"
        ]
    );
    assert_eq!(tsd.value("m", &[("host", "b")]), Some(Value::Float(2.5)));
    assert_eq!((tsd.points().len(), tsd.log().connection_count()), (3, 1));
    let requests = tsd.log().requests();
    assert_eq!(
        (requests.len(), requests[1].query.as_str(), requests[1].status),
        (2, "details", 200)
    );
    no_violations(&tsd);
}

/// A point, and what a TSD says of it.
const REFUSALS: &[(&str, &str)] = &[
    (r#"{"timestamp":1,"value":1,"tags":{"h":"a"}}"#, "Metric name was empty"),
    (r#"{"metric":"m","value":1,"tags":{"h":"a"}}"#, "Invalid timestamp"),
    (r#"{"metric":"m","timestamp":-1,"value":1,"tags":{"h":"a"}}"#, "Invalid timestamp"),
    (r#"{"metric":"m","timestamp":1,"value":null,"tags":{"h":"a"}}"#, "Empty value"),
    (r#"{"metric":"m","timestamp":1,"value":1,"tags":{}}"#, "Missing tags"),
    (r#"{"metric":"m","timestamp":1,"value":1}"#, "Missing tags"),
    (
        r#"{"metric":"m","timestamp":1,"value":"x","tags":{"h":"a"}}"#,
        "Unable to parse value to a number",
    ),
    (
        r#"{"metric":"m","timestamp":1,"value":99999999999999999999,"tags":{"h":"a"}}"#,
        "Unable to parse value to a number",
    ),
    (
        r#"{"metric":"m","timestamp":17000000000000,"value":1,"tags":{"h":"a"}}"#,
        "bad timestamp=17000000000000",
    ),
    (BAD, "Invalid metric name (\"m:\"): illegal character: :"),
    (r#"{"metric":"m","timestamp":1,"value":1,"tags":{"h":"a b"}}"#, "invalid tag: b"),
    (
        r#"{"metric":"m","timestamp":1,"value":1,"tags":{"h":"a b=c"}}"#,
        "a space in put m 1 1 h=a b=c",
    ),
    (r#"{"metric":"m","timestamp":1,"value":1,"tags":{"h":""}}"#, "invalid tag: h="),
    (
        r#"{"metric":"m","timestamp":1,"value":1,"tags":{"a":"1","b":"1","c":"1","d":"1","e":"1","f":"1","g":"1","h":"1","i":"1"}}"#,
        "Too many tags: 9 maximum allowed: 8, tags: {a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=1, i=1}",
    ),
];

#[test]
fn a_bad_point_is_named_and_the_good_ones_beside_it_are_stored() {
    for (index, (bad, what)) in REFUSALS.iter().enumerate() {
        let (tsd, mut client) = tsd_and_client();
        client.send(post("/api/put?details", format!("[{bad},{GOOD}]")));
        let (status, summary) = client.json();
        assert_eq!((status, &summary["success"], &summary["failed"]), (400, &json!(1), &json!(1)));
        assert_eq!(summary["errors"][0]["error"], *what, "{index}");
        assert!(summary["errors"][0]["datapoint"].get("tags").is_some());
        assert_eq!((tsd.points().len(), tsd.log().rejected_count()), (1, 1));
        assert_eq!(tsd.log().rejected()[0].1, *what);
        no_violations(&tsd);
    }
}

#[test]
fn without_details_a_tsd_says_only_that_something_is_bad() {
    let (_tsd, mut client) = tsd_and_client();
    client.send(post("/api/put", format!("[{BAD},{GOOD}]")));
    let (status, error) = client.json();
    assert_eq!(
        (status, &error["error"]["message"]),
        (400, &json!("One or more data points had errors"))
    );
    client.send(post("/api/put?summary", format!("[{BAD},{GOOD}]")));
    assert_eq!(client.json(), (400, json!({"success": 1, "failed": 1})));
}

#[test]
fn what_is_no_list_of_points_is_refused_whole() {
    for (body, message) in [
        ("", "Missing request content"),
        ("[]", "No datapoints found in content"),
        ("12", "The JSON must start as an object or an array"),
        ("[1]", "Unable to parse the given JSON"),
        ("[{\"metric\":{}}]", "Unable to parse the given JSON"),
        ("[{\"tags\":[]}]", "Unable to parse the given JSON"),
        ("[{\"timestamp\":\"x\"}]", "Unable to parse the given JSON"),
        ("[{},", "Unable to parse the given JSON"),
    ] {
        let (tsd, mut client) = tsd_and_client();
        client.send(post("/api/put?details", body));
        let (status, error) = client.json();
        assert_eq!((status, &error["error"]["message"]), (400, &json!(message)), "{body}");
        assert_eq!(tsd.lines(), [""; 0]);
    }
}

#[test]
fn other_servers_answer_204_to_bad_points_and_store_the_rest() {
    for flavor in [Flavor::VictoriaMetrics, Flavor::InfluxDb] {
        let tsd = FakeHttpTsd::builder().replies(flavor).start();
        let mut client = Client::connect(&tsd);
        let no_time = GOOD.replace("1700000000", "0");
        client.send(post("/api/put?details", format!("[{no_time},{GOOD},{BAD}]")));
        assert_eq!(client.status(), 204);
        assert_eq!((tsd.points().len(), tsd.log().rejected_count()), (2, 1));
        client.send(post("/api/put", "[]"));
        client.send(post("/api/put", "[").repeat(1));
        assert_eq!((client.status(), client.status()), (204, 400));
        client.send(post("/api/put", vec![b' '; 100_000]));
        assert_eq!(client.status(), 400);
    }
}

#[test]
fn one_bad_point_refuses_all_where_all_or_nothing_is_stored() {
    for status in [400, 500] {
        let tsd = FakeHttpTsd::builder().refuse_all(status).gzip(false).start();
        let mut client = Client::connect(&tsd);
        client.send(post("/api/put?details", format!("[{GOOD},{BAD}]")));
        assert_eq!(client.status(), status);
        assert_eq!(tsd.log().accepted_count(), 0);
        client.send(post("/api/put", format!("[{GOOD}]")));
        client.send("");
        assert_eq!(client.status(), 204);
        client.send(post_with("/api/put", "Content-Encoding: gzip\r\n", gzip(GOOD)));
        assert_eq!((client.status(), tsd.log().accepted_count()), (400, 1));
    }
}

#[test]
fn gzip_is_read_and_counts_by_its_size_on_the_wire() {
    let (tsd, mut client) = tsd_and_client();
    let points: Vec<_> = (0..500).map(|n| GOOD.replace("\"a\"", &format!("\"h{n}\""))).collect();
    let body = format!("[{}]", points.join(","));
    let packed = gzip(&body);
    assert!(body.len() > 8192 && packed.len() < 8192);
    client.send(post_with("/api/put", "Content-Encoding: gzip\r\n", &packed));
    assert_eq!((client.status(), tsd.log().accepted_count()), (204, 500));
    let request = &tsd.log().requests()[0];
    assert_eq!((request.body.len(), request.wire_bytes), (body.len(), packed.len()));
    // What only claims to be compressed closes the connection.
    client.send(post_with("/api/put", "Content-Encoding: gzip\r\n", GOOD));
    assert_eq!(client.rest(), "");
    no_violations(&tsd);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_head() {
    let head = b"POST /api/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 8193\r\n\r\n";
    let (tsd, mut client) = tsd_and_client();
    client.send(head);
    let (refusal, page) = client.answer();
    assert_eq!(status(&refusal), 400);
    assert!(page.contains("Chunked request not supported"), "{page}");
    // The body is thrown away, and the connection goes on.
    client.send([b'x'; 8193]).send(post("/api/put", GOOD));
    assert_eq!((client.status(), tsd.log().accepted_count()), (204, 1));
    client.send(post("/api/put", GOOD.to_owned() + &" ".repeat(8192 - GOOD.len())));
    assert_eq!(client.status(), 204);
    tsd.script(HttpFault::Limit(100, TooLarge::Status(413)));
    client.send(post("/api/put", " ".repeat(101)));
    assert_eq!(client.status(), 413);
    no_violations(&tsd);
    tsd.script(HttpFault::Limit(100, TooLarge::Close));
    client.send(head);
    assert_eq!(client.rest(), "");
}

#[test]
fn the_path_the_method_and_the_credentials_must_be_right() {
    let tsd =
        FakeHttpTsd::builder().path("/x").require_header("Authorization", "Basic abc").start();
    let mut client = Client::connect(&tsd);
    let authorization = "Authorization: Basic abc\r\n";
    client.send(post("/x", GOOD));
    client.send(post_with("/api/put", authorization, GOOD));
    client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{authorization}\r\n"));
    client.send(post_with("/x", authorization, GOOD));
    assert_eq!([(); 4].map(|()| client.status()), [401, 404, 405, 204]);
}

#[test]
fn what_no_client_should_send_is_written_down() {
    let post = |headers: &str| {
        format!(
            "POST /api/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n"
        )
    };
    for (request, violations, answer) in [
        (post("Expect: 100-continue\r\nContent-Length: 0\r\n"), vec!["a header Expect"], 400),
        (
            post("Transfer-Encoding: chunked\r\n"),
            vec!["a body in chunks", "no Content-Length"],
            400,
        ),
        (post(""), vec!["no Content-Length"], 400),
        (post("Content-Length: 1x\r\n"), vec!["a Content-Length that is no number"], 400),
        (post("Content-Length: 0\r\nContent-Length: 0\r\n"), vec!["a header twice"], 400),
        (
            "POST /api/put HTTP/1.1\r\nContent-Length: 0\r\n\r\n".into(),
            vec!["a Content-Type that is not application/json", "no Host"],
            400,
        ),
        ("put m 1 1 host=a\r\n\r\n".into(), vec!["no head of a request"], 0),
        ("\0\u{1}\u{7f}é\r\n\r\n".into(), vec!["no head of a request"], 0),
        ("GET / HTTP/1.0\r\n\r\n".into(), vec!["no head of a request"], 0),
        ("G".repeat(20_000), vec!["a head that is too long"], 0),
    ] {
        let (tsd, mut client) = tsd_and_client();
        client.send(&request);
        match answer {
            0 => assert_eq!(client.rest(), "", "{request}"),
            answer => assert_eq!(client.status(), answer, "{request}"),
        }
        assert_eq!(tsd.log().violations(), violations, "{request}");
    }
}

#[test]
fn a_second_request_in_flight_and_other_bytes_again_are_violations() {
    let (tsd, mut client) = tsd_and_client();
    client.send([post("/api/put", GOOD), post("/api/put", GOOD)].concat());
    assert_eq!((client.status(), client.status()), (204, 204));
    assert_eq!(tsd.log().violations(), ["two requests in flight"]);
    assert_eq!((tsd.log().resent_count(), tsd.log().poisoned().len()), (1, 0));
    client.send(post("/api/put", GOOD.replace(':', ": ")));
    assert_eq!(client.status(), 204);
    assert!(tsd.log().violations()[1].starts_with("a point as other bytes: {\"metric\": "));
}

#[test]
fn garbage_never_stops_it() {
    let (tsd, _) = tsd_and_client();
    let mut random = fastrand::Rng::with_seed(16);
    let good = post("/api/put?details&sync", format!("[{GOOD},{BAD}]"));
    for _ in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let mut client = Client::connect(&tsd);
        client.send(bytes).stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = client.stream.read_to_end(&mut Vec::new());
    }
    let mut client = Client::connect(&tsd);
    client.send(post("/api/put", GOOD.replace("\"m\"", "\"end\"")));
    assert_eq!((client.status(), tsd.value("end", &[])), (204, Some(Value::Integer(1))));
}
