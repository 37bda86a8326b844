//! The memory of lists that are being loaded, compressed, or exchanged with Redis.
//!
//! Large lists share one permit, because many of them at the same time could take any amount of memory. A complete list,
//! which all users share, waits for at most one list with parameters.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::entry::List;
use crate::error::{Error, Result};

/// Lists up to this size need no permit. Each is loaded on a connection of the database pool, and takes up to twice
/// as much while it grows.
pub(crate) const UNCOUNTED_FILL_BYTES: usize = 256 << 10;
/// How long a list waits for the permit: less than `STATEMENT_TIMEOUT`, because its statement waits too.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// A page of a list may have this size although `CACHE_ENTRY_BYTES` is less, and a value in Redis too.
pub(super) const MIN_LIMIT: usize = 8 << 20;

/// Returns the bytes of a list of the maximum size while it is loaded or compressed: a growing buffer is copied, and a
/// list has an uncompressed and a compressed form.
pub(crate) fn fill_memory_bytes(entry_limit: u64) -> u64 {
    entry_limit.max(MIN_LIMIT as u64).saturating_mul(2)
}

/// The permit of large lists.
#[derive(Debug)]
pub(crate) struct FillBudget {
    entry_limit: usize,
    /// The maximum memory of a chunked list without its JSON.
    chunked_limit: usize,
    permit: Arc<Semaphore>,
    /// A list with parameters acquires this permit before it waits for the other one.
    filtered_permit: Arc<Semaphore>,
}

/// What one list may take.
#[derive(Debug, Clone)]
pub(crate) struct FillLimit {
    budget: Arc<FillBudget>,
    is_complete: bool,
}

/// The permit of a large list.
#[derive(Debug)]
pub(crate) struct FillPermit {
    _permit: OwnedSemaphorePermit,
    _of_filtered: Option<OwnedSemaphorePermit>,
}

impl FillBudget {
    /// Returns a budget for lists of at most `entry_limit` bytes, in a cache that holds `capacity` bytes of them.
    pub(crate) fn new(entry_limit: usize, capacity: usize) -> Arc<Self> {
        let one = || Arc::new(Semaphore::new(1));
        // a chunked list beyond `entry_limit` has no JSON, so its compressed form takes the memory of both
        let loading = usize::try_from(fill_memory_bytes(entry_limit as u64)).unwrap_or(usize::MAX);
        let chunked_limit = loading.min(capacity.max(entry_limit));
        Arc::new(Self { entry_limit, chunked_limit, permit: one(), filtered_permit: one() })
    }

    pub(crate) fn limit_of(self: &Arc<Self>, list: &List) -> FillLimit {
        FillLimit { budget: Arc::clone(self), is_complete: list.is_complete() }
    }
}

impl FillLimit {
    /// Returns the maximum size of the list's JSON in bytes.
    pub(crate) fn max_bytes(&self) -> usize {
        self.budget.entry_limit
    }

    /// Returns the maximum memory of a chunked list in bytes, besides its JSON of at most
    /// [`max_bytes`](Self::max_bytes).
    pub(crate) fn max_chunked_bytes(&self) -> usize {
        self.budget.chunked_limit
    }

    /// Returns the maximum size of a page in bytes.
    pub(crate) fn max_page_bytes(&self) -> usize {
        self.budget.entry_limit.max(MIN_LIMIT)
    }

    /// Acquires the permit for a list of this size; a small one needs none. Fails with a 503 after [`PERMIT_TIMEOUT`].
    pub(crate) async fn acquire(&self, bytes: usize) -> Result<Option<FillPermit>> {
        if bytes <= UNCOUNTED_FILL_BYTES {
            return Ok(None);
        }
        let FillBudget { permit, filtered_permit, .. } = &*self.budget;
        let acquire = async {
            let of_filtered =
                if self.is_complete { None } else { Some(Arc::clone(filtered_permit).acquire_owned().await?) };
            Ok::<_, tokio::sync::AcquireError>(FillPermit {
                _permit: Arc::clone(permit).acquire_owned().await?,
                _of_filtered: of_filtered,
            })
        };
        let acquired = timeout(PERMIT_TIMEOUT, acquire).await;
        let acquired = acquired.map_err(|_| Error::unavailable("too many large lists are being loaded"))?;
        acquired.map(Some).map_err(Error::internal)
    }

    /// Returns an empty buffer for a list of at most `max_bytes`.
    pub(crate) fn buffer(self, max_bytes: usize) -> ListBuffer {
        ListBuffer { json: Vec::new(), max_bytes, limit: self, permit: None }
    }
}

/// The JSON of a list that is being loaded.
#[derive(Debug)]
pub(crate) struct ListBuffer {
    pub(crate) json: Vec<u8>,
    max_bytes: usize,
    limit: FillLimit,
    permit: Option<FillPermit>,
}

impl ListBuffer {
    /// Returns whether the JSON is within the limit, and acquires the permit once it is large. To be called after each
    /// row.
    pub(crate) async fn fits(&mut self) -> Result<bool> {
        if self.permit.is_none() {
            self.permit = self.limit.acquire(self.json.len()).await?;
        }
        Ok(self.json.len() <= self.max_bytes)
    }

    /// Returns the permit of a large list, and drops the JSON.
    pub(crate) fn into_permit(self) -> Option<FillPermit> {
        self.permit
    }

    /// Returns the JSON, and the permit, which the caller holds until it has stored the list.
    pub(crate) fn finish(self) -> (Bytes, Option<FillPermit>) {
        // a copy of a small list has no unused capacity, which the cache would keep without counting it
        let bytes = if self.permit.is_none() { Bytes::copy_from_slice(&self.json) } else { self.json.into() };
        (bytes, self.permit)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::cache::Collection;

    #[tokio::test]
    async fn large_lists_share_a_permit_and_complete_ones_wait_for_one_other() {
        let budget = FillBudget::new(1 << 20, 1 << 20);
        let complete = budget.limit_of(&List::complete(Collection::Products));
        let filtered = budget.limit_of(&List { collection: Collection::Products, query: "search=x".into() });
        let large = UNCOUNTED_FILL_BYTES + 1;
        let first = filtered.acquire(large).await.unwrap();
        assert!(first.is_some());
        assert!(filtered.acquire(UNCOUNTED_FILL_BYTES).await.unwrap().is_none(), "a small list needs no permit");
        let mut second = Box::pin(filtered.acquire(large));
        assert!(second.as_mut().now_or_never().is_none());
        let mut of_complete = Box::pin(complete.acquire(large));
        assert!(of_complete.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none(), "the complete list came later and is next");
        let of_complete = of_complete.await.unwrap();
        drop(of_complete);
        drop(second.await.unwrap());
        let mut buffer = filtered.buffer(1 << 20);
        buffer.json.resize(1 << 20, b' ');
        assert!(buffer.fits().await.unwrap());
        buffer.json.push(b' ');
        assert!(!buffer.fits().await.unwrap());
        assert!(complete.acquire(large).now_or_never().is_none(), "the buffer holds the permit");
        drop(buffer.finish());
        assert!(complete.acquire(large).await.unwrap().is_some());
    }
}
