//! What loopback can do to an exporter, each fault in its short form; `faults/run` has the long forms, and what needs a network
//! namespace, root, or a process of its own.
//!
//! A test here asserts that its fault happened, and what holds whatever the machine's speed: no duration but a generous patience.
//!
//! | module | promise of delivery |
//! |---|---|
//! | [`exact`] | after any outage the last values are exact and every single point has arrived; confirmed means parsed; whole lines only |
//! | [`shutdown`] | the tally is true against any state of the server |
//! | [`peaceful`] | idle closes, quiet servers, slow readers, garbage: nothing is lost and nobody reconnects in vain |
//! | [`neighbour`] | few connections, within the rate, not in step |
//! | [`harm`] | panics, forks, leaks |

#![allow(
    dead_code,
    reason = "the package faults/ shares these modules and reads more of what they tell"
)]

mod exact;
mod harm;
mod neighbour;
mod peaceful;
mod rig;
mod shutdown;
