//! How a thousand clients share five servers behind one name, one of which is restarted and to
//! which a sixth is added. Each client is the crate's own `Rotation`; the servers and the time are
//! made up.
//!
//! `cargo run -p opentsdb-benches --bin spread`

use std::net::SocketAddr;
use std::time::Duration;

use self::clock::Instant;
use self::rotation::{EndpointOrder, Rotation};

mod clock {
    pub(crate) use quanta::Instant;
}
#[path = "../../../src/send/rotation.rs"]
#[expect(unreachable_pub, reason = "it is public in the crate")]
#[cfg_attr(not(test), expect(dead_code, reason = "these servers ask nobody to stay away"))]
mod rotation;

const CLIENTS: usize = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
/// Clients send something so often, and notice then that their connection is gone or too old.
const INTERVAL: Duration = Duration::from_secs(10);
const HOUR: Option<Duration> = Some(Duration::from_secs(3_600));
/// The second server is away for a minute after so many minutes; the sixth is there after so many.
const RESTARTED: u32 = 30;
const ADDED: u32 = 60;
/// The minutes in which the clients of each server are counted.
const SHOWN: [u32; 8] = [0, 30, 31, 60, 75, 90, 120, 180];

/// The name and its servers at one moment.
struct Name {
    addresses: Vec<SocketAddr>,
    /// The one that is away.
    down: Option<SocketAddr>,
    /// Whether answers begin with a different address each time.
    is_round_robin: bool,
}

impl Name {
    fn at(minute: u32, is_round_robin: bool) -> Self {
        let address = |last| SocketAddr::from(([10, 0, 0, last], 4242));
        let servers = if minute < ADDED { 5 } else { 6 };
        let down = (minute == RESTARTED).then(|| address(1));
        Name { addresses: (0..servers).map(address).collect(), down, is_round_robin }
    }

    fn resolve(&self) -> Vec<SocketAddr> {
        let mut addresses = self.addresses.clone();
        if self.is_round_robin {
            addresses.rotate_left(fastrand::usize(..self.addresses.len()));
        }
        addresses
    }
}

struct Client {
    rotation: Rotation,
    connected: Option<SocketAddr>,
}

impl Client {
    fn send(&mut self, name: &Name, now: Instant) {
        if self.connected.is_some() && self.connected == name.down {
            self.rotation.address_failed(0);
            self.rotation.failed(0, now);
            self.connected = None;
        }
        if self.rotation.leave_at().is_some_and(|at| now >= at) {
            self.connected = None;
        }
        if self.connected.is_none() {
            self.connect(name, now);
        }
    }

    fn connect(&mut self, name: &Name, now: Instant) {
        for endpoint in self.rotation.order(now) {
            let mut addresses = name.resolve();
            self.rotation.arrange(endpoint, &mut addresses);
            for address in addresses {
                if Some(address) != name.down {
                    self.rotation.connected(now);
                    self.connected = Some(address);
                    return;
                }
                self.rotation.address_failed(endpoint);
            }
            self.rotation.failed(endpoint, now);
        }
        self.rotation.restart(now);
    }
}

fn run(order: EndpointOrder, max_age: Option<Duration>, is_round_robin: bool) {
    let client = |_| Client { rotation: Rotation::new(1, order, max_age), connected: None };
    let mut clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let start = Instant::now();
    for minute in 0..=SHOWN[SHOWN.len() - 1] {
        let name = Name::at(minute, is_round_robin);
        for tick in 0..6 {
            let now = start + MINUTE * minute + INTERVAL * tick;
            clients.iter_mut().for_each(|client| client.send(&name, now));
        }
        if SHOWN.contains(&minute) {
            let of = |address| clients.iter().filter(|c| c.connected == Some(address)).count();
            let load: Vec<_> =
                Name::at(ADDED, false).addresses.into_iter().map(|a| of(a).to_string()).collect();
            println!("| {minute} | {} |", load.join(" | "));
        }
    }
}

fn main() {
    for is_round_robin in [false, true] {
        for (order, max_age) in [(EndpointOrder::Preferred, None), (EndpointOrder::Spread, HOUR)] {
            let dns = if is_round_robin { "round robin" } else { "always the same" };
            println!("\n{order:?}, age {max_age:?}, order of the resolver: {dns}\n");
            println!("| minute | 1 | 2 (away at 30) | 3 | 4 | 5 | 6 (from 60 on) |");
            println!("|---|---|---|---|---|---|---|");
            run(order, max_age, is_round_robin);
        }
    }
}
