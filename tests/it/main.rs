//! The integration tests, in one binary so that the crate is linked once.
//! What needs a process of its own (the global recorder, the counting allocator) lies beside this folder.
mod confirm;
mod overflow;
mod pressure;
mod reconnect;
mod replies;
mod rig;
mod shutdown;
mod tidy;
mod wire;
