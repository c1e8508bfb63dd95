//! What the cell of each kind is read into, and the lines of such a reading.

use std::sync::Arc;

use super::distribution::{Digest, Plan, Plans};
use super::idle::Idle;
use crate::record::counter::Counter;
use crate::record::gauge::Gauge;
use crate::record::histogram::Histogram;
use crate::record::histogram::readout::Readout;
use crate::record::locals::Take;
use crate::record::series::Series;
use crate::record::tables::RegistryKind;
use crate::wire::line::{Unsendable, Variant, histogram_room};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// What a counter's line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CounterMode {
    /// The count since the process began. A lost point loses no count, and `rate` with counter
    /// reset handling sees restarts. The default.
    #[default]
    Cumulative,
    /// The count since the last line that was made, for servers whose queries add points up. The
    /// first `absolute` of a counter counts whole.
    ///
    /// While a snapshot waits to be sent, ticks are skipped and counts stay in their counters, so
    /// an outage loses none of them. With a spool (feature `spool`) the snapshots of an outage are
    /// taken, and go to disk [as all points do](crate::docs::spool). A dropped point loses its
    /// count: give the queue room for two snapshots, since
    /// [`flush`](crate::OpenTsdbHandle::flush) makes one in any case.
    Delta,
}

/// Settings of the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) counter_mode: CounterMode,
    pub(crate) plans: Arc<Plans>,
    pub(crate) idle: Idle,
}

/// Takes the lines of a snapshot.
pub(crate) trait Sink {
    /// The counter of this line is sent for the first time.
    fn birth(&mut self, _line: Line<'_>) {}
    fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value);
    /// A `histogram` line, with its value.
    fn histogram(&mut self, line: Line<'_>, value: &[u8]);
    /// `points` points that cannot be sent.
    fn refuse(&mut self, line: Line<'_>, why: Unsendable, points: u64);
}

/// A kind of metric, as the flusher sees it.
pub(super) trait Sampled: RegistryKind {
    /// What the cell held when it was last read.
    type Reading;

    /// The reading of an empty cell.
    fn begin(line: Line<'_>, options: &Options) -> Self::Reading;

    /// Reads the cell. `scratch` may hold anything before and after. Returns whether something was
    /// recorded that changed nothing, as a gauge that is set to the value that it has: such a
    /// series is not idle.
    fn read(
        series: &Series<Self>,
        reading: &mut Self::Reading,
        take: Take,
        scratch: &mut Readout,
    ) -> bool;

    /// What to remember of a reading when its lines are made, as `last_sent`. It is 0 before any
    /// are.
    fn to_remember(reading: &Self::Reading) -> u64;

    /// Whether the reading differs from what was last sent.
    fn is_changed(reading: &Self::Reading, last_sent: u64) -> bool {
        Self::to_remember(reading) != last_sent
    }

    /// Makes the lines of the reading.
    fn emit(
        line: Line<'_>,
        reading: &Self::Reading,
        last_sent: u64,
        options: &Options,
        sink: &mut impl Sink,
    );
}

impl Sampled for Counter {
    type Reading = u64;

    fn begin(_line: Line<'_>, _options: &Options) -> u64 {
        0
    }

    fn read(series: &Series<Self>, reading: &mut u64, take: Take, _scratch: &mut Readout) -> bool {
        *reading = series.value();
        series.locals.touched.see(take)
    }

    fn to_remember(reading: &u64) -> u64 {
        *reading
    }

    #[inline(always)]
    fn emit(line: Line<'_>, count: &u64, last_sent: u64, options: &Options, sink: &mut impl Sink) {
        let value = match options.counter_mode {
            CounterMode::Cumulative => *count,
            CounterMode::Delta => count.saturating_sub(last_sent),
        };
        sink.point(line, Variant::default(), value.into());
    }
}

impl Sampled for Gauge {
    /// Its bits: of these NaN equals itself, and `-0.0` is not `0.0`.
    type Reading = u64;

    fn begin(_line: Line<'_>, _options: &Options) -> u64 {
        0
    }

    fn read(series: &Series<Self>, reading: &mut u64, take: Take, _scratch: &mut Readout) -> bool {
        *reading = series.cell.value().to_bits();
        series.cell.touched.see(take)
    }

    fn to_remember(reading: &u64) -> u64 {
        *reading
    }

    #[inline(always)]
    fn emit(line: Line<'_>, bits: &u64, _: u64, _: &Options, sink: &mut impl Sink) {
        sink.point(line, Variant::default(), f64::from_bits(*bits).into());
    }
}

/// The last reading of a histogram and what to make of it.
pub(super) struct Sampling {
    plan: Arc<Plan>,
    /// For the value of a native histogram, in bytes.
    room: usize,
    digest: Digest,
    /// Values that were not recorded because they are not finite.
    not_finite: u64,
}

impl Sampled for Histogram {
    type Reading = Sampling;

    fn begin(line: Line<'_>, options: &Options) -> Sampling {
        let plan = options.plans.plan(line.metric());
        Sampling { plan, room: histogram_room(line), digest: Digest::default(), not_finite: 0 }
    }

    fn read(series: &Series<Self>, into: &mut Sampling, take: Take, scratch: &mut Readout) -> bool {
        series.cell.collect(take, scratch);
        into.not_finite = scratch.not_finite;
        into.plan.digest(scratch, into.room, &mut into.digest);
        false
    }

    fn to_remember(reading: &Sampling) -> u64 {
        reading.not_finite
    }

    fn is_changed(reading: &Sampling, last_sent: u64) -> bool {
        reading.digest.samples > 0 || reading.not_finite > last_sent
    }

    fn emit(line: Line<'_>, reading: &Sampling, last_sent: u64, _: &Options, sink: &mut impl Sink) {
        if reading.not_finite > last_sent {
            sink.refuse(line, Unsendable::NotFinite, reading.not_finite - last_sent);
        }
        reading.plan.lines(&reading.digest, &mut |variant, value| sink.point(line, variant, value));
        if reading.digest.is_too_long {
            sink.refuse(line, Unsendable::TooLong, 1);
        } else if !reading.digest.native.is_empty() {
            sink.histogram(line, &reading.digest.native);
        }
    }
}

#[cfg(test)]
impl Options {
    /// For tests that have other things in mind.
    pub(super) fn of_a_test() -> Self {
        let charset = crate::wire::charset::Charset::Tsd;
        let plans = Plans::new(&super::distribution::Options::default(), charset).unwrap();
        Options {
            counter_mode: CounterMode::Cumulative,
            plans: Arc::new(plans),
            idle: Idle::default(),
        }
    }
}
