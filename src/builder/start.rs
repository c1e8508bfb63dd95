//! The check of all options, and the start.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::options::{ConnectivityCheck, Flavor, HostTag, MOST_TAGS};
use super::{CONNECT_TIMEOUT, OpenTsdbBuilder};
use crate::clock::Clock;
use crate::error::{self, BuildError};
use crate::flush::distribution::{Distribution, Invalid, Plans};
use crate::flush::flusher::{self, Flusher, Log, Request};
use crate::flush::raw::{RawPoints, SentTimes};
use crate::flush::reading::{self, CounterMode};
use crate::flush::render::Renderer;
use crate::flush::schedule::{Schedule, TimestampPrecision};
use crate::flush::snapshot::Snapshot;
use crate::flush::telemetry::Telemetry;
use crate::handle::{OpenTsdbHandle, Shared};
use crate::host;
use crate::queue::Queue;
use crate::record::recorder::OpenTsdbRecorder;
use crate::record::registry::{self, Registry};
use crate::send::endpoint::Endpoint;
use crate::send::{self, SpawnError};
use crate::stats::Counters;
use crate::wire::line::Lines;
use crate::wire::series::Rules;

/// No duration may be longer: beyond it is a mistake, and arithmetic with the clock has an end.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The shortest time between snapshots; with less the flusher would do nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// The key of the host tag.
const HOST_KEY: &str = "host";

/// The threads behind a recorder and a handle.
pub(super) struct Threads {
    pub(super) writer: JoinHandle<()>,
    pub(super) flusher: JoinHandle<()>,
}

/// What the threads and the handles share.
#[derive(Clone)]
struct Common {
    rules: Rules,
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    clock: Clock,
}

/// An error that names the option, its value and the fix.
fn invalid(option: &'static str, value: impl Debug, fix: impl Into<String>) -> BuildError {
    BuildError::InvalidConfiguration { option, value: format!("{value:?}"), fix: fix.into() }
}

/// Refuses what does not hold.
fn require(
    holds: bool,
    option: &'static str,
    value: impl Debug,
    fix: &str,
) -> Result<(), BuildError> {
    if holds { Ok(()) } else { Err(invalid(option, value, fix)) }
}

fn require_duration(option: &'static str, value: Duration) -> Result<(), BuildError> {
    require(
        !value.is_zero() && value <= LONGEST,
        option,
        value,
        "give more than 0 and at most a day",
    )
}

impl OpenTsdbBuilder {
    /// Everything that [`build`](OpenTsdbBuilder::build) does, and the threads to wait for.
    pub(super) fn start(self) -> Result<(OpenTsdbRecorder, OpenTsdbHandle, Threads), BuildError> {
        self.check_numbers()?;
        let endpoints = self.endpoints()?;
        let rules = self.rules()?;
        let plans = Arc::new(self.plans(&rules)?);
        if self.connectivity_check == ConnectivityCheck::Connect {
            send::check(&endpoints, CONNECT_TIMEOUT).map_err(|(address, source)| {
                BuildError::Unreachable { address, source: error::cause(source) }
            })?;
        }
        let common = self.common(rules, &plans);
        let Common { queue, counters, clock, .. } = common.clone();
        let writer = send::spawn(self.sending(endpoints), Arc::clone(&queue), counters, clock);
        let writer = writer.map_err(|error| match error {
            SpawnError::EventQueue(source) => {
                BuildError::EventQueue { source: error::cause(source) }
            }
            SpawnError::Thread(source) => {
                BuildError::Spawn { name: send::THREAD, source: error::cause(source) }
            }
        })?;
        let options = reading::Options { counter_mode: self.counter_mode, plans, idle: self.idle };
        let (requests, flusher) = match self.flusher(options.clone(), common.clone()).spawn() {
            Ok(spawned) => spawned,
            Err(source) => {
                queue.abandon();
                let _ = writer.join();
                return Err(BuildError::Spawn {
                    name: flusher::NAME,
                    source: error::cause(source),
                });
            }
        };
        let recorder = OpenTsdbRecorder { registry: Arc::clone(&common.registry) };
        let handle = OpenTsdbHandle::new(self.shared(requests, options, common));
        Ok((recorder, handle, Threads { writer, flusher }))
    }

    fn common(&self, rules: Rules, plans: &Arc<Plans>) -> Common {
        let counters = Arc::new(Counters::default());
        let plans = Arc::clone(plans);
        let options = registry::Options {
            rules: rules.clone(),
            specs: Box::new(move |metric| plans.plan(metric).spec()),
            limit: self.series_limit,
            has_unit_suffixes: self.unit_suffixes,
            line_limit: self.flavor.max_line(),
            reserved: self.telemetry(&rules).into_lines(),
        };
        Common {
            rules,
            registry: Arc::new(Registry::new(options, Arc::clone(&counters))),
            queue: Arc::new(Queue::new(self.queue_size, Arc::clone(&counters))),
            counters,
            clock: self.clock.clone(),
        }
    }

    fn telemetry(&self, rules: &Rules) -> Telemetry {
        if self.telemetry { Telemetry::new(rules) } else { Telemetry::off() }
    }

    fn flusher(&self, options: reading::Options, common: Common) -> Flusher {
        let Common { rules, registry, queue, counters, clock } = common;
        Flusher {
            snapshot: Snapshot::new(registry, options),
            telemetry: self.telemetry(&rules),
            schedule: Schedule::new(self.flush_interval, self.precision, clock.now(), clock.wall()),
            is_delta: self.counter_mode == CounterMode::Delta,
            lines: Lines::new(queue.buffer(), self.flavor.max_line()),
            queue,
            counters,
            started: clock.now(),
            clock,
            waiting: Vec::new(),
            log: Log::default(),
        }
    }

    fn shared(
        &self,
        requests: Sender<Request>,
        options: reading::Options,
        common: Common,
    ) -> Shared {
        let Common { rules, registry, queue, counters, clock } = common;
        Shared {
            requests,
            queue: Arc::clone(&queue),
            counters: Arc::clone(&counters),
            renderer: Renderer {
                registry: Arc::clone(&registry),
                options,
                telemetry: self.telemetry(&rules),
                max_line: self.flavor.max_line(),
                precision: self.precision,
                clock: clock.clone(),
            },
            raw: RawPoints {
                rules,
                max_line: self.flavor.max_line(),
                precision: self.precision,
                registry,
                queue,
                counters,
                clock: clock.clone(),
                sent: SentTimes::default(),
            },
            clock,
            process: std::process::id(),
            is_shut_down: AtomicBool::new(false),
        }
    }

    pub(super) fn check_numbers(&self) -> Result<(), BuildError> {
        require_duration("with_flush_interval", self.flush_interval)?;
        require(
            self.flush_interval >= SHORTEST_INTERVAL,
            "with_flush_interval",
            self.flush_interval,
            "give at least a millisecond",
        )?;
        require_duration("with_connect_timeout", self.connect_timeout)?;
        require_duration("with_write_timeout", self.write_timeout)?;
        let (min, max) = self.backoff;
        require(
            !min.is_zero() && min <= max && max <= LONGEST,
            "with_backoff",
            self.backoff,
            "give a minimum above 0 and a maximum from it to a day",
        )?;
        require(
            self.queue_size > 0,
            "with_queue_size",
            self.queue_size,
            "give room for at least one point",
        )?;
        require(
            self.series_limit > 0,
            "with_series_limit",
            self.series_limit,
            "allow at least one series",
        )?;
        let tags = self.max_tags.unwrap_or(1);
        require((1..=MOST_TAGS).contains(&tags), "with_max_tags", tags, "give 1 to 64")?;
        if let Some((_, timeout)) = self.idle {
            require_duration("idle_timeout", timeout)?;
        }
        let is_stored_wrong =
            self.flavor == Flavor::InfluxDb && self.precision == TimestampPrecision::Milliseconds;
        require(
            !is_stored_wrong,
            "with_timestamp_precision",
            self.precision,
            "use TimestampPrecision::Seconds: InfluxDB stores milliseconds of the put protocol at wrong times",
        )
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, BuildError> {
        let parse = |address: &String| {
            Endpoint::parse(address)
                .map_err(|reason| BuildError::InvalidAddress { address: address.clone(), reason })
        };
        self.addresses.iter().map(parse).collect()
    }

    fn rules(&self) -> Result<Rules, BuildError> {
        let charset = self.flavor.charset();
        let mut rules = Rules {
            charset,
            max_tags: self.max_tags.unwrap_or(self.flavor.max_tags()),
            prefix: match self.prefix.trim_end_matches('.') {
                "" => String::new(),
                prefix => format!("{}.", charset.clean(prefix)),
            },
            globals: Vec::new(),
            host: None,
        };
        for label in &self.global_labels {
            let is_whole = !label.key().is_empty() && !label.value().is_empty();
            require(
                is_whole,
                "add_global_label",
                (label.key(), label.value()),
                "give a key and a value",
            )?;
            let key = rules.clean_key(label.key(), None).into_owned();
            rules.globals.retain(|(known, _)| *known != key);
            rules.globals.push((key, charset.clean(label.value()).into_owned()));
        }
        let has_host = rules.globals.iter().any(|(key, _)| key == HOST_KEY);
        rules.host = self
            .host()?
            .filter(|_| !has_host)
            .map(|host| (HOST_KEY.into(), charset.clean(&host).into_owned()));
        let has_tag = rules.host.is_some() || !rules.globals.is_empty();
        require(
            has_tag,
            "with_host_tag",
            &self.host_tag,
            "add a label with add_global_label, or keep the host tag: a point needs at least one tag",
        )?;
        let tags = rules.globals.len() + usize::from(rules.host.is_some());
        require(
            tags <= rules.max_tags,
            "with_max_tags",
            rules.max_tags,
            "have fewer global labels: with the host tag they are more than a series may have",
        )?;
        Ok(rules)
    }

    fn host(&self) -> Result<Option<String>, BuildError> {
        match &self.host_tag {
            HostTag::None => Ok(None),
            HostTag::Value(host) => {
                require(
                    !host.is_empty(),
                    "with_host_tag",
                    &self.host_tag,
                    "give a name, or HostTag::None",
                )?;
                Ok(Some(host.clone()))
            }
            HostTag::Auto => match host::name() {
                Some(name) => Ok(Some(name)),
                None => Err(invalid(
                    "with_host_tag",
                    &self.host_tag,
                    "use HostTag::Value: this machine has no host name",
                )),
            },
        }
    }

    fn plans(&self, rules: &Rules) -> Result<Plans, BuildError> {
        let plans = Plans::new(&self.distributions, self.flavor.charset()).map_err(
            |Invalid { option, value, fix }| BuildError::InvalidConfiguration {
                option,
                value,
                fix,
            },
        )?;
        for (distribution, flavor, fix) in [
            (
                Distribution::VmRange,
                Flavor::VictoriaMetrics,
                "use it with Flavor::VictoriaMetrics: no other server takes its tags",
            ),
            (
                Distribution::Native,
                Flavor::OpenTsdb,
                "use it with Flavor::OpenTsdb: no other server has the histogram command",
            ),
        ] {
            require(
                !plans.uses(distribution) || self.flavor == flavor,
                "set_distribution",
                distribution,
                fix,
            )?;
        }
        let has_own_tag =
            [Distribution::Buckets, Distribution::VmRange].iter().any(|&kind| plans.uses(kind));
        let tags = rules.globals.len() + usize::from(rules.host.is_some());
        require(
            tags < rules.max_tags || !has_own_tag,
            "with_max_tags",
            rules.max_tags,
            "allow one more: the bucket of a histogram is a tag, beside those of every series",
        )?;
        Ok(plans)
    }

    fn sending(&self, endpoints: Vec<Endpoint>) -> send::Options {
        send::Options {
            endpoints,
            rate: self.rate_limit,
            interval: self.flush_interval,
            connect_timeout: self.connect_timeout,
            write_timeout: self.write_timeout,
            backoff: self.backoff.0..=self.backoff.1,
            confirmation: self.flavor.confirmation(self.confirmation),
        }
    }
}

#[cfg(test)]
mod tests {
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
