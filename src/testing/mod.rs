//! A scripted TSD, for tests of what sends to one. Feature `testing`.
//!
//! A real TSD takes half a minute to start and never misbehaves when it is told to. [`FakeTsd`] starts at once on a port of its own,
//! is as strict as OpenTSDB 2.4 and answers in its words, and can be told to stop reading, reset, throttle, hang or go away and come
//! back, at a given byte, line or moment.
//!
//! ```
//! use metrics_exporter_opentsdb::{Point, testing::{Action, FakeTsd}};
//! use std::{io::Write, net::TcpStream, time::Duration};
//!
//! let tsd = FakeTsd::start();
//! let mut client = TcpStream::connect(tsd.address())?;
//! client.write_all(b"put requests 1700000000 7 host=a\n")?;
//! assert!(tsd.wait_for(1, Duration::from_secs(5)));
//! assert_eq!(tsd.points(), [Point::new("requests", 7).tag("host", "a").timestamp(1_700_000_000)]);
//!
//! tsd.script(Action::Reset); // and the connection is gone
//! assert_eq!(tsd.log().open_connection_count(), 0);
//! # std::io::Result::Ok(())
//! ```
//!
//! 1. `fake`: [`FakeTsd`], the test's side: asks and waits;
//! 2. `fault`: what it can be told to do wrong, and when;
//! 3. `server`: the loop over a `port` and its `session`s, each of which turns bytes into lines;
//! 4. `rpc`: one line is handled, with `parse` (strict as `java` is) and `replies`;
//! 5. `log`: what was received; `store`: what a TSD would have stored of it.

#[cfg(test)]
mod client;
mod fake;
mod fault;
mod log;
mod parse;
mod port;
mod replies;
mod rpc;
mod server;
mod session;
mod store;

pub use fake::{FakeTsd, FakeTsdBuilder};
pub use fault::{Action, Fault, Step};
pub use log::{Connection, End, Log};
pub use replies::Replies;
