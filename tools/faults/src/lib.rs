//! Faults of a server on loopback, shared by `tests/faults` (each in its short form) and the
//! program `faults` (the long forms, and what needs a network namespace or a process of its own).
//!
//! The promises are those of `docs/contract.md`.
//!
//! 1. [`rig`]: an application under fault, and what is checked of it;
//! 2. [`outages`]: resets, restarts, crashes, failovers;
//! 3. [`shutdown`]: a shutdown in each state of a server;
//! 4. [`odd_servers`]: idle closes and garbage;
//! 5. [`rate`]: the rate that a server sees, and how many connections;
//! 6. [`log`]: what is logged meanwhile;
//! 7. [`hostile`]: servers that draw what they do by a seed.

pub mod hostile;
pub mod log;
pub mod odd_servers;
pub mod outages;
pub mod rate;
pub mod rig;
pub mod shutdown;
