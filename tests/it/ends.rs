//! What a server has of a process that is gone.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use metrics::counter;
use metrics_exporter_opentsdb::{Confirmation, ConnectivityCheck, OpenTsdbBuilder};

use crate::rig::PATIENCE;

/// The address that the child of a test sends to.
const ADDRESS: &str = "TEST_EXITS_AFTER_SHUTDOWN";

/// Fills the kernel's buffers, shuts down in vain, and is gone.
fn send_and_exit(address: &str, confirmation: Confirmation) -> ! {
    let (recorder, handle) = OpenTsdbBuilder::new(address)
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_confirmation(confirmation)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        (0..50_000).for_each(|n| counter!("c", "n" => n.to_string()).increment(n));
    });
    handle.shutdown(Duration::from_millis(500)).unwrap();
    std::process::exit(0);
}

#[test]
fn a_process_that_exits_right_after_shutdown_leaves_no_half_line() {
    for confirmation in [Confirmation::Version, Confirmation::HalfClose] {
        if let Ok(address) = std::env::var(format!("{ADDRESS}_{confirmation:?}")) {
            send_and_exit(&address, confirmation);
        }
    }
    for receive_buffer in [4096, 65_536] {
        for confirmation in [Confirmation::Version, Confirmation::HalfClose] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            socket2::SockRef::from(&listener).set_recv_buffer_size(receive_buffer).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "ends::a_process_that_exits_right_after_shutdown_leaves_no_half_line",
                ])
                .env(format!("{ADDRESS}_{confirmation:?}"), &address)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            assert!(child.wait().unwrap().success());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut received = Vec::new();
            match stream.read_to_end(&mut received) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
                _ => {}
            }
            assert!(received.len() > receive_buffer / 2);
            let tail = String::from_utf8_lossy(&received[received.len() - 60..]);
            assert!(tail.ends_with('\n'), "{receive_buffer}, {confirmation:?}: {tail:?}");
        }
    }
}
