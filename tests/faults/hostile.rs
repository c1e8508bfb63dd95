//! All promises, against servers that draw what they do by a seed; `tools/faults/run hostile` has
//! more of them.

use opentsdb_faults::hostile;

#[test]
fn some_seeds_of_hostile_servers() {
    let told = hostile::run_seeds(0, 12, 6);
    assert!(told.confirmed > 0 && told.resent > 0 && told.disconnects > 0, "{told:?}");
}
