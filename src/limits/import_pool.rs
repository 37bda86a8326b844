//! The memory that all imports of a process share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The size of the pool in bytes. An ordinary import takes a few of them.
pub const IMPORT_POOL_BYTES: usize = 80 << 20;

/// A pool of [`IMPORT_POOL_BYTES`].
#[derive(Debug)]
pub struct ImportPool {
    remaining: AtomicUsize,
}

impl ImportPool {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { remaining: AtomicUsize::new(IMPORT_POOL_BYTES) })
    }

    /// Takes bytes from the pool. Returns `false`, and takes nothing, if fewer remain.
    pub fn take(&self, bytes: usize) -> bool {
        self.remaining.fetch_update(Relaxed, Relaxed, |remaining| remaining.checked_sub(bytes)).is_ok()
    }

    /// Puts bytes back that were taken.
    pub fn put_back(&self, bytes: usize) {
        self.remaining.fetch_add(bytes, Relaxed);
    }
}
