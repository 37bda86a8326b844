//! A streaming replica for large reads.
//!
//! The caller names the version that it must see. When the replica shows another version or fails, the caller reads from
//! the primary, so the replica affects only latency.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;

use super::{
    error::DbError,
    pool::{Database, DatabaseSettings},
};
use crate::sync::lock;

/// How long the replica is not used after a failure.
const BACKOFF: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub(crate) struct ReplicaCounters {
    /// Reads that the replica served.
    pub(crate) served: Counter,
    /// Reads for which it showed another version.
    pub(crate) lagging: Counter,
    /// Reads that failed.
    pub(crate) failures: Counter,
}

#[derive(Debug)]
pub(crate) struct Replica {
    database: Database,
    retry_at: Mutex<Option<Instant>>,
    pub(crate) counters: ReplicaCounters,
}

impl Replica {
    /// Creates a pool that connects on first use.
    pub(crate) fn new(settings: &DatabaseSettings) -> Self {
        Self { database: Database::new(settings), retry_at: Mutex::default(), counters: ReplicaCounters::default() }
    }

    /// Returns the replica's database unless a read failed less than [`BACKOFF`] ago.
    pub(crate) fn database(&self) -> Option<&Database> {
        let retry_at = *lock(&self.retry_at);
        retry_at.is_none_or(|retry_at| Instant::now() >= retry_at).then_some(&self.database)
    }

    /// Records a failed read and starts the backoff.
    pub(crate) fn mark_failed(&self, error: &DbError) {
        self.counters.failures.inc();
        // drops cached plans when a schema change made them stale
        self.database.should_retry(error);
        tracing::warn!(%error, "replica read failed");
        *lock(&self.retry_at) = Some(Instant::now() + BACKOFF);
    }

    /// Closes the pool.
    pub(crate) fn close(&self) {
        self.database.close();
    }
}
