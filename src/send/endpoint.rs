//! Where a server is: a host and a port, and the protocol that is spoken there.
//!
//! A name stays a name and is resolved anew on each attempt to connect: a server that moved is the
//! usual reason for one.

use std::fmt;
use std::net::Ipv6Addr;

#[cfg(feature = "http")]
use super::url::Url;

/// The port of a TSD.
const DEFAULT_PORT: u16 = 4242;
/// The scheme of the telnet protocol.
const SCHEME: &str = "tcp";
/// Why such an address is refused.
#[cfg(not(feature = "http"))]
const NEEDS_HTTP: &str = "it needs the feature `http` of metrics-exporter-opentsdb; turn it on in \
     Cargo.toml, or write \"host:4242\" for the telnet protocol";
const NEEDS_TLS: &str = "it needs TLS; turn on the feature `tls-ring` or `tls-aws-lc-rs` of \
     metrics-exporter-opentsdb in Cargo.toml, or `tls` and give a configuration by with_tls_config";
/// The longest name that DNS has.
const MAX_HOST: usize = 253;

/// Without the feature `http` there is none.
#[cfg(not(feature = "http"))]
type Url = std::convert::Infallible;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What else there is to know where HTTP is spoken.
    pub(super) url: Option<Url>,
}

impl Endpoint {
    /// Reads `host`, `host:port`, `v6`, `[v6]` or `[v6]:port`, each with or without `tcp://`, or a
    /// URL of HTTP. The error says what would be right, and holds nothing of the address that may
    /// be a secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(found) = text.chars().find(|&c| c.is_whitespace() || c.is_control()) {
            return Err(format!("it holds {found:?}; leave it out"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or((SCHEME, text));
        match scheme.to_ascii_lowercase().as_str() {
            SCHEME => Self::parse_telnet(rest),
            "http" => Self::parse_url(false, rest),
            "https" => Self::parse_url(true, rest),
            scheme => Err(format!(
                "{scheme}:// is not supported; write \"host:{DEFAULT_PORT}\" for the telnet \
                 protocol, or \"http://host:{DEFAULT_PORT}\""
            )),
        }
    }

    fn parse_telnet(rest: &str) -> Result<Self, String> {
        if let Some(found) = rest.chars().find(|c| "/?#@".contains(*c)) {
            return Err(format!(
                "it holds {found:?}, but the telnet protocol has no paths and no users; give the \
                 host and the port alone, or begin with http://"
            ));
        }
        let (host, port) = host_and_port(rest, DEFAULT_PORT)?;
        Ok(Endpoint { host, port, url: None })
    }

    #[cfg(feature = "http")]
    fn parse_url(is_tls: bool, rest: &str) -> Result<Self, String> {
        if is_tls && cfg!(not(feature = "tls")) {
            return Err(NEEDS_TLS.to_owned());
        }
        let (authority, url) = Url::parse(is_tls, rest)?;
        let default_port = if is_tls { 443 } else { DEFAULT_PORT };
        let (host, port) = host_and_port(authority, default_port)?;
        #[cfg(feature = "tls")]
        if is_tls && super::tls::server_name(&host).is_none() {
            return Err(format!(
                "no certificate can be for {host:?}; write an international name in \
                 its form of ASCII, as in \"xn--mnchen-3ya.example\""
            ));
        }
        Ok(Endpoint { host, port, url: Some(url) })
    }

    #[cfg(not(feature = "http"))]
    fn parse_url(is_tls: bool, _rest: &str) -> Result<Self, String> {
        Err(if is_tls { NEEDS_TLS } else { NEEDS_HTTP }.to_owned())
    }

    /// Whether the telnet protocol is spoken there.
    pub(crate) fn is_telnet(&self) -> bool {
        self.url.is_none()
    }

    /// Whether it is encrypted.
    #[cfg(feature = "tls")]
    pub(crate) fn is_tls(&self) -> bool {
        self.url.as_ref().is_some_and(|url| url.is_tls)
    }

    /// The host and the port, as a URL has them.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Without credentials and query.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "http")]
        if let Some(url) = &self.url {
            let scheme = if url.is_tls { "https" } else { "http" };
            return write!(f, "{scheme}://{}{}", self.authority(), url.path);
        }
        f.write_str(&self.authority())
    }
}

/// An address as it may be shown to anybody: its user, password and query are left out.
pub(crate) fn redact(address: &str) -> String {
    let (scheme, rest) = address.split_at(address.find("://").map_or(0, |at| at + 3));
    let (user, rest) = rest.split_at(rest.rfind('@').map_or(0, |at| at + 1));
    let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let hide = |hidden: &str, shown| if hidden.is_empty() { "" } else { shown };
    [scheme, hide(user, "***@"), rest, hide(query, "?***")].concat()
}

fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = split_port(text)?;
    check_host(host)?;
    Ok((host.to_owned(), port.map_or(Ok(default), parse_port)?))
}

/// The host without brackets, and the port's text if there is one.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let (host, behind) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return Err("its bracket is never closed; write \"[::1]:4242\"".to_owned()),
        Some(Some((host, _))) if host.parse::<Ipv6Addr>().is_err() => {
            return Err(format!("{host:?} is no IPv6 address, and only these stand in brackets"));
        }
        Some(Some(parts)) => parts,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match behind.strip_prefix(':') {
        None if behind.is_empty() => Ok((host, None)),
        None => Err(format!("{behind:?} stands behind the bracket; write \"[{host}]:4242\"")),
        Some(port) if port.contains(':') => Err(
            "it has several colons and is no IPv6 address; write \"host:port\" or \"[v6]:port\""
                .to_owned(),
        ),
        Some(port) => Ok((host, Some(port))),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err(format!("it names no host; give one, as in \"tsd:{DEFAULT_PORT}\""));
    }
    if host.len() > MAX_HOST {
        return Err(format!("its host is longer than the {MAX_HOST} bytes that a name may have"));
    }
    match host.chars().find(|&c| !(c.is_alphanumeric() || "-._:".contains(c))) {
        None => Ok(()),
        Some(found) => Err(format!("{found:?} cannot be part of a host name")),
    }
}

fn parse_port(digits: &str) -> Result<u16, String> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && all_digits => Ok(port),
        _ => Err(format!(
            "{digits:?} is no port; give a number from 1 to 65535, or none for {DEFAULT_PORT}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_in_any_usual_form() {
        let cases = [
            ("tsd", "tsd:4242"),
            ("tsd:4243", "tsd:4243"),
            ("10.0.0.7", "10.0.0.7:4242"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("[::1]:4243", "[::1]:4243"),
            ("[::1]", "[::1]:4242"),
            ("::1", "[::1]:4242"),
            ("fe80::1:2", "[fe80::1:2]:4242"),
            ("tcp://tsd:65535", "tsd:65535"),
            ("TCP://tsd", "tsd:4242"),
            ("tsd-1.my_zone.example.", "tsd-1.my_zone.example.:4242"),
            ("zeitreihen.münchen.example", "zeitreihen.münchen.example:4242"),
        ];
        for (text, expected) in cases {
            let endpoint =
                Endpoint::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(endpoint.to_string(), expected, "{text}");
            assert_eq!(Endpoint::parse(&endpoint.to_string()).as_ref(), Ok(&endpoint), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_right() {
        let cases = [
            ("", "names no host"),
            (":4242", "names no host"),
            ("tcp://", "names no host"),
            #[cfg(not(feature = "http"))]
            ("http://tsd:4242", "the feature `http`"),
            #[cfg(not(feature = "tls"))]
            ("https://tsd", "the feature `tls-ring` or"),
            ("udp://tsd", "telnet"),
            ("tsd:0", "1 to 65535"),
            ("tsd:65536", "1 to 65535"),
            ("tsd:abc", "1 to 65535"),
            ("tsd:+1", "1 to 65535"),
            ("tsd:", "1 to 65535"),
            ("[::1]:", "1 to 65535"),
            (" tsd", "leave it out"),
            ("tsd 4242", "leave it out"),
            ("tsd\n", "leave it out"),
            ("tsd\0", "leave it out"),
            ("tsd:4242/api/put", "no paths"),
            ("tsd/", "no paths"),
            ("user@tsd", "no users"),
            ("[::1", "never closed"),
            ("[tsd]:4242", "no IPv6 address"),
            ("[::1]4242", "behind the bracket"),
            ("a:b:c", "several colons"),
            ("ts*d", "cannot be part"),
            ("ts,d", "cannot be part"),
        ];
        for (text, expected) in cases {
            let reason = Endpoint::parse(text).expect_err(text);
            assert!(reason.contains(expected), "{text:?}: {reason}");
        }
        assert!(Endpoint::parse(&"a".repeat(254)).is_err());
    }

    #[test]
    fn what_is_shown_of_an_address_holds_no_secret() {
        let cases = [
            ("tsd:4242", "tsd:4242"),
            ("https://u:p@tsd/x?token=t", "https://***@tsd/x?***"),
            ("http://u:p/w@d@tsd", "http://***@tsd"),
            ("u:p@tsd", "***@tsd"),
            ("nothing://u:p?@", "nothing://***@"),
        ];
        for (address, expected) in cases {
            assert_eq!(redact(address), expected);
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_url_has_ports_and_a_path_of_its_own() {
        let cases = [
            ("http://tsd", "http://tsd:4242/api/put"),
            ("HTTP://tsd/", "http://tsd:4242/api/put"),
            #[cfg(feature = "tls")]
            ("https://tsd?db=x", "https://tsd:443/api/put"),
            (
                "http://u:p@[::1]:1/insert/0/opentsdb/api/put",
                "http://[::1]:1/insert/0/opentsdb/api/put",
            ),
            #[cfg(feature = "tls")]
            ("https://10.0.0.7:8443", "https://10.0.0.7:8443/api/put"),
        ];
        for (text, expected) in cases {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), expected, "{text}");
            assert!(!endpoint.is_telnet());
        }
        for (text, expected) in [
            ("http://", "names no host"),
            ("http://u:p@", "names no host"),
            ("http://tsd:0", "1 to 65535"),
            ("http://tsd/#a", "holds '#'"),
            ("http://tsd/ä", "percent"),
        ] {
            let reason = Endpoint::parse(text).expect_err(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
