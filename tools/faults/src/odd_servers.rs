//! What is no outage and must not become one: idle closes, and replies that mean nothing.

use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use metrics_exporter_opentsdb::testing::{Action, FakeTsd};

use crate::rig::{App, PATIENCE, builder};

/// A server that ends idle connections (`tsd.core.socket.timeout`): its FIN comes while nothing is
/// sent.
pub fn idle_closes(mode: Confirmation, times: usize) {
    let tsd = FakeTsd::start();
    let mut app = App::start(builder(tsd.address(), mode), 20);
    let mut closed = 0;
    for _ in 0..times {
        app.work();
        app.settle();
        closed += tsd.log().open_connection_count();
        tsd.script(Action::Close);
    }
    app.work();
    app.settle();
    app.assert_exact(&[&tsd]);
    let stats = app.assert_lawful(&[&tsd]);
    assert!(closed > 0 || mode == Confirmation::HalfClose, "none was open");
    assert_eq!(stats.connect_failures, 0);
}

/// Says a megabyte that means nothing, in pieces, while points are sent.
pub fn garbage(mode: Confirmation, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let tsd = FakeTsd::start();
    let mut app = App::start(builder(tsd.address(), mode), 20);
    app.work();
    app.handle.flush(PATIENCE).unwrap();
    let mut said = 0;
    while said < 1_000_000 {
        let length = random.usize(1..50_000);
        // Bytes of any kind, with few line feeds, and with pieces of true replies among them.
        let mut garbage: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        if random.bool() {
            garbage.extend_from_slice(b"\nput: illegal argument: ");
        }
        said += garbage.len();
        let garbage = Action::Say(garbage);
        if mode == Confirmation::HalfClose {
            // It has no connection most of the time.
            tsd.script(garbage.at_next_connection());
        } else {
            tsd.script(garbage.after_lines(1));
        }
        while tsd.pending_step_count() > 0 {
            app.work();
            app.handle.flush(Duration::from_millis(10)).unwrap();
        }
    }
    app.settle();
    app.assert_exact(&[&tsd]);
    let stats = app.assert_lawful(&[&tsd]);
    assert!(stats.points_rejected.total() > 0, "it was read: {stats:?}");
}
