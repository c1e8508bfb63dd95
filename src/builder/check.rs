//! The check of all options, so that each error can name the option, its value and the fix.

use std::fmt::Debug;
use std::time::Duration;

use super::OpenTsdbBuilder;
use super::options::{Flavor, HostTag, InstanceTag, MOST_TAGS};
use crate::error::BuildError;
use crate::flush::distribution::{Distribution, Plans};
use crate::flush::schedule::TimestampPrecision;
use crate::host;
use crate::send::endpoint::Endpoint;
use crate::wire::series::Rules;

/// No duration may be longer: beyond it is a mistake, and arithmetic with the clock has an end.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The shortest time between snapshots; with less the flusher would do nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// The key of the host tag.
const HOST_KEY: &str = "host";

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
        if let Some(age) = self.max_connection_age {
            require_duration("with_max_connection_age", age)?;
        }
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

    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, BuildError> {
        let parse = |address: &String| {
            Endpoint::parse(address)
                .map_err(|reason| BuildError::InvalidAddress { address: address.clone(), reason })
        };
        self.addresses.iter().map(parse).collect()
    }

    pub(super) fn rules(&self) -> Result<Rules, BuildError> {
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
            instance: match &self.instance_tag {
                InstanceTag::Value(value) => Some(charset.clean(value).into_owned()),
                _ => None,
            },
        };
        require(
            self.instance_tag != InstanceTag::Value(String::new()),
            "with_instance_tag",
            &self.instance_tag,
            "give a value, or InstanceTag::Off",
        )?;
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
        require(
            rules.default_tags() > 0,
            "with_host_tag",
            &self.host_tag,
            "add a label with add_global_label, or keep the host tag: a point needs at least one tag",
        )?;
        require(
            rules.default_tags() <= rules.max_tags,
            "with_max_tags",
            rules.max_tags,
            "have fewer global labels: with the host and instance tags they are more than a series may have",
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

    pub(super) fn plans(&self, rules: &Rules) -> Result<Plans, BuildError> {
        let plans = Plans::new(&self.distributions, self.flavor.charset())?;
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
        require(
            rules.default_tags() + own_tags(&plans) <= rules.max_tags,
            "with_max_tags",
            rules.max_tags,
            "allow one more: the bucket of a histogram is a tag, beside those of every series",
        )?;
        Ok(plans)
    }
}

/// How many tags the exporter itself may add to a line.
pub(super) fn own_tags(plans: &Plans) -> usize {
    let has_own_tag = |&kind: &_| plans.uses(kind);
    usize::from([Distribution::Buckets, Distribution::VmRange].iter().any(has_own_tag))
}
