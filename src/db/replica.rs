//! A streaming replica, for large reads. Whoever reads from it says which state must be seen; when the replica shows
//! another one, or fails, the primary is asked. What a failure of it costs is therefore time, and little of it.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;

use super::{Database, DatabaseSettings, Failure, lock};

/// After a failure nobody asks for so long.
const REST: Duration = Duration::from_secs(5);

/// What came of asking the replica first.
#[derive(Debug, Clone, Default)]
pub struct ReplicaCounters {
    /// It gave what was asked for.
    pub served: Counter,
    /// It showed another state.
    pub behind: Counter,
    /// It failed.
    pub failures: Counter,
}

/// A database that follows another one.
#[derive(Debug)]
pub struct Replica {
    database: Database,
    rests_until: Mutex<Option<Instant>>,
    /// What came of asking it first.
    pub counters: ReplicaCounters,
}

impl Replica {
    /// A handle; connects when it is first used.
    pub fn new(settings: &DatabaseSettings) -> Self {
        Self { database: Database::new(settings), rests_until: Mutex::default(), counters: ReplicaCounters::default() }
    }

    /// The replica, unless it failed a moment ago.
    pub fn database(&self) -> Option<&Database> {
        let rests_until = *lock(&self.rests_until);
        rests_until.is_none_or(|end| Instant::now() >= end).then_some(&self.database)
    }

    /// It failed: it is left alone for a while.
    pub fn failed(&self, failure: &Failure) {
        self.counters.failures.inc();
        // plans that went stale with a change of the schema are made anew
        self.database.may_pass(failure);
        tracing::warn!(%failure, "the replica failed; the primary is asked instead");
        *lock(&self.rests_until) = Some(Instant::now() + REST);
    }

    /// Closes its pool.
    pub fn close(&self) {
        self.database.close();
    }
}
