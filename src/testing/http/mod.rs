//! The server of [`FakeHttpTsd`](super::FakeHttpTsd): `POST /api/put` in the place of lines.
//!
//! 1. `options`: what it is from its start on; `builder`: how a test says so
//! 2. `fake`: [`FakeHttpTsd`](super::FakeHttpTsd), the test's side
//! 3. `fault`: what it can do wrong beyond a [`Fault`](super::Fault)
//! 4. `request`: bytes become a request; what no client of a TSD may send
//! 5. `exchange`: a request is handled; `put`: its points are stored, as strictly as a TSD does
//! 6. `answer`: what is answered, well or as a fault says
//! 7. `tls`: certificates, and the server's end of TLS

mod answer;
pub(super) mod builder;
pub(super) mod exchange;
pub(super) mod fake;
pub(super) mod fault;
pub(super) mod options;
mod put;
mod request;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
pub(super) mod tls;
