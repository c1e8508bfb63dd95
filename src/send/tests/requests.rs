//! Requests that are answered too early or too slowly, on a clock that the test moves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::clocked::pass;
use super::ends::listener;
use super::{Rig, options};
use crate::clock::{Clock, Mock};
use crate::send::endpoint::Endpoint;
use crate::stats::Confirmation;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const REFUSAL: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
/// What a server may take without progress.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause after a failure, in the options of these tests.
const BACKOFF: Duration = Duration::from_millis(20);

/// A rig with so many points, and its server, which has read the first bytes of a request: of all
/// the points, if they fit into so many bytes.
fn within(points: usize, batch_bytes: usize) -> (Rig, Mock, TcpListener, TcpStream) {
    let listener = listener(2304);
    let address = listener.local_addr().unwrap();
    let mut options = options(&[], Confirmation::Auto);
    options.endpoints.push(Endpoint::parse(&format!("http://{address}")).unwrap());
    options.protocols.http.batch_bytes = batch_bytes;
    options.write_timeout = TIMEOUT;
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut rig = Rig::at(options, clock);
    // All of it waits when the connection is made, for which nobody has to look at the clock then.
    rig.push(points);
    let expedite = rig.queue.expedite();
    rig.until(|stats| stats.bytes_sent > 0);
    drop(expedite);
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    (rig, mock, listener, stream)
}

/// More than the kernel takes.
fn within_a_large_one() -> (Rig, Mock, TcpListener, TcpStream) {
    within(100_000, 1 << 23)
}

/// The rest of the request would be taken for the next one's beginning, and the answer is to none
/// that was sent.
#[test]
fn an_answer_within_a_request_confirms_nothing_and_ends_the_connection() {
    for answer in [ANSWER, REFUSAL] {
        let (rig, mock, _listener, mut stream) = within_a_large_one();
        stream.write_all(answer).unwrap();
        look(&rig);
        let _expedite = rig.queue.expedite();
        pass(&rig, &mock, BACKOFF);
        let stats = rig.until(|stats| stats.connects == 2);
        assert_eq!(stats.points_confirmed, 0);
    }
}

#[test]
fn an_answer_is_waited_for_while_it_comes() {
    let (rig, mock, _listener, mut stream) = within(1, 8000);
    for piece in ANSWER.chunks(10) {
        stream.write_all(piece).unwrap();
        look(&rig);
        assert_eq!(rig.counters.stats().disconnects, 0);
        pass(&rig, &mock, TIMEOUT * 3 / 5);
    }
    rig.until(|stats| stats.points_confirmed == 1);
}

/// Waits until the writer has looked at everything: a second look begins when the first has ended.
fn look(rig: &Rig) {
    for _ in 0..2 {
        drop(rig.queue.expedite());
        rig.until(|_| !rig.queue.waker().is_woken());
    }
}

#[test]
fn a_request_that_is_read_slowly_is_waited_for() {
    let (rig, mock, _listener, mut stream) = within_a_large_one();
    for _ in 0..4 {
        let before = rig.counters.stats().bytes_sent;
        stream.read_exact(&mut vec![0; 1 << 20]).unwrap();
        let stats = rig.until(|stats| stats.bytes_sent > before || stats.disconnects > 0);
        assert_eq!(stats.disconnects, 0);
        pass(&rig, &mock, TIMEOUT * 3 / 5);
    }
}
