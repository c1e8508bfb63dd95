//! One line is handled, as net.opentsdb.tsd.RpcHandler does.

use super::log::Log;
use super::parse::{self, Put, Refusal};
use super::replies::Replies;

/// What a server that hangs, refuses or knows nothing is told to do, for all connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) is_read_only: bool,
    pub(super) is_frozen: bool,
    pub(super) refuses_unknown_metrics: bool,
    /// What each put is answered with instead of being stored.
    pub(super) refusal: Option<String>,
}

/// Everything that it takes to handle a line, but the line.
pub(super) struct Desk<'a> {
    pub(super) replies: &'a Replies,
    pub(super) settings: &'a Settings,
    pub(super) max_tags: usize,
    /// Whether histograms are configured.
    pub(super) takes_histograms: bool,
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
    /// The server closes the connection, after this answer.
    Close(String),
}

impl Desk<'_> {
    /// Handles a line, given without its line feed.
    pub(super) fn handle(&mut self, line: &[u8]) -> Outcome {
        let command = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        match command {
            b"put" if !self.settings.is_read_only => {
                self.store(line, "put", parse::put(line, self.rules()))
            }
            b"histogram" if self.replies.is_tsd() && !self.settings.is_read_only => {
                let put = match self.takes_histograms {
                    true => parse::histogram(line, self.rules()),
                    false => Err(Refusal::IllegalArgument(NO_HISTOGRAMS.into())),
                };
                self.store(line, "histogram", put)
            }
            b"version" => {
                self.log.asked_version();
                Outcome::Answer(self.replies.version().into())
            }
            _ => {
                let command = parse::latin1(command);
                self.reject(line, format!("unknown command: {command}.  Try `help'."))
            }
        }
    }

    /// Takes down a line that is too long to be handled; nobody answers it.
    pub(super) fn reject_long(&mut self, line: &[u8]) {
        self.log.reject(self.connection, line, "");
    }

    fn store(&mut self, line: &[u8], command: &str, put: Result<Put<'_>, Refusal>) -> Outcome {
        let put = match put {
            Ok(put) => put,
            Err(refusal) => return self.reject(line, refusal.reply(command)),
        };
        if let Some(refusal) = &self.settings.refusal {
            return self.reject(line, refusal.clone());
        }
        if self.settings.refuses_unknown_metrics && !self.log.store.knows_metric(put.metric) {
            let refusal = Refusal::UnknownMetric(parse::latin1(put.metric));
            return self.reject(line, refusal.reply(command));
        }
        if self.settings.is_frozen && !self.log.store.knows_uids(&put) {
            return Outcome::Blocked;
        }
        self.log.accept(self.connection, line, put);
        Outcome::Silence
    }

    fn reject(&mut self, line: &[u8], reply: String) -> Outcome {
        self.log.reject(self.connection, line, &reply);
        match self.replies.is_tsd() {
            true => Outcome::Complaint(reply),
            false => Outcome::Silence,
        }
    }

    fn rules(&self) -> parse::Rules {
        self.replies.rules(self.max_tags)
    }
}

const NO_HISTOGRAMS: &str =
    "Histogram storage has not been enabled. Check the 'tsd.core.histograms.config' configuration.";
