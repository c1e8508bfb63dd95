//! One connection that speaks `POST /api/put`.
//!
//! 1. [`url`]: what an address says beyond host and port;
//! 2. [`head`]: the options, and the head of a request made of them;
//! 3. [`body`]: lines become JSON, compressed and cut by size;
//! 4. [`tls`]: whom to trust; [`stream`]: a connection, encrypted or not;
//! 5. [`answer`]: bytes become an answer;
//! 6. [`exchange`]: one request and its answer on a stream, with its deadlines;
//! 7. [`status`]: what an answer means; [`details`]: what a TSD says of single points;
//! 8. [`session`]: the connection, from its first request to its end; [`learned`]: what outlives it;
//! 9. [`peer`]: all of it for one endpoint; [`check`]: the start-up check.

mod answer;
mod body;
mod check;
mod details;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod head;
mod learned;
mod peer;
mod session;
mod status;
mod stream;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod url;

pub(super) use self::check::Check;
pub(super) use self::peer::Peer;
