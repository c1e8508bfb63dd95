//! One line is handled, as net.opentsdb.tsd.RpcHandler does.

use std::time::Duration;

use super::fault::{Fault, Mode};
use super::log::Log;
use super::options::FakeTsdBuilder;
use super::parse::{self, Put, Refusal};

/// Everything that it takes to handle a line, but the line.
pub(super) struct Desk<'a> {
    pub(super) options: &'a FakeTsdBuilder,
    pub(super) log: &'a mut Log,
    pub(super) connection: usize,
}

/// What comes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next one may be handled; nothing is answered.
    Silence,
    /// A reply that says what is wrong; it is dropped when the client does not read.
    Complaint(String),
    Answer(Answer),
    /// The line is not handled: it waits for storage, and what follows waits behind it.
    Blocked,
}

impl Outcome {
    /// The server closes the connection, and says nothing.
    pub(super) fn close() -> Self {
        Outcome::Answer(Answer { is_last: true, ..Answer::default() })
    }
}

/// What is said to the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// How much later it comes, in addition to what a fault says.
    pub(super) after: Duration,
    /// Whether the server closes the connection behind it.
    pub(super) is_last: bool,
}

impl Desk<'_> {
    /// Handles a line, given without its line feed.
    pub(super) fn handle(&mut self, line: &[u8], mode: &Mode) -> Outcome {
        let command = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        match command {
            b"put" if !mode.has(&Fault::ReadOnly) => {
                self.store(line, "put", parse::put(line, self.options.rules()), mode)
            }
            b"histogram" if self.options.replies.is_tsd() && !mode.has(&Fault::ReadOnly) => {
                let put = match self.options.takes_histograms {
                    true => parse::histogram(line, self.options.rules()),
                    false => Err(NO_HISTOGRAMS.into()),
                };
                self.store(line, "histogram", put, mode)
            }
            b"version" => {
                self.log.versions += 1;
                let bytes = self.options.replies.version.as_bytes().into();
                Outcome::Answer(Answer { bytes, ..Answer::default() })
            }
            _ => {
                let command = parse::latin1(command);
                self.reject(line, format!("unknown command: {command}.  Try `help'."))
            }
        }
    }

    /// Refuses a line that is too long to be handled; nobody answers it.
    pub(super) fn reject_long(&mut self, line: &[u8]) -> Outcome {
        self.log.reject(self.connection, line, "");
        if self.options.replies.is_tsd() { Outcome::close() } else { Outcome::Silence }
    }

    fn store(
        &mut self,
        line: &[u8],
        command: &str,
        put: Result<Put<'_>, Refusal>,
        mode: &Mode,
    ) -> Outcome {
        let put = match put.and_then(|put| self.admit(put, mode)) {
            Ok(put) => put,
            Err(refusal) => return self.reject(line, format!("{command}: {refusal}")),
        };
        if let Some(refusal) = &mode.refusal {
            return self.reject(line, refusal.clone());
        }
        if self.is_stuck(&put, mode) {
            return Outcome::Blocked;
        }
        self.log.accept(self.connection, line, put);
        Outcome::Silence
    }

    /// The point, if the server knows its metric or may create it.
    pub(super) fn admit<'a>(&self, put: Put<'a>, mode: &Mode) -> Result<Put<'a>, Refusal> {
        if mode.has(&Fault::UnknownMetrics) && !self.log.store.knows_metric(put.metric) {
            let metric = parse::latin1(put.metric);
            return Err(format!("unknown metric: No such name for 'metrics': '{metric}'"));
        }
        Ok(put)
    }

    /// Whether the point has to wait for storage.
    pub(super) fn is_stuck(&self, put: &Put<'_>, mode: &Mode) -> bool {
        mode.has(&Fault::FreezeStorage) && !self.log.store.knows_uids(put)
    }

    fn reject(&mut self, line: &[u8], reply: String) -> Outcome {
        self.log.reject(self.connection, line, &reply);
        match self.options.replies.is_tsd() {
            true => Outcome::Complaint(reply),
            false => Outcome::Silence,
        }
    }
}

const NO_HISTOGRAMS: &str = "illegal argument: Histogram storage has not been enabled. \
                             Check the 'tsd.core.histograms.config' configuration.";
