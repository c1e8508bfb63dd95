//! An exporter set up by environment variables.
//!
//! [`VARIABLES`] has a row for each variable: its name and the setter that its text becomes a call
//! of. The environment comes in as an iterator, so that tests need not change the process's own.
//!
//! 1. The variables whose names begin with [`PREFIX`] are collected; no other is looked at.
//! 2. Each row whose variable is set is tried on a builder of its own, whose numbers are then
//!    checked. So an error names the variable, and never blames one variable for another.
//! 3. The setters are called in the order of the rows. What depends on several options is left to
//!    `build`: a later call may still change it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use metrics::Label;
use metrics_util::MetricKindMask;

use super::OpenTsdbBuilder;
use super::options::{ConnectivityCheck, Flavor, HostTag, InstanceTag};
use crate::error::BuildError;
use crate::flush::distribution::{Distribution, Plans};
use crate::flush::reading::CounterMode;
use crate::flush::schedule::TimestampPrecision;
use crate::send::endpoint::Endpoint;
use crate::send::limiter::RateLimit;
use crate::send::rotation::EndpointOrder;
use crate::stats::Confirmation;

/// What the name of every variable begins with.
const PREFIX: &str = "OPENTSDB_";
/// The variable without which there is no exporter.
const ADDRESS: &str = "OPENTSDB_ADDRESS";

/// Sets one option from the text of a variable; the error says what to give instead.
type Apply = fn(OpenTsdbBuilder, &str) -> Result<OpenTsdbBuilder, String>;

/// In the order of the table in `docs/environment.md`.
const VARIABLES: &[(&str, Apply)] = &[
    (ADDRESS, addresses),
    ("OPENTSDB_ENDPOINT_ORDER", |builder, text| {
        Ok(builder.with_endpoint_order(choice(text, ENDPOINT_ORDERS)?))
    }),
    ("OPENTSDB_MAX_CONNECTION_AGE", |builder, text| {
        Ok(builder.with_max_connection_age(duration_or_off(text)?))
    }),
    ("OPENTSDB_FLAVOR", |builder, text| Ok(builder.with_flavor(choice(text, FLAVORS)?))),
    ("OPENTSDB_FLUSH_INTERVAL", |builder, text| Ok(builder.with_flush_interval(duration(text)?))),
    ("OPENTSDB_TIMESTAMP_PRECISION", |builder, text| {
        Ok(builder.with_timestamp_precision(choice(text, PRECISIONS)?))
    }),
    ("OPENTSDB_RATE_LIMIT", |builder, text| Ok(builder.with_rate_limit(rate_limit(text)?))),
    ("OPENTSDB_QUEUE_SIZE", |builder, text| Ok(builder.with_queue_size(number(text)?))),
    ("OPENTSDB_CONNECTIVITY_CHECK", |builder, text| {
        Ok(builder.with_connectivity_check(choice(text, CHECKS)?))
    }),
    ("OPENTSDB_CONNECT_TIMEOUT", |builder, text| Ok(builder.with_connect_timeout(duration(text)?))),
    ("OPENTSDB_WRITE_TIMEOUT", |builder, text| Ok(builder.with_write_timeout(duration(text)?))),
    ("OPENTSDB_BACKOFF", |builder, text| {
        let pair = text.split_once(',').ok_or("give the minimum and the maximum, as in 1s,30s")?;
        Ok(builder.with_backoff(duration(pair.0.trim())?, duration(pair.1.trim())?))
    }),
    ("OPENTSDB_CONFIRMATION", |builder, text| {
        Ok(builder.with_confirmation(choice(text, CONFIRMATIONS)?))
    }),
    ("OPENTSDB_HOST_TAG", |builder, text| {
        let named = choice(text, &[("auto", HostTag::Auto), ("none", HostTag::None)]);
        Ok(builder.with_host_tag(named.unwrap_or_else(|_| HostTag::Value(text.into()))))
    }),
    ("OPENTSDB_INSTANCE_TAG", |builder, text| {
        let named = choice(text, &[("auto", InstanceTag::Auto), ("off", InstanceTag::Off)]);
        Ok(builder.with_instance_tag(named.unwrap_or_else(|_| InstanceTag::Value(text.into()))))
    }),
    ("OPENTSDB_GLOBAL_LABELS", |builder, text| Ok(builder.with_global_labels(labels(text)?))),
    ("OPENTSDB_GLOBAL_PREFIX", |builder, text| Ok(builder.set_global_prefix(text))),
    ("OPENTSDB_COUNTER_MODE", |builder, text| {
        Ok(builder.with_counter_mode(choice(text, COUNTER_MODES)?))
    }),
    ("OPENTSDB_QUANTILES", |builder, text| Ok(builder.set_quantiles(&numbers(text)?))),
    ("OPENTSDB_BUCKETS", |builder, text| Ok(builder.set_buckets(&numbers(text)?))),
    ("OPENTSDB_DISTRIBUTION", |builder, text| {
        Ok(builder.set_distribution(choice(text, DISTRIBUTIONS)?))
    }),
    ("OPENTSDB_IDLE_TIMEOUT", |builder, text| {
        Ok(builder.idle_timeout(MetricKindMask::ALL, duration_or_off(text)?))
    }),
    ("OPENTSDB_SERIES_LIMIT", |builder, text| Ok(builder.with_series_limit(number(text)?))),
    ("OPENTSDB_MAX_TAGS", |builder, text| Ok(builder.with_max_tags(number(text)?))),
    ("OPENTSDB_UNIT_SUFFIXES", |builder, text| Ok(builder.with_unit_suffixes(switch(text)?))),
    ("OPENTSDB_TELEMETRY", |builder, text| Ok(builder.with_telemetry(switch(text)?))),
];

const ENDPOINT_ORDERS: &[(&str, EndpointOrder)] =
    &[("preferred", EndpointOrder::Preferred), ("spread", EndpointOrder::Spread)];
const FLAVORS: &[(&str, Flavor)] = &[
    ("opentsdb", Flavor::OpenTsdb),
    ("victoriametrics", Flavor::VictoriaMetrics),
    ("influxdb", Flavor::InfluxDb),
    ("kairosdb", Flavor::KairosDb),
];
const PRECISIONS: &[(&str, TimestampPrecision)] =
    &[("seconds", TimestampPrecision::Seconds), ("milliseconds", TimestampPrecision::Milliseconds)];
const CHECKS: &[(&str, ConnectivityCheck)] =
    &[("connect", ConnectivityCheck::Connect), ("off", ConnectivityCheck::Off)];
const CONFIRMATIONS: &[(&str, Confirmation)] = &[
    ("auto", Confirmation::Auto),
    ("version", Confirmation::Version),
    ("half-close", Confirmation::HalfClose),
    ("written", Confirmation::Written),
];
const COUNTER_MODES: &[(&str, CounterMode)] =
    &[("cumulative", CounterMode::Cumulative), ("delta", CounterMode::Delta)];
const DISTRIBUTIONS: &[(&str, Distribution)] = &[
    ("summary", Distribution::Summary),
    ("buckets", Distribution::Buckets),
    ("vmrange", Distribution::VmRange),
    ("native", Distribution::Native),
];

impl OpenTsdbBuilder {
    pub(super) fn from_variables(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BuildError> {
        let variables = collect(environment)?;
        if !variables.contains_key(ADDRESS) {
            let fix = "set it to where the TSD is, as in tsd:4242";
            return Err(invalid(ADDRESS, "", fix.into()));
        }
        for name in variables.keys().filter(|name| is_unknown(name)) {
            tracing::warn!(
                variable = name,
                "unknown environment variable; see the table of OpenTsdbBuilder::from_env"
            );
        }
        let set = VARIABLES.iter().filter_map(|row| Some((row, variables.get(row.0)?)));
        set.into_iter().try_fold(OpenTsdbBuilder::new(""), |builder, (&(name, apply), text)| {
            let alone = apply(OpenTsdbBuilder::new(""), text);
            alone.and_then(|alone| check(&alone)).map_err(|fix| invalid(name, text, fix))?;
            apply(builder, text).map_err(|fix| invalid(name, text, fix))
        })
    }
}

/// The variables that are meant for the exporter, those that are empty left out.
fn collect(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(PREFIX) {
            continue;
        }
        let text = value.to_string_lossy().trim().to_owned();
        let known = VARIABLES.iter().find(|row| row.0 == name);
        if let (Some(&(name, _)), None) = (known, value.to_str()) {
            return Err(invalid(name, &text, "give text in UTF-8".into()));
        }
        if !text.is_empty() {
            variables.insert(name, text);
        }
    }
    Ok(variables)
}

/// Whether nobody reads the variable: neither the exporter, nor whoever looks for a service named
/// `opentsdb…` by what Kubernetes sets.
fn is_unknown(name: &str) -> bool {
    let is_of_a_service = name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_");
    !is_of_a_service && VARIABLES.iter().all(|row| row.0 != name)
}

/// Checks what depends on one option alone.
fn check(builder: &OpenTsdbBuilder) -> Result<(), String> {
    let plans = Plans::new(&builder.distributions, builder.flavor.charset());
    plans.and_then(|_| builder.check_numbers()).map_err(|error| match error {
        BuildError::InvalidConfiguration { fix, .. } => fix,
        other => other.to_string(),
    })
}

fn invalid(variable: &'static str, value: &str, fix: String) -> BuildError {
    BuildError::InvalidConfiguration { option: variable, value: format!("{value:?}"), fix }
}

fn addresses(mut builder: OpenTsdbBuilder, text: &str) -> Result<OpenTsdbBuilder, String> {
    builder.addresses = text.split(',').map(|address| address.trim().to_owned()).collect();
    for address in &builder.addresses {
        Endpoint::parse(address).map_err(|reason| format!("{address:?} is wrong: {reason}"))?;
    }
    Ok(builder)
}

fn choice<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    chosen.map(|(_, value)| value.clone()).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|&(word, _)| word).collect();
        format!("give one of {}", words.join(", "))
    })
}

fn switch(text: &str) -> Result<bool, String> {
    choice(text, &[("true", true), ("false", false)])
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("give a duration with its unit, as in 500ms or 10s: {error}"))
}

fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { duration(text).map(Some) }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "give a whole number".to_owned())
}

fn numbers(text: &str) -> Result<Vec<f64>, String> {
    let parse = |text: &str| text.trim().parse();
    let numbers: Result<_, _> = text.split(',').map(parse).collect();
    numbers.map_err(|_| "give numbers separated by commas, as in 0.5,0.99".to_owned())
}

fn labels(text: &str) -> Result<Vec<Label>, String> {
    let label = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
            Ok(Label::new(key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("give labels separated by commas, as in service=checkout,zone=eu".to_owned()),
    };
    text.split(',').map(label).collect()
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    if let Ok(points) = text.parse() {
        return Ok(RateLimit::PerSecond(points));
    }
    choice(text, &[("auto", RateLimit::Auto), ("unlimited", RateLimit::Unlimited)])
        .map_err(|_| "give auto, unlimited, or points per second above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn build(variables: &[(&str, &str)]) -> Result<OpenTsdbBuilder, BuildError> {
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into()));
        OpenTsdbBuilder::from_variables(environment)
    }

    fn tsd() -> OpenTsdbBuilder {
        OpenTsdbBuilder::new("tsd")
    }

    #[test]
    fn each_variable_does_what_its_setter_does() {
        let second = Duration::from_secs(1);
        let points = NonZeroU32::new(5000).unwrap();
        let label = |key, value| Label::from_static_parts(key, value);
        #[rustfmt::skip]
        let cases = [
            ("ADDRESS", " a , b:1 ", OpenTsdbBuilder::new("a").add_endpoint("b:1")),
            ("ENDPOINT_ORDER", "spread", tsd().with_endpoint_order(EndpointOrder::Spread)),
            ("MAX_CONNECTION_AGE", "10m", tsd().with_max_connection_age(Some(600 * second))),
            ("MAX_CONNECTION_AGE", "off", tsd().with_max_connection_age(None)),
            ("FLAVOR", "VictoriaMetrics", tsd().with_flavor(Flavor::VictoriaMetrics)),
            ("FLUSH_INTERVAL", "1m 30s", tsd().with_flush_interval(90 * second)),
            ("TIMESTAMP_PRECISION", "milliseconds", tsd().with_timestamp_precision(TimestampPrecision::Milliseconds)),
            ("RATE_LIMIT", "5000", tsd().with_rate_limit(RateLimit::PerSecond(points))),
            ("RATE_LIMIT", "unlimited", tsd().with_rate_limit(RateLimit::Unlimited)),
            ("QUEUE_SIZE", "7", tsd().with_queue_size(7)),
            ("CONNECTIVITY_CHECK", "OFF", tsd().with_connectivity_check(ConnectivityCheck::Off)),
            ("CONNECT_TIMEOUT", "500ms", tsd().with_connect_timeout(second / 2)),
            ("WRITE_TIMEOUT", "1h", tsd().with_write_timeout(3600 * second)),
            ("BACKOFF", "1s, 5s", tsd().with_backoff(second, 5 * second)),
            ("CONFIRMATION", "half-close", tsd().with_confirmation(Confirmation::HalfClose)),
            ("HOST_TAG", "none", tsd().with_host_tag(HostTag::None)),
            ("HOST_TAG", "web1", tsd().with_host_tag(HostTag::Value("web1".into()))),
            ("INSTANCE_TAG", "Off", tsd().with_instance_tag(InstanceTag::Off)),
            ("INSTANCE_TAG", "w1", tsd().with_instance_tag(InstanceTag::Value("w1".into()))),
            ("GLOBAL_LABELS", "a=b, c = d=e", tsd().with_global_labels(vec![label("a", "b"), label("c", "d=e")])),
            ("GLOBAL_PREFIX", "shop", tsd().set_global_prefix("shop")),
            ("COUNTER_MODE", "delta", tsd().with_counter_mode(CounterMode::Delta)),
            ("QUANTILES", "0.5, 1", tsd().set_quantiles(&[0.5, 1.0])),
            ("BUCKETS", "1,2.5,10", tsd().set_buckets(&[1.0, 2.5, 10.0])),
            ("DISTRIBUTION", "vmrange", tsd().set_distribution(Distribution::VmRange)),
            ("IDLE_TIMEOUT", "5m", tsd().idle_timeout(MetricKindMask::ALL, Some(300 * second))),
            ("IDLE_TIMEOUT", "off", tsd()),
            ("SERIES_LIMIT", "9", tsd().with_series_limit(9)),
            ("MAX_TAGS", "12", tsd().with_max_tags(12)),
            ("UNIT_SUFFIXES", "true", tsd().with_unit_suffixes(true)),
            ("TELEMETRY", "false", tsd().with_telemetry(false)),
        ];
        for (name, value, expected) in &cases {
            let name = format!("{PREFIX}{name}");
            // The later of two values of one name counts.
            let built = build(&[(ADDRESS, "tsd"), (name.as_str(), *value)]);
            assert_eq!(format!("{:?}", built.unwrap()), format!("{expected:?}"), "{name}={value}");
        }
        for (name, _) in VARIABLES {
            assert!(cases.iter().any(|case| name.strip_prefix(PREFIX) == Some(case.0)), "{name}");
        }
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_the_variable_and_the_fix() {
        let cases = [
            ("OPENTSDB_ADDRESS", "tsd,", "names no host"),
            ("OPENTSDB_ADDRESS", "tsd:x", "\"tsd:x\" is wrong"),
            ("OPENTSDB_FLAVOR", "graphite", "give one of opentsdb, victoriametrics, influxdb"),
            ("OPENTSDB_FLUSH_INTERVAL", "10", "give a duration with its unit"),
            ("OPENTSDB_FLUSH_INTERVAL", "0s", "give more than 0"),
            ("OPENTSDB_MAX_CONNECTION_AGE", "25h", "at most a day"),
            ("OPENTSDB_ENDPOINT_ORDER", "random", "give one of preferred, spread"),
            ("OPENTSDB_RATE_LIMIT", "0", "points per second above 0"),
            ("OPENTSDB_QUEUE_SIZE", "-1", "give a whole number"),
            ("OPENTSDB_QUEUE_SIZE", "0", "at least one point"),
            ("OPENTSDB_BACKOFF", "1s", "the minimum and the maximum"),
            ("OPENTSDB_BACKOFF", "3s,1s", "a maximum from it"),
            ("OPENTSDB_GLOBAL_LABELS", "service", "as in service=checkout"),
            ("OPENTSDB_GLOBAL_LABELS", "=checkout", "as in service=checkout"),
            ("OPENTSDB_QUANTILES", "0.5;0.9", "separated by commas"),
            ("OPENTSDB_QUANTILES", "50", "0 to 1"),
            ("OPENTSDB_MAX_TAGS", "65", "give 1 to 64"),
            ("OPENTSDB_TELEMETRY", "yes", "give one of true, false"),
        ];
        for (name, value, fix) in cases {
            let error = build(&[("OPENTSDB_ADDRESS", "tsd"), (name, value)]).unwrap_err();
            let text = error.to_string();
            let is_named = text.starts_with(&format!("{name}({value:?}): "));
            assert!(is_named && text.contains(fix), "{name}={value}: {text}");
        }
    }

    #[test]
    fn without_an_address_there_is_no_exporter() {
        for variables in [&[][..], &[("OPENTSDB_ADDRESS", " ")], &[("OPENTSDB_FLAVOR", "opentsdb")]]
        {
            let text = build(variables).unwrap_err().to_string();
            assert_eq!(text, "OPENTSDB_ADDRESS(\"\"): set it to where the TSD is, as in tsd:4242");
        }
    }

    #[test]
    fn later_calls_override_the_environment() {
        let built = build(&[("OPENTSDB_ADDRESS", "tsd"), ("OPENTSDB_QUEUE_SIZE", "7")]).unwrap();
        assert_eq!(built.with_queue_size(8).queue_size, 8);
    }

    #[test]
    fn options_that_do_not_go_together_are_left_to_build() {
        let variables = [("OPENTSDB_ADDRESS", "tsd"), ("OPENTSDB_DISTRIBUTION", "vmrange")];
        let error = build(&variables).unwrap().build().unwrap_err();
        assert!(error.to_string().contains("Flavor::VictoriaMetrics"), "{error}");
    }

    #[test]
    fn misspelt_variables_are_told_from_those_of_a_service() {
        let cases = [
            ("OPENTSDB_URL", true),
            ("OPENTSDB_FLUSH", true),
            ("OPENTSDB_ADDRESS", false),
            ("OPENTSDB_PORT", false),
            ("OPENTSDB_SERVICE_HOST", false),
            ("OPENTSDB_READ_SERVICE_PORT_HTTP", false),
            ("OPENTSDB_PORT_4242_TCP_ADDR", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_unknown(name), expected, "{name}");
        }
        assert!(build(&[("OPENTSDB_ADDRESS", "tsd"), ("OPENTSDB_URL", "tsd")]).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn text_that_is_not_utf8_is_an_error_and_only_in_our_own_variables() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(vec![0xff]);
        let environment = |name: &str| [(name.into(), bytes()), (ADDRESS.into(), "tsd".into())];
        let error = OpenTsdbBuilder::from_variables(environment("OPENTSDB_FLAVOR")).unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
        assert!(OpenTsdbBuilder::from_variables(environment("LS_COLORS")).is_ok());
    }

    #[test]
    fn the_table_of_the_docs_has_each_variable_in_this_order() {
        let docs = include_str!("../../docs/environment.md");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), VARIABLES.iter().map(|row| row.0).collect::<Vec<_>>());
    }
}
