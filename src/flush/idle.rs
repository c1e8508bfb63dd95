//! After how long a series in which nothing is recorded goes dormant.

use std::time::Duration;

use metrics_util::{MetricKind, MetricKindMask};

use super::distribution::Setting;
use crate::wire::series::Line;

/// For the kinds of the mask, and for the metrics that match, whatever their kind.
pub(crate) type Idle = Setting<Option<Duration>, Option<(MetricKindMask, Duration)>>;

/// Seconds of a timeout that never ends.
const NEVER: u32 = u32::MAX;

/// [`Idle`] for one kind.
#[derive(Clone, Copy)]
pub(super) struct Timeouts<'a> {
    idle: &'a Idle,
    general: u32,
    /// A series that has not been idle for so long needs no look at its name.
    shortest: u32,
}

impl<'a> Timeouts<'a> {
    pub(super) fn new(idle: &'a Idle, kind: MetricKind) -> Self {
        let of_kind = idle.general.filter(|(kinds, _)| kinds.matches(kind));
        let general = seconds(of_kind.map(|(_, timeout)| timeout));
        let special = idle.special.iter().map(|(_, timeout)| seconds(*timeout));
        Timeouts { idle, general, shortest: special.fold(general, u32::min) }
    }

    /// Whether a series is dormant that has been idle for so many seconds.
    #[inline]
    pub(super) fn are_over<'l>(&self, idle: u32, line: impl FnOnce() -> Option<Line<'l>>) -> bool {
        idle >= self.shortest && (self.idle.special.is_empty() || idle >= self.of(line()))
    }

    fn of(&self, line: Option<Line<'_>>) -> u32 {
        let special = line.and_then(|line| self.idle.special(line.metric()));
        special.map_or(self.general, |(_, timeout)| seconds(*timeout))
    }
}

/// Whole ones, and at least one.
fn seconds(timeout: Option<Duration>) -> u32 {
    let Some(timeout) = timeout else { return NEVER };
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(NEVER).max(1)
}
