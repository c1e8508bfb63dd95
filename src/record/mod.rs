//! Stub, for the histogram alone.

pub(crate) mod buckets;
pub(crate) mod histogram;
pub(crate) mod pages;
pub(crate) mod readout;
