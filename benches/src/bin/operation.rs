//! Does one operation so many times: `operation "counter! two labels" 1000`. For a profiler; see
//! `benches/instructions`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use metrics_exporter_opentsdb::Confirmation;
use opentsdb_benches::exporter::{Exporter, install_ours_at};
use opentsdb_benches::operations;

/// Lines of a flush.
const LINES: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(300);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, n] = &arguments[..] else { panic!("operation NAME N") };
    let n: u64 = n.parse().expect("N is a number");
    if name == "flush" {
        flush(n);
    } else {
        let _running = Exporter::from_env().install(None);
        record(name, n);
    }
    // Without the exporter's own threads at their end, whose waits are of no fixed length.
    std::process::exit(0);
}

fn flush(n: u64) {
    assert_eq!(Exporter::from_env(), Exporter::OpenTsdb, "only this crate can be told to");
    let handle = install_ours_at(&start_sink(), Confirmation::Written);
    let counters: Vec<_> =
        (0..LINES).map(|n| operations::counter_of(&operations::key(n))).collect();
    for _ in 0..n {
        // Only what changed is sent when a second is used twice.
        counters.iter().for_each(|counter| counter.increment(1));
        let report = handle.flush(TIMEOUT).expect("it was not shut down");
        assert!(report.points >= LINES as u64 && report.pending == 0, "{report:?}");
    }
}

fn record(name: &str, n: u64) {
    if name == "first sight" {
        (0..n as usize).for_each(|n| operations::counter_of(&operations::key(n)).increment(1));
    } else if name == "random" {
        let keys: Vec<_> = (0..2 * LINES).map(operations::key).collect();
        keys.iter().for_each(|key| operations::counter_of(key).increment(1));
        for n in 0..n {
            // Any order that is not that of the keys.
            let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            operations::counter_of(&keys[at as usize % keys.len()]).increment(1);
        }
    } else {
        let operation = operations::all().find(|operation| operation.name == name);
        (operation.expect("there is such an operation").run)(n);
    }
}

/// Starts a sink in a process of its own, since a profiler of this one would count its work too;
/// returns its address. It ends with this process.
fn start_sink() -> String {
    let program = std::env::current_exe().expect("it has a path").with_file_name("sink");
    let mut sink = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`sink` was built beside this");
    let mut address = String::new();
    let lines = sink.stdout.as_mut().expect("it is piped");
    BufReader::new(lines).read_line(&mut address).expect("it prints its address");
    // With its input it would end.
    std::mem::forget(sink);
    address.trim_end().to_owned()
}
