//! The memory budget of one import.
//!
//! A small file can describe any amount of data, so everything that the import keeps is reserved here first: shared
//! strings, the rows between reader and database, and the ids seen so far. What is not reserved has a fixed limit: one
//! CSV row with its fields (`csv`), one XML event and the directory of the package (`xlsx::package`), and the errors
//! of the report. All of it together stays below 128 MiB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::error::import_error;
use crate::error::Result;

/// The bytes that one import may keep.
const BUDGET_BYTES: usize = 80 << 20;

/// The memory budget of one import, which its clones share.
#[derive(Clone)]
pub(crate) struct MemoryBudget {
    remaining: Arc<AtomicUsize>,
}

impl MemoryBudget {
    pub(crate) fn new() -> Self {
        Self { remaining: Arc::new(AtomicUsize::new(BUDGET_BYTES)) }
    }

    /// Returns a reservation of zero bytes. `purpose` is a noun phrase for the message when the budget is exceeded.
    pub(crate) fn reservation(&self, purpose: &'static str) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0, purpose }
    }
}

/// Reserved bytes, which are released when this is dropped.
pub(crate) struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
    purpose: &'static str,
}

impl Reservation {
    /// Reserves further bytes. Fails with a 400 when the import would exceed its budget.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        let remaining = &self.budget.remaining;
        if remaining.fetch_update(Relaxed, Relaxed, |remaining| remaining.checked_sub(bytes)).is_err() {
            let limit = BUDGET_BYTES >> 20;
            return Err(import_error(format!("The {} of the file take more than {limit} MiB of memory", self.purpose)));
        }
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the reserved bytes as a reservation of its own, and leaves one of zero bytes.
    pub(crate) fn take(&mut self) -> Self {
        let empty = self.budget.reservation(self.purpose);
        std::mem::replace(self, empty)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.remaining.fetch_add(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_share_the_budget_and_release_it() {
        let budget = MemoryBudget::new();
        let (mut rows, mut ids) = (budget.reservation("rows"), budget.reservation("ids"));
        rows.grow(BUDGET_BYTES - 10).unwrap();
        assert!(ids.grow(11).is_err());
        ids.grow(10).unwrap();
        let batch = rows.take();
        assert_eq!((rows.bytes(), batch.bytes()), (0, BUDGET_BYTES - 10));
        assert!(rows.grow(1).is_err(), "the batch still holds its bytes");
        drop(batch);
        rows.grow(1).unwrap();
    }
}
