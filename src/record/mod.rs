//! The application's threads: no I/O, no lock held across work, no allocation once a series is
//! known.
//!
//! Each file uses only those before it:
//! 1. [`thread`]: the number of a thread;
//! 2. [`lines`]: the lines of series, as they are kept;
//! 3. [`fingerprint`]: the keyed hash that tells series apart;
//! 4. [`locals`]: the part of a cell that each thread owns;
//! 5. [`series`]: one identity with its cell;
//! 6. [`counter`], [`gauge`], [`histogram`]: the three kinds and their cells;
//! 7. [`table`], [`tables`]: from a key to its series;
//! 8. [`conflict`]: which metric names are taken;
//! 9. [`notices`]: what there is to log of keys that are not sent as they are;
//! 10. [`registry`]: registration, the limit, eviction;
//! 11. [`descriptions`]: what the application says of its metrics;
//! 12. [`cache`]: the handles that a thread used last;
//! 13. [`levels`]: which call sites record;
//! 14. [`recorder`]: what the facade calls.

pub(crate) mod cache;
pub(crate) mod conflict;
pub(crate) mod counter;
pub(crate) mod descriptions;
pub(crate) mod fingerprint;
pub(crate) mod gauge;
pub(crate) mod histogram;
pub(crate) mod levels;
pub(crate) mod lines;
pub(crate) mod locals;
pub(crate) mod notices;
pub(crate) mod recorder;
pub(crate) mod registry;
pub(crate) mod series;
pub(crate) mod table;
pub(crate) mod tables;
pub(crate) mod thread;
