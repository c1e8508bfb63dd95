//! The ends of a connection: what the server has read never ends within a line, and nothing is
//! confirmed by an end that proves nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::faults::nobody;
use super::{Rig, SECOND, address, options};
use crate::builder::Flavor;
use crate::clock::{Clock, Instant};
use crate::queue::{Phase, Queue};
use crate::send::Writer;
use crate::send::telnet::confirm::QUESTION;
use crate::stats::{Confirmation, Counters};
use crate::testing::{Action, FakeTsd, Fault};

/// A listener whose connections have such a receive buffer.
pub(super) fn listener(receive_buffer: usize) -> TcpListener {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = socket2::SockRef::from(&listener);
    socket.set_recv_buffer_size(receive_buffer).unwrap();
    // As on a network: on loopback a segment holds all that is on its way.
    #[cfg(unix)]
    socket.set_tcp_mss(1448).unwrap();
    listener
}

/// A server that does not read, and a rig that sends to it until the kernel takes no more.
fn stalled(confirmation: Confirmation, receive_buffer: usize) -> (Rig, TcpStream) {
    let listener = listener(receive_buffer);
    let mut options = options(&[listener.local_addr().unwrap()], confirmation);
    options.write_timeout = Duration::from_millis(300);
    let mut rig = Rig::with(options);
    rig.push(100_000);
    let (stream, _) = listener.accept().unwrap();
    let mut last = 0;
    rig.until(|stats| {
        std::thread::park_timeout(Duration::from_millis(40));
        std::mem::replace(&mut last, stats.bytes_sent) == stats.bytes_sent && last > 0
    });
    (rig, stream)
}

/// Reads to the end, however that comes, and answers each `version` if it is to.
pub(super) fn read_on(stream: &mut TcpStream, answers: bool) -> Vec<u8> {
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    let (mut received, mut buffer, mut answered) = (Vec::new(), [0; 1024], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return received,
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return received,
            Err(error) => panic!("{error}"),
        }
        if answers {
            let questions = received.windows(8).filter(|bytes| bytes == b"version\n").count();
            for _ in answered..questions {
                let _ =
                    stream.write_all(b"net.opentsdb.tools 2.4.1 built at revision x\nBuilt on y\n");
            }
            answered = questions;
        }
    }
}

pub(super) fn assert_whole(received: &[u8]) {
    let tail = String::from_utf8_lossy(&received[received.len().saturating_sub(60)..]);
    assert!(received.ends_with(b"\n"), "{} bytes, then {tail:?}", received.len());
}

#[test]
fn a_server_that_ends_its_side_and_reads_on_gets_whole_lines() {
    for (round, receive_buffer) in [2304, 4096, 5000, 16_384, 65_536].into_iter().enumerate() {
        let confirmation = [Confirmation::Version, Confirmation::HalfClose][round % 2];
        let (rig, mut stream) = stalled(confirmation, receive_buffer);
        stream.shutdown(Shutdown::Write).unwrap();
        rig.until(|stats| stats.disconnects > 0);
        assert_whole(&read_on(&mut stream, false));
        assert_eq!(rig.counters.stats().points_confirmed, 0);
    }
}

#[test]
fn a_server_that_was_given_up_and_answers_after_all_gets_whole_lines() {
    for receive_buffer in [2304, 4096, 16_384, 65_536] {
        let (rig, mut stream) = stalled(Confirmation::Version, receive_buffer);
        rig.until(|stats| stats.disconnects > 0);
        assert_whole(&read_on(&mut stream, true));
    }
}

#[test]
fn an_abandoned_writer_leaves_whole_lines_to_a_server_that_does_not_read() {
    for receive_buffer in [2304, 4096, 16_384, 65_536] {
        let (rig, mut stream) = stalled(Confirmation::HalfClose, receive_buffer);
        rig.queue.abandon();
        assert!(rig.queue.wait_finished(Some(Instant::now() + SECOND)));
        assert_whole(&read_on(&mut stream, false));
    }
}

/// What the kernel still has of a connection that was given up is lost when the server answers it
/// and the socket is gone.
#[test]
fn a_server_that_was_given_up_gets_whole_lines_though_another_has_confirmed_everything() {
    let listener = listener(4096);
    let mut options = options(&[listener.local_addr().unwrap()], Confirmation::HalfClose);
    options.write_timeout = Duration::from_millis(300);
    let mut rig = Rig::with(options);
    rig.push(1_000);
    let (mut first, _) = listener.accept().unwrap();
    // Those that come after it are not slow.
    socket2::SockRef::from(&listener).set_recv_buffer_size(1 << 20).unwrap();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(read_on(&mut stream.unwrap(), false)));
    });
    rig.close();
    assert_eq!(rig.counters.stats().points_confirmed, 1_000);
    first.write_all(b"put: HBase error: late\n").unwrap();
    assert_whole(&read_on(&mut first, false));
}

#[test]
fn each_connection_that_was_given_up_gets_whole_lines() {
    let listener = listener(4096);
    let mut options = options(&[listener.local_addr().unwrap()], Confirmation::Version);
    options.write_timeout = Duration::from_millis(300);
    let mut rig = Rig::with(options);
    rig.push(100_000);
    let mut streams: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    rig.until(|stats| stats.disconnects >= 3);
    for stream in &mut streams {
        stream.write_all(b"put: HBase error: late\n").unwrap();
        assert_whole(&read_on(stream, false));
    }
}

/// As one does that was told [`Confirmation::Written`], or whose connection was too old.
#[test]
fn a_server_that_reads_on_long_after_our_end_gets_whole_lines() {
    let listener = listener(4096);
    let mut rig = Rig::with(options(&[listener.local_addr().unwrap()], Confirmation::Written));
    rig.push(200);
    let (mut stream, _) = listener.accept().unwrap();
    rig.close();
    assert_eq!(rig.counters.stats().points_confirmed, 200);
    stream.write_all(b"put: HBase error: late\n").unwrap();
    assert_whole(&read_on(&mut stream, false));
}

/// Of more connections than are kept, and of the first that is not.
#[test]
fn the_last_connections_that_were_given_up_get_whole_lines_though_they_answer() {
    let listener = listener(4096);
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut options = options(&[listener.local_addr().unwrap()], Confirmation::Version);
    options.write_timeout = SECOND;
    let mut rig = Rig::at(options, clock);
    let queue = Arc::clone(&rig.queue);
    let _expedite = queue.expedite();
    let lines = rig.push(100_000);
    // What a connection may have unconfirmed after a failure, and the question behind it.
    let burst = lines[..128].iter().map(|line| line.len() + 1).sum::<usize>() + QUESTION.len();
    let mut streams = Vec::new();
    for given_up in 1..=10 {
        let before = rig.counters.stats().bytes_sent;
        rig.until(|stats| {
            mock.advance(Duration::from_millis(1));
            drop(queue.expedite());
            stats.connects == given_up
        });
        streams.push(listener.accept().unwrap().0);
        let mut last = 0;
        rig.until(|stats| {
            std::thread::park_timeout(Duration::from_millis(40));
            // The first one has more than the kernel takes.
            let is_stalled = std::mem::replace(&mut last, stats.bytes_sent) == stats.bytes_sent;
            if given_up == 1 { is_stalled && last > 0 } else { last == before + burst as u64 }
        });
        mock.advance(SECOND);
        drop(queue.expedite());
        rig.until(|stats| stats.disconnects == given_up);
    }
    assert_whole(&read_on(&mut streams[0], false));
    for stream in &mut streams[2..] {
        stream.write_all(b"put: HBase error: late\n").unwrap();
        assert_whole(&read_on(stream, false));
    }
}

/// A storage error comes when the storage has answered, which may be after `version` was.
#[test]
fn a_refusal_that_comes_after_our_end_is_counted() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let received = read_on(&mut stream, true);
        // It has seen the end of our side, and we still read.
        stream.write_all(b"put: HBase error: late\n").unwrap();
        received
    });
    let mut rig = Rig::with(options(&[address], Confirmation::Version));
    rig.push(10);
    rig.close();
    assert_whole(&server.join().unwrap());
    let stats = rig.counters.stats();
    assert_eq!((stats.points_confirmed, stats.points_rejected.storage), (10, 1));
    assert_eq!((stats.disconnects, stats.connected), (0, false));
}

#[test]
fn a_peer_that_is_no_tsd_confirms_nothing_by_its_end() {
    let peers: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        b"<html>\n",
        b"-ERR unknown command 'put'\r\n",
    ];
    for said in peers {
        for confirmation in [Confirmation::HalfClose, Confirmation::Auto, Confirmation::Version] {
            for is_shutdown in [false, true] {
                let peer = FakeTsd::start();
                // In one mode it closes only after us, which is all that a half-close asks for.
                if confirmation == Confirmation::HalfClose {
                    (0..100).for_each(|_| peer.script(Action::Say(said.to_vec()).after_lines(1)));
                } else {
                    peer.script(Fault::Alien(said.to_vec()));
                }
                let mut rig = Rig::with(options(&[address(&peer)], confirmation));
                rig.push(1);
                if is_shutdown {
                    rig.queue.close();
                }
                let _expedite = rig.queue.expedite();
                let stats = rig.until(|stats| stats.disconnects >= 3);
                assert_eq!(stats.points_confirmed, 0, "{confirmation:?} {said:?}");
                assert!(stats.points_rejected.other > 0, "{said:?}: {stats:?}");
            }
        }
    }
}

/// As a proxy does whose server refuses: nothing of what it has read is parsed.
#[test]
fn a_peer_that_closes_of_itself_confirms_nothing() {
    for confirmation in [Confirmation::HalfClose, Confirmation::Auto, Confirmation::Version] {
        for is_shutdown in [false, true] {
            let proxy = FakeTsd::start();
            proxy.script(Fault::Alien(Vec::new()));
            // It stands still while there is a connection, so that the proxy closes before we do
            // however late it is.
            let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
            let mut rig = Rig::at(options(&[address(&proxy)], confirmation), clock);
            rig.push(100);
            if is_shutdown {
                rig.queue.close();
            }
            let queue = Arc::clone(&rig.queue);
            let _expedite = queue.expedite();
            for disconnects in 1..=5 {
                let stats = rig.until(|stats| stats.disconnects >= disconnects);
                assert_eq!(stats.points_confirmed, 0, "{confirmation:?}");
                assert_eq!((stats.points_pending, stats.points_dropped.total()), (100, 0));
                mock.advance(SECOND);
                drop(queue.expedite());
            }
        }
    }
}

#[test]
fn points_that_flow_on_connections_of_their_own_count_as_connected() {
    let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let mut options = options(&[address(&tsd)], Confirmation::HalfClose);
    // Long, so that it is seen that there is no connection after a reset.
    options.backoff = 60 * SECOND..=60 * SECOND;
    let mut rig = Rig::with(options);
    for connects in 1..=2 {
        rig.push(1);
        let stats = rig.settle();
        assert_eq!((stats.connected, stats.connects, stats.disconnects), (true, connects, 0));
    }
    tsd.script(Action::Reset.after_bytes(1));
    rig.push(1);
    rig.until(|stats| !stats.connected && stats.disconnects > 0);
}

#[test]
fn a_writer_that_cannot_wait_ends_with_every_point_counted() {
    let (_held, absent) = nobody();
    let counters = Arc::new(Counters::default());
    let queue = Arc::new(Queue::new(1_000_000, Arc::clone(&counters)));
    let options = options(&[absent], Confirmation::Version);
    let mut writer =
        Writer::new(options, Arc::clone(&queue), Arc::clone(&counters), Clock::default()).unwrap();
    let mut rig = Rig { queue, counters, next: 0 };
    rig.push(10);
    writer.on_poll_failure(&ErrorKind::InvalidInput.into());
    writer.end();
    assert_eq!(rig.queue.phase(), Phase::Finished);
    let stats = rig.counters.stats();
    assert_eq!((stats.points_pending, stats.points_dropped.shutdown), (0, 10));
    assert!(!rig.counters.connected.load(Ordering::Relaxed));
}
