//! What the benchmarks and the figures of the README share.
//!
//! 1. [`exporter`]: this crate and its peers, each installed as an application installs it;
//! 2. [`operations`]: the calls that are measured, written as an application writes them;
//! 3. [`clocks`]: wall time, and what a thread really had of a processor;
//! 4. [`sampling`]: samples of one thread and of two, and which of them count;
//! 5. [`sink`]: a server that only reads.

pub mod clocks;
pub mod exporter;
pub mod operations;
pub mod sampling;
pub mod sink;
