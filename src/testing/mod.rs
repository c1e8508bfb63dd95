//! A scripted TSD for tests. Feature `testing`.
//!
//! A real TSD takes half a minute to start and never misbehaves on command. [`FakeTsd`] starts at
//! once, on a port of its own, is as strict as OpenTSDB 2.4 and answers in its words. It can be
//! told to stop reading, reset, throttle, hang, or go away and come back: at once, or at a given
//! byte, line or moment.
//!
//! Use it for what a service sends, and for how it fares when the server misbehaves. Where only
//! names and values matter, [`render`](crate::OpenTsdbHandle::render) needs no server at all. The
//! guide has a [chapter on testing](crate::docs::testing).
//!
//! ```
//! use metrics_exporter_opentsdb::{Value, testing::{Action, FakeTsd}};
//! use std::time::Duration;
//!
//! let tsd = FakeTsd::start();
//! let (recorder, exporter) = tsd.exporter().build()?;
//! metrics::with_local_recorder(&recorder, || metrics::counter!("cups", "tea" => "assam").increment(2));
//!
//! tsd.script(Action::Restart { down: Duration::from_millis(20) });
//! let report = exporter.flush(Duration::from_secs(5))?; // returns when the TSD has parsed all
//! assert_eq!((report.confirmed, report.pending), (1, 0));
//! assert_eq!(tsd.value("cups", &[("tea", "assam")]), Some(Value::Integer(2)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In a `#[tokio::test]` hold the guard of `metrics::set_default_local_recorder` instead of a
//! closure, and run `flush` in `spawn_blocking`: it waits. What `FakeTsd` itself waits for blocks
//! its thread too.
//!
//! *Not seen:* a local recorder is for its own thread. What other threads and the tasks of a
//! multi-threaded runtime record, and handles that were made before, go to the global recorder:
//! test those in a binary of their own, with `install`.
//!
//! 1. `options`: what a server is from its start on; `replies`: how each kind of server answers
//! 2. `fake`: [`FakeTsd`], the test's side, which asks and waits
//! 3. `fault`: what it can be told to do, and when
//! 4. `server`: the loop over a `port` and its `session`s, each of which turns bytes into lines
//! 5. `rpc`: one line is handled; `parse`: as strictly as a TSD does
//! 6. `log`: what was received; `store`: what a TSD would have stored of it
//! 7. `http`, with that feature: requests in the place of lines, and `FakeHttpTsd`

mod fake;
mod fault;
#[cfg(feature = "http")]
mod http;
mod log;
mod options;
pub(crate) mod parse;
mod port;
mod replies;
mod rpc;
mod server;
mod session;
mod store;
#[cfg(test)]
mod tests;

pub use fake::FakeTsd;
pub use fault::{Action, Fault, Step};
#[cfg(feature = "http")]
pub use http::builder::FakeHttpTsdBuilder;
#[cfg(feature = "http")]
pub use http::fake::FakeHttpTsd;
#[cfg(feature = "http")]
pub use http::fault::{HttpAnswer, HttpFault, TooLarge};
#[cfg(feature = "tls")]
pub use http::tls::Certificate;
#[cfg(feature = "http")]
pub use log::HttpRequest;
pub use log::{Connection, End, Log};
pub use options::FakeTsdBuilder;
pub use replies::Replies;
