//! The check of all options, so that each error can name the option, its value and the fix.

use std::fmt::Debug;
use std::time::Duration;

use super::OpenTsdbBuilder;
use super::options::{Address, Flavor, HostTag, InstanceTag, MOST_TAGS};
use crate::error::BuildError;
use crate::flush::distribution::{Distribution, Plans};
use crate::flush::schedule::TimestampPrecision;
use crate::host;
use crate::send::endpoint::{Endpoint, redact};
use crate::stats::Confirmation;
use crate::wire::line::LineRules;
use crate::wire::series::Rules;

/// No duration may be longer: beyond it is a mistake, and arithmetic with the clock has an end.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The shortest time between snapshots; with less the flusher would do nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// The key of the host tag.
const HOST_KEY: &str = "host";

/// An option, its value, whether it can work, and what to give instead.
type Check<'a> = (&'static str, &'a dyn Debug, bool, &'static str);

/// Refuses the first value that cannot work.
pub(super) fn check(checks: &[Check<'_>]) -> Result<(), BuildError> {
    match checks.iter().find(|&&(.., works, _)| !works) {
        Some(&(option, value, _, fix)) => Err(BuildError::invalid(option, value, fix)),
        None => Ok(()),
    }
}

impl OpenTsdbBuilder {
    pub(super) fn check_numbers(&self) -> Result<(), BuildError> {
        const TIME: &str = "give more than 0 and at most a day";
        let is_time = |time: Duration| !time.is_zero() && time <= LONGEST;
        let is_in_seconds = self.precision == TimestampPrecision::Seconds;
        let (interval, (min, max), idle) = (self.flush_interval, self.backoff, &self.idle);
        let (connect, write, age) =
            (self.connect_timeout, self.write_timeout, self.max_connection_age);
        let (points, series, tags) = (self.queue_size, self.series_limit, self.max_tags);
        let prefixes_fit = self.target_levels.iter().all(|(prefix, _)| !prefix.is_empty());
        let tags_fit = tags.is_none_or(|tags| (1..=MOST_TAGS).contains(&tags));
        let idle_fits = idle.general.is_none_or(|(_, timeout)| is_time(timeout));
        let idles_fit = idle.special.iter().all(|(_, timeout)| timeout.is_none_or(is_time));
        check(&[
            (
                "with_flush_interval",
                &interval,
                (SHORTEST_INTERVAL..=LONGEST).contains(&interval),
                "give more than 0: from a millisecond to a day",
            ),
            ("with_connect_timeout", &connect, is_time(connect), TIME),
            ("with_write_timeout", &write, is_time(write), TIME),
            ("with_max_connection_age", &age, age.is_none_or(is_time), TIME),
            (
                "with_backoff",
                &(min, max),
                !min.is_zero() && min <= max && max <= LONGEST,
                "give a minimum above 0 and a maximum from it to a day",
            ),
            ("with_queue_size", &points, points > 0, "give room for at least one point"),
            ("with_series_limit", &series, series > 0, "allow at least one series"),
            ("with_max_tags", &tags, tags_fit, "give 1 to 64"),
            (
                "with_min_level_for_target",
                &self.target_levels,
                prefixes_fit,
                "give a prefix, or use with_min_level: an empty one is of every target",
            ),
            ("idle_timeout", &idle.general, idle_fits, TIME),
            ("idle_timeout_for_metric", &idle.special, idles_fit, TIME),
            (
                "with_timestamp_precision",
                &self.precision,
                is_in_seconds || self.flavor.limits().has_millis,
                "use TimestampPrecision::Seconds: InfluxDB stores milliseconds of the put protocol at wrong times",
            ),
        ])?;
        #[cfg(feature = "http")]
        self.check_http()?;
        #[cfg(feature = "spool")]
        self.check_spool()?;
        Ok(())
    }

    #[cfg(feature = "spool")]
    fn check_spool(&self) -> Result<(), BuildError> {
        let Some(spool) = &self.spool else { return Ok(()) };
        check(&[
            ("with_spool", spool, spool.max_bytes > 0, "give max_bytes room for some points"),
            ("with_spool", spool, !spool.max_age.is_zero(), "give a max_age above 0"),
        ])
    }

    /// Apart from the other options of the spool, since each variable of the environment is tried
    /// alone.
    #[cfg(feature = "spool")]
    pub(super) fn check_directory(&self) -> Result<(), BuildError> {
        let is_named =
            self.spool.as_ref().is_none_or(|spool| !spool.directory.as_os_str().is_empty());
        let fix = "name a directory; in the environment that is OPENTSDB_SPOOL_DIR";
        check(&[("with_spool", &"", is_named, fix)])
    }

    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, BuildError> {
        let parse = |Address(address): &Address| {
            Endpoint::parse(address)
                .map_err(|reason| BuildError::InvalidAddress { address: redact(address), reason })
        };
        let endpoints: Vec<_> = self.addresses.iter().map(parse).collect::<Result<_, _>>()?;
        let is_http = !endpoints.iter().any(Endpoint::is_telnet);
        let (wanted, is_tsd) = (self.confirmation, self.flavor == Flavor::OpenTsdb);
        check(&[
            (
                "with_confirmation",
                &wanted,
                is_http || !matches!(wanted, Confirmation::Stored | Confirmation::Response),
                "give http:// or https:// addresses alone: the telnet protocol has no such answer",
            ),
            (
                "with_confirmation",
                &wanted,
                is_tsd || wanted != Confirmation::Stored,
                "use it with Flavor::OpenTsdb: no other server says when a point is stored",
            ),
        ])?;
        Ok(endpoints)
    }

    pub(super) fn rules(&self) -> Result<Rules, BuildError> {
        let LineRules { max_tags, charset, .. } = self.flavor.limits();
        let clean = |text: &str| charset.clean(text).into_owned();
        let mut rules = Rules {
            charset,
            max_tags: self.max_tags.unwrap_or(max_tags),
            prefix: match self.prefix.trim_end_matches('.') {
                "" => String::new(),
                prefix => format!("{}.", clean(prefix)),
            },
            globals: Vec::new(),
            host: None,
            instance: match &self.instance_tag {
                InstanceTag::Value(value) => Some(clean(value)),
                _ => None,
            },
        };
        for label in &self.global_labels {
            let label = (label.key(), label.value());
            let is_whole = !label.0.is_empty() && !label.1.is_empty();
            check(&[("add_global_label", &label, is_whole, "give a key and a value")])?;
            let key = rules.clean_key(label.0, None).into_owned();
            rules.globals.retain(|(known, _)| *known != key);
            rules.globals.push((key, clean(label.1)));
        }
        let host = match &self.host_tag {
            HostTag::None => None,
            HostTag::Value(host) => Some(host.clone()),
            HostTag::Auto => host::name(),
        };
        let is_known = host.is_some() || self.host_tag == HostTag::None;
        let has_own = rules.globals.iter().any(|(key, _)| key == HOST_KEY);
        rules.host = host.filter(|_| !has_own).map(|host| (HOST_KEY.into(), clean(&host)));
        self.check_tags(&rules, is_known)?;
        self.check_length(&rules)?;
        Ok(rules)
    }

    /// Whether any line fits beside what each has.
    fn check_length(&self, rules: &Rules) -> Result<(), BuildError> {
        let length = |(key, value): &(String, String)| key.len() + value.len();
        let parts = [
            ("set_global_prefix", rules.prefix.len()),
            ("with_instance_tag", rules.instance.as_ref().map_or(0, String::len)),
            ("with_host_tag", rules.host.as_ref().map_or(0, length)),
            ("add_global_label", rules.globals.iter().map(length).max().unwrap_or(0)),
        ];
        let shortest = rules.identify("m", std::iter::empty(), None).shortest_line();
        let fits = shortest <= self.flavor.limits().max_line;
        let fix = "give a shorter one: every line would be longer than the server reads";
        match parts.into_iter().max_by_key(|(_, bytes)| *bytes) {
            Some((option, bytes)) => check(&[(option, &format_args!("{bytes} bytes"), fits, fix)]),
            None => Ok(()),
        }
    }

    fn check_tags(&self, rules: &Rules, is_host_known: bool) -> Result<(), BuildError> {
        let (host, instance, tags) = (&self.host_tag, &self.instance_tag, rules.default_tags());
        let names_instance = *instance != InstanceTag::Value(String::new());
        let names_host = *host != HostTag::Value(String::new());
        check(&[
            ("with_instance_tag", instance, names_instance, "give a value, or InstanceTag::Off"),
            ("with_host_tag", host, names_host, "give a name, or HostTag::None"),
            (
                "with_host_tag",
                host,
                is_host_known,
                "use HostTag::Value: this machine has no host name",
            ),
            (
                "with_host_tag",
                host,
                tags > 0,
                "add a label with add_global_label, or keep the host tag: a point needs at least one tag",
            ),
            (
                "with_max_tags",
                &rules.max_tags,
                tags <= rules.max_tags,
                "have fewer global labels: with the host and instance tags they are more than a series may have",
            ),
        ])
    }

    pub(super) fn plans(&self, rules: &Rules, endpoints: &[Endpoint]) -> Result<Plans, BuildError> {
        use Distribution::{Native, VmRange};
        let plans = Plans::new(&self.distributions, self.flavor.limits().charset)?;
        let tags = rules.default_tags() + own_tags(&plans);
        check(&[
            (
                "set_distribution",
                &VmRange,
                !plans.uses(VmRange) || self.flavor == Flavor::VictoriaMetrics,
                "use it with Flavor::VictoriaMetrics: no other server takes its tags",
            ),
            (
                "set_distribution",
                &Native,
                !plans.uses(Native) || self.flavor.limits().has_histograms,
                "use it with Flavor::OpenTsdb: no other server has the histogram command",
            ),
            (
                "set_distribution",
                &Native,
                !plans.uses(Native) || endpoints.iter().all(Endpoint::is_telnet),
                "give addresses without http://: POST /api/put takes no histograms",
            ),
            (
                "with_max_tags",
                &rules.max_tags,
                tags <= rules.max_tags,
                "allow one more: the bucket of a histogram is a tag, beside those of every series",
            ),
        ])?;
        Ok(plans)
    }
}

/// How many tags the exporter itself may add to a line.
pub(super) fn own_tags(plans: &Plans) -> usize {
    let has_own_tag = |&kind: &_| plans.uses(kind);
    usize::from([Distribution::Buckets, Distribution::VmRange].iter().any(has_own_tag))
}
