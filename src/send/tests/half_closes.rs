//! What the end of a connection proves when we have closed our side.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::ends::{assert_whole, listener, read_on};
use super::{Rig, SECOND, options};
use crate::clock::{Clock, Mock};
use crate::stats::Confirmation;

/// As of a machine that goes down: it closed its sockets, and takes nothing any more.
#[test]
fn a_server_that_closes_without_having_taken_everything_confirms_nothing() {
    let listener = listener(2304);
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let options = options(&[listener.local_addr().unwrap()], Confirmation::HalfClose);
    let timeout = options.write_timeout;
    let mut rig = Rig::at(options, clock);
    let queue = Arc::clone(&rig.queue);
    let _expedite = queue.expedite();
    let pass = |rig: &Rig, time: Duration| {
        mock.advance(time);
        drop(queue.expedite());
        // For as long as the writer takes to see it.
        let mut turns = 0..50;
        rig.until(|_| turns.next().is_none());
    };
    rig.push(1);
    let (mut orderly, _) = listener.accept().unwrap();
    rig.until(|stats| stats.points_sent == 1);
    pass(&rig, SECOND);
    assert_whole(&read_on(&mut orderly, false));
    drop(orderly);
    rig.until(|stats| stats.points_confirmed == 1);
    rig.push(200);
    let (mut stream, _) = listener.accept().unwrap();
    rig.until(|stats| stats.points_sent == 201);
    pass(&rig, SECOND);
    stream.shutdown(Shutdown::Write).unwrap();
    pass(&rig, Duration::ZERO);
    pass(&rig, timeout - Duration::from_millis(1));
    assert_eq!((rig.counters.stats().points_confirmed, rig.counters.stats().disconnects), (1, 0));
    pass(&rig, SECOND);
    let stats = rig.until(|stats| stats.disconnects == 1);
    assert_eq!(stats.points_confirmed, 1);
    assert_whole(&read_on(&mut stream, false));
}

/// As when the process of a server ends that has closed its side and not read everything.
#[test]
fn a_reset_after_the_end_of_both_sides_confirms_nothing() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let (rig, stream) = half_closed(&mock, clock);
    drop(stream);
    let stats = rig.until(|stats| stats.disconnects == 1);
    assert_eq!(stats.points_confirmed, 0);
}

/// As on a system that never tells that the other side has everything, where a reset may come
/// later.
#[test]
fn where_nothing_tells_of_what_arrived_the_end_of_both_sides_is_believed_after_two_seconds() {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let (rig, _stream) = half_closed(&mock, clock);
    mock.advance(2 * SECOND - Duration::from_millis(1));
    drop(rig.queue.expedite());
    let mut turns = 0..50;
    rig.until(|_| turns.next().is_none());
    assert_eq!(rig.counters.stats().points_confirmed, 0);
    mock.advance(Duration::from_millis(1));
    drop(rig.queue.expedite());
    rig.until(|stats| stats.points_confirmed == 200 && stats.disconnects == 0);
}

/// A rig that has closed its side behind 200 lines, and a server that has closed its own and taken
/// some of them. The clock stands still since then.
fn half_closed(mock: &Mock, clock: Clock) -> (Rig, TcpStream) {
    let listener = listener(2304);
    let mut rig =
        Rig::at(options(&[listener.local_addr().unwrap()], Confirmation::HalfClose), clock);
    let queue = Arc::clone(&rig.queue);
    let _expedite = queue.expedite();
    rig.push(200);
    let (stream, _) = listener.accept().unwrap();
    rig.until(|stats| stats.points_sent == 200);
    mock.advance(SECOND);
    drop(queue.expedite());
    let mut turns = 0..50;
    rig.until(|_| turns.next().is_none());
    stream.shutdown(Shutdown::Write).unwrap();
    let mut turns = 0..50;
    rig.until(|_| turns.next().is_none());
    (rig, stream)
}
