//! The application's threads: no I/O, no lock held across work, no allocation once a series is known.
//!
//! 1. [`recorder`]: what the facade calls;
//! 2. [`cache`]: the handles that this thread used last, so that a macro call touches no shared cache line;
//! 3. [`registry`]: every key's series in a [`table`], by what each kind is [`registered`] with; registration, the limit, eviction;
//!    and [`conflict`]: no line is written by two of them; the lines themselves are [`packed`];
//! 4. [`series`]: one identity with its cell and the parts of it that threads own;
//! 5. [`counter`], [`gauge`], [`samples`]: the three kinds and their cells;
//! 6. [`descriptions`]: what the application says of its metrics;
//! 7. [`histogram`] in [`buckets`] on [`pages`], read into a [`readout`]: the cell of samples.

pub(crate) mod buckets;
pub(crate) mod cache;
pub(crate) mod conflict;
pub(crate) mod counter;
pub(crate) mod descriptions;
pub(crate) mod gauge;
pub(crate) mod histogram;
pub(crate) mod packed;
pub(crate) mod pages;
pub(crate) mod readout;
pub(crate) mod recorder;
pub(crate) mod registered;
pub(crate) mod registry;
pub(crate) mod samples;
pub(crate) mod series;
pub(crate) mod table;
