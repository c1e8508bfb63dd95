//! A TCP proxy that accepts late and forwards answers in pieces, until it is healed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The most pieces of what is read at once. With the pauses it comes long before the write timeout.
const PIECES: usize = 8;
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
const LATEST_ACCEPT: Duration = Duration::from_millis(80);

/// It goes on until it is dropped; its connections until their ends.
pub(super) struct SlowProxy {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_healed: AtomicBool,
    has_ended: AtomicBool,
}

impl SlowProxy {
    pub(super) fn start(server: SocketAddr, mut random: fastrand::Rng) -> io::Result<SlowProxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::<State>::default();
        let proxy = SlowProxy { address, state: Arc::clone(&state) };
        thread::Builder::new().spawn(move || {
            for client in listener.incoming().flatten() {
                if state.has_ended.load(Ordering::Relaxed) {
                    break;
                }
                state.pause(&mut random, LATEST_ACCEPT);
                // A server that refuses ends the connection.
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (state, random) = (Arc::clone(&state), random.fork());
                thread::spawn(move || state.forward(&client, &server, random));
            }
        })?;
        Ok(proxy)
    }

    pub(super) fn heal(&self) {
        self.state.is_healed.store(true, Ordering::Relaxed);
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// The end of either side is the end of the other. A reset is forwarded as an orderly end.
    fn forward(&self, client: &TcpStream, server: &TcpStream, mut random: fastrand::Rng) {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &*client, &mut &*server);
                let _ = server.shutdown(Shutdown::Write);
            });
            let _ = self.forward_slowly(server, client, &mut random);
            let _ = client.shutdown(Shutdown::Both);
        });
    }

    fn forward_slowly(
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

    fn pause(&self, random: &mut fastrand::Rng, most: Duration) {
        if !self.is_healed.load(Ordering::Relaxed) {
            thread::park_timeout(most.mul_f64(random.f64()));
        }
    }
}
