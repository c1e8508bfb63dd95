//! The cell and what it stands on.
#[path = "../../../src/record/buckets.rs"]
pub(crate) mod buckets;
#[path = "../../../src/record/histogram.rs"]
pub(crate) mod histogram;
#[path = "../../../src/record/pages.rs"]
pub(crate) mod pages;
#[path = "../../../src/record/readout.rs"]
pub(crate) mod readout;
