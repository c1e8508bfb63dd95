//! Where a server is: a host and a port.
//!
//! A name stays a name and is resolved anew on each attempt to connect: a server that moved is the
//! usual reason for one.

use std::fmt;
use std::net::Ipv6Addr;

/// The port of a TSD.
const DEFAULT_PORT: u16 = 4242;
/// The scheme of the telnet protocol.
const SCHEME: &str = "tcp";
/// The longest name that DNS has.
const MAX_HOST: usize = 253;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// Reads `host`, `host:port`, `v6`, `[v6]` or `[v6]:port`, each with or without `tcp://`. The
    /// error says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = strip_scheme(text)?;
        if let Some(found) = rest.chars().find(|&c| c.is_whitespace() || c.is_control()) {
            return Err(format!("it holds {found:?}; leave it out"));
        }
        if let Some(found) = rest.chars().find(|c| "/?#@".contains(*c)) {
            return Err(format!(
                "it holds {found:?}, but this protocol has no paths and no users; give the host \
                 and the port alone"
            ));
        }
        let (host, port) = split_port(rest)?;
        check_host(host)?;
        let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
        Ok(Endpoint { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn strip_scheme(text: &str) -> Result<&str, String> {
    match text.split_once("://") {
        None => Ok(text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(rest),
        Some((scheme, _)) => Err(format!(
            "{scheme}:// is not supported; points are sent over the telnet protocol, so write \
             \"host:{DEFAULT_PORT}\" or \"{SCHEME}://host:{DEFAULT_PORT}\""
        )),
    }
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
            ("http://tsd:4242", "telnet"),
            ("https://tsd", "telnet"),
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
}
