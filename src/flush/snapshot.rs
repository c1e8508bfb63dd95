//! Cells to readings, readings to lines.
//!
//! First all values are read, then lines are made of them: so the values of one snapshot are as close in time as they can be, and
//! the application's threads are disturbed for the first, short part only. The flusher keeps each series it knows in the order of
//! registration, with its last reading beside it; the three kinds share one loop ([`Group`]).
//!
//! An idle series goes dormant: it is read, but makes no line until it is recorded in again. Only a dormant series that nobody
//! holds is evicted, see [`Registry::evict`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics_util::{MetricKind, MetricKindMask};

use super::distribution::{Digest, Plan, Plans};
use super::schedule::Stamp;
use crate::record::counter::Counter;
use crate::record::gauge::Gauge;
use crate::record::packed::{Packed, Page};
use crate::record::readout::{Readout, Take};
use crate::record::registry::{Fresh, Registered, Registry};
use crate::record::samples::Histogram;
use crate::record::series::Series;
use crate::wire::line::{Unsendable, Variant, histogram_room};
use crate::wire::series::Line;
use crate::wire::value::Value;

/// Series looked at to find the label with the most values.
const VARIETY_SAMPLE: usize = 10_000;

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

impl Options {
    /// After how many seconds a series of this kind goes dormant: whole ones, as ages are, and at least one.
    fn timeout(&self, kind: MetricKind) -> u32 {
        let of_kind = self.idle.filter(|(kinds, _)| kinds.matches(kind));
        of_kind.map_or(NEVER, |(_, timeout)| {
            let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
            u32::try_from(seconds).unwrap_or(NEVER).max(1)
        })
    }
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
trait Sampled: Registered {
    type Memory: Memory;

    fn begin(line: Line<'_>, options: &Options) -> Self::Memory;
    /// Reads the cell, and frees what threads that have ended left behind if it is drained. `scratch` may hold anything before and after. Answers whether something was recorded that changed nothing, as a
    /// gauge that is set to what it was: a sign of life.
    fn read(
        series: &Series<Self>,
        memory: &mut Self::Memory,
        take: Take,
        scratch: &mut Readout,
    ) -> bool;
    /// Makes the lines of the reading.
    fn emit(line: Line<'_>, memory: &Self::Memory, options: &Options, sink: &mut impl Sink);
}

/// The last reading, and what was sent of it.
trait Memory {
    /// Whether the reading differs from the one that was last sent, or from nothing.
    fn is_changed(&self) -> bool;
    /// Remembers the reading as sent.
    fn sent(&mut self);
}

/// The last reading of a counter or of a gauge's bits, and the last one that was sent; nothing is 0, as is what a series begins with.
///
/// Of bits NaN equals itself, and `-0.0` is not `0.0`.
#[derive(Default)]
pub(crate) struct Single {
    now: u64,
    sent: u64,
}

impl Memory for Single {
    fn is_changed(&self) -> bool {
        self.sent != self.now
    }

    fn sent(&mut self) {
        self.sent = self.now;
    }
}

impl Sampled for Counter {
    type Memory = Single;

    fn begin(_line: Line<'_>, _options: &Options) -> Single {
        Single::default()
    }

    fn read(
        series: &Series<Self>,
        memory: &mut Single,
        take: Take,
        _scratch: &mut Readout,
    ) -> bool {
        memory.now = match take {
            Take::Drain => series.swept_value(),
            Take::Peek => series.value(),
        };
        series.locals.touched.see(take)
    }

    #[inline(always)]
    fn emit(line: Line<'_>, memory: &Single, options: &Options, sink: &mut impl Sink) {
        let value = match options.counter_mode {
            CounterMode::Cumulative => memory.now,
            CounterMode::Delta => memory.now.saturating_sub(memory.sent),
        };
        sink.point(line, Variant::default(), value.into());
    }
}

impl Sampled for Gauge {
    type Memory = Single;

    fn begin(_line: Line<'_>, _options: &Options) -> Single {
        Single::default()
    }

    fn read(
        series: &Series<Self>,
        memory: &mut Single,
        take: Take,
        _scratch: &mut Readout,
    ) -> bool {
        if take == Take::Drain {
            series.sweep();
        }
        memory.now = series.cell.value().to_bits();
        series.cell.touched.see(take)
    }

    #[inline(always)]
    fn emit(line: Line<'_>, memory: &Single, _options: &Options, sink: &mut impl Sink) {
        sink.point(line, Variant::default(), f64::from_bits(memory.now).into());
    }
}

/// The last reading of a histogram and what to make of it.
pub(crate) struct Sampling {
    plan: Arc<Plan>,
    /// For the value of a native histogram, in bytes.
    room: usize,
    digest: Digest,
    /// Values that were not recorded because they are not finite: in all, and of these those that were counted as points.
    not_finite: u64,
    not_finite_told: u64,
}

impl Memory for Sampling {
    fn is_changed(&self) -> bool {
        self.digest.samples > 0 || self.not_finite > self.not_finite_told
    }

    fn sent(&mut self) {
        self.not_finite_told = self.not_finite;
    }
}

impl Sampled for Histogram {
    type Memory = Sampling;

    fn begin(line: Line<'_>, options: &Options) -> Sampling {
        let plan = options.plans.plan(line.metric());
        let room = histogram_room(line);
        Sampling { plan, room, digest: Digest::default(), not_finite: 0, not_finite_told: 0 }
    }

    fn read(
        series: &Series<Self>,
        memory: &mut Sampling,
        take: Take,
        scratch: &mut Readout,
    ) -> bool {
        if take == Take::Drain {
            series.sweep();
        }
        series.cell.collect(take, scratch);
        memory.not_finite = scratch.not_finite;
        memory.plan.digest(scratch, memory.room, &mut memory.digest);
        false
    }

    fn emit(line: Line<'_>, memory: &Sampling, _options: &Options, sink: &mut impl Sink) {
        if memory.not_finite > memory.not_finite_told {
            sink.refuse(line, Unsendable::NotFinite, memory.not_finite - memory.not_finite_told);
        }
        memory.plan.lines(&memory.digest, &mut |variant, value| sink.point(line, variant, value));
        if memory.digest.is_too_long {
            sink.refuse(line, Unsendable::TooLong, 1);
        } else if !memory.digest.native.is_empty() {
            sink.histogram(line, &memory.digest.native);
        }
    }
}

/// The time of a series that was in no snapshot yet.
const NEVER: u32 = u32::MAX;

/// A series that the flusher knows.
struct Tracked<K: Sampled> {
    series: Arc<Series<K>>,
    memory: K::Memory,
    /// When it was last recorded in, in seconds of the snapshot's clock.
    alive: u32,
    /// Where on the page its line is.
    start: u32,
}

impl<K: Sampled> Tracked<K> {
    /// Whether there is something to say that was not said.
    fn is_news(&self) -> bool {
        self.alive == NEVER || self.memory.is_changed()
    }

    /// Whether it was idle for so many seconds.
    fn is_dormant(&self, age: u32, timeout: u32) -> bool {
        age.saturating_sub(self.alive) >= timeout
    }
}

/// The series whose lines are on one page, in order of registration.
struct Sheet<K: Sampled> {
    number: u32,
    page: Page,
    tracked: Vec<Tracked<K>>,
}

/// The series of one kind, in order of registration.
struct Group<K: Sampled> {
    sheets: Vec<Sheet<K>>,
}

impl<K: Sampled> Group<K> {
    fn new() -> Self {
        Group { sheets: Vec::new() }
    }

    fn adopt(&mut self, fresh: Vec<Arc<Series<K>>>, packed: &Packed, options: &Options) {
        let mut fresh = fresh.into_iter().peekable();
        while let Some(first) = fresh.peek() {
            let number = first.location.get().page;
            if self.sheets.last().is_none_or(|sheet| sheet.number != number) {
                self.sheets.push(Sheet { number, page: Page::default(), tracked: Vec::new() });
            }
            let Some(sheet) = self.sheets.last_mut() else { return };
            sheet.page = packed.page(number);
            while let Some(series) = fresh.next_if(|series| series.location.get().page == number) {
                let start = series.location.get().start;
                let Some(line) = Line::at(&sheet.page, start) else { continue };
                let memory = K::begin(line, options);
                sheet.tracked.push(Tracked { series, memory, alive: NEVER, start });
            }
            if fresh.peek().is_some() {
                sheet.tracked.shrink_to_fit();
            }
        }
    }

    fn tracked(&self) -> impl Iterator<Item = &Tracked<K>> {
        self.sheets.iter().flat_map(|sheet| &sheet.tracked)
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.sheets.iter().flat_map(Sheet::lines)
    }

    fn sweep(&self) {
        self.tracked().for_each(|tracked| tracked.series.sweep());
    }

    fn read(&mut self, age: u32, scratch: &mut Readout) {
        for tracked in self.sheets.iter_mut().flat_map(|sheet| &mut sheet.tracked) {
            let was_touched = K::read(&tracked.series, &mut tracked.memory, Take::Drain, scratch);
            if was_touched && tracked.alive != NEVER {
                tracked.alive = age;
            }
        }
    }

    fn emit(&mut self, stamp: Stamp, options: &Options, age: u32, sink: &mut impl Sink) {
        let timeout = options.timeout(K::KIND);
        for sheet in &mut self.sheets {
            for tracked in &mut sheet.tracked {
                let is_news = tracked.is_news();
                if is_news {
                    tracked.alive = age;
                }
                let is_silent =
                    if stamp.only_changed { !is_news } else { tracked.is_dormant(age, timeout) };
                if is_silent {
                    continue;
                }
                if let Some(line) = Line::at(&sheet.page, tracked.start) {
                    K::emit(line, &tracked.memory, options, sink);
                }
                tracked.memory.sent();
            }
        }
    }

    /// Evicts what is dormant and not held; answers how many dormant series are left.
    fn evict(
        &mut self,
        registry: &Registry,
        age: u32,
        timeout: u32,
        scratch: &mut Readout,
    ) -> usize {
        let mut dormant = 0;
        let last = self.sheets.len().saturating_sub(1);
        for (n, sheet) in self.sheets.iter_mut().enumerate() {
            let (known, left) = (sheet.tracked.len(), sheet.evict(registry, age, timeout, scratch));
            dormant += left;
            // On the last one there may be lines of series that are not known yet.
            if sheet.tracked.len() < known && n < last {
                sheet.repack(&K::table(registry).packed);
            }
        }
        let mut n = 0;
        self.sheets.retain(|sheet| {
            n += 1;
            n > last || !sheet.tracked.is_empty()
        });
        dormant
    }
}

impl<K: Sampled> Sheet<K> {
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.tracked.iter().filter_map(|tracked| Line::at(&self.page, tracked.start))
    }

    fn evict(
        &mut self,
        registry: &Registry,
        age: u32,
        timeout: u32,
        scratch: &mut Readout,
    ) -> usize {
        let mut dormant =
            self.tracked.iter().filter(|tracked| tracked.is_dormant(age, timeout)).count();
        if dormant == 0 {
            return 0;
        }
        let kept = std::mem::take(&mut self.tracked).into_iter().filter_map(|mut tracked| {
            if tracked.is_dormant(age, timeout) {
                let memory = &mut tracked.memory;
                let is_settled = |series: &Series<K>| {
                    let was_touched = K::read(series, memory, Take::Peek, scratch);
                    !was_touched && !memory.is_changed()
                };
                match registry.evict(tracked.series, is_settled) {
                    Ok(()) => {
                        dormant -= 1;
                        return None;
                    }
                    Err(series) => tracked.series = series,
                }
            }
            Some(tracked)
        });
        self.tracked = kept.collect();
        dormant
    }

    /// Leaves out the lines of evicted series.
    fn repack(&mut self, packed: &Packed) {
        let series = self.tracked.iter().map(|tracked| tracked.series.as_ref());
        self.page = packed.repack(self.number, series);
        for tracked in &mut self.tracked {
            tracked.start = tracked.series.location.get().start;
        }
    }
}

/// Gives the lines of all series to `sink`, by name, and changes nothing.
pub(crate) fn peek(registry: &Registry, options: &Options, sink: &mut impl Sink) {
    let mut scratch = Readout::default();
    peek_kind::<Counter>(registry, options, &mut scratch, sink);
    peek_kind::<Gauge>(registry, options, &mut scratch, sink);
    peek_kind::<Histogram>(registry, options, &mut scratch, sink);
}

fn peek_kind<K: Sampled>(
    registry: &Registry,
    options: &Options,
    scratch: &mut Readout,
    sink: &mut impl Sink,
) {
    let all = K::table(registry).all();
    let read = all.iter().filter_map(|known| {
        let line = known.line()?;
        let mut memory = K::begin(line, options);
        K::read(&known.series, &mut memory, Take::Peek, scratch);
        Some((line, memory))
    });
    for (line, memory) in read.collect::<Vec<_>>() {
        K::emit(line, &memory, options, sink);
    }
}

/// Everything that the flusher knows of the registry.
pub(crate) struct Snapshot {
    registry: Arc<Registry>,
    options: Options,
    counters: Group<Counter>,
    gauges: Group<Gauge>,
    histograms: Group<Histogram>,
    /// How long the exporter had been running at the last snapshot, in seconds.
    age: u32,
    /// What histograms are read into, one after the other.
    scratch: Readout,
}

impl Snapshot {
    pub(crate) fn new(registry: Arc<Registry>, options: Options) -> Self {
        Snapshot {
            registry,
            options,
            counters: Group::new(),
            gauges: Group::new(),
            histograms: Group::new(),
            age: 0,
            scratch: Readout::default(),
        }
    }

    /// Reads all series, then gives their lines to `sink`. `age` is the time since the exporter began.
    pub(crate) fn take(&mut self, stamp: Stamp, age: Duration, sink: &mut impl Sink) {
        let age = u32::try_from(age.as_secs()).unwrap_or(NEVER).min(NEVER - 1);
        self.age = age;
        self.adopt();
        self.counters.read(age, &mut self.scratch);
        self.gauges.read(age, &mut self.scratch);
        self.histograms.read(age, &mut self.scratch);
        self.counters.emit(stamp, &self.options, age, sink);
        self.gauges.emit(stamp, &self.options, age, sink);
        self.histograms.emit(stamp, &self.options, age, sink);
    }

    /// Frees what threads that have ended left behind, as a snapshot does; for when there is none.
    pub(crate) fn sweep(&mut self) {
        self.adopt();
        self.counters.sweep();
        self.gauges.sweep();
        self.histograms.sweep();
    }

    /// Forgets dormant series that nobody holds; answers how many are dormant still.
    pub(crate) fn evict(&mut self) -> usize {
        if self.options.idle.is_none() {
            return 0;
        }
        let (registry, age, scratch) = (&self.registry, self.age, &mut self.scratch);
        let timeout = |kind| self.options.timeout(kind);
        let dormant = self.counters.evict(registry, age, timeout(Counter::KIND), scratch)
            + self.gauges.evict(registry, age, timeout(Gauge::KIND), scratch)
            + self.histograms.evict(registry, age, timeout(Histogram::KIND), scratch);
        self.registry.purge_aliases();
        dormant
    }

    /// Whether nobody else has the registry any more.
    pub(crate) fn is_orphaned(&self) -> bool {
        Arc::strong_count(&self.registry) == 1
    }

    /// The tag with the most values among the first series.
    pub(crate) fn most_varied_tag(&self) -> Option<String> {
        let lines = self.counters.lines().chain(self.gauges.lines()).chain(self.histograms.lines());
        let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (key, value) in lines.take(VARIETY_SAMPLE).flat_map(Line::tags) {
            values.entry(key).or_default().insert(value);
        }
        values.into_iter().max_by_key(|(_, values)| values.len()).map(|(key, _)| key.to_owned())
    }

    /// Goes on with the fresh series too.
    fn adopt(&mut self) {
        let Fresh { counters, gauges, histograms } = self.registry.take_fresh();
        let (registry, options) = (&self.registry, &self.options);
        self.counters.adopt(counters, &Counter::table(registry).packed, options);
        self.gauges.adopt(gauges, &Gauge::table(registry).packed, options);
        self.histograms.adopt(histograms, &Histogram::table(registry).packed, options);
    }
}

#[cfg(test)]
mod tests {
    use super::super::distribution;
    use super::*;
    use crate::record::buckets::Scheme;
    use crate::record::registry;
    use crate::record::samples::Shape;
    use crate::stats::Counters;
    use crate::wire::charset::Charset;
    use crate::wire::series::Rules;
    use metrics::{CounterFn, GaugeFn, HistogramFn, Key};

    /// Keeps what is sent as `name suffix value`.
    #[derive(Default)]
    struct Sent(Vec<String>);

    impl Sink for Sent {
        fn point(&mut self, line: Line<'_>, variant: Variant<'_>, value: Value) {
            self.0.push(format!("{}{} {}", line.metric(), variant.suffix, value.to_text()));
        }

        fn histogram(&mut self, line: Line<'_>, value: &[u8]) {
            self.0.push(format!("{} {}", line.metric(), String::from_utf8_lossy(value)));
        }

        fn refuse(&mut self, line: Line<'_>, why: Unsendable, points: u64) {
            self.0.push(format!("{} {why:?} {points}", line.metric()));
        }
    }

    struct Fixture {
        registry: Arc<Registry>,
        counters: Arc<Counters>,
        snapshot: Snapshot,
    }

    impl Fixture {
        fn new(counter_mode: CounterMode, idle: Option<(MetricKindMask, Duration)>) -> Self {
            let rules = Rules::of_a_test();
            let counters = Arc::new(Counters::default());
            let shapes = Box::new(|_: &str| Shape {
                scheme: Scheme::Log,
                own_tag: None,
                names: Arc::new(()),
            });
            let registry = Arc::new(Registry::new(
                registry::Options {
                    rules,
                    shapes,
                    limit: 100_000,
                    has_unit_suffixes: false,
                    reserved: Vec::new(),
                },
                Arc::clone(&counters),
            ));
            let options = Options {
                counter_mode,
                plans: Arc::new(
                    Plans::new(&distribution::Options::default(), Charset::Tsd).unwrap(),
                ),
                idle,
            };
            Fixture { snapshot: Snapshot::new(Arc::clone(&registry), options), registry, counters }
        }

        fn counter(&self, name: &'static str) -> Arc<Series<Counter>> {
            self.registry.get(&Key::from_static_name(name)).unwrap()
        }

        fn gauge(&self, name: &'static str) -> Arc<Series<Gauge>> {
            self.registry.get(&Key::from_static_name(name)).unwrap()
        }

        fn histogram(&self, name: &'static str) -> Arc<Series<Histogram>> {
            self.registry.get(&Key::from_static_name(name)).unwrap()
        }

        fn peek(&self) -> Vec<String> {
            let mut seen = Sent::default();
            peek(&self.registry, &self.snapshot.options, &mut seen);
            seen.0
        }

        fn take(&mut self, age: u64, only_changed: bool) -> Vec<String> {
            let mut sent = Sent::default();
            self.snapshot.take(
                Stamp { timestamp: age, only_changed },
                Duration::from_secs(age),
                &mut sent,
            );
            sent.0
        }
    }

    #[test]
    fn every_series_is_sent_in_order_of_registration_and_again_if_it_did_not_change() {
        let mut fixture = Fixture::new(CounterMode::Cumulative, None);
        fixture.counter("b").increment(2);
        fixture.counter("a").increment(1);
        fixture.gauge("g").set(1.5);
        for age in 0..2 {
            assert_eq!(fixture.take(age, false), ["b 2", "a 1", "g 1.5"]);
        }
    }

    #[test]
    fn a_snapshot_of_changes_leaves_out_what_was_sent_already() {
        let mut fixture = Fixture::new(CounterMode::Cumulative, None);
        let (counter, gauge) = (fixture.counter("c"), fixture.gauge("g"));
        gauge.set(0.0);
        assert_eq!(fixture.take(0, false), ["c 0", "g 0.0"]);
        assert!(fixture.take(1, true).is_empty());
        counter.increment(1);
        assert_eq!(fixture.take(2, true), ["c 1"]);
        gauge.set(-0.0);
        assert_eq!(fixture.take(3, true), ["g -0.0"]);
    }

    #[test]
    fn deltas_are_differences_and_none_is_lost_to_a_look() {
        let mut fixture = Fixture::new(CounterMode::Delta, None);
        let counter = fixture.counter("c");
        counter.increment(5);
        assert_eq!(fixture.take(0, false), ["c 5"]);
        counter.increment(2);
        fixture.peek();
        counter.increment(1);
        assert_eq!(fixture.take(1, false), ["c 3"]);
        assert_eq!(fixture.take(2, false), ["c 0"]);
    }

    #[test]
    fn an_interval_without_samples_sends_count_and_sum_alone() {
        let mut fixture = Fixture::new(CounterMode::Cumulative, None);
        let histogram = fixture.histogram("h");
        histogram.cell.record(2.0);
        assert!(fixture.take(0, false).len() > 2);
        assert_eq!(fixture.take(1, false), ["h.count 1", "h.sum 2.0"]);
        assert!(fixture.take(2, true).is_empty());
        histogram.cell.record(f64::NAN);
        assert_eq!(fixture.take(2, false)[0], "h NotFinite 1");
        histogram.cell.record(3.0);
        let seen = fixture.peek();
        assert_eq!(fixture.take(3, false), seen[1..], "but for the refusal, which was counted");
    }

    #[test]
    fn an_idle_series_sleeps_until_its_next_update_and_is_never_forgotten_while_held() {
        let idle = Some((MetricKindMask::COUNTER, Duration::from_secs(60)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        let held = fixture.counter("held");
        drop(fixture.counter("free"));
        fixture.gauge("g").set(1.0);
        assert_eq!(fixture.take(0, false), ["held 0", "free 0", "g 1.0"]);
        assert_eq!(fixture.take(59, false).len(), 3);
        assert_eq!(fixture.take(60, false), ["g 1.0"]);
        assert_eq!((fixture.snapshot.evict(), fixture.counters.series_evicted.get()), (1, 1));
        held.increment(7);
        assert_eq!(fixture.take(70, false), ["held 7", "g 1.0"]);
        fixture.counter("free").increment(1);
        assert_eq!(fixture.take(80, false), ["held 7", "free 1", "g 1.0"]);
    }

    /// An update between the reading and the eviction, by a handle that is not held any more.
    #[test]
    fn what_was_updated_since_the_last_reading_is_not_evicted() {
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(60)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        let update = |fixture: &Fixture, n: u8| {
            fixture.counter("c").increment(n.into());
            fixture.gauge("g").set(n.into());
            fixture.registry.get::<Histogram>(&Key::from_name("h")).unwrap().record(n.into());
        };
        update(&fixture, 1);
        assert_eq!(fixture.take(0, false).len(), 9);
        assert_eq!(fixture.take(60, false), Vec::<String>::new());
        update(&fixture, 2);
        assert_eq!(fixture.snapshot.evict(), 3, "still dormant, since nobody has read them");
        let lines = fixture.take(61, false);
        assert_eq!(lines[..4], ["c 3", "g 2.0", "h.count 2", "h.sum 3.0"]);
        assert_eq!(fixture.snapshot.evict(), 0);
        fixture.take(121, false);
        assert_eq!((fixture.snapshot.evict(), fixture.counters.series_evicted.get()), (0, 3));
    }

    #[test]
    fn a_timeout_of_less_than_a_second_is_one() {
        let idle = Some((MetricKindMask::ALL, Duration::from_millis(1)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        fixture.counter("c").increment(1);
        for (second, lines) in [(0, 1), (0, 1), (1, 0)] {
            assert_eq!(fixture.take(second, false).len(), lines, "{second}");
        }
    }

    #[test]
    fn a_series_in_use_is_not_idle_though_its_number_stays() {
        let seconds = Duration::from_secs(10);
        let mut fixture =
            Fixture::new(CounterMode::Cumulative, Some((MetricKindMask::ALL, seconds)));
        let (gauge, counter) = (fixture.gauge("g"), fixture.counter("c"));
        for age in 0..30 {
            gauge.set(1.0);
            counter.absolute(5);
            assert_eq!(fixture.take(age, false), ["c 5", "g 1.0"]);
            fixture.peek();
        }
        assert_eq!(fixture.take(40, false), [] as [&str; 0]);
        gauge.set(1.0);
        fixture.peek();
        assert_eq!(fixture.take(41, true), [] as [&str; 0], "it has not changed");
        assert_eq!(fixture.take(42, false), ["g 1.0"]);
        // What nobody holds is not evicted either if it was set since it was last read.
        drop(gauge);
        fixture.take(60, false);
        fixture.gauge("g").set(1.0);
        fixture.snapshot.evict();
        assert_eq!(fixture.take(61, false), ["g 1.0"]);
    }

    #[test]
    fn series_that_came_and_went_leave_no_pages() {
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(1)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        let mut held = Vec::new();
        for age in 0..50 {
            for n in 0..2_000 {
                let counter =
                    fixture.registry.get::<Counter>(&Key::from_name(format!("m.{age}.{n}")));
                if n == 0 {
                    held.push(counter.unwrap());
                }
            }
            fixture.take(age, false);
            fixture.snapshot.evict();
        }
        fixture.take(50, false);
        assert_eq!((fixture.snapshot.evict(), fixture.counters.series.get()), (50, 50));
        let sheets = &fixture.snapshot.counters.sheets;
        let bytes: usize = sheets.iter().map(|sheet| sheet.page.len()).sum();
        assert!(sheets.len() <= 51 && bytes < 2 * 64 * 1024, "{} of {bytes}", sheets.len());
        held.iter().for_each(|counter| counter.increment(1));
        let lines: Vec<_> = (0..50).map(|age| format!("m.{age}.0 1")).collect();
        assert_eq!(fixture.take(51, false), lines);
        let mut by_name = lines.clone();
        by_name.sort();
        assert_eq!(fixture.peek(), by_name);
    }
}
