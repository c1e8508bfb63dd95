//! stub
use crate::{
    clock::Clock,
    queue::Queue,
    stats::{Confirmation, Counters},
};
use std::{io, sync::Arc, thread::JoinHandle, time::Duration};
pub(crate) const NAME: &str = "opentsdb-writer";
pub(crate) mod endpoint {
    pub(crate) struct Endpoint;
    impl Endpoint {
        pub(crate) fn parse(_: &str) -> Result<Self, String> {
            Ok(Endpoint)
        }
    }
}
pub(crate) mod limiter {
    /// x
    #[derive(Clone, Copy, Debug, Default)]
    pub enum RateLimit {
        #[default]
        /// x
        Auto,
    }
}
pub(crate) struct Options {
    pub(crate) endpoints: Vec<endpoint::Endpoint>,
    pub(crate) rate: limiter::RateLimit,
    pub(crate) interval: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) confirmation: Confirmation,
}
pub(crate) enum SpawnError {
    EventQueue(io::Error),
    Thread(io::Error),
}
pub(crate) fn spawn(
    _o: Options,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    _c: Clock,
) -> Result<JoinHandle<()>, SpawnError> {
    std::thread::Builder::new()
        .spawn(move || {
            while queue.phase() < crate::queue::Phase::Closing || queue.has_unsent() {
                if let Some(b) = queue.pop() {
                    print!("{}", String::from_utf8_lossy(b.lines()));
                    counters.points_confirmed.add(b.points() as u64);
                    queue.set_in_flight(std::iter::empty());
                    queue.recycle(b);
                }
            }
            queue.finish();
        })
        .map_err(SpawnError::Thread)
}
pub(crate) fn check(_: &[endpoint::Endpoint], _: Duration) -> Result<(), (String, io::Error)> {
    Ok(())
}
