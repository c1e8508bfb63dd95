//! What each kind's cell is read into, and the lines of that.

use std::sync::Arc;
use std::time::Duration;

use metrics_util::MetricKindMask;

use super::distribution::{Digest, Plan, Plans};
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
    /// The count since the process began; a lost point loses no count, and `rate` tells the restarts. The default.
    #[default]
    Cumulative,
    /// The count since the last line that was made, for servers whose queries sum. The first `absolute` of a counter counts whole.
    ///
    /// While a snapshot still waits to be sent, ticks are skipped and counts stay in their counters, so an outage costs none of
    /// them. What is dropped is lost for good: give the queue room for two snapshots, since a flush by hand does not wait.
    Delta,
}

/// Settings of the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) counter_mode: CounterMode,
    pub(crate) plans: Arc<Plans>,
    /// The kinds of which idle series go dormant, and after how long.
    pub(crate) idle: Option<(MetricKindMask, Duration)>,
}

/// Takes the lines of a snapshot.
pub(crate) trait Sink {
    fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value);
    /// A `histogram` line, with its value.
    fn histogram(&mut self, line: Line<'_>, value: &[u8]);
    /// So many points that cannot be sent.
    fn refuse(&mut self, line: Line<'_>, why: Unsendable, points: u64);
}

/// A kind of metric, as the flusher sees it.
pub(super) trait Sampled: RegistryKind {
    /// What the cell held when it was last read.
    type Reading;

    /// The reading of a cell that nothing was recorded in.
    fn begin(line: Line<'_>, options: &Options) -> Self::Reading;

    /// Reads the cell. If it is drained, what threads that have ended left behind is freed too. `scratch` may hold anything before
    /// and after. Answers whether something was recorded that changed nothing, as a gauge that is set to what it was: a sign of life.
    fn read(
        series: &Series<Self>,
        reading: &mut Self::Reading,
        take: Take,
        scratch: &mut Readout,
    ) -> bool;

    /// What there is to remember of a reading once its lines are made; 0 before any are.
    fn told(reading: &Self::Reading) -> u64;

    /// Whether the reading says anything that was not told.
    fn is_changed(reading: &Self::Reading, told: u64) -> bool {
        Self::told(reading) != told
    }

    /// Makes the lines of the reading.
    fn emit(
        line: Line<'_>,
        reading: &Self::Reading,
        told: u64,
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

    fn told(reading: &u64) -> u64 {
        *reading
    }

    #[inline(always)]
    fn emit(line: Line<'_>, reading: &u64, told: u64, options: &Options, sink: &mut impl Sink) {
        let value = match options.counter_mode {
            CounterMode::Cumulative => *reading,
            CounterMode::Delta => reading.saturating_sub(told),
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
        if take == Take::Drain {
            series.sweep();
        }
        *reading = series.cell.value().to_bits();
        series.cell.touched.see(take)
    }

    fn told(reading: &u64) -> u64 {
        *reading
    }

    #[inline(always)]
    fn emit(line: Line<'_>, reading: &u64, _told: u64, _options: &Options, sink: &mut impl Sink) {
        sink.point(line, Variant::default(), f64::from_bits(*reading).into());
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

    fn read(
        series: &Series<Self>,
        reading: &mut Sampling,
        take: Take,
        scratch: &mut Readout,
    ) -> bool {
        if take == Take::Drain {
            series.sweep();
        }
        series.cell.collect(take, scratch);
        reading.not_finite = scratch.not_finite;
        reading.plan.digest(scratch, reading.room, &mut reading.digest);
        false
    }

    fn told(reading: &Sampling) -> u64 {
        reading.not_finite
    }

    fn is_changed(reading: &Sampling, told: u64) -> bool {
        reading.digest.samples > 0 || reading.not_finite > told
    }

    fn emit(
        line: Line<'_>,
        reading: &Sampling,
        told: u64,
        _options: &Options,
        sink: &mut impl Sink,
    ) {
        if reading.not_finite > told {
            sink.refuse(line, Unsendable::NotFinite, reading.not_finite - told);
        }
        reading.plan.lines(&reading.digest, &mut |variant, value| sink.point(line, variant, value));
        if reading.digest.is_too_long {
            sink.refuse(line, Unsendable::TooLong, 1);
        } else if !reading.digest.native.is_empty() {
            sink.histogram(line, &reading.digest.native);
        }
    }
}
