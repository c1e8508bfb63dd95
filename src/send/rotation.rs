//! Which endpoint and which address comes next.
//!
//! Endpoints are in order of preference. A failed connection moves on to the next one, an attempt that reached nobody begins again
//! with the first. Once another than the first has been in use for [`RETURN_AFTER`] and nothing is on its way, the first is tried
//! again; if that fails, the one before takes over at once, without a wait.
//!
//! The addresses of one name are equals: the one that worked last comes first, and one that failed comes last.

use crate::clock::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// How long another endpoint is used before the first is tried again.
const RETURN_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Rotation {
    /// With which endpoint the next attempt begins.
    preferred: usize,
    /// Since when `preferred` is in use; `None` while it is the first or nothing is.
    since: Option<Instant>,
    /// While the first is tried again: the endpoint that was in use before.
    trial: Option<usize>,
    /// What is known of the addresses of each endpoint.
    addresses: Vec<Known>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// The one that was connected last, unless that failed.
    good: Option<SocketAddr>,
    /// How many connections to this endpoint failed.
    failed: usize,
}

impl Rotation {
    pub(super) fn new(endpoints: usize) -> Self {
        Rotation {
            preferred: 0,
            since: None,
            trial: None,
            addresses: vec![Known::default(); endpoints],
        }
    }

    /// The endpoints in the order in which to try them now.
    pub(super) fn order(&mut self, now: Instant) -> impl Iterator<Item = usize> + use<> {
        let count = self.addresses.len();
        let first = if self.return_at().is_some_and(|at| now >= at) {
            self.trial = Some(self.preferred);
            self.since = None;
            0
        } else {
            self.preferred
        };
        (0..count).map(move |i| (first + i) % count)
    }

    /// When to try the first endpoint again.
    pub(super) fn return_at(&self) -> Option<Instant> {
        self.since.map(|since| since + RETURN_AFTER)
    }

    /// Puts the addresses of an endpoint in the order in which to try them.
    pub(super) fn arrange(&self, endpoint: usize, addresses: &mut [SocketAddr]) {
        let Some(known) = self.addresses.get(endpoint) else { return };
        if addresses.is_empty() {
            return;
        }
        let start = known.failed % addresses.len();
        addresses.rotate_left(start);
        if let Some(at) = addresses.iter().position(|address| Some(*address) == known.good) {
            addresses[..=at].rotate_right(1);
        }
    }

    /// There is a connection to this address.
    pub(super) fn connected(&mut self, endpoint: usize, address: SocketAddr, now: Instant) {
        if endpoint != 0 {
            self.trial = None;
            if endpoint != self.preferred || self.since.is_none() {
                self.since = Some(now);
            }
        } else {
            self.since = None;
        }
        self.preferred = endpoint;
        if let Some(known) = self.addresses.get_mut(endpoint) {
            known.good = Some(address);
        }
    }

    /// The server has confirmed something.
    pub(super) fn confirmed(&mut self) {
        self.trial = None;
    }

    /// No endpoint could be reached.
    pub(super) fn unreachable(&mut self) {
        self.preferred = 0;
        self.since = None;
        self.trial = None;
    }

    /// The connection to `endpoint` failed. Answers whether the one before takes over at once.
    pub(super) fn failed(&mut self, endpoint: usize) -> bool {
        if let Some(known) = self.addresses.get_mut(endpoint) {
            known.good = None;
            known.failed = known.failed.wrapping_add(1);
        }
        self.since = None;
        match self.trial.take() {
            Some(before) => {
                self.preferred = before;
                true
            }
            None => {
                self.preferred = (endpoint + 1) % self.addresses.len().max(1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 4242))
    }

    fn order(rotation: &mut Rotation, now: Instant) -> Vec<usize> {
        rotation.order(now).collect()
    }

    #[test]
    fn a_failed_connection_moves_on_to_the_next_endpoint() {
        let now = Instant::now();
        let mut rotation = Rotation::new(3);
        for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
            assert_eq!(order(&mut rotation, now), expected);
            rotation.connected(expected[0], address(1), now);
            assert!(!rotation.failed(expected[0]));
        }
    }

    #[test]
    fn an_attempt_that_reached_nobody_begins_with_the_first_again() {
        let now = Instant::now();
        let mut rotation = Rotation::new(2);
        rotation.failed(0);
        assert_eq!(order(&mut rotation, now), [1, 0]);
        rotation.unreachable();
        assert_eq!(order(&mut rotation, now), [0, 1]);
    }

    #[test]
    fn after_five_minutes_the_first_is_tried_and_its_failure_costs_no_wait() {
        let start = Instant::now();
        let later = start + RETURN_AFTER;
        let mut rotation = Rotation::new(3);
        rotation.connected(1, address(1), start);
        rotation.connected(1, address(1), start + Duration::from_secs(100));
        assert_eq!(order(&mut rotation, later - Duration::from_secs(1)), [1, 2, 0]);
        assert_eq!(rotation.return_at(), Some(later));
        assert_eq!(order(&mut rotation, later), [0, 1, 2]);
        rotation.connected(0, address(0), later);
        assert!(rotation.failed(0), "the one before takes over at once");
        assert_eq!(order(&mut rotation, later), [1, 2, 0]);
        rotation.connected(1, address(1), later);
        assert_eq!(rotation.return_at(), Some(later + RETURN_AFTER));
    }

    #[test]
    fn once_the_first_has_confirmed_it_is_in_use_like_any_other() {
        let start = Instant::now();
        let mut rotation = Rotation::new(2);
        rotation.connected(1, address(1), start);
        let later = start + RETURN_AFTER;
        assert_eq!(order(&mut rotation, later), [0, 1]);
        rotation.connected(0, address(0), later);
        rotation.confirmed();
        assert_eq!(rotation.return_at(), None);
        assert!(!rotation.failed(0));
    }

    #[test]
    fn a_trial_that_finds_the_first_absent_stays_with_the_other() {
        let start = Instant::now();
        let mut rotation = Rotation::new(2);
        rotation.connected(1, address(1), start);
        let later = start + RETURN_AFTER;
        assert_eq!(order(&mut rotation, later), [0, 1]);
        rotation.connected(1, address(1), later);
        assert_eq!(rotation.return_at(), Some(later + RETURN_AFTER));
        assert!(!rotation.failed(1));
    }

    #[test]
    fn every_address_of_a_name_has_its_turn_and_a_good_one_comes_first() {
        let now = Instant::now();
        let mut rotation = Rotation::new(1);
        let arranged = |rotation: &Rotation| {
            let mut addresses = [address(1), address(2), address(3)];
            rotation.arrange(0, &mut addresses);
            addresses
        };
        for first in [1, 2, 3, 1] {
            assert_eq!(arranged(&rotation)[0], address(first));
            rotation.connected(0, arranged(&rotation)[0], now);
            rotation.failed(0);
        }
        rotation.connected(0, address(1), now);
        assert_eq!(arranged(&rotation), [address(1), address(2), address(3)]);
        rotation.arrange(0, &mut []);
    }
}
