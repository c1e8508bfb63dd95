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

/// Refuses a value that cannot work, and says what to give instead.
pub(super) fn check(
    option: &'static str,
    value: impl Debug,
    works: bool,
    fix: &'static str,
) -> Result<(), BuildError> {
    if works { Ok(()) } else { Err(BuildError::invalid(option, value, fix)) }
}

impl OpenTsdbBuilder {
    pub(super) fn check_numbers(&self) -> Result<(), BuildError> {
        const TIME: &str = "give more than 0 and at most a day";
        let is_time = |time: Duration| !time.is_zero() && time <= LONGEST;

        let interval = self.flush_interval;
        let is_interval = (SHORTEST_INTERVAL..=LONGEST).contains(&interval);
        let fix = "give more than 0: from a millisecond to a day";
        check("with_flush_interval", interval, is_interval, fix)?;
        let (connect, write) = (self.connect_timeout, self.write_timeout);
        check("with_connect_timeout", connect, is_time(connect), TIME)?;
        check("with_write_timeout", write, is_time(write), TIME)?;
        let age = self.max_connection_age;
        check("with_max_connection_age", age, age.is_none_or(is_time), TIME)?;
        let (min, max) = self.backoff;
        let is_range = !min.is_zero() && min <= max && max <= LONGEST;
        let fix = "give a minimum above 0 and a maximum from it to a day";
        check("with_backoff", (min, max), is_range, fix)?;
        let (points, series) = (self.queue_size, self.series_limit);
        check("with_queue_size", points, points > 0, "give room for at least one point")?;
        check("with_series_limit", series, series > 0, "allow at least one series")?;
        let has_tags = self.max_tags.is_none_or(|tags| (1..=MOST_TAGS).contains(&tags));
        check("with_max_tags", self.max_tags, has_tags, "give 1 to 64")?;
        let targets = &self.target_levels;
        let has_prefixes = targets.iter().all(|(prefix, _)| !prefix.is_empty());
        let fix = "give a prefix, or use with_min_level: an empty one is of every target";
        check("with_min_level_for_target", targets, has_prefixes, fix)?;
        let (general, special) = (&self.idle.general, &self.idle.special);
        let is_timeout = general.is_none_or(|(_, timeout)| is_time(timeout));
        check("idle_timeout", general, is_timeout, TIME)?;
        let are_timeouts = special.iter().all(|(_, timeout)| timeout.is_none_or(is_time));
        check("idle_timeout_for_metric", special, are_timeouts, TIME)?;
        let is_in_seconds = self.precision == TimestampPrecision::Seconds;
        let is_taken = is_in_seconds || self.flavor.limits().has_millis;
        let fix = "use TimestampPrecision::Seconds: InfluxDB stores milliseconds of the put \
                   protocol at wrong times";
        check("with_timestamp_precision", self.precision, is_taken, fix)?;
        #[cfg(feature = "http")]
        self.check_http()?;
        #[cfg(feature = "spool")]
        self.check_spool()?;
        Ok(())
    }

    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, BuildError> {
        let parse = |Address(address): &Address| {
            Endpoint::parse(address)
                .map_err(|reason| BuildError::InvalidAddress { address: redact(address), reason })
        };
        let endpoints: Vec<_> = self.addresses.iter().map(parse).collect::<Result<_, _>>()?;
        let (wanted, is_tsd) = (self.confirmation, self.flavor == Flavor::OpenTsdb);
        let is_http = !endpoints.iter().any(Endpoint::is_telnet);
        let is_of_http = matches!(wanted, Confirmation::Stored | Confirmation::Response);
        let fix =
            "give http:// or https:// addresses alone: the telnet protocol has no such answer";
        check("with_confirmation", wanted, is_http || !is_of_http, fix)?;
        let fix = "use it with Flavor::OpenTsdb: no other server says when a point is stored";
        check("with_confirmation", wanted, is_tsd || wanted != Confirmation::Stored, fix)?;
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
            check("add_global_label", label, is_whole, "give a key and a value")?;
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
            Some((option, bytes)) => check(option, format_args!("{bytes} bytes"), fits, fix),
            None => Ok(()),
        }
    }

    fn check_tags(&self, rules: &Rules, is_host_known: bool) -> Result<(), BuildError> {
        let (host, instance, tags) = (&self.host_tag, &self.instance_tag, rules.default_tags());
        let has_instance = *instance != InstanceTag::Value(String::new());
        check("with_instance_tag", instance, has_instance, "give a value, or InstanceTag::Off")?;
        let has_host = *host != HostTag::Value(String::new());
        check("with_host_tag", host, has_host, "give a name, or HostTag::None")?;
        let fix = "use HostTag::Value: this machine has no host name";
        check("with_host_tag", host, is_host_known, fix)?;
        let fix = "add a label with add_global_label, or keep the host tag: a point needs at least \
                   one tag";
        check("with_host_tag", host, tags > 0, fix)?;
        let fix = "have fewer global labels: with the host and instance tags they are more than a \
                   series may have";
        check("with_max_tags", rules.max_tags, tags <= rules.max_tags, fix)
    }

    pub(super) fn plans(&self, rules: &Rules, endpoints: &[Endpoint]) -> Result<Plans, BuildError> {
        use Distribution::{Native, VmRange};
        let plans = Plans::new(&self.distributions, self.flavor.limits().charset)?;
        let is_victoria = self.flavor == Flavor::VictoriaMetrics;
        let fix = "use it with Flavor::VictoriaMetrics: no other server takes its tags";
        check("set_distribution", VmRange, is_victoria || !plans.uses(VmRange), fix)?;
        let (is_native, has_histograms) = (plans.uses(Native), self.flavor.limits().has_histograms);
        let fix = "use it with Flavor::OpenTsdb: no other server has the histogram command";
        check("set_distribution", Native, has_histograms || !is_native, fix)?;
        let is_telnet = endpoints.iter().all(Endpoint::is_telnet);
        let fix = "give addresses without http://: POST /api/put takes no histograms";
        check("set_distribution", Native, is_telnet || !is_native, fix)?;
        let fits = rules.default_tags() + own_tags(&plans) <= rules.max_tags;
        let fix =
            "allow one more: the bucket of a histogram is a tag, beside those of every series";
        check("with_max_tags", rules.max_tags, fits, fix)?;
        Ok(plans)
    }
}

/// How many tags the exporter itself may add to a line.
pub(super) fn own_tags(plans: &Plans) -> usize {
    let has_own_tag = |&kind: &_| plans.uses(kind);
    usize::from([Distribution::Buckets, Distribution::VmRange].iter().any(has_own_tag))
}
