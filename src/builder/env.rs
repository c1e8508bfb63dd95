//! An exporter set up by environment variables.
//!
//! [`VARIABLES`] has a row for each variable: its name, its option, and what reads its text. The
//! environment comes in as an iterator, so that tests need not change the process's own.
//!
//! 1. The variables whose names begin with [`PREFIX`] are collected; no other is looked at.
//! 2. Each row whose variable is set is tried on a builder of its own, whose numbers are then
//!    checked. So an error names the variable, and never blames one variable for another.
//! 3. The options are set in the order of the rows. What depends on several options is left to
//!    `build`: a later call may still change it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use metrics::{Label, Level};
use metrics_util::MetricKindMask;

use super::OpenTsdbBuilder;
#[cfg(feature = "http")]
use super::options::HttpCompression;
use super::options::{Address, ConnectivityCheck, Flavor, HostTag, InstanceTag};
use crate::error::BuildError;
use crate::flush::distribution::{Distribution, Plans};
use crate::flush::reading::CounterMode;
use crate::flush::schedule::TimestampPrecision;
use crate::send::endpoint::{Endpoint, redact};
#[cfg(feature = "http")]
use crate::send::http::head::Header;
use crate::send::limiter::RateLimit;
use crate::send::rotation::EndpointOrder;
#[cfg(feature = "spool")]
use crate::send::spool::options::Spool;
use crate::stats::Confirmation;

/// What the name of every variable begins with.
const PREFIX: &str = "OPENTSDB_";
/// The variable without which there is no exporter.
const ADDRESS: &str = "OPENTSDB_ADDRESS";

/// Sets one option from the text of a variable; the error says what to give instead.
type Set = fn(&mut OpenTsdbBuilder, &str) -> Result<(), String>;

/// A row for each variable: its name behind [`PREFIX`], the option, and what reads the text.
macro_rules! variables {
    ($($(#[$cfg:meta])* $name:literal $($option:ident $(($($none:tt)*))?).+ = $read:expr;)*) => {
        &[$($(#[$cfg])* (concat!("OPENTSDB_", $name), |builder, text| {
            builder.$($option $(($($none)*))?).+ = $read(text)?;
            Ok(())
        })),*]
    };
}

/// In the order of the table in `docs/environment.md`, but for those of the spool, which follow.
const VARIABLES: &[(&str, Set)] = variables! {
    "ADDRESS" addresses = addresses;
    "ENDPOINT_ORDER" endpoint_order =
        word(&[("preferred", EndpointOrder::Preferred), ("spread", EndpointOrder::Spread)]);
    "MAX_CONNECTION_AGE" max_connection_age = duration_or_off;
    "FLAVOR" flavor = word(&[
        ("opentsdb", Flavor::OpenTsdb), ("victoriametrics", Flavor::VictoriaMetrics),
        ("influxdb", Flavor::InfluxDb), ("kairosdb", Flavor::KairosDb),
    ]);
    "FLUSH_INTERVAL" flush_interval = duration;
    "TIMESTAMP_PRECISION" precision = word(&[
        ("seconds", TimestampPrecision::Seconds),
        ("milliseconds", TimestampPrecision::Milliseconds),
    ]);
    "RATE_LIMIT" rate_limit = rate_limit;
    "QUEUE_SIZE" queue_size = number;
    "CONNECTIVITY_CHECK" connectivity_check =
        word(&[("connect", ConnectivityCheck::Connect), ("off", ConnectivityCheck::Off)]);
    "CONNECT_TIMEOUT" connect_timeout = duration;
    "WRITE_TIMEOUT" write_timeout = duration;
    "BACKOFF" backoff = durations;
    "CONFIRMATION" confirmation = word(&[
        ("auto", Confirmation::Auto), ("version", Confirmation::Version),
        ("half-close", Confirmation::HalfClose), ("written", Confirmation::Written),
        ("response", Confirmation::Response), ("stored", Confirmation::Stored),
    ]);
    "HOST_TAG" host_tag =
        word_or(&[("auto", HostTag::Auto), ("none", HostTag::None)], HostTag::Value);
    "INSTANCE_TAG" instance_tag =
        word_or(&[("auto", InstanceTag::Auto), ("off", InstanceTag::Off)], InstanceTag::Value);
    "GLOBAL_LABELS" global_labels = labels;
    "GLOBAL_PREFIX" prefix = |text: &str| Ok::<_, String>(text.to_owned());
    "COUNTER_MODE" counter_mode =
        word(&[("cumulative", CounterMode::Cumulative), ("delta", CounterMode::Delta)]);
    "BIRTH_ZEROS" birth_zeros = word(SWITCH);
    "QUANTILES" distributions.quantiles.general = some(numbers);
    "BUCKETS" distributions.buckets.general = some(numbers);
    "DISTRIBUTION" distributions.distribution.general = some(word(&[
        ("summary", Distribution::Summary), ("buckets", Distribution::Buckets),
        ("vmrange", Distribution::VmRange), ("native", Distribution::Native),
    ]));
    "IDLE_TIMEOUT" idle.general = idle;
    "SERIES_LIMIT" series_limit = number;
    "MAX_TAGS" max_tags = some(number);
    "MIN_LEVEL" min_level = level;
    "MIN_LEVEL_FOR_TARGET" target_levels = target_levels;
    "UNIT_SUFFIXES" unit_suffixes = word(SWITCH);
    "TELEMETRY" telemetry = word(SWITCH);
    #[cfg(feature = "http")]
    "HTTP_HEADERS" http.headers = headers;
    #[cfg(feature = "http")]
    "HTTP_COMPRESSION" http.compression =
        word(&[("gzip", HttpCompression::Gzip), ("off", HttpCompression::Off)]);
    #[cfg(feature = "http")]
    "HTTP_BATCH_BYTES" http.batch_bytes = some(number);
    #[cfg(feature = "spool")]
    "SPOOL_DIR" spool().directory = |text: &str| Ok::<_, String>(text.into());
    #[cfg(feature = "spool")]
    "SPOOL_MAX_BYTES" spool().max_bytes = number;
    #[cfg(feature = "spool")]
    "SPOOL_MAX_AGE" spool().max_age = duration;
    #[cfg(feature = "spool")]
    "SPOOL_WRITE_AHEAD" spool().write_ahead = word(SWITCH);
};
const SWITCH: &[(&str, bool)] = &[("true", true), ("false", false)];

impl OpenTsdbBuilder {
    /// The options of the spool; without a directory, which `build` refuses, if there are none yet.
    #[cfg(feature = "spool")]
    fn spool(&mut self) -> &mut Spool {
        self.spool.get_or_insert_with(|| Spool::new(""))
    }

    pub(crate) fn from_variables(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BuildError> {
        let variables = collect(environment)?;
        if !variables.contains_key(ADDRESS) {
            return Err(BuildError::invalid(
                ADDRESS,
                "",
                "set it to where the TSD is, as in tsd:4242",
            ));
        }
        for name in variables.keys().filter(|name| is_unknown(name)) {
            tracing::warn!(
                variable = name,
                "unknown environment variable; see the table of OpenTsdbBuilder::from_env"
            );
        }
        let mut builder = OpenTsdbBuilder::new("");
        for &(name, set) in VARIABLES {
            let Some(text) = variables.get(name) else { continue };
            let invalid = |fix| BuildError::invalid(name, shown(name, text), fix);
            let mut alone = OpenTsdbBuilder::new("");
            set(&mut alone, text).and_then(|()| check(&alone)).map_err(invalid)?;
            set(&mut builder, text).map_err(invalid)?;
        }
        Ok(builder)
    }
}

/// The variables that are meant for the exporter, those that are empty left out.
fn collect(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let text = value.to_string_lossy().trim().to_owned();
        let known = VARIABLES.iter().find(|row| row.0 == name);
        if let (Some(&(name, _)), None) = (known, value.to_str()) {
            return Err(BuildError::invalid(name, shown(name, &text), "give text in UTF-8"));
        }
        if !text.is_empty() {
            variables.insert(name.to_owned(), text);
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
    let plans = Plans::new(&builder.distributions, builder.flavor.limits().charset);
    plans.and_then(|_| builder.check_numbers()).map_err(|error| match error {
        BuildError::InvalidConfiguration { fix, .. } => fix,
        other => other.to_string(),
    })
}

/// The value of a variable without what may be a secret.
fn shown(name: &str, text: &str) -> String {
    match name {
        ADDRESS => text.split(',').map(redact).collect::<Vec<_>>().join(","),
        "OPENTSDB_HTTP_HEADERS" => "***".to_owned(),
        _ => text.to_owned(),
    }
}

fn addresses(text: &str) -> Result<Vec<Address>, String> {
    let address = |text: &str| match Endpoint::parse(text.trim()) {
        Ok(_) => Ok(Address(text.trim().to_owned())),
        Err(reason) => Err(format!("{:?} is wrong: {reason}", redact(text.trim()))),
    };
    text.split(',').map(address).collect()
}

/// One of these words, in any case.
fn word<T: Clone>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let chosen = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        chosen.map(|(_, value)| value.clone()).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|&(word, _)| word).collect();
            format!("give one of {}", words.join(", "))
        })
    }
}

/// One of these words, or any other text.
fn word_or<T: Clone>(
    words: &[(&str, T)],
    other: fn(String) -> T,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| Ok(word(words)(text).unwrap_or_else(|_| other(text.to_owned())))
}

fn some<T>(read: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| read(text).map(Some)
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("give a duration with its unit, as in 500ms or 10s: {error}"))
}

fn durations(text: &str) -> Result<(Duration, Duration), String> {
    let pair = text.split_once(',').ok_or("give the minimum and the maximum, as in 1s,30s")?;
    Ok((duration(pair.0.trim())?, duration(pair.1.trim())?))
}

fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { duration(text).map(Some) }
}

fn idle(text: &str) -> Result<Option<(MetricKindMask, Duration)>, String> {
    Ok(duration_or_off(text)?.map(|timeout| (MetricKindMask::ALL, timeout)))
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

fn level(text: &str) -> Result<Level, String> {
    let level = Level::try_from(&*text.to_ascii_lowercase());
    level.map_err(|_| "give one of trace, debug, info, warn, error".to_owned())
}

fn target_levels(text: &str) -> Result<Vec<(String, Level)>, String> {
    let target = |label: &Label| Ok((label.key().to_owned(), level(label.value())?));
    let form = |_| "give targets and levels separated by commas, as in sqlx=warn,hyper=error";
    labels(text).map_err(form)?.iter().map(target).collect()
}

#[cfg(feature = "http")]
fn headers(text: &str) -> Result<Vec<Header>, String> {
    let header = |text: &str| match text.split_once('=') {
        Some((name, value)) => Ok(Header::new(name.trim().to_owned(), value.trim().to_owned())),
        None => Err("give headers separated by commas, as in X-Scope-OrgID=7".to_owned()),
    };
    text.split(',').map(header).collect()
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    if let Ok(points) = text.parse() {
        return Ok(RateLimit::PerSecond(points));
    }
    word(&[("auto", RateLimit::Auto), ("unlimited", RateLimit::Unlimited)])(text)
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
            ("BIRTH_ZEROS", "true", tsd().with_birth_zeros(true)),
            ("QUANTILES", "0.5, 1", tsd().set_quantiles(&[0.5, 1.0])),
            ("BUCKETS", "1,2.5,10", tsd().set_buckets(&[1.0, 2.5, 10.0])),
            ("DISTRIBUTION", "vmrange", tsd().set_distribution(Distribution::VmRange)),
            ("IDLE_TIMEOUT", "5m", tsd().idle_timeout(MetricKindMask::ALL, Some(300 * second))),
            ("IDLE_TIMEOUT", "off", tsd()),
            ("SERIES_LIMIT", "9", tsd().with_series_limit(9)),
            ("MAX_TAGS", "12", tsd().with_max_tags(12)),
            ("MIN_LEVEL", "Warn", tsd().with_min_level(Level::WARN)),
            ("MIN_LEVEL_FOR_TARGET", "sqlx=warn, a::b = trace", tsd().with_min_level_for_target("sqlx", Level::WARN).with_min_level_for_target("a::b", Level::TRACE)),
            ("UNIT_SUFFIXES", "true", tsd().with_unit_suffixes(true)),
            ("TELEMETRY", "false", tsd().with_telemetry(false)),
            ("SPOOL_DIR", "/var/lib/x", tsd().with_spool(Spool::new("/var/lib/x"))),
            ("SPOOL_MAX_BYTES", "7", tsd().with_spool(Spool::new("").max_bytes(7))),
            ("SPOOL_MAX_AGE", "3h", tsd().with_spool(Spool::new("").max_age(3 * 3600 * second))),
            ("SPOOL_WRITE_AHEAD", "true", tsd().with_spool(Spool::new("").write_ahead(true))),
            #[cfg(feature = "http")]
            ("HTTP_HEADERS", "X-Scope-OrgID=7, x = y=z", tsd().add_http_header("X-Scope-OrgID", "7").add_http_header("x", "y=z")),
            #[cfg(feature = "http")]
            ("HTTP_COMPRESSION", "off", tsd().with_http_compression(HttpCompression::Off)),
            #[cfg(feature = "http")]
            ("HTTP_BATCH_BYTES", "4000", tsd().with_http_batch_bytes(4000)),
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
            ("OPENTSDB_ADDRESS", "me:secret@tsd", "\"***@tsd\" is wrong"),
            #[cfg(feature = "http")]
            ("OPENTSDB_HTTP_BATCH_BYTES", "63", "at least 64"),
            #[cfg(feature = "http")]
            ("OPENTSDB_HTTP_HEADERS", "Content-Length=secret", "decides on it"),
            #[cfg(feature = "http")]
            ("OPENTSDB_HTTP_HEADERS", "Bearer secret", "as in X-Scope-OrgID=7"),
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
            ("OPENTSDB_MIN_LEVEL", "fatal", "give one of trace, debug"),
            ("OPENTSDB_MIN_LEVEL_FOR_TARGET", "sqlx", "as in sqlx=warn"),
            ("OPENTSDB_MIN_LEVEL_FOR_TARGET", "sqlx=fatal", "give one of trace, debug"),
            ("OPENTSDB_TELEMETRY", "yes", "give one of true, false"),
            ("OPENTSDB_SPOOL_MAX_BYTES", "0", "room for some points"),
            ("OPENTSDB_SPOOL_MAX_AGE", "0s", "above 0"),
        ];
        for (name, value, fix) in cases {
            let error = build(&[("OPENTSDB_ADDRESS", "tsd"), (name, value)]).unwrap_err();
            let text = error.to_string();
            let is_named = text.starts_with(&format!("{name}({:?}): ", shown(name, value)));
            assert!(is_named && text.contains(fix), "{name}={value}: {text}");
            assert!(!text.contains("secret"), "{name}={value}: {text}");
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
        for (name, value, fix) in [
            ("OPENTSDB_DISTRIBUTION", "vmrange", "Flavor::VictoriaMetrics"),
            ("OPENTSDB_SPOOL_MAX_AGE", "1h", "OPENTSDB_SPOOL_DIR"),
        ] {
            let off = ("OPENTSDB_CONNECTIVITY_CHECK", "off");
            let variables = [("OPENTSDB_ADDRESS", "tsd"), off, (name, value)];
            let error = build(&variables).unwrap().build().unwrap_err();
            assert!(error.to_string().contains(fix), "{error}");
        }
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
        let names = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(
            names.collect::<Vec<_>>(),
            VARIABLES.iter().map(|row| row.0).collect::<Vec<_>>()
        );
    }
}
