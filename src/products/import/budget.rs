//! The memory of one import.
//!
//! A small file can describe any amount of data, so everything that the import keeps is reserved here first, in a pool
//! that all imports of the process share: shared strings, the rows between reader and database, and the ids seen so far.
//! What is not reserved has a fixed limit: one CSV row with its fields (`csv`), one XML event and the directory of the
//! package (`xlsx::package`), and the errors of the report. All of it together stays below 24 MiB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::error::import_error;
use crate::{
    error::{Error, Result},
    limits::{IMPORT_POOL_BYTES, ImportPool},
};

/// The memory of one import, which its clones share.
#[derive(Clone)]
pub(crate) struct MemoryBudget {
    pool: Arc<ImportPool>,
    /// Bytes that this import has reserved.
    reserved: Arc<AtomicUsize>,
}

impl MemoryBudget {
    /// Returns the budget of an import that has reserved nothing in `pool`.
    pub(crate) fn new(pool: &Arc<ImportPool>) -> Self {
        Self { pool: Arc::clone(pool), reserved: Arc::default() }
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
    /// Reserves further bytes. Fails with a 400 if the import alone exceeds the pool, and with a 503 if it does so only
    /// beside other imports.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        let MemoryBudget { pool, reserved } = &self.budget;
        if !pool.take(bytes) {
            if reserved.load(Relaxed).saturating_add(bytes) <= IMPORT_POOL_BYTES {
                return Err(Error::unavailable("the memory for imports is in use by other imports"));
            }
            let limit = IMPORT_POOL_BYTES >> 20;
            return Err(import_error(format!("The {} of the file take more than {limit} MiB of memory", self.purpose)));
        }
        reserved.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Releases some of the reserved bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.reserved.fetch_sub(bytes, Relaxed);
        self.budget.pool.put_back(bytes);
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
        self.budget.reserved.fetch_sub(self.bytes, Relaxed);
        self.budget.pool.put_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_share_the_budget_and_release_it() {
        let budget = MemoryBudget::new(&ImportPool::new());
        let (mut rows, mut ids) = (budget.reservation("rows"), budget.reservation("ids"));
        rows.grow(IMPORT_POOL_BYTES - 10).unwrap();
        assert!(ids.grow(11).is_err());
        ids.grow(10).unwrap();
        let batch = rows.take();
        assert_eq!((rows.bytes(), batch.bytes()), (0, IMPORT_POOL_BYTES - 10));
        assert!(rows.grow(1).is_err(), "the batch still holds its bytes");
        drop(batch);
        rows.grow(1).unwrap();
        rows.shrink(1);
        ids.shrink(usize::MAX);
        assert_eq!((rows.bytes(), ids.bytes(), budget.reserved.load(Relaxed)), (0, 0, 0));
    }

    #[test]
    fn imports_share_the_pool() {
        let pool = ImportPool::new();
        let (first, second) = (MemoryBudget::new(&pool), MemoryBudget::new(&pool));
        let (mut rows, mut ids) = (first.reservation("rows"), second.reservation("ids"));
        rows.grow(IMPORT_POOL_BYTES / 2).unwrap();
        ids.grow(IMPORT_POOL_BYTES / 2).unwrap();
        assert!(matches!(ids.grow(1), Err(Error::Unavailable(..))), "the other import holds the rest");
        drop(rows);
        ids.grow(1).unwrap();
        let too_large = ids.grow(IMPORT_POOL_BYTES).unwrap_err();
        assert!(
            matches!(too_large, Error::Malformed(message) if message.contains("The ids of the file take more than 80 MiB"))
        );
    }
}
