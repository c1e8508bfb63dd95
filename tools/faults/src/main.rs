//! Faults that loopback alone cannot have, and figures that need a quiet clock. Started by
//! `tools/faults/run`, in a network namespace of its own.
//!
//! The main process runs the servers (`FakeTsd`, whose log is the evidence), breaks the network
//! with `nft` and `tc`, and prints one line a scenario. An application that needs a process of its
//! own, because it exits, forks, is traced or has a limit, is this program started as `faults app
//! …`; it reports as `key=value` lines.
//!
//! 1. `app`: the applications under fault;
//! 2. `net`: the namespace's packet filter and queue, the resolver that never answers;
//! 3. `child`: starts applications, also under strace, faketime and limits, and reads their
//!    reports;
//! 4. `live`: the allocator of this program, which counts;
//! 5. `delivery`, `resources`, `server_load`, `spool`, `mixed`, `soak`: the scenarios, listed in
//!    [`SCENARIOS`];
//! 6. the library: what is shared with `tests/faults`.

mod app;
mod child;
mod delivery;
mod live;
mod mixed;
mod net;
mod resources;
mod server_load;
mod soak;
mod spool;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// The full figures, instead of those for CI.
    pub(crate) is_long: bool,
    pub(crate) seed: u64,
}

impl Size {
    /// One of two figures.
    pub(crate) fn pick<T>(self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }
}

/// What a scenario needs beside loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// A network namespace that is ours, and `nft`.
    Nft,
    /// The same, and `tc`.
    Tc,
    /// A `/etc/resolv.conf` that is ours.
    Resolver,
    Strace,
    Faketime,
    /// A file system of 1 MiB, `FAULTS_TMPFS`.
    Tmpfs,
    /// Only the long run has the time.
    Time,
}

struct Scenario {
    name: &'static str,
    /// Of the list of what is promised.
    promise: &'static str,
    need: Need,
    /// Answers the figures that it measured.
    run: fn(Size) -> String,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "no-network-call-on-an-application-thread",
        promise: "1",
        need: Need::Strace,
        run: resources::no_network_call,
    },
    Scenario {
        name: "records-as-fast-as-against-a-healthy-server",
        promise: "1",
        need: Need::Nothing,
        run: resources::latency,
    },
    Scenario {
        name: "memory-is-bounded",
        promise: "2",
        need: Need::Nothing,
        run: resources::memory,
    },
    Scenario {
        name: "shutdown-keeps-its-deadline",
        promise: "3",
        need: Need::Nothing,
        run: delivery::shutdown_matrix,
    },
    Scenario {
        name: "shutdown-into-a-blackhole",
        promise: "3",
        need: Need::Nft,
        run: delivery::shutdown_blackhole,
    },
    Scenario {
        name: "shutdown-over-64-kbit-per-second",
        promise: "3",
        need: Need::Tc,
        run: delivery::shutdown_slow_link,
    },
    Scenario {
        name: "shutdown-under-a-resolver-that-never-answers",
        promise: "3",
        need: Need::Resolver,
        run: delivery::shutdown_resolver,
    },
    Scenario {
        name: "the-last-update-arrives",
        promise: "4",
        need: Need::Nothing,
        run: delivery::exits,
    },
    Scenario {
        name: "exact-after-resets",
        promise: "5 6 7",
        need: Need::Nothing,
        run: delivery::resets,
    },
    Scenario {
        name: "exact-after-restarts",
        promise: "5 6 7",
        need: Need::Nothing,
        run: delivery::restarts,
    },
    Scenario {
        name: "exact-after-a-blackhole",
        promise: "5 6 7",
        need: Need::Nft,
        run: delivery::blackhole,
    },
    Scenario {
        name: "exact-after-resets-on-the-way",
        promise: "5 6 7",
        need: Need::Nft,
        run: delivery::resets_on_the_way,
    },
    Scenario {
        name: "exact-after-failovers",
        promise: "5 6 7",
        need: Need::Nothing,
        run: delivery::failovers,
    },
    Scenario {
        name: "confirmed-means-parsed-over-a-million-lines",
        promise: "6 7",
        need: Need::Nothing,
        run: delivery::million,
    },
    Scenario {
        name: "frozen-storage-costs-few-connections",
        promise: "8",
        need: Need::Nothing,
        run: server_load::frozen,
    },
    Scenario {
        name: "never-above-the-cap-in-any-second",
        promise: "8",
        need: Need::Nothing,
        run: server_load::cap,
    },
    Scenario {
        name: "accept-and-close-stays-in-the-envelope",
        promise: "8",
        need: Need::Nothing,
        run: server_load::envelope,
    },
    Scenario {
        name: "a-hundred-clients-out-of-step",
        promise: "8",
        need: Need::Nothing,
        run: server_load::herd,
    },
    Scenario {
        name: "throttled-by-half-and-recovered-in-a-minute",
        promise: "8",
        need: Need::Time,
        run: server_load::throttle,
    },
    Scenario {
        name: "fair-under-overload",
        promise: "9",
        need: Need::Nothing,
        run: server_load::overload,
    },
    Scenario {
        name: "panics-are-caught-and-points-flow-again",
        promise: "10",
        need: Need::Nothing,
        run: resources::panics,
    },
    Scenario {
        name: "a-forked-child-sends-nothing-and-exits",
        promise: "10",
        need: Need::Nothing,
        run: resources::forks,
    },
    Scenario {
        name: "a-failed-thread-spawn-leaves-nothing",
        promise: "10",
        need: Need::Strace,
        run: resources::failed_spawn,
    },
    Scenario {
        name: "a-second-install-starts-no-thread",
        promise: "10",
        need: Need::Nothing,
        run: resources::second_install,
    },
    Scenario {
        name: "sigpipe-by-default-kills-nobody",
        promise: "10",
        need: Need::Nothing,
        run: resources::sigpipe,
    },
    Scenario {
        name: "no-thread-or-descriptor-leaks",
        promise: "10",
        need: Need::Nothing,
        run: resources::leaks,
    },
    Scenario {
        name: "interrupted-and-starved-calls",
        promise: "10",
        need: Need::Strace,
        run: resources::injected_errors,
    },
    Scenario {
        name: "no-descriptor-left-in-the-system",
        promise: "10",
        need: Need::Nothing,
        run: resources::emfile,
    },
    Scenario {
        name: "a-wall-clock-that-steps",
        promise: "also",
        need: Need::Faketime,
        run: resources::clock,
    },
    Scenario {
        name: "idle-closes-cost-no-point",
        promise: "also",
        need: Need::Nothing,
        run: delivery::idle,
    },
    Scenario {
        name: "a-megabyte-of-garbage",
        promise: "also",
        need: Need::Nothing,
        run: delivery::garbage,
    },
    Scenario {
        name: "killed-at-random-moments-with-a-spool",
        promise: "spool",
        need: Need::Nothing,
        run: spool::kills,
    },
    Scenario {
        name: "a-spool-on-a-full-disk",
        promise: "spool",
        need: Need::Tmpfs,
        run: spool::full_disk,
    },
    Scenario {
        name: "one-spool-and-two-processes",
        promise: "spool",
        need: Need::Nothing,
        run: spool::two_processes,
    },
    Scenario {
        name: "a-backlog-in-bounded-memory",
        promise: "spool",
        need: Need::Nothing,
        run: spool::backlog,
    },
    Scenario {
        name: "hostile-servers-by-seed",
        promise: "all",
        need: Need::Nothing,
        run: mixed::hostile,
    },
    Scenario { name: "soak", promise: "2 5 10", need: Need::Time, run: soak::run },
    Scenario { name: "mixed-faults", promise: "all", need: Need::Nft, run: mixed::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "app") {
        return app::run(&arguments[1..]);
    }
    let is_long = arguments.iter().any(|argument| argument == "--long");
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let size = Size { is_long, seed };
    let lacking = std::env::var("FAULTS_LACKING").unwrap_or_default();
    let wanted: Vec<_> = arguments.iter().filter(|name| !name.starts_with("--")).collect();
    println!("seed {seed} (FAULTS_SEED={seed} runs the same again)");
    let (mut failed, mut not_run, mut passed) = (Vec::new(), Vec::new(), 0);
    for scenario in SCENARIOS {
        let Scenario { name, promise, need, run } = scenario;
        if !(wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()))) {
            continue;
        }
        if *need == Need::Time && !is_long {
            println!("later   [{promise}] {name}: in the long run");
            continue;
        }
        if lacking.split(' ').any(|lack| lack == format!("{need:?}").to_lowercase()) {
            println!("NOT RUN [{promise}] {name}: this machine lacks {need:?}");
            not_run.push(*name);
            continue;
        }
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(size)));
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(figures) => {
                passed += 1;
                println!("ok      [{promise}] {name}: {figures} ({took:.1} s)");
            }
            Err(_) => {
                failed.push(*name);
                println!("FAILED  [{promise}] {name} ({took:.1} s)");
            }
        }
    }
    println!("{passed} passed, {} failed, {} not run", failed.len(), not_run.len());
    if failed.is_empty() && (not_run.is_empty() || std::env::var_os("ALLOW_NOT_RUN").is_some()) {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}; NOT RUN: {not_run:?}");
    ExitCode::FAILURE
}
