//! Storage, and the faults of a connection.

use super::*;

#[test]
fn sync_tells_of_storage_and_nobody_else_is_told() {
    let (tsd, mut client) = tsd_and_client();
    tsd.script(HttpFault::StorageFails);
    client.send(post("/api/put?details", GOOD));
    assert_eq!(client.json().1["success"], 1);
    client.send(post("/api/put?details&sync", format!("[{GOOD},{GOOD}]")));
    let (status, summary) = client.json();
    assert_eq!((status, &summary["failed"], &summary["success"]), (200, &json!(2), &json!(0)));
    assert_eq!(summary["errors"][1]["error"], "Storage exception: Region not available");
    client.send(post("/api/put?details&sync&sync_timeout=1000", format!("[{GOOD},{BAD}]")));
    let (status, summary) = client.json();
    assert_eq!((status, &summary["failed"], &summary["timeouts"]), (400, &json!(2), &json!(0)));
    client.send(post("/api/put?sync", GOOD));
    assert_eq!((client.status(), tsd.log().accepted_count()), (400, 0));
    tsd.heal();
    client.send(post("/api/put?details&sync", GOOD));
    assert_eq!((client.status(), tsd.log().accepted_count()), (200, 1));
}

#[test]
fn frozen_storage_holds_who_waits_for_it() {
    let (tsd, mut client) = tsd_and_client();
    client.send(post("/api/put", GOOD));
    assert_eq!(client.status(), 204);
    tsd.script(Fault::FreezeStorage);
    // Known names need no storage at once.
    let next = GOOD.replace("00,", "01,");
    client.send(post("/api/put", &next));
    assert_eq!(client.status(), 204);
    client.send(post("/api/put?details&sync&sync_timeout=30", next.replace("01,", "02,")));
    let (status, summary) = client.json();
    assert_eq!((status, &summary["timeouts"], &summary["success"]), (400, &json!(1), &json!(0)));
    assert_eq!(summary["errors"][0]["error"], "Write timedout");
    client.send(post("/api/put?details&sync", next.replace("01,", "03,")));
    let mut other = Client::connect(&tsd);
    other.send(post("/api/put", next.replace("\"m\"", "\"new\"")));
    let count = tsd.log().accepted_count();
    assert!(client.is_quiet() && other.is_quiet());
    tsd.heal();
    assert_eq!((client.status(), other.status()), (200, 204));
    assert_eq!((count, tsd.log().accepted_count()), (3, 5));
    no_violations(&tsd);
}

#[test]
fn the_faults_of_any_server_are_those_of_this_one() {
    let (tsd, mut client) = tsd_and_client();
    tsd.script(Fault::UnknownMetrics);
    client.send(post("/api/put?details", GOOD));
    assert_eq!(client.json().1["errors"][0]["error"], "Unknown metric");
    tsd.heal();
    for (fault, error) in [
        (Fault::Throttle, "Please throttle"),
        (Fault::Refusal("put: Timeout exception".into()), "Timeout exception"),
    ] {
        tsd.script(fault);
        client.send(post("/api/put?details", GOOD));
        assert_eq!(client.json().1["errors"][0]["error"], error);
    }
    tsd.heal();
    tsd.script(Fault::ReadOnly);
    client.send(post("/api/put", GOOD));
    assert_eq!(client.status(), 404);
    tsd.heal();
    assert_eq!(tsd.log().accepted_count(), 0);

    tsd.script(Fault::Mute);
    client.send(post("/api/put", GOOD));
    expect(&tsd, |log| log.accepted_count() == 1);
    assert!(client.is_quiet());
    tsd.script(Action::Reset);
    client.expect_reset();
    tsd.heal();

    let mut client = Client::connect(&tsd);
    tsd.script(Fault::Alien(b"SSH-2.0\r\n".to_vec()));
    assert_eq!(client.send(post("/api/put", GOOD)).rest(), "SSH-2.0\r\n");
    tsd.heal();

    let mut client = Client::connect(&tsd);
    let delay = Duration::from_millis(30);
    tsd.script(Fault::Delay(delay));
    let began = std::time::Instant::now();
    client.send(post("/api/put", GOOD));
    assert_eq!(client.status(), 204);
    assert!(began.elapsed() >= delay);
    tsd.heal();

    tsd.script(Fault::BreakAfter(100));
    Client::connect(&tsd).send(post("/api/put", GOOD)).expect_reset();
    assert_eq!(tsd.log().accepted_count(), 2);
    no_violations(&tsd);
}

#[test]
fn a_step_counts_requests() {
    let (tsd, mut client) = tsd_and_client();
    tsd.script(HttpFault::Answer(HttpAnswer::new(503).header("Retry-After", "7")));
    tsd.script(Action::Heal.after_lines(2));
    tsd.script(Action::Close.after_lines(1));
    let mut answers = Vec::new();
    for _ in 0..3 {
        client.send(post("/api/put", GOOD));
        answers.push(client.answer().0);
    }
    assert!(answers[1].contains("\r\nRetry-After: 7\r\n"), "{answers:?}");
    assert_eq!(answers.iter().map(|head| status(head)).collect::<Vec<_>>(), [503, 503, 204]);
    assert_eq!((client.rest().as_str(), tsd.log().accepted_count()), ("", 1));
}

/// A fault, everything that is said under it to one request, and whether the connection ends.
const ANSWERS: &[(HttpFault, &str, bool)] = &[
    (
        HttpFault::Chunked,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nTransfer-Encoding: \
         chunked\r\n\r\nc;a=b\r\n{\"failed\":0,\r\nc;a=b\r\n\"success\":1}\r\n0\r\nX-Trailer: 1\r\n\r\n",
        false,
    ),
    (HttpFault::UntilClose, "charset=UTF-8\r\n\r\n{\"failed\":0,\"success\":1}", true),
    (HttpFault::Cut(0), "", true),
    (HttpFault::Cut(20), "HTTP/1.1 200 OK\r\nCon", true),
    (HttpFault::WrongLength(5), "Content-Length: 29\r\n\r\n{\"failed\":0,\"success\":1}", false),
    (HttpFault::WrongLength(-5), "Content-Length: 19\r\n\r\n{\"failed\":0,\"success\":1}", false),
    (HttpFault::CloseUnanswered, "", true),
    (HttpFault::CloseAfter, "Connection: close\r\n", true),
    (HttpFault::CloseSilently, "Content-Length: 24\r\n\r\n{\"failed\":0,\"success\":1}", true),
];

#[test]
fn an_answer_is_as_wrong_as_it_was_told_to_be() {
    for (fault, said, ends) in ANSWERS {
        let (tsd, mut client) = tsd_and_client();
        tsd.script(fault.clone());
        client.send(post("/api/put?summary", GOOD));
        if !ends {
            expect(&tsd, |log| log.request_count() == 1);
            tsd.script(Action::Close);
        }
        let text = client.rest();
        let is_same = if said.is_empty() { text.is_empty() } else { text.contains(said) };
        assert!(is_same, "{fault:?}: {text}");
        assert_eq!(tsd.log().accepted_count(), usize::from(*fault != HttpFault::CloseUnanswered));
    }
}

#[test]
fn a_point_may_be_stored_although_the_answer_says_otherwise() {
    let (tsd, mut client) = tsd_and_client();
    tsd.script(HttpFault::Answer(HttpAnswer::new(502).body("<h1>Bad Gateway</h1>").storing()));
    client.send(post("/api/put", GOOD));
    assert_eq!(client.answer().1, "<h1>Bad Gateway</h1>");
    tsd.script(HttpFault::Answer(HttpAnswer::new(302).header("Location", "/login")));
    client.send(post("/api/put", GOOD));
    assert_eq!((client.status(), tsd.log().accepted_count()), (302, 1));
    assert!(tsd.wait_for(1, PATIENCE));
}
