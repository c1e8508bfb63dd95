//! Which endpoint and which address comes next.
//!
//! Each exporter has an order of its endpoints by preference: as they were added, or shuffled. An
//! attempt takes those that have not failed, then the others, in the order of the times from which
//! on they may be tried.
//!
//! Failures are forgotten, and the preferred endpoint has its turn again, when an attempt reached
//! none, and when an endpoint has been in use for its age. The age is drawn at random from the
//! second half of its bound, so that the clients of a server that was away do not all return to it
//! at one moment.
//!
//! The addresses of one name are equals: an attempt begins with the one that worked last, and one
//! that failed comes last. Shuffled, they are shuffled anew whenever an endpoint was left, so that
//! a server that is added to a name gets its share, and one that was away gets it back.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;

use crate::clock::Instant;

/// With which endpoint, and with which address of a name, an exporter begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointOrder {
    /// The endpoints as they were added, the addresses of a name as the system's resolver has them:
    /// for a server with a stand-in. All exporters send to the first while it is there. The
    /// default.
    #[default]
    Preferred,
    /// Both in an order that each exporter draws for itself: for servers that are to share the
    /// load. The addresses of a name are drawn anew whenever a connection has reached its
    /// [age](crate::OpenTsdbBuilder::with_max_connection_age).
    Spread,
}

#[derive(Debug)]
pub(super) struct Rotation {
    /// All endpoints, by preference.
    order: Vec<usize>,
    /// For each endpoint that has failed, the time before which it is not tried; for most that of
    /// the failure.
    not_before: Vec<Option<Instant>>,
    /// The longest time for which an endpoint is used; the shortest is half of it.
    max_age: Option<Duration>,
    /// When to leave the one that is in use.
    leave_at: Option<Instant>,
    /// How many addresses of each endpoint have failed.
    failures: Vec<usize>,
    /// What the addresses of a name are shuffled by, if they are.
    seed: Option<u64>,
}

impl Rotation {
    pub(super) fn new(endpoints: usize, order: EndpointOrder, max_age: Option<Duration>) -> Self {
        let is_spread = order == EndpointOrder::Spread;
        let mut order: Vec<_> = (0..endpoints).collect();
        if is_spread {
            fastrand::shuffle(&mut order);
        }
        Rotation {
            order,
            not_before: vec![None; endpoints],
            max_age,
            leave_at: None,
            failures: vec![0; endpoints],
            seed: is_spread.then(|| fastrand::u64(..)),
        }
    }

    /// The endpoints that may be tried now, in this order, or else the one that may be next.
    pub(super) fn order(&mut self, now: Instant) -> Vec<usize> {
        if self.leave_at.is_some_and(|at| now >= at) {
            self.restart(now);
        }
        let mut order = self.order.clone();
        order.sort_by_key(|endpoint| self.not_before[*endpoint]);
        let due = order.partition_point(|endpoint| self.not_before[*endpoint] <= Some(now));
        order.truncate(due.max(1));
        order
    }

    /// When the first of them may be tried; `None` for at once.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.not_before.iter().copied().min().flatten()
    }

    /// When to leave the endpoint that is in use.
    pub(super) fn leave_at(&self) -> Option<Instant> {
        self.leave_at
    }

    /// Puts the addresses of an endpoint in the order in which to try them.
    pub(super) fn arrange(&self, endpoint: usize, addresses: &mut [SocketAddr]) {
        if let Some(seed) = self.seed {
            // The resolver may give them in another order each time.
            addresses.sort_unstable();
            Rng::with_seed(seed).shuffle(addresses);
        }
        if let Some(start) = self.failures[endpoint].checked_rem(addresses.len()) {
            addresses.rotate_left(start);
        }
    }

    /// There is a connection to the endpoint that comes first.
    pub(super) fn connected(&mut self, now: Instant) {
        let draw = |age: Duration| age.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.leave_at = self.leave_at.or(self.max_age.map(|age| now + draw(age)));
    }

    /// An address of this endpoint takes no connection, or its connection failed.
    pub(super) fn address_failed(&mut self, endpoint: usize) {
        let failures = &mut self.failures[endpoint];
        *failures = failures.wrapping_add(1);
    }

    /// The others come first now, and this one not before the time.
    pub(super) fn failed(&mut self, endpoint: usize, not_before: Instant) {
        self.not_before[endpoint] = Some(not_before);
        self.leave_at = None;
    }

    /// Begin with the preferred endpoint: the current one is left, or none could be reached. One
    /// that is to be left alone still is.
    pub(super) fn restart(&mut self, now: Instant) {
        for at in &mut self.not_before {
            *at = at.filter(|at| *at > now);
        }
        self.leave_at = None;
        self.seed = self.seed.map(|_| fastrand::u64(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MAX_AGE: Duration = Duration::from_secs(3600);

    fn preferred(endpoints: usize) -> Rotation {
        Rotation::new(endpoints, EndpointOrder::Preferred, Some(MAX_AGE))
    }

    #[test]
    fn a_failed_connection_moves_on_to_the_next_endpoint() {
        let now = Instant::now();
        let mut rotation = preferred(3);
        for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
            assert_eq!(rotation.order(now), expected);
            rotation.connected(now);
            rotation.failed(expected[0], now);
        }
    }

    #[test]
    fn an_attempt_that_reached_nobody_begins_with_the_first_again() {
        let now = Instant::now();
        let mut rotation = preferred(2);
        rotation.failed(0, now);
        assert_eq!(rotation.order(now), [1, 0]);
        rotation.failed(1, now);
        rotation.restart(now);
        assert_eq!(rotation.order(now), [0, 1]);
    }

    #[test]
    fn an_endpoint_is_left_alone_until_its_time_whatever_becomes_of_the_others() {
        let start = Instant::now();
        let (later, until) = (start + Duration::from_secs(59), start + Duration::from_secs(60));
        let mut rotation = preferred(3);
        rotation.failed(0, until);
        assert_eq!((rotation.order(start), rotation.earliest()), (vec![1, 2], None));
        (1..3).for_each(|endpoint| rotation.failed(endpoint, later));
        assert_eq!((rotation.order(start), rotation.earliest()), (vec![1], Some(later)));
        rotation.restart(later);
        assert_eq!(rotation.order(later), [1, 2]);
        assert_eq!(rotation.order(until), [1, 2, 0]);
        rotation.restart(until);
        assert_eq!(rotation.order(until), [0, 1, 2]);
    }

    /// Each burst may have a connection of its own; it is the endpoint's time that counts.
    #[test]
    fn an_endpoint_is_left_for_the_first_after_half_an_hour_to_an_hour() {
        let start = Instant::now();
        let ages = (0..100).map(|_| {
            let mut rotation = preferred(3);
            rotation.failed(0, start);
            rotation.connected(start);
            let leave_at = rotation.leave_at().unwrap();
            rotation.connected(start + Duration::from_secs(100));
            assert_eq!(rotation.leave_at(), Some(leave_at));
            assert_eq!(rotation.order(leave_at - Duration::from_secs(1)), [1, 2, 0]);
            assert_eq!(rotation.order(leave_at), [0, 1, 2]);
            // It takes no connection, so the next one is in use, for as long again.
            rotation.failed(0, leave_at);
            rotation.connected(leave_at);
            assert!(rotation.leave_at() >= Some(leave_at + MAX_AGE / 2));
            leave_at - start
        });
        let ages: Vec<_> = ages.collect();
        assert!(ages.iter().all(|age| (MAX_AGE / 2..=MAX_AGE).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age > MAX_AGE * 3 / 4), "{ages:?}");
        assert!(ages.iter().any(|age| *age < MAX_AGE * 3 / 4), "{ages:?}");
    }

    #[test]
    fn every_address_of_a_name_has_its_turn_and_a_good_one_keeps_it() {
        let now = Instant::now();
        let address = |last| SocketAddr::from(([10, 0, 0, last], 4242));
        let mut rotation = preferred(1);
        let first = |rotation: &Rotation| {
            let mut addresses = [address(1), address(2), address(3)];
            rotation.arrange(0, &mut addresses);
            addresses[0]
        };
        for last in [1, 2, 3, 1] {
            assert_eq!(first(&rotation), address(last));
            rotation.connected(now);
            assert_eq!(first(&rotation), address(last));
            rotation.address_failed(0);
        }
        rotation.address_failed(0);
        assert_eq!(first(&rotation), address(3));
        rotation.arrange(0, &mut []);
    }

    #[test]
    fn without_an_age_an_endpoint_is_never_left() {
        let start = Instant::now();
        let mut rotation = Rotation::new(2, EndpointOrder::Preferred, None);
        rotation.failed(0, start);
        rotation.connected(start);
        assert_eq!(rotation.leave_at(), None);
        assert_eq!(rotation.order(start + MAX_AGE * 100), [1, 0]);
    }

    #[test]
    fn spread_exporters_begin_anywhere_and_each_returns_to_its_own_first() {
        let start = Instant::now();
        let orders: HashSet<_> = (0..200)
            .map(|_| {
                let mut rotation = Rotation::new(3, EndpointOrder::Spread, Some(MAX_AGE));
                let own = rotation.order(start);
                rotation.failed(own[0], start);
                rotation.connected(start);
                assert_eq!(rotation.order(start), [own[1], own[2], own[0]]);
                assert_eq!(rotation.order(start + MAX_AGE), own);
                own
            })
            .collect();
        assert_eq!(orders.len(), 6, "every order there is");
    }

    /// Whatever the order in which the resolver gives them.
    #[test]
    fn spread_addresses_keep_their_order_until_the_endpoint_is_left() {
        let start = Instant::now();
        let all: Vec<_> = (0..5).map(|last| SocketAddr::from(([10, 0, 0, last], 4242))).collect();
        let mut rotation = Rotation::new(1, EndpointOrder::Spread, Some(MAX_AGE));
        let arranged = |rotation: &Rotation| {
            let mut addresses = all.clone();
            fastrand::shuffle(&mut addresses);
            rotation.arrange(0, &mut addresses);
            addresses
        };
        let mut firsts = HashSet::new();
        for _ in 0..100 {
            let own = arranged(&rotation);
            rotation.connected(start);
            assert_eq!(arranged(&rotation), own);
            rotation.address_failed(0);
            assert_eq!(arranged(&rotation)[..4], own[1..]);
            rotation.connected(start);
            rotation.order(start + MAX_AGE);
            firsts.insert(arranged(&rotation)[0]);
        }
        assert_eq!(firsts.len(), 5, "each of them is somebody's first");
    }
}
