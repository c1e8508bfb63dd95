//! Promise 3: whatever the server does, the tally of a shutdown is true. Its deadline is tested in
//! `tools/faults`.

use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use opentsdb_faults::rig::PATIENCE;
use opentsdb_faults::shutdown::{STATES, shut_down};

#[test]
fn the_tally_is_true_against_any_server() {
    std::thread::scope(|scope| {
        for mode in [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose] {
            scope.spawn(move || {
                for state in STATES {
                    for timeout in [Duration::ZERO, Duration::from_millis(100)] {
                        shut_down(state, mode, timeout);
                    }
                }
            });
        }
    });
}

#[test]
fn a_healthy_server_has_everything_at_the_end() {
    for mode in [Confirmation::Auto, Confirmation::Version, Confirmation::HalfClose] {
        shut_down(&STATES[0], mode, PATIENCE);
    }
}
