//! Feature `spool`: what memory has no room for, on disk.
//!
//! 1. [`options`]: what the user says of it;
//! 2. [`record`]: how lines lie in a file;
//! 3. [`directory`]: ours alone, locked, a file for each segment;
//! 4. [`store`]: the segments, written at one end, read and deleted at the other.

mod directory;
pub(crate) mod options;
mod record;
mod store;
#[cfg(test)]
mod tests;
