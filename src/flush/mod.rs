//! Stub, for the distributions alone.

pub(crate) mod distribution;
pub(crate) mod native;
pub(crate) mod vmrange;
