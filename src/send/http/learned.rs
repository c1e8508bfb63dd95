//! What is known of an endpoint beyond its present connection.

use std::time::Duration;

use crate::clock::Instant;
use crate::send::limiter::Brake;

/// How long it is remembered that a body was too large.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A body of at most this is not taken for too large when the server does not answer.
const MIN_SUSPECT_BYTES: usize = 1024;
/// How many answers of 500 in a row put the blame on the points.
const MAX_FAILURES: u32 = 4;

/// What a server makes of compressed bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gzip {
    #[default]
    Unknown,
    Takes,
    /// It refused one, of which so many points are still to be sent as plain text.
    TryingPlain(usize),
    /// It refused that too, so the points are at fault, and gzip perhaps as well.
    PlainRefusedToo,
    Refuses,
}

/// What bodies may have.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: usize,
    since: Instant,
    /// The body that was not taken; 0 once that is known to be for its size. A 413 may have another
    /// cause too, so the limit grows up to this size, until it is taken or refused again.
    suspect: usize,
    /// The largest body that was taken since, of those that filled half of what they may have.
    taken: usize,
}

impl Limit {
    /// Whether a body is about as large as the suspected one, or larger.
    fn is_tried_by(&self, bytes: usize) -> bool {
        bytes >= self.suspect - self.suspect / 8
    }
}

#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Since a body was too large, or may have been.
    limit: Option<Limit>,
    /// How many points a request may hold: fewer while a bad one is looked for.
    pub(super) max_points: usize,
    /// How many answers of 500 there were in a row.
    failing: u32,
    gzip: Gzip,
    /// How far its complaints slow down the sending.
    pub(super) brake: Brake,
}

impl Learned {
    pub(super) fn new() -> Self {
        Learned { max_points: usize::MAX, ..Learned::default() }
    }

    /// The most bytes of a body, where `limit` is configured.
    pub(super) fn max_bytes(&self, limit: usize, now: Instant) -> usize {
        self.recent(now).map_or(limit, |it| it.bytes.min(limit))
    }

    fn recent(&self, now: Instant) -> Option<Limit> {
        self.limit.filter(|it| now.saturating_duration_since(it.since) < REMEMBERED)
    }

    /// A body of so many bytes was too large, or may have been.
    pub(super) fn too_large(&mut self, bytes: usize, now: Instant) {
        let half = Limit { bytes: (bytes / 2).max(1), since: now, suspect: bytes, taken: 0 };
        self.limit = Some(match self.recent(now).filter(|it| it.suspect > 0) {
            // Twice, and a smaller one was taken in between: it is the size.
            Some(it) if (1..bytes).contains(&it.taken) && it.is_tried_by(bytes) => {
                Limit { bytes: it.taken, suspect: 0, ..half }
            }
            Some(it) if (1..bytes).contains(&it.taken) => Limit { bytes: it.taken, ..half },
            Some(it) => Limit { suspect: it.suspect.max(bytes), ..half },
            None => half,
        });
    }

    /// The server has left a body of so many bytes unanswered: it has closed a new connection, as
    /// one does that is sent more than it reads, and one that ends; or it is slower than we wait.
    pub(super) fn unanswered(&mut self, bytes: usize, now: Instant) {
        if bytes > MIN_SUSPECT_BYTES {
            self.too_large(bytes, now);
        }
    }

    /// A body of so many bytes was taken.
    pub(super) fn fitted(&mut self, bytes: usize) {
        let Some(limit) = self.limit.as_mut().filter(|it| it.suspect > 0) else { return };
        if limit.is_tried_by(bytes) {
            self.limit = None;
        } else if bytes >= limit.bytes / 2 {
            limit.taken = limit.taken.max(bytes);
            limit.bytes = (2 * limit.bytes).min(limit.suspect);
        }
    }

    /// A request of so many points was taken.
    pub(super) fn taken(&mut self, points: usize, is_gzip: bool) {
        self.failing = 0;
        self.gzip = match self.gzip {
            _ if is_gzip => Gzip::Takes,
            // The bad point may be among those that did not fit.
            Gzip::TryingPlain(left) if points < left => Gzip::TryingPlain(left - points),
            Gzip::TryingPlain(_) => Gzip::Refuses,
            Gzip::PlainRefusedToo => Gzip::Unknown,
            other => other,
        };
        if points >= self.max_points {
            self.max_points = self.max_points.saturating_mul(2);
        }
    }

    /// A request of so many points was refused as a whole; returns whether a part of it, or the
    /// same without gzip, may be taken.
    pub(super) fn refused(&mut self, points: usize, is_gzip: bool) -> bool {
        match self.gzip {
            Gzip::Unknown if is_gzip => {
                self.gzip = Gzip::TryingPlain(points);
                return true;
            }
            Gzip::TryingPlain(_) => self.gzip = Gzip::PlainRefusedToo,
            _ => {}
        }
        self.max_points = (points / 2).max(1);
        points > 1
    }

    /// The server has said that it takes no gzip.
    pub(super) fn refuses_gzip(&mut self) {
        self.gzip = Gzip::Refuses;
    }

    /// The answer was 500; returns whether to take that for a refusal.
    pub(super) fn failing(&mut self) -> bool {
        self.failing = self.failing.saturating_add(1);
        self.failing >= MAX_FAILURES
    }

    pub(super) fn may_gzip(&self) -> bool {
        matches!(self.gzip, Gzip::Unknown | Gzip::Takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_point_is_found_by_halving_and_the_rest_goes_on_as_before() {
        let (mut learned, bad, all) = (Learned::new(), 333, 1000);
        let (mut at, mut requests, mut rejected) = (0, 0, Vec::new());
        while at < all {
            let points = learned.max_points.min(all - at);
            requests += 1;
            if !(at..at + points).contains(&bad) {
                learned.taken(points, false);
                at += points;
            } else if !learned.refused(points, false) {
                rejected.push(at);
                at += 1;
            }
        }
        assert_eq!(rejected, [bad]);
        assert!(requests < 40, "{requests}");
        assert!(learned.max_points > 100, "{}", learned.max_points);
    }

    #[test]
    fn a_server_that_refuses_its_first_body_in_gzip_gets_plain_text() {
        let mut learned = Learned::new();
        assert!(learned.may_gzip() && learned.refused(100, true));
        assert!(!learned.may_gzip());
        assert_eq!(learned.max_points, usize::MAX);
        learned.taken(100, false);
        assert_eq!(learned.gzip, Gzip::Refuses);
        // Had it refused that too, gzip would be tried again.
        let mut learned = Learned::new();
        assert!(learned.refused(100, true) && learned.refused(100, false));
        assert_eq!((learned.max_points, learned.may_gzip()), (50, false));
        learned.taken(50, false);
        assert!(learned.may_gzip());
        // So it would be had it refused some of its points.
        let mut learned = Learned::new();
        assert!(learned.refused(100, true));
        learned.taken(40, false);
        assert!(!learned.may_gzip() && learned.refused(60, false));
        learned.taken(30, false);
        assert!(learned.may_gzip());
        let mut learned = Learned::new();
        learned.taken(100, true);
        assert!(learned.refused(100, true) && learned.may_gzip());
        assert_eq!(learned.max_points, 50);
    }

    #[test]
    fn a_size_that_was_too_large_is_halved_for_ten_minutes() {
        let (mut learned, start) = (Learned::new(), Instant::now());
        assert_eq!(learned.max_bytes(8000, start), 8000);
        learned.unanswered(1024, start);
        assert_eq!(learned.max_bytes(8000, start), 8000);
        learned.unanswered(8000, start);
        assert_eq!(learned.max_bytes(8000, start), 4000);
        learned.too_large(1000, start);
        assert_eq!(learned.max_bytes(8000, start + REMEMBERED / 2), 500);
        assert_eq!(learned.max_bytes(8000, start + REMEMBERED), 8000);
    }

    #[test]
    fn a_size_is_no_limit_once_such_a_body_is_taken() {
        let (mut learned, start) = (Learned::new(), Instant::now());
        learned.unanswered(8000, start);
        learned.too_large(4000, start);
        learned.unanswered(2000, start);
        let mut sizes = Vec::new();
        for _ in 0..5 {
            sizes.push(learned.max_bytes(8000, start));
            learned.fitted(*sizes.last().unwrap());
        }
        assert_eq!(sizes, [1000, 2000, 4000, 8000, 8000]);
        // One that shows nothing of the size changes nothing.
        learned.unanswered(8000, start);
        learned.fitted(100);
        assert_eq!(learned.max_bytes(8000, start), 4000);
        // It was the size after all.
        learned.fitted(3900);
        learned.unanswered(7900, start);
        learned.fitted(3900);
        assert_eq!(learned.max_bytes(8000, start), 3900);
    }

    /// Whatever the sizes of the bodies are that there are to send.
    #[test]
    fn a_limit_of_size_is_met_a_few_times_in_ten_minutes() {
        const LIMIT: usize = 3000;
        for all in (3001..30_000).step_by(61) {
            let (mut learned, now) = (Learned::new(), Instant::now());
            let mut refused = 0;
            for _ in 0..100 {
                let mut left = all;
                while left > 0 {
                    let body = left.min(learned.max_bytes(8000, now));
                    if body > LIMIT {
                        refused += 1;
                        learned.too_large(body, now);
                    } else {
                        learned.fitted(body);
                        left -= body;
                    }
                }
            }
            assert!(refused <= 5, "{refused} of {all}");
        }
    }

    #[test]
    fn a_refusal_on_the_way_back_from_others_is_no_limit() {
        let (mut learned, start) = (Learned::new(), Instant::now());
        for bytes in [8000, 4000, 2000, 1000] {
            learned.too_large(bytes, start);
        }
        learned.fitted(500);
        learned.too_large(1000, start);
        assert_eq!(learned.max_bytes(8000, start), 500);
        learned.fitted(500);
        learned.fitted(1000);
        assert_eq!(learned.max_bytes(8000, start), 8000);
        // What is refused though more was taken is not sent again as it was.
        learned.too_large(8000, start);
        learned.fitted(3900);
        learned.too_large(3000, start);
        assert_eq!(learned.max_bytes(8000, start), 1500);
    }

    #[test]
    fn a_500_that_stays_is_a_refusal() {
        let mut learned = Learned::new();
        let answers: Vec<_> = (0..5).map(|_| learned.failing()).collect();
        assert_eq!(answers, [false, false, false, true, true]);
        learned.taken(1, false);
        assert!(!learned.failing());
    }
}
