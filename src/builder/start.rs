//! The start of the two threads, with all options checked.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::check::own_tags;
use super::instance::{self, Claim};
use super::options::ConnectivityCheck;
use super::{CONNECT_TIMEOUT, OpenTsdbBuilder};

use crate::error::{self, BuildError};
use crate::flush::distribution::Plans;
use crate::flush::exporter::Exporter;
use crate::flush::flusher::{self, Flusher};
use crate::flush::raw::SentTimes;
use crate::flush::reading::{self, CounterMode};
use crate::flush::telemetry::Telemetry;
use crate::handle::{OpenTsdbHandle, Shared};
use crate::queue::Queue;
use crate::record::levels::Levels;
use crate::record::recorder::OpenTsdbRecorder;
use crate::record::registry::{self, Registry};
use crate::send::endpoint::Endpoint;
use crate::send::{self, Keep, Protocols, Writer};
use crate::stats::Counters;
use crate::wire::series::Rules;

/// The threads behind a recorder and a handle.
pub(super) struct Threads {
    pub(super) writer: JoinHandle<()>,
    pub(super) flusher: JoinHandle<()>,
}

impl OpenTsdbBuilder {
    /// Everything that [`build`](OpenTsdbBuilder::build) does, and the threads to wait for.
    pub(super) fn start(self) -> Result<(OpenTsdbRecorder, OpenTsdbHandle, Threads), BuildError> {
        self.check_numbers()?;
        #[cfg(feature = "spool")]
        self.check_directory()?;
        let endpoints = self.endpoints()?;
        let mut rules = self.rules()?;
        let plans = self.plans(&rules, &endpoints)?;
        let protocols = self.protocols(&endpoints)?;
        let no_queue = |source| BuildError::EventQueue { source: error::cause(source) };
        if self.connectivity_check == ConnectivityCheck::Connect {
            let checked = send::check(&endpoints, self.endpoint_order, CONNECT_TIMEOUT, &protocols);
            checked.map_err(no_queue)?.map_err(|unreached| {
                let source = error::cause(unreached.source);
                BuildError::Unreachable { address: unreached.address, source }
            })?;
        }
        let has_room = rules.default_tags() + own_tags(&plans) < rules.max_tags;
        let claim = instance::settle(&self.instance_tag, &endpoints, &mut rules, has_room);
        let exporter = self.exporter(rules, plans);
        let Exporter { rules, registry, queue, counters, clock, .. } = &*exporter;
        #[cfg(not(feature = "spool"))]
        let keeper = None;
        #[cfg(feature = "spool")]
        let keeper = self.keeper(&exporter)?;
        let has_spool = keeper.is_some();
        let sending = self.sending(endpoints, protocols, keeper, claim);
        let spawn_error = |name, source| BuildError::Spawn { name, source: error::cause(source) };
        let writer = Writer::new(sending, Arc::clone(queue), Arc::clone(counters), clock.clone())
            .map_err(no_queue)?
            .spawn()
            .map_err(|source| spawn_error(send::THREAD, source))?;
        let options = flusher::Options {
            interval: self.flush_interval,
            telemetry: self.telemetry(rules),
            callbacks: self.callbacks.clone(),
            has_birth_zeros: self.birth_zeros && self.counter_mode != CounterMode::Delta,
        };
        let flusher = Flusher::new(Arc::clone(&exporter), options);
        let (requests, flusher) = match flusher.spawn() {
            Ok(spawned) => spawned,
            Err(source) => {
                queue.abandon();
                let _ = writer.join();
                return Err(spawn_error(flusher::NAME, source));
            }
        };
        let recorder = OpenTsdbRecorder {
            registry: Arc::clone(registry),
            levels: Levels::new(self.min_level, &self.target_levels),
        };
        let handle = OpenTsdbHandle::new(Shared {
            telemetry: self.telemetry(rules),
            requests,
            sent: SentTimes::default(),
            process: std::process::id(),
            flusher: flusher.thread().id(),
            is_shut_down: AtomicBool::new(false),
            has_spool,
            exporter,
        });
        Ok((recorder, handle, Threads { writer, flusher }))
    }

    fn exporter(&self, rules: Rules, plans: Plans) -> Arc<Exporter> {
        let (counters, plans) = (Arc::new(Counters::default()), Arc::new(plans));
        let specs = Arc::clone(&plans);
        let registry = registry::Options {
            rules: rules.clone(),
            specs: Box::new(move |metric| specs.plan(metric).spec()),
            limit: self.series_limit,
            has_unit_suffixes: self.unit_suffixes,
            line_limit: self.flavor.limits().max_line,
            reserved: self.telemetry(&rules).into_lines(),
        };
        Arc::new(Exporter {
            options: reading::Options {
                counter_mode: self.counter_mode,
                plans,
                idle: self.idle.clone().cleaned(rules.charset),
            },
            rules,
            max_line: self.flavor.limits().max_line,
            precision: self.precision,
            registry: Arc::new(Registry::new(registry, Arc::clone(&counters))),
            queue: Arc::new(Queue::new(self.queue_size, Arc::clone(&counters))),
            counters,
            clock: self.clock.clone(),
        })
    }

    fn telemetry(&self, rules: &Rules) -> Telemetry {
        if self.telemetry { Telemetry::new(rules) } else { Telemetry::off() }
    }

    fn protocols(&self, endpoints: &[Endpoint]) -> Result<Protocols, BuildError> {
        let _ = endpoints;
        Ok(Protocols {
            confirmation: self.flavor.confirmation(self.confirmation),
            #[cfg(feature = "http")]
            http: self.http(endpoints)?,
        })
    }

    fn sending(
        &self,
        endpoints: Vec<Endpoint>,
        protocols: Protocols,
        keeper: Option<Box<dyn Keep>>,
        claim: Option<Claim>,
    ) -> send::Options {
        send::Options {
            endpoints,
            order: self.endpoint_order,
            max_age: self.max_connection_age,
            rate: self.rate_limit,
            interval: self.flush_interval,
            connect_timeout: self.connect_timeout,
            write_timeout: self.write_timeout,
            backoff: self.backoff.0..=self.backoff.1,
            protocols,
            keeper,
            held: claim.map(|claim| Box::new(claim) as Box<_>),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::OpenTsdbBuilder;
    use super::*;
    use crate::clock::Clock;
    use crate::testing::{FakeTsd, Fault};
    use crate::wire::point::Point;

    #[test]
    fn an_exporter_that_nobody_has_ends_though_the_server_is_away() {
        let tsd = FakeTsd::start();
        tsd.script(Fault::Refuse);
        let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
        let mut builder = OpenTsdbBuilder::new(tsd.address())
            .with_connectivity_check(ConnectivityCheck::Off)
            .with_backoff(Duration::from_millis(1), Duration::from_millis(1));
        builder.clock = clock;
        let (recorder, handle, threads) = builder.start().unwrap();
        handle.send(Point::new("last", 1)).unwrap();
        drop((recorder, handle));
        threads.flusher.join().unwrap();
        assert!(!threads.writer.is_finished(), "it goes on for a while");
        while !threads.writer.is_finished() {
            mock.advance(Duration::from_millis(100));
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}
