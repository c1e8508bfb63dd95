//! What loopback can do to an exporter, each fault in its short form. `tools/faults/run` has the
//! long forms, and what needs a network namespace, root, or a process of its own.
//!
//! A test here asserts that its fault happened, and what holds whatever the machine's speed: no
//! duration but a generous patience. The promises are those of `docs/contract.md`.
//!
//! | module | promise |
//! |---|---|
//! | [`outages`] | 5, 6, 7: the last values are exact, every point has arrived, whole lines only |
//! | [`shutdown`] | 3: the tally is true against any state of the server |
//! | [`odd_servers`] | idle closes, silence, slow reading and garbage cost no point and no reconnect |
//! | [`hostile`] | all: servers that draw what they do by a seed |
//! | [`rate`] | 8: one connection at a time, within the rate |
//! | [`panics_and_leaks`] | 10: panics are caught, descriptors are given back |

mod hostile;
mod odd_servers;
mod outages;
mod panics_and_leaks;
mod rate;
mod shutdown;
