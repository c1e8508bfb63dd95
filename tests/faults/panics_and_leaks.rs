//! Promise 10: the exporter does no harm to its process. Forks, failing system calls and limits are
//! in `tools/faults`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd};
use opentsdb_faults::log::Listener;
use opentsdb_faults::rig::{App, PATIENCE, builder};

/// Whether an event that names one of [`MINE`] panics. The subscriber is global, because a test
/// cannot set one for the exporter's threads, so the events of other tests are told apart by text.
static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicUsize = AtomicUsize::new(0);
/// The server's address, and a metric.
static MINE: OnceLock<[String; 2]> = OnceLock::new();

fn panic_on_mine(line: &str) {
    let mut mine = MINE.get().into_iter().flatten();
    if PANICS.load(Ordering::SeqCst) && mine.any(|word| line.contains(word)) {
        PANICKED.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("a subscriber's own fault"));
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_panic_in_our_threads_is_counted_and_points_flow_again() {
    let tsd = FakeTsd::start();
    MINE.set([tsd.address(), "not.a.number".into()]).unwrap();
    tracing::subscriber::set_global_default(Listener(panic_on_mine)).unwrap();
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
