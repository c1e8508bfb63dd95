//! What there is to log of keys that are not sent as they are.
//!
//! The application's threads only note the first metric of each cause; the flusher logs it, at most
//! once a minute and cause, and the next one is noted.

use metrics::Key;

use crate::sync::{Mutex, lock};

/// The most characters of a name or a label that are kept.
const LONGEST: usize = 100;

/// Why a key is not sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its line would be longer than the server reads.
    TooLong,
    /// Another metric writes its lines.
    Taken,
    /// It became the same series as another key.
    Merged,
    /// It has more labels than a series may have.
    TooManyTags,
}

/// A metric that met a [`Cause`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) metric: String,
    /// The label that was left out, for [`Cause::TooManyTags`].
    pub(crate) label: Option<String>,
}

/// The first metric of each cause since the last one was taken.
#[derive(Default)]
pub(crate) struct Notices(Mutex<[Option<Notice>; Cause::ALL.len()]>);

impl Cause {
    pub(crate) const ALL: [Cause; 4] =
        [Cause::TooLong, Cause::Taken, Cause::Merged, Cause::TooManyTags];

    /// What the log says of it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Cause::TooLong => {
                "a metric is not sent: its line is longer than the server reads; shorten its labels"
            }
            Cause::Taken => {
                "a metric is not sent: another one writes lines of its name; rename one of them"
            }
            Cause::Merged => {
                "several keys are one series, because characters that cannot be sent were replaced; rename one"
            }
            Cause::TooManyTags => {
                "a label is not sent: the metric has more than with_max_tags allows"
            }
        }
    }
}

impl Notices {
    /// Notes a metric, and the label that was left out, unless one waits to be taken.
    pub(super) fn note(&self, cause: Cause, key: &Key, label: Option<&str>) {
        // Never waits for the lock: the metric is noted the next time.
        let Ok(mut notices) = self.0.try_lock() else { return };
        let cut = |text: &str| text.chars().take(LONGEST).collect();
        notices[cause as usize]
            .get_or_insert_with(|| Notice { metric: cut(key.name()), label: label.map(cut) });
    }

    /// Takes what was noted, if anything was and `may_take` answers so.
    pub(crate) fn take_if(&self, cause: Cause, may_take: impl FnOnce() -> bool) -> Option<Notice> {
        lock(&self.0)[cause as usize].take_if(|_| may_take())
    }
}
