//! Batches that wait, oldest first.
//!
//! A buffer has room for 64 KiB. So that a thousand small snapshots do not hold a thousand of them,
//! lines join the youngest batch where both fit in one buffer: any two neighbours hold more than
//! that, and a lane takes at most twice the memory of its lines.

use std::collections::VecDeque;

use super::batch::Batch;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// In the order of their numbers, which have gaps where batches of another lane were between.
    batches: VecDeque<Batch>,
    /// Lines in all batches.
    points: usize,
    /// The length of these lines.
    bytes: usize,
}

impl Lane {
    pub(super) fn points(&self) -> usize {
        self.points
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The oldest batch.
    pub(super) fn front(&self) -> Option<&Batch> {
        self.batches.front()
    }

    /// Those with points from this number on.
    #[cfg(feature = "spool")]
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Batch> {
        let start = self.batches.partition_point(|batch| batch.end() <= number);
        self.batches.range(start..)
    }

    /// Adds a batch behind the others: its lines to the youngest of them if they follow that and
    /// fit. Hands it back then.
    pub(super) fn add(&mut self, batch: Batch) -> Option<Batch> {
        self.points += batch.points();
        self.bytes += batch.lines().len();
        match self.batches.back_mut() {
            Some(youngest) if youngest.has_room_for(&batch) => {
                youngest.join(&batch);
                Some(batch)
            }
            _ => {
                self.batches.push_back(batch);
                None
            }
        }
    }

    /// Takes the oldest batch.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.points -= batch.points();
        self.bytes -= batch.lines().len();
        Some(batch)
    }

    /// Drops the oldest lines of the oldest batch, see [`Batch::drop_oldest`].
    pub(super) fn drop_of_front(&mut self, points: usize, bytes: usize) {
        let Some(batch) = self.batches.front_mut() else { return };
        self.points -= batch.points();
        self.bytes -= batch.lines().len();
        batch.drop_oldest(points, bytes);
        self.points += batch.points();
        self.bytes += batch.lines().len();
    }
}
