//! Promise 10: the exporter does no harm to its process. Forks, failing system calls and limits are
//! in `tools/faults`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd};
use tracing::field::{Field, Visit};
use tracing::span;

use opentsdb_faults::rig::{App, PATIENCE, builder};

/// A subscriber that panics on each event that names one of [`MINE`], while [`PANICS`] is set. It
/// is global, because a test cannot set one for the exporter's threads, so the events of other
/// tests are told apart by their text.
struct Panicking;

static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicUsize = AtomicUsize::new(0);
/// The server's address, and a metric.
static MINE: OnceLock<[String; 2]> = OnceLock::new();

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{value:?} ");
    }
}

impl tracing::Subscriber for Panicking {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut mine = MINE.get().into_iter().flatten();
        if PANICS.load(Ordering::SeqCst) && mine.any(|word| text.0.contains(word)) {
            PANICKED.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("a subscriber's own fault"));
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_panic_in_our_threads_is_counted_and_points_flow_again() {
    let tsd = FakeTsd::start();
    MINE.set([tsd.address(), "not.a.number".into()]).unwrap();
    tracing::subscriber::set_global_default(Panicking).unwrap();
    let mut app = App::start(builder(tsd.address(), Confirmation::Version), 20);
    app.work();
    app.settle();
    PANICS.store(true, Ordering::SeqCst);
    // The writer's: "cannot deliver points", and the first refusal of a kind; the flusher's: a
    // value that is not finite.
    tsd.script(Action::Crash { down: Duration::from_millis(50) });
    app.gauge("not.a.number", f64::NAN);
    app.work();
    app.handle.flush(PATIENCE / 10).unwrap();
    while PANICKED.load(Ordering::SeqCst) < 2 {
        app.work();
        app.handle.flush(Duration::from_millis(20)).unwrap();
    }
    PANICS.store(false, Ordering::SeqCst);
    app.gauge("not.a.number", 1.0);
    app.work();
    app.settle();
    let stats = app.assert_lawful(&[&tsd]);
    assert!(stats.restarts >= 2, "{stats:?}");
    app.assert_last_values(&[&tsd]);
}

#[test]
fn an_exporter_leaves_no_descriptor_behind() {
    let round = || {
        let tsd = FakeTsd::start();
        let mut app = App::start(builder(tsd.address(), Confirmation::Version), 5);
        app.work();
        let report = app.handle.shutdown(PATIENCE).unwrap();
        assert_eq!(report.pending, 0);
    };
    round();
    // Other tests of this process open and close theirs meanwhile, so only a growth with each round
    // counts.
    let before = descriptors();
    (0..100).for_each(|_| round());
    let after = descriptors();
    assert!(after < before + 100, "{before} descriptors before, {after} after 100 exporters");
}
