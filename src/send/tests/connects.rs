//! When the writer connects and sends, and where.

#[cfg(feature = "http")]
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use opentsdb_faults::log::lines_of;

use super::clocked::STEP;
#[cfg(feature = "http")]
use super::clocked::{pass, pass_until, push};
#[cfg(feature = "http")]
use super::faults::http_options;
use super::faults::nobody;
use super::{Options, Rig, address, options};
use crate::builder::Flavor;
use crate::clock::Clock;
use crate::queue::Queue;
use crate::send::Writer;
#[cfg(feature = "http")]
use crate::send::endpoint::Endpoint;
#[cfg(feature = "http")]
use crate::send::limiter::RateLimit;
use crate::stats::{Confirmation, Counters};
use crate::testing::FakeTsd;
#[cfg(feature = "http")]
use crate::testing::{FakeHttpTsd, HttpAnswer, HttpFault};

#[test]
fn an_endpoint_that_is_away_is_logged_though_the_next_one_takes_the_points() {
    let (_held, away) = nobody();
    let tsd = FakeTsd::start();
    let counters = Arc::new(Counters::default());
    let queue = Arc::new(Queue::new(1_000_000, Arc::clone(&counters)));
    let options = options(&[away, address(&tsd)], Confirmation::Version);
    let mut writer =
        Writer::new(options, Arc::clone(&queue), Arc::clone(&counters), Clock::default()).unwrap();
    let mut rig = Rig { queue, counters, next: 0 };
    rig.push(1);
    rig.queue.close();
    let lines = lines_of(|| writer.run());
    let words = ["an endpoint is away", &format!("endpoint={away}"), &tsd.address().to_string()];
    let is_it = |line: &&String| words.iter().all(|word| line.contains(word));
    assert_eq!(lines.iter().filter(is_it).count(), 1, "{lines:#?}");
    assert_eq!(tsd.log().accepted_count(), 1);
}

/// The random wait before a connect is for what comes after a quiet time, and the clock stands
/// still.
#[test]
fn a_connection_that_ended_in_good_order_is_followed_at_once_while_there_is_more_to_send() {
    let tsd = FakeTsd::builder().replies(Flavor::VictoriaMetrics).start();
    let rig = connected(options(&[address(&tsd)], Confirmation::HalfClose));
    let stats = rig.until(|stats| stats.connects == 2);
    assert!((1..100_000).contains(&stats.points_confirmed), "{stats:?}");
    #[cfg(feature = "http")]
    {
        let tsd = FakeHttpTsd::start();
        tsd.script(HttpFault::CloseAfter);
        // Whole requests, each on a connection of its own; those that fill none wait for the clock.
        connected(http_options(&tsd)).until(|stats| stats.points_confirmed > 99_000);
    }
}

#[cfg(feature = "http")]
#[test]
fn points_that_somebody_waits_for_are_sent_though_the_clock_stands_still() {
    let tsd = FakeHttpTsd::start();
    let (clock, _mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let rig = Rig::at(http_options(&tsd), clock);
    let _expedite = rig.queue.expedite();
    push(&rig, ["put m 1700000000 1 host=a"]);
    rig.until(|stats| stats.points_confirmed == 1);
}

/// Though the rate holds points back between its requests.
#[cfg(feature = "http")]
#[test]
fn a_shutdown_over_http_goes_on_with_the_connection_that_there_is_and_ends_it() {
    let tsd = FakeHttpTsd::start();
    let mut options = http_options(&tsd);
    options.rate = RateLimit::PerSecond(NonZeroU32::new(20).unwrap());
    let mut rig = Rig::with(options);
    rig.push(1);
    rig.settle();
    rig.push(8);
    rig.close();
    let stats = rig.counters.stats();
    assert_eq!((stats.connects, stats.points_confirmed, stats.disconnects), (1, 9, 0));
}

/// A rig with more points than a connection may have unconfirmed, whose clock stands still since
/// the first one.
fn connected(options: Options) -> Rig {
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut rig = Rig::at(options, clock);
    rig.push(100_000);
    rig.until(|stats| {
        mock.advance(STEP);
        // This wakes the writer, and nobody waits for the points.
        rig.queue.set_deadline(None);
        stats.connects > 0
    });
    rig
}

/// The endpoint beside it answers nobody, so every attempt is a failure, and the pauses between
/// them are short.
#[cfg(feature = "http")]
#[test]
fn a_server_is_left_alone_for_as_long_as_it_asks_beside_one_that_is_away() {
    let (_held, away) = nobody();
    let busy = FakeHttpTsd::start();
    busy.script(HttpFault::Answer(HttpAnswer::new(503).header("Retry-After", "60")));
    let (clock, mock) = Clock::mock(Duration::from_secs(1_700_000_000));
    let mut options = http_options(&busy);
    options.endpoints.push(Endpoint::parse(&away.to_string()).unwrap());
    let rig = Rig::at(options, clock);
    push(&rig, ["put m 1700000000 1 host=a"]);
    pass_until(&rig, &mock, || rig.counters.stats().disconnects == 1);
    for second in 1..60 {
        pass(&rig, &mock, Duration::from_secs(1));
        rig.until(|stats| stats.connect_failures >= second);
        assert_eq!(busy.log().request_count(), 1, "after {second} s");
    }
    busy.heal();
    pass_until(&rig, &mock, || rig.counters.stats().points_confirmed == 1);
}
