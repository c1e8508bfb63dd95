//! The integration tests, in one binary so that the crate is linked once.
//! What needs a process of its own (the global recorder, the counting allocator) lies beside this
//! folder.
mod births;
mod callbacks;
mod confirm;
mod counters;
mod distributions;
mod docs;
mod endpoints;
mod ends;
mod flushes;
mod http;
mod http_faults;
mod http_hostile;
mod idle;
#[cfg(target_os = "linux")]
mod instances;
mod layers;
mod levels;
mod limits;
mod overflow;
mod pressure;
mod rates;
mod reconnect;
mod registration;
mod replies;
mod rig;
mod shutdown;
mod spool;
mod telemetry;
mod tidy;
mod wire;
