use std::collections::BTreeMap;
use std::ffi::OsString;

use super::input::Input;
use crate::builder::OpenTsdbBuilder;
use crate::send::endpoint::{Endpoint, redact};

/// What stands for a secret.
const SECRET: &str = "S3cr3t";

/// An address is refused with a reason, or has one usual form that is read as the same; neither
/// shows a secret.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let endpoint = Endpoint::parse(&text);
    match &endpoint {
        Ok(endpoint) => {
            let usual = endpoint.to_string();
            assert!(!usual.contains(|c: char| c.is_whitespace() || c.is_control()), "{usual:?}");
            let again = Endpoint::parse(&usual).expect(&usual);
            assert_eq!(again.to_string(), usual, "{text:?}");
            assert!(!endpoint.is_telnet() || again == *endpoint, "{text:?}");
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    // What is surely right.
    let (host, port) = text.split_once(':').unwrap_or((&text, "4242"));
    let is_name = |name: &str| {
        (1..=253).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    if is_name(host) && is_port && port.parse::<u16>().is_ok_and(|port| port > 0) {
        assert!(endpoint.is_ok(), "{endpoint:?}");
    }
    // A path is shown, whatever it says.
    let path = text.replace('?', "");
    for scheme in ["http", "https"].iter().filter(|_| !path.contains(SECRET)) {
        shows_no_secret(&format!("{scheme}://user:{SECRET}@{text}"));
        shows_no_secret(&format!("{scheme}://tsd/{path}?key={SECRET}"));
    }
}

fn shows_no_secret(address: &str) {
    let shown = match Endpoint::parse(address) {
        Ok(endpoint) => format!("{endpoint} {endpoint:?}"),
        Err(reason) => reason,
    };
    assert!(!shown.contains(SECRET), "{address:?}: {shown}");
    assert!(!redact(address).contains(SECRET), "{address:?}: {}", redact(address));
}

/// The environment makes a builder or names a variable that was given; its order does not matter.
pub fn environment(data: &[u8]) {
    let mut input = Input(data);
    let mut variables = BTreeMap::from([("OPENTSDB_ADDRESS".to_owned(), "tsd".to_owned())]);
    for pair in input.texts(20).chunks_exact(2) {
        variables.insert(format!("OPENTSDB_{}", pair[0]), pair[1].clone());
    }
    let os = |(name, value): (&String, &String)| (OsString::from(name), OsString::from(value));
    let forwards = OpenTsdbBuilder::from_variables(variables.iter().map(os));
    let backwards = OpenTsdbBuilder::from_variables(variables.iter().rev().map(os));
    assert_eq!(format!("{forwards:?}"), format!("{backwards:?}"));
    if let Err(error) = forwards {
        let text = error.to_string();
        let name = text.split('(').next().unwrap_or_default();
        assert!(variables.contains_key(name), "{text}");
    }
}
