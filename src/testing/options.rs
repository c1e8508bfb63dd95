//! What a server is from its start on.

use super::parse::Rules;
use super::replies::Replies;

/// The options of a [`FakeTsd`](super::FakeTsd), from
/// [`FakeTsd::builder`](super::FakeTsd::builder).
///
/// ```
/// use metrics_exporter_opentsdb::{Flavor, testing::FakeTsd};
///
/// let influx = FakeTsd::builder().replies(Flavor::InfluxDb).keep_lines(false).start();
/// assert!(influx.address().starts_with("127.0.0.1:"));
/// ```
#[derive(Clone, Debug)]
pub struct FakeTsdBuilder {
    pub(super) replies: Replies,
    pub(super) keeps_lines: bool,
    pub(super) takes_histograms: bool,
    pub(super) max_tags: usize,
    /// What it is as a server of HTTP, if it is one.
    #[cfg(feature = "http")]
    pub(super) http: Option<super::http::options::HttpOptions>,
}

impl FakeTsdBuilder {
    /// Which server it is, for example a [`Flavor`](crate::Flavor). Defaults to
    /// [`Flavor::OpenTsdb`](crate::Flavor::OpenTsdb).
    #[must_use]
    pub fn replies(mut self, replies: impl Into<Replies>) -> Self {
        self.replies = replies.into();
        self
    }

    /// Whether the text of all lines is kept. Without it, for tests of many millions, all lists of
    /// points and lines are empty, and a value is compared with those of the last 64 times of its
    /// series only. Defaults to `true`.
    #[must_use]
    pub fn keep_lines(mut self, keeps_lines: bool) -> Self {
        self.keeps_lines = keeps_lines;
        self
    }

    /// Whether `tsd.core.histograms.config` is set, without which `histogram` is an error. Defaults
    /// to `false`, as a TSD's.
    #[must_use]
    pub fn histograms(mut self, takes_histograms: bool) -> Self {
        self.takes_histograms = takes_histograms;
        self
    }

    /// `tsd.storage.max_tags`. Defaults to 8.
    #[must_use]
    pub fn max_tags(mut self, max_tags: usize) -> Self {
        self.max_tags = max_tags;
        self
    }

    /// How strict it is.
    pub(super) fn rules(&self) -> Rules {
        self.replies.is_tsd().then_some(self.max_tags)
    }
}
