//! All series: read, then made into lines.
//!
//! All values are read first, and lines are made of them afterwards. So the values of one snapshot
//! are close in time, and only the first, short part competes with the application's threads.
//!
//! The flusher keeps the series that it knows in the order of registration, a [`Chunk`] for each
//! block of [`lines`](crate::record::lines). What it keeps of a series is in three columns of
//! the chunk: a million series are read from memory, and the first pass needs less of each than the
//! second. The columns of a full chunk give their spare capacity back, 16 bytes a series.
//!
//! An idle series goes dormant: it is read, but makes no line until something is recorded in it.
//! Only a dormant series that nobody holds is evicted, see [`Registry::evict`].

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use metrics_util::MetricKind;

use super::exporter::Exporter;
use super::idle::{Idle, Timeouts};
use super::reading::{Options, Sampled, Sink};
use super::schedule::Stamp;
use crate::record::counter::Counter;
use crate::record::gauge::Gauge;
use crate::record::histogram::Histogram;
use crate::record::histogram::readout::Readout;
use crate::record::lines::{Block, LineStore};
use crate::record::locals::Take;
use crate::record::registry::Registry;
use crate::record::series::Series;
use crate::wire::series::Line;

/// How many series are looked at to find the label with the most values.
const VARIETY_SAMPLE: usize = 10_000;
/// [`State::alive`] of a series that was in no snapshot yet.
const NEVER: u32 = u32::MAX;
/// [`State::start`] of a series that was evicted.
const GONE: u32 = u32::MAX;

/// The series whose lines are in one block, in the order of registration. The three columns have
/// the same length.
struct Chunk<K: Sampled> {
    /// The number of the block.
    number: u32,
    block: Block,
    series: Vec<Arc<Series<K>>>,
    readings: Vec<K::Reading>,
    states: Vec<State>,
    /// Whether there may be lines of evicted series in the block.
    has_gaps: bool,
}

/// What is known of a series besides its reading.
#[derive(Clone, Copy)]
struct State {
    /// What its last line said, or 0.
    last_sent: u64,
    /// When it was last recorded in, in seconds of the snapshot's clock.
    alive: u32,
    /// Where in the block its line is.
    start: u32,
}

impl State {
    /// Whether it has been idle for as long as a series of its name may be.
    fn is_dormant(&self, age: u32, timeouts: Timeouts<'_>, block: &Block) -> bool {
        timeouts.are_over(age.saturating_sub(self.alive), || block.line(self.start))
    }
}

impl<K: Sampled> Chunk<K> {
    /// Gives spare capacity back, once no series is added any more.
    fn shrink_to_fit(&mut self) {
        self.series.shrink_to_fit();
        self.readings.shrink_to_fit();
        self.states.shrink_to_fit();
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.states.iter().filter_map(|state| self.block.line(state.start))
    }

    fn read(&mut self, age: u32, scratch: &mut Readout) {
        let readings = self.readings.iter_mut().zip(&mut self.states);
        for (series, (reading, state)) in self.series.iter().zip(readings) {
            let was_touched = K::read(series, reading, Take::Drain, scratch);
            if was_touched && state.alive != NEVER {
                state.alive = age;
            }
        }
    }

    fn emit(
        &mut self,
        only_changed: bool,
        (age, timeouts): (u32, Timeouts<'_>),
        options: &Options,
        sink: &mut impl Sink,
    ) {
        for (reading, state) in self.readings.iter().zip(&mut self.states) {
            let is_new = state.alive == NEVER;
            let is_changed = K::is_changed(reading, state.last_sent);
            if is_new || is_changed {
                let is_birth = is_new && is_changed && K::KIND == MetricKind::Counter;
                if let Some(line) = is_birth.then(|| self.block.line(state.start)).flatten() {
                    sink.birth(line);
                }
                state.alive = age;
            } else if only_changed || state.is_dormant(age, timeouts, &self.block) {
                continue;
            }
            if let Some(line) = self.block.line(state.start) {
                K::emit(line, reading, state.last_sent, options, sink);
            }
            state.last_sent = K::to_remember(reading);
        }
    }

    /// Evicts what is dormant and not held; returns how many dormant series are left.
    fn evict(
        &mut self,
        registry: &Registry,
        (age, timeouts): (u32, Timeouts<'_>),
        scratch: &mut Readout,
    ) -> usize {
        if !self.states.iter().any(|state| state.is_dormant(age, timeouts, &self.block)) {
            return 0;
        }
        let mut dormant = 0;
        let series = mem::take(&mut self.series).into_iter();
        let rows = series.zip(&mut self.readings).zip(&mut self.states);
        let kept = rows.filter_map(|((series, reading), state)| {
            if !state.is_dormant(age, timeouts, &self.block) {
                return Some(series);
            }
            let is_settled = |series: &Series<K>| {
                let was_touched = K::read(series, reading, Take::Peek, scratch);
                !was_touched && !K::is_changed(reading, state.last_sent)
            };
            let held = registry.evict(series, is_settled).err();
            match held {
                Some(_) => dormant += 1,
                None => state.start = GONE,
            }
            held
        });
        self.series = kept.collect();
        if self.series.len() < self.states.len() {
            let mut states = self.states.iter();
            self.readings.retain(|_| states.next().is_some_and(|state| state.start != GONE));
            self.states.retain(|state| state.start != GONE);
            self.shrink_to_fit();
            self.has_gaps = true;
        }
        dormant
    }

    /// Removes the lines of evicted series from the block, which takes no more lines.
    fn repack(&mut self, lines: &LineStore) {
        if !mem::take(&mut self.has_gaps) {
            return;
        }
        self.number = lines.repack(self.number, self.series.iter().map(|series| &series.location));
        self.block = lines.block(self.number);
        for (series, state) in self.series.iter().zip(&mut self.states) {
            state.start = series.location.get().start;
        }
    }
}

/// The series of one kind, in order of registration.
struct Group<K: Sampled> {
    chunks: Vec<Chunk<K>>,
}

impl<K: Sampled> Default for Group<K> {
    fn default() -> Self {
        Group { chunks: Vec::new() }
    }
}

impl<K: Sampled> Group<K> {
    /// Takes over the series of this kind that the flusher does not know yet.
    fn adopt(&mut self, exporter: &Exporter) {
        let table = K::table(&exporter.registry.tables);
        let mut fresh = table.take_fresh().into_iter().peekable();
        while let Some(first) = fresh.peek() {
            let number = first.location.get().block;
            if self.chunks.last().is_none_or(|chunk| chunk.number != number) {
                self.chunks.last_mut().map(Chunk::shrink_to_fit);
                self.chunks.push(Chunk {
                    number,
                    block: Block::default(),
                    series: Vec::new(),
                    readings: Vec::new(),
                    states: Vec::new(),
                    has_gaps: false,
                });
            }
            let Some(chunk) = self.chunks.last_mut() else { return };
            chunk.block = table.lines.block(number);
            while let Some(series) = fresh.next_if(|series| series.location.get().block == number) {
                let start = series.location.get().start;
                let Some(line) = chunk.block.line(start) else { continue };
                chunk.readings.push(K::begin(line, &exporter.options));
                chunk.states.push(State { last_sent: 0, alive: NEVER, start });
                chunk.series.push(series);
            }
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.chunks.iter().flat_map(Chunk::lines)
    }

    fn read(&mut self, age: u32, scratch: &mut Readout) {
        self.chunks.iter_mut().for_each(|chunk| chunk.read(age, scratch));
    }

    fn emit(&mut self, stamp: Stamp, options: &Options, age: u32, sink: &mut impl Sink) {
        let ages = (age, Timeouts::new(&options.idle, K::KIND));
        for chunk in &mut self.chunks {
            chunk.emit(stamp.only_changed, ages, options, sink);
        }
    }

    /// Evicts what is dormant and not held; returns how many dormant series are left.
    fn evict(&mut self, exporter: &Exporter, age: u32, scratch: &mut Readout) -> usize {
        let Exporter { registry, options, .. } = exporter;
        let (mut dormant, ages) = (0, (age, Timeouts::new(&options.idle, K::KIND)));
        for chunk in &mut self.chunks {
            dormant += chunk.evict(registry, ages, scratch);
        }
        // The block of the last chunk still takes lines, so it is not repacked.
        let last = self.chunks.pop();
        self.chunks.iter_mut().for_each(|chunk| chunk.repack(&K::table(&registry.tables).lines));
        self.chunks.retain(|chunk| !chunk.series.is_empty());
        self.chunks.extend(last);
        dormant
    }
}

/// Does the same with the series of each kind.
macro_rules! each_group {
    ($snapshot:ident, $group:ident => $what:expr) => {
        let $group = &mut $snapshot.counters;
        $what;
        let $group = &mut $snapshot.gauges;
        $what;
        let $group = &mut $snapshot.histograms;
        $what;
    };
}

/// Gives the lines of all series to `sink`, by name, and changes nothing.
pub(crate) fn peek(registry: &Registry, options: &Options, sink: &mut impl Sink) {
    peek_kind::<Counter>(registry, options, sink);
    peek_kind::<Gauge>(registry, options, sink);
    peek_kind::<Histogram>(registry, options, sink);
}

fn peek_kind<K: Sampled>(registry: &Registry, options: &Options, sink: &mut impl Sink) {
    let (all, mut scratch) = (K::table(&registry.tables).all(), Readout::default());
    let read = all.iter().filter_map(|known| {
        let line = known.line()?;
        let mut reading = K::begin(line, options);
        K::read(&known.series, &mut reading, Take::Peek, &mut scratch);
        Some((line, reading))
    });
    for (line, reading) in read.collect::<Vec<_>>() {
        K::emit(line, &reading, 0, options, sink);
    }
}

/// Everything that the flusher knows of the registry.
#[derive(Default)]
pub(crate) struct Snapshot {
    counters: Group<Counter>,
    gauges: Group<Gauge>,
    histograms: Group<Histogram>,
    /// The exporter's age at the last snapshot, in seconds.
    age: u32,
    /// What each histogram is read into, reused.
    scratch: Readout,
}

impl Snapshot {
    /// Reads all series, then gives their lines to `sink`. `age` is the exporter's.
    pub(crate) fn take(
        &mut self,
        exporter: &Exporter,
        stamp: Stamp,
        age: Duration,
        sink: &mut impl Sink,
    ) {
        let age = u32::try_from(age.as_secs()).unwrap_or(NEVER).min(NEVER - 1);
        self.age = age;
        exporter.registry.drop_too_long();
        each_group!(self, group => group.adopt(exporter));
        each_group!(self, group => group.read(age, &mut self.scratch));
        each_group!(self, group => group.emit(stamp, &exporter.options, age, sink));
    }

    /// Evicts dormant series that nobody holds, which have no value from the time `unused_from` on;
    /// returns how many dormant ones are left.
    pub(crate) fn evict(&mut self, exporter: &Exporter, unused_from: u64) -> usize {
        let Idle { general, special } = &exporter.options.idle;
        if general.is_none() && special.is_empty() {
            return 0;
        }
        let mut dormant = 0;
        exporter.registry.set_unused_from(unused_from);
        each_group!(self, group => dormant += group.evict(exporter, self.age, &mut self.scratch));
        dormant
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
}

#[cfg(test)]
mod tests {
    use super::super::idle::Idle;
    use super::super::reading::CounterMode;
    use super::*;
    use crate::clock::Clock;
    use crate::wire::line::{Unsendable, Variant};
    use crate::wire::value::Value;
    use metrics::{CounterFn, GaugeFn, HistogramFn, Key};
    use metrics_util::MetricKindMask;

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
        exporter: Arc<Exporter>,
        snapshot: Snapshot,
    }

    impl Fixture {
        fn new(counter_mode: CounterMode, idle: Option<(MetricKindMask, Duration)>) -> Self {
            let idle = Idle { general: idle, ..Idle::default() };
            let options = Options { counter_mode, idle, ..Options::of_a_test() };
            let exporter = Exporter::of_a_test(options, Clock::default());
            Fixture { exporter, snapshot: Snapshot::default() }
        }

        fn evict(&mut self) -> usize {
            self.snapshot.evict(&self.exporter, 0)
        }

        fn counter(&self, name: &'static str) -> Arc<Series<Counter>> {
            self.exporter.registry.get(&Key::from_static_name(name)).unwrap().series
        }

        fn gauge(&self, name: &'static str) -> Arc<Series<Gauge>> {
            self.exporter.registry.get(&Key::from_static_name(name)).unwrap().series
        }

        fn histogram(&self, name: &'static str) -> Arc<Series<Histogram>> {
            self.exporter.registry.get(&Key::from_static_name(name)).unwrap().series
        }

        fn peek(&self) -> Vec<String> {
            let mut seen = Sent::default();
            peek(&self.exporter.registry, &self.exporter.options, &mut seen);
            seen.0
        }

        fn take(&mut self, age: u64, only_changed: bool) -> Vec<String> {
            let mut sent = Sent::default();
            self.snapshot.take(
                &self.exporter,
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
        assert_eq!((fixture.evict(), fixture.exporter.counters.series_evicted.get()), (1, 1));
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
            fixture
                .exporter
                .registry
                .get::<Histogram>(&Key::from_name("h"))
                .unwrap()
                .series
                .record(n.into());
        };
        update(&fixture, 1);
        assert_eq!(fixture.take(0, false).len(), 9);
        assert_eq!(fixture.take(60, false), Vec::<String>::new());
        update(&fixture, 2);
        assert_eq!(fixture.evict(), 3, "still dormant, since nobody has read them");
        let lines = fixture.take(61, false);
        assert_eq!(lines[..4], ["c 3", "g 2.0", "h.count 2", "h.sum 3.0"]);
        assert_eq!(fixture.evict(), 0);
        fixture.take(121, false);
        assert_eq!((fixture.evict(), fixture.exporter.counters.series_evicted.get()), (0, 3));
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
        fixture.evict();
        assert_eq!(fixture.take(61, false), ["g 1.0"]);
    }

    #[test]
    fn series_that_came_and_went_leave_no_lines() {
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(1)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        let mut held = Vec::new();
        for age in 0..50 {
            for n in 0..2_000 {
                let counter = fixture
                    .exporter
                    .registry
                    .get::<Counter>(&Key::from_name(format!("m.{age}.{n}")));
                if n == 0 {
                    held.push(counter.unwrap().series);
                }
            }
            fixture.take(age, false);
            fixture.evict();
        }
        fixture.take(50, false);
        assert_eq!((fixture.evict(), fixture.exporter.counters.series.get()), (50, 50));
        let (blocks, bytes) = fixture.exporter.registry.tables.counters.lines.size();
        assert!(blocks <= 51 && bytes < 2 * 256 * 1024, "{blocks} of {bytes}");
        held.iter().for_each(|counter| counter.increment(1));
        let lines: Vec<_> = (0..50).map(|age| format!("m.{age}.0 1")).collect();
        assert_eq!(fixture.take(51, false), lines);
        let mut by_name = lines.clone();
        by_name.sort();
        assert_eq!(fixture.peek(), by_name);
    }

    #[test]
    fn bursts_of_series_that_end_before_the_next_leave_no_lines() {
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(1)));
        let mut fixture = Fixture::new(CounterMode::Cumulative, idle);
        for burst in 0..20 {
            for n in 0..1_000 * (1 + burst % 3) {
                let name = format!("m.{burst}.{n}.{}", "x".repeat(100));
                fixture.exporter.registry.get::<Counter>(&Key::from_name(name)).unwrap();
            }
            for age in [2 * burst, 2 * burst + 1] {
                fixture.take(age, false);
                fixture.evict();
            }
            assert_eq!(fixture.exporter.counters.series.get(), 0);
            assert!(fixture.snapshot.counters.chunks.len() <= 1);
            let (blocks, bytes) = fixture.exporter.registry.tables.counters.lines.size();
            assert!(blocks <= 2 && bytes <= 2 * 256 * 1024, "{blocks} of {bytes}");
        }
    }

    /// In `Delta` each count is in one line, so what the lines say is what was counted.
    #[test]
    fn series_are_registered_shown_and_evicted_at_once_and_every_count_is_sent() {
        const SERIES: u64 = 10_000;
        let idle = Some((MetricKindMask::ALL, Duration::from_secs(1)));
        let mut fixture = Fixture::new(CounterMode::Delta, idle);
        let name = |n: u64| format!("m.{n}.{}", "x".repeat(n as usize % 150));
        let exporter = Arc::clone(&fixture.exporter);
        let count = |seen: &[String]| {
            let lines = seen.iter().map(|line| line.split_once(' ').unwrap());
            lines
                .map(|(metric, count)| {
                    let n: u64 = metric.split('.').nth(1).unwrap().parse().unwrap();
                    assert_eq!(metric, name(n));
                    count.parse::<u64>().unwrap()
                })
                .sum::<u64>()
        };
        let (mut sent, mut age) = (0, 0);
        std::thread::scope(|scope| {
            let recorder = scope.spawn(|| {
                for n in 0..SERIES {
                    exporter
                        .registry
                        .get::<Counter>(&Key::from_name(name(n)))
                        .unwrap()
                        .series
                        .increment(1);
                }
            });
            let looker = scope.spawn(|| {
                for _ in 0..20 {
                    let mut seen = Sent::default();
                    peek(&exporter.registry, &exporter.options, &mut seen);
                    assert!(count(&seen.0) <= SERIES);
                }
            });
            while age < 3 || !recorder.is_finished() || !looker.is_finished() {
                sent += count(&fixture.take(age, false));
                fixture.evict();
                age += 1;
            }
        });
        for age in [age, age + 1, age + 2] {
            sent += count(&fixture.take(age, false));
            fixture.evict();
        }
        assert_eq!((sent, fixture.exporter.counters.series.get()), (SERIES, 0));
    }
}
