//! The flusher thread.
//!
//! 1. [`flusher`]: the loop: wait for the tick or a request, snapshot, encode, push;
//! 2. [`schedule`]: when, and under which time;
//! 3. [`snapshot`]: all series, read and then sent; [`reading`]: what each kind is read into, and
//!    the lines of that; [`idle`]: when they go dormant;
//! 4. [`distribution`]: what a histogram becomes, with [`vmrange`] and [`native`] for two of its
//!    forms;
//! 5. [`telemetry`]: the exporter's own series;
//! 6. [`callbacks`]: what the application does before a snapshot;
//! 7. [`render`]: the lines of a snapshot, to look at;
//! 8. [`raw`]: points past the aggregation, on the thread that sends them;
//! 9. [`exporter`]: what all of them share.

pub(crate) mod callbacks;
pub(crate) mod distribution;
pub(crate) mod exporter;
pub(crate) mod flusher;
pub(crate) mod idle;
mod native;
pub(crate) mod raw;
pub(crate) mod reading;
pub(crate) mod render;
pub(crate) mod schedule;
pub(crate) mod snapshot;
pub(crate) mod telemetry;
mod vmrange;
