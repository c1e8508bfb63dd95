//! A [`metrics`] exporter for OpenTSDB and every server that speaks its telnet `put` protocol.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
