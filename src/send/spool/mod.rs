//! Feature `spool`: what memory has no room for, on disk.
//!
//! 1. [`options`]: what the user says of it;
//! 2. [`record`]: how lines lie in a file;
//! 3. [`directory`]: ours alone, locked, a file for each segment;
//! 4. [`store`]: the segments, written at one end, read and deleted at the other;
//! 5. [`keeper`]: what goes to disk and what comes back, and when.

mod directory;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod keeper;
pub(crate) mod options;
mod record;
mod store;
#[cfg(test)]
mod tests;
