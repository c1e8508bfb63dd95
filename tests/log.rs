//! The feature `log`: without a `tracing` subscriber, the crate's events reach a `log` logger. In a
//! process of its own, since the logger is global.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use metrics_exporter_opentsdb::testing::{FakeTsd, Fault};
use metrics_exporter_opentsdb::{ConnectivityCheck, HostTag, OpenTsdbBuilder};

struct Forwarding(Mutex<Sender<(log::Level, String, String)>>);

impl log::Log for Forwarding {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = (record.level(), record.target().to_owned(), record.args().to_string());
        let _ = self.0.lock().unwrap().send(line);
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_of_a_callback_and_an_outage_reach_a_logger_of_the_log_crate() {
    let (sender, lines) = channel();
    log::set_boxed_logger(Box::new(Forwarding(Mutex::new(sender)))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let tsd = FakeTsd::start();
    tsd.script(Fault::Refuse);
    let (recorder, handle) = OpenTsdbBuilder::new(tsd.address())
        .with_connectivity_check(ConnectivityCheck::Off)
        .with_host_tag(HostTag::Value("a".into()))
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .on_snapshot(|| panic!("of the test"))
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || metrics::counter!("c").increment(1));
    handle.flush(Duration::from_millis(100)).unwrap();
    let address = tsd.address();
    let is_ours = |(level, target, text): &(log::Level, String, String)| {
        *level <= log::Level::Warn
            && target.starts_with("metrics_exporter_opentsdb")
            && text.contains(&address)
    };
    let is_panic = |(level, _, text): &(log::Level, String, String)| {
        *level == log::Level::Error && text.contains("on_snapshot") && text.contains("of the test")
    };
    let mut all = std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(20)).ok());
    assert!(all.any(|line| is_panic(&line)), "no error names the callback");
    assert!(all.any(|line| is_ours(&line)), "no warning names the address");
}
