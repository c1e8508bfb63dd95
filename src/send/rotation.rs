//! Which endpoint and which address comes next.
//!
//! Endpoints are in order of preference. A failed connection moves on to the next one; an attempt
//! that reached none begins again with the first. An endpoint is left when it has been in use for
//! 30 to 60 minutes: the next attempt begins with the first one then. The time is drawn at random,
//! so that the clients of a server that was away do not all return to it at one moment.
//!
//! The addresses of one name are equals: an attempt begins with the one that worked last, and one
//! that failed comes last.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Instant;

/// The longest time for which an endpoint is used; the shortest is half of it.
const MAX_AGE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Rotation {
    /// The endpoint with which the next attempt begins.
    current: usize,
    /// When to leave it; `None` while it is not in use.
    leave_at: Option<Instant>,
    /// How many addresses of each endpoint have failed.
    failures: Vec<usize>,
}

impl Rotation {
    pub(super) fn new(endpoints: usize) -> Self {
        Rotation { current: 0, leave_at: None, failures: vec![0; endpoints] }
    }

    /// The endpoints in the order in which to try them now.
    pub(super) fn order(&mut self, now: Instant) -> impl Iterator<Item = usize> + use<> {
        if self.leave_at.is_some_and(|at| now >= at) {
            self.restart();
        }
        let (first, count) = (self.current, self.failures.len());
        (0..count).map(move |i| (first + i) % count)
    }

    /// When to leave the endpoint that is in use.
    pub(super) fn leave_at(&self) -> Option<Instant> {
        self.leave_at
    }

    /// Puts the addresses of an endpoint in the order in which to try them.
    pub(super) fn arrange(&self, endpoint: usize, addresses: &mut [SocketAddr]) {
        let failures = self.failures.get(endpoint).copied().unwrap_or_default();
        if let Some(start) = failures.checked_rem(addresses.len()) {
            addresses.rotate_left(start);
        }
    }

    /// There is a connection to this endpoint.
    pub(super) fn connected(&mut self, endpoint: usize, now: Instant) {
        if endpoint != self.current || self.leave_at.is_none() {
            let age = MAX_AGE.mul_f64(1.0 - fastrand::f64() / 2.0);
            self.leave_at = Some(now + age);
        }
        self.current = endpoint;
    }

    /// No endpoint could be reached.
    pub(super) fn restart(&mut self) {
        self.current = 0;
        self.leave_at = None;
    }

    /// An address of this endpoint takes no connection.
    pub(super) fn address_failed(&mut self, endpoint: usize) {
        if let Some(failures) = self.failures.get_mut(endpoint) {
            *failures = failures.wrapping_add(1);
        }
    }

    /// The connection to this endpoint failed.
    pub(super) fn failed(&mut self, endpoint: usize) {
        self.address_failed(endpoint);
        self.current = (endpoint + 1) % self.failures.len().max(1);
        self.leave_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rotation: &mut Rotation, now: Instant) -> Vec<usize> {
        rotation.order(now).collect()
    }

    #[test]
    fn a_failed_connection_moves_on_to_the_next_endpoint() {
        let now = Instant::now();
        let mut rotation = Rotation::new(3);
        for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
            assert_eq!(order(&mut rotation, now), expected);
            rotation.connected(expected[0], now);
            rotation.failed(expected[0]);
        }
    }

    #[test]
    fn an_attempt_that_reached_nobody_begins_with_the_first_again() {
        let now = Instant::now();
        let mut rotation = Rotation::new(2);
        rotation.failed(0);
        assert_eq!(order(&mut rotation, now), [1, 0]);
        rotation.restart();
        assert_eq!(order(&mut rotation, now), [0, 1]);
    }

    /// Each burst may have a connection of its own; it is the endpoint's time that counts.
    #[test]
    fn an_endpoint_is_left_for_the_first_after_half_an_hour_to_an_hour() {
        let start = Instant::now();
        let ages = (0..100).map(|_| {
            let mut rotation = Rotation::new(3);
            rotation.connected(1, start);
            let leave_at = rotation.leave_at().unwrap();
            rotation.connected(1, start + Duration::from_secs(100));
            assert_eq!(rotation.leave_at(), Some(leave_at));
            assert_eq!(order(&mut rotation, leave_at - Duration::from_secs(1)), [1, 2, 0]);
            assert_eq!(order(&mut rotation, leave_at), [0, 1, 2]);
            // It takes no connection, so the next one is in use, for as long again.
            rotation.connected(1, leave_at);
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
        let mut rotation = Rotation::new(1);
        let first = |rotation: &Rotation| {
            let mut addresses = [address(1), address(2), address(3)];
            rotation.arrange(0, &mut addresses);
            addresses[0]
        };
        for last in [1, 2, 3, 1] {
            assert_eq!(first(&rotation), address(last));
            rotation.connected(0, now);
            assert_eq!(first(&rotation), address(last));
            rotation.failed(0);
        }
        rotation.address_failed(0);
        assert_eq!(first(&rotation), address(3));
        rotation.arrange(0, &mut []);
    }
}
