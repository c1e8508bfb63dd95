//! One connection that speaks `POST /api/put`.
//!
//! 1. [`head`]: the options, and the head of a request made of them;
//! 2. [`body`]: lines become JSON, compressed and cut by size;
//! 3. [`answer`]: bytes become an answer;
//! 4. [`exchange`]: one request and its answer on a stream, with its deadlines;
//! 5. [`status`]: what an answer means;
//! 6. [`session`]: the connection, from its first request to its end; [`learned`]: what outlives
//!    it;
//! 7. [`peer`]: all of it for one endpoint; [`check`]: the start-up check.

mod answer;
mod body;
mod check;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod head;
mod learned;
mod peer;
mod session;
mod status;

pub(super) use self::check::Check;
pub(super) use self::peer::HttpPeer;
