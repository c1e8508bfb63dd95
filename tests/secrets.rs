//! In a process of its own, since it hears everything that is logged: no password, token or header
//! is in it, nor in an error, whatever a server answers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics_exporter_opentsdb::testing::{Action, FakeHttpTsd, Fault, HttpAnswer, HttpFault, Step};
use metrics_exporter_opentsdb::{ConnectivityCheck, OpenTsdbBuilder, Point, TimestampPrecision};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const SECRET: &str = "s3cr3t";

/// All that is logged, with every field.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!(" {}={value:?}", field.name());
            }
        }
        let mut text = Text(event.metadata().target().to_owned());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

fn builder(tsd: &FakeHttpTsd) -> OpenTsdbBuilder {
    let address = tsd.address().replace("http://", &format!("http://{SECRET}:{SECRET}@"));
    OpenTsdbBuilder::new(format!("{address}/api/put?token={SECRET}"))
        .add_http_header("X-Token", SECRET)
        .with_timestamp_precision(TimestampPrecision::Milliseconds)
        .with_backoff(Duration::from_millis(1), Duration::from_millis(1))
}

#[test]
fn no_secret_is_logged_or_in_an_error() {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let answer = |status| HttpFault::Answer(HttpAnswer::new(status).body(SECRET.repeat(3)));
    let place = format!("http://{SECRET}@x/{SECRET}?t={SECRET}");
    // In a TSD's details of each point.
    let details = format!("put: illegal argument: {SECRET} {}", "x".repeat(100_000));
    let steps: [Step; 11] = [
        Fault::Refusal(details).into(),
        HttpFault::Answer(HttpAnswer::new(302).header("Location", place)).into(),
        answer(401).into(),
        answer(403).into(),
        answer(404).into(),
        answer(405).into(),
        answer(200).into(),
        HttpFault::Cut(20).into(),
        HttpFault::CloseUnanswered.into(),
        Fault::Refuse.into(),
        Action::Reset.into(),
    ];
    for step in steps {
        let tsd = FakeHttpTsd::start();
        tsd.script(step.clone());
        if let Err(error) = builder(&tsd).build() {
            let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
            assert!(!text.contains(SECRET), "{step:?}: {text}");
        }
        let exporter = builder(&tsd).with_connectivity_check(ConnectivityCheck::Off);
        assert!(!format!("{exporter:?}").contains(SECRET));
        let (_, handle) = exporter.build().unwrap();
        handle.send(Point::new("m", 1)).unwrap();
        let began = Instant::now();
        loop {
            let stats = handle.stats();
            if stats.points_confirmed + stats.disconnects + stats.connect_failures > 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{step:?}: {stats:?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        handle.shutdown(Duration::ZERO).unwrap();
        assert!(!format!("{handle:?}").contains(SECRET));
    }
    let lines = log.0.lock().unwrap();
    assert!(lines.iter().filter(|line| line.contains("cannot deliver points")).count() >= 8);
    let found: Vec<_> = lines.iter().filter(|line| line.contains(SECRET)).collect();
    assert!(found.is_empty(), "{found:#?}");
    assert!(lines.iter().any(|line| line.contains("refuses a point")));
    assert!(lines.iter().all(|line| line.len() < 1_000), "no server fills the log");
}
