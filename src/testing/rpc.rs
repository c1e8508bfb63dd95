//! One line is handled, as net.opentsdb.tsd.RpcHandler does.

use std::time::Duration;

use super::fault::{Fault, Mode};
use super::log::Log;
use super::options::FakeTsdBuilder;
use super::parse::{self, Put, Refusal};

/// Everything that it takes to handle a line, but the line.
pub(super) struct Desk<'a> {
    pub(super) options: &'a FakeTsdBuilder,
    /// The faults in force on the connection.
    pub(super) mode: &'a Mode,
    pub(super) log: &'a mut Log,
    pub(super) connection: usize,
}

/// What is said to the client, if anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// How much later it comes, in addition to what a fault says.
    pub(super) after: Duration,
    /// Whether the server closes the connection behind it.
    pub(super) is_last: bool,
    /// Whether it says what is wrong: then it is dropped when the client does not read.
    pub(super) is_complaint: bool,
}

impl Desk<'_> {
    /// Handles a line, given without its line feed; `None` if it waits for storage, and what
    /// follows behind it.
    pub(super) fn handle(&mut self, line: &[u8]) -> Option<Answer> {
        let is_writable = !self.mode.has(&Fault::ReadOnly);
        let command = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        match command {
            b"put" if is_writable => {
                self.store(line, "put", parse::put(line, self.options.rules()))
            }
            b"histogram" if is_writable && self.options.replies.is_tsd() => {
                let put = match self.options.takes_histograms {
                    true => parse::histogram(line, self.options.rules()),
                    false => Err(NO_HISTOGRAMS.into()),
                };
                self.store(line, "histogram", put)
            }
            b"version" => {
                self.log.versions += 1;
                let bytes = self.options.replies.version.as_bytes().into();
                Some(Answer { bytes, ..Answer::default() })
            }
            _ => {
                let command = parse::latin1(command);
                Some(self.reject(line, format!("unknown command: {command}.  Try `help'.")))
            }
        }
    }

    /// Refuses a line that is too long to be handled; nobody answers it.
    pub(super) fn reject_long(&mut self, line: &[u8]) -> Answer {
        self.log.reject(self.connection, line, "");
        Answer { is_last: self.options.replies.is_tsd(), ..Answer::default() }
    }

    fn store(
        &mut self,
        line: &[u8],
        command: &str,
        put: Result<Put<'_>, Refusal>,
    ) -> Option<Answer> {
        let put = match (put.and_then(|put| self.admit(put)), &self.mode.refusal) {
            (Ok(put), None) => put,
            (Ok(_), Some(refusal)) => return Some(self.reject(line, refusal.clone())),
            (Err(refusal), _) => return Some(self.reject(line, format!("{command}: {refusal}"))),
        };
        if self.is_stuck(&put) {
            return None;
        }
        self.log.accept(self.connection, line, put);
        Some(Answer::default())
    }

    /// The point, if the server knows its metric or may create it.
    pub(super) fn admit<'a>(&self, put: Put<'a>) -> Result<Put<'a>, Refusal> {
        if self.mode.has(&Fault::UnknownMetrics) && !self.log.store.knows_metric(put.metric) {
            let metric = parse::latin1(put.metric);
            return Err(format!("unknown metric: No such name for 'metrics': '{metric}'"));
        }
        Ok(put)
    }

    /// Whether the point has to wait for storage.
    pub(super) fn is_stuck(&self, put: &Put<'_>) -> bool {
        self.mode.has(&Fault::FreezeStorage) && !self.log.store.knows_uids(put)
    }

    fn reject(&mut self, line: &[u8], reply: String) -> Answer {
        self.log.reject(self.connection, line, &reply);
        match self.options.replies.is_tsd() {
            true => {
                let bytes = (reply + "\n").into();
                Answer { bytes, is_complaint: true, ..Answer::default() }
            }
            false => Answer::default(),
        }
    }
}

const NO_HISTOGRAMS: &str = "illegal argument: Histogram storage has not been enabled. \
                             Check the 'tsd.core.histograms.config' configuration.";
