//! One line is handled, as net.opentsdb.tsd.RpcHandler does.

use super::fault::Mode;
use super::log::Log;
use super::options::FakeTsdBuilder;
use super::parse::{self, Put, Refusal};
use super::replies::Length;

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
    /// An answer.
    Answer(String),
    /// The line is not handled: it waits for storage, and what follows waits behind it.
    Blocked,
    /// The server closes the connection.
    Close,
}

impl Desk<'_> {
    /// Handles a line, given without its line feed.
    pub(super) fn handle(&mut self, line: &[u8], mode: &Mode) -> Outcome {
        let command = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        match command {
            b"put" if !mode.is_read_only => {
                self.store(line, "put", parse::put(line, self.options.rules()), mode)
            }
            b"histogram" if self.options.replies.is_tsd() && !mode.is_read_only => {
                let put = match self.options.takes_histograms {
                    true => parse::histogram(line, self.options.rules()),
                    false => Err(NO_HISTOGRAMS.into()),
                };
                self.store(line, "histogram", put, mode)
            }
            b"version" => {
                self.log.versions += 1;
                Outcome::Answer(self.options.replies.version().into())
            }
            _ => {
                let command = parse::latin1(command);
                self.reject(line, format!("unknown command: {command}.  Try `help'."))
            }
        }
    }

    /// Refuses a line that is too long to be handled; nobody answers it.
    pub(super) fn reject_long(&mut self, line: &[u8], length: Length) -> Outcome {
        self.log.reject(self.connection, line, "");
        if length == Length::Close { Outcome::Close } else { Outcome::Silence }
    }

    fn store(
        &mut self,
        line: &[u8],
        command: &str,
        put: Result<Put<'_>, Refusal>,
        mode: &Mode,
    ) -> Outcome {
        let put = match put {
            Ok(put) => put,
            Err(refusal) => return self.reject(line, format!("{command}: {refusal}")),
        };
        if let Some(refusal) = &mode.refusal {
            return self.reject(line, refusal.clone());
        }
        if mode.refuses_unknown_metrics && !self.log.store.knows_metric(put.metric) {
            let metric = parse::latin1(put.metric);
            let what = format!("unknown metric: No such name for 'metrics': '{metric}'");
            return self.reject(line, format!("{command}: {what}"));
        }
        if mode.is_frozen && !self.log.store.knows_uids(&put) {
            return Outcome::Blocked;
        }
        self.log.accept(self.connection, line, put);
        Outcome::Silence
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
