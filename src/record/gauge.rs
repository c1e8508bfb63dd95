//! The gauge's cell: one number, the last write wins.
//!
//! A number that is not finite cannot be sent, and nothing can be added to it. So `set` takes it,
//! and the gauge has no value until the next `set`; an `increment` or `decrement` that starts from
//! such a number, or would lead to one, changes nothing.

use std::sync::Arc;

use metrics::GaugeFn;

use super::locals::{Shared, Touched};
use super::series::{Kind, Series};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Gauges, as a [`Kind`].
pub(crate) struct Gauge;

impl Kind for Gauge {
    type Cell = Arc<GaugeCell>;
    type Local = Shared<GaugeCell>;

    fn local(series: &Arc<Series<Self>>, _owner: u64) -> Shared<GaugeCell> {
        Shared { cell: Arc::clone(&series.cell) }
    }
}

/// Relaxed throughout: the number stands alone.
#[derive(Debug, Default)]
pub(crate) struct GaugeCell {
    bits: AtomicU64,
    pub(crate) touched: Touched,
}

impl GaugeCell {
    pub(crate) fn value(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }

    fn add(&self, value: f64) {
        let sum = |bits| {
            Some((f64::from_bits(bits) + value).to_bits())
                .filter(|&bits| f64::from_bits(bits).is_finite())
        };
        let _ = self.bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
        self.touched.touch();
    }
}

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Ordering::Relaxed);
        self.touched.touch();
    }
}

macro_rules! pass_on {
    ($handle:ty) => {
        impl GaugeFn for $handle {
            fn increment(&self, value: f64) {
                self.cell.increment(value);
            }

            fn decrement(&self, value: f64) {
                self.cell.decrement(value);
            }

            fn set(&self, value: f64) {
                self.cell.set(value);
            }
        }
    };
}

pass_on!(Shared<GaugeCell>);
// Without a cache.
pass_on!(Series<Gauge>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_finite_stays_until_the_next_set() {
        let gauge = GaugeCell::default();
        gauge.set(f64::NAN);
        gauge.increment(1.0);
        assert!(gauge.value().is_nan());
        gauge.set(2.0);
        gauge.increment(f64::INFINITY);
        gauge.decrement(f64::NAN);
        assert_eq!(gauge.value(), 2.0);
    }

    #[test]
    fn a_gauge_does_not_leave_the_range_of_numbers() {
        let gauge = GaugeCell::default();
        gauge.set(f64::MAX);
        gauge.increment(f64::MAX);
        assert_eq!(gauge.value(), f64::MAX);
        gauge.set(-0.0);
        assert!(gauge.value().is_sign_negative());
    }
}
