//! A streaming replica, for large reads. Whoever reads from it says which state must be seen; when the replica shows
//! another one, or fails, the primary is asked. What a failure of it costs is therefore time, and little of it.

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

/// After a failure nobody asks for so long.
const REST: Duration = Duration::from_secs(5);

/// What came of asking the replica first.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplicaCounters {
    /// It gave what was asked for.
    pub(crate) served: Counter,
    /// It showed another state.
    pub(crate) behind: Counter,
    /// It failed.
    pub(crate) failures: Counter,
}

/// A database that follows another one.
#[derive(Debug)]
pub(crate) struct Replica {
    database: Database,
    rests_until: Mutex<Option<Instant>>,
    /// What came of asking it first.
    pub(crate) counters: ReplicaCounters,
}

impl Replica {
    /// A handle; connects when it is first used.
    pub(crate) fn new(settings: &DatabaseSettings) -> Self {
        Self { database: Database::new(settings), rests_until: Mutex::default(), counters: ReplicaCounters::default() }
    }

    /// The replica, unless it failed a moment ago.
    pub(crate) fn database(&self) -> Option<&Database> {
        let rests_until = *lock(&self.rests_until);
        rests_until.is_none_or(|end| Instant::now() >= end).then_some(&self.database)
    }

    /// It failed: it is left alone for a while.
    pub(crate) fn failed(&self, failure: &DbError) {
        self.counters.failures.inc();
        // plans that went stale with a change of the schema are made anew
        self.database.may_pass(failure);
        tracing::warn!(%failure, "the replica failed; the primary is asked instead");
        *lock(&self.rests_until) = Some(Instant::now() + REST);
    }

    /// Closes its pool.
    pub(crate) fn close(&self) {
        self.database.close();
    }
}
