//! What stands between an exporter and its server and is slow until it is healed: it accepts each
//! connection late, and hands answers on in pieces.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The most pieces of what is read at once. With the pauses it comes long before the write timeout.
const PIECES: usize = 8;
const LONGEST_PAUSE: u64 = 10;
const LATEST_ACCEPT: u64 = 80;

/// It goes on until it is dropped; its connections until their ends.
pub(super) struct Between {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_healed: AtomicBool,
    has_ended: AtomicBool,
}

impl Between {
    pub(super) fn start(server: SocketAddr, mut random: fastrand::Rng) -> io::Result<Between> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::<State>::default();
        let between = Between { address, state: Arc::clone(&state) };
        thread::Builder::new().spawn(move || {
            for client in listener.incoming().flatten() {
                if state.has_ended.load(Ordering::Relaxed) {
                    break;
                }
                state.pause(&mut random, LATEST_ACCEPT);
                // A server that refuses ends the connection.
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (state, random) = (Arc::clone(&state), random.fork());
                thread::spawn(move || state.carry(&client, &server, random));
            }
        })?;
        Ok(between)
    }

    pub(super) fn heal(&self) {
        self.state.is_healed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// The end of either side is the end of the other, a reset too.
    fn carry(&self, client: &TcpStream, server: &TcpStream, mut random: fastrand::Rng) {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &*client, &mut &*server);
                let _ = server.shutdown(Shutdown::Write);
            });
            let _ = self.hand_on(server, client, &mut random);
            let _ = client.shutdown(Shutdown::Both);
        });
    }

    fn hand_on(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        random: &mut fastrand::Rng,
    ) -> io::Result<()> {
        to.set_nodelay(true)?;
        let mut buffer = [0; 1 << 14];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            for piece in buffer[..read].chunks(read.div_ceil(random.usize(1..=PIECES))) {
                to.write_all(piece)?;
                self.pause(random, LONGEST_PAUSE);
            }
        }
    }

    fn pause(&self, random: &mut fastrand::Rng, most: u64) {
        if !self.is_healed.load(Ordering::Relaxed) {
            thread::park_timeout(Duration::from_millis(random.u64(0..most)));
        }
    }
}
