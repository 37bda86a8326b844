//! Batched version reads.
//!
//! A request may use only a version read that began after the request had arrived. All requests that arrive during a
//! read share the next one, so at most [`READERS`] small queries are in flight at any request rate.
//!
//! With a lease on a read ([`super::lease`]), requests use it without waiting.
//!
//! A read also delivers the revocations of accounts and tokens, so that a revocation takes effect with the next
//! request.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{
    batch::{Batch, Outcome},
    connection::{AccountObserver, VersionConnection},
    lease::{Granted, Hit, Lease, boot_time},
    tickets::TicketRange,
    version::{VersionRead, Versions},
};
use crate::{
    db::{Database, DbError, statements},
    error::{Error, Result},
    sync::lock,
};

/// The number of concurrent queries.
const READERS: usize = 2;
/// How often a reader yields to other tasks before it closes a batch.
const BATCH_YIELDS: usize = 3;
/// A version read that takes longer than these slices, including a reconnection, counts as an unreachable database.
const TIMEOUT_SLICES: u32 = 20;
const TIMEOUT_SLICE: Duration = Duration::from_millis(100);
/// The time of a read on the existing connection; a new connection gets the remaining time.
const EXISTING_CONNECTION_TIMEOUT: Duration = Duration::from_millis(800);
/// The pause of a reader after a failure, so that thousands of attempts per second do not hinder a database that
/// starts.
const BACKOFF: Duration = Duration::from_millis(50);
/// Without requests the versions are read at this interval, so that they are recent when an outage begins.
const IDLE_READ_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub(crate) struct VersionReaderCounters {
    /// Queries sent.
    pub(crate) reads: Counter,
    /// Reads that failed.
    pub(crate) failures: Counter,
    pub(crate) leases_granted: Counter,
    /// Leases that were refused because of a recent write, or because the database has no leases.
    pub(crate) leases_refused: Counter,
    /// Leases that were refused because a writer held a commit lock.
    pub(crate) leases_locked: Counter,
    /// Requests that used the versions of a lease.
    pub(crate) lease_hits: Counter,
    /// Writes before which this instance has surrendered all leases that there were.
    pub(crate) leases_surrendered: Counter,
}

/// Reads the current versions on request.
pub(crate) struct VersionReader {
    database: Database,
    observer: Arc<dyn AccountObserver>,
    stale_if_error: Duration,
    /// `None`: every request waits for a read.
    lease: Option<Lease>,
    /// The batch for the next read.
    next: Mutex<Option<Arc<Batch>>>,
    wake: Notify,
    /// The result of the last successful read and the time when that read began.
    last: Mutex<Option<(Versions, Instant)>>,
    pub(crate) counters: VersionReaderCounters,
}

impl VersionReader {
    /// Starts the reader tasks; they end with the runtime. `lease` is how long a read may be used about; zero: not at
    /// all.
    pub(crate) fn start(
        database: Database,
        observer: Arc<dyn AccountObserver>,
        stale_if_error: Duration,
        lease: Duration,
    ) -> Arc<Self> {
        let reader = Arc::new(Self {
            database,
            observer,
            stale_if_error,
            lease: Some(lease).filter(|lease| !lease.is_zero()).map(Lease::new),
            next: Mutex::new(None),
            wake: Notify::new(),
            last: Mutex::new(None),
            counters: VersionReaderCounters::default(),
        });
        for _ in 0..READERS {
            tokio::spawn(Arc::clone(&reader).reader_task());
        }
        reader
    }

    /// Returns the current versions or, while the database is unreachable, those of at most `STALE_IF_ERROR` ago.
    pub(crate) async fn current(&self) -> Result<VersionRead> {
        if let Some(versions) = self.leased() {
            return Ok(VersionRead::Verified(versions));
        }
        // bounded: each read has a time limit, and at most one read ends before the read of this batch begins
        match (self.current_batch().outcome().await, *lock(&self.last)) {
            (Outcome::Read(versions), _) => Ok(VersionRead::Verified(versions)),
            (Outcome::Unavailable, Some((versions, began))) if began.elapsed() < self.stale_if_error => {
                Ok(VersionRead::Stale(versions))
            }
            _ => Err(Error::unavailable("the versions cannot be read from the database")),
        }
    }

    /// Returns the versions of the lease that is held. Starts its renewal when half of it has passed.
    fn leased(&self) -> Option<Versions> {
        let Hit { versions, is_renewal_due } = self.lease.as_ref()?.hit(boot_time())?;
        self.counters.lease_hits.inc();
        if is_renewal_due {
            self.current_batch();
        }
        Some(versions)
    }

    /// Ends the use of the leases of this instance, before it serves a write. If no other instance has a lease, the write
    /// need not wait.
    pub(crate) async fn surrender_leases(&self) {
        let Some(lease) = &self.lease else { return };
        let Some(TicketRange { first, last, epoch }) = lease.surrender(boot_time()).await else { return };
        match self.database.row(&statements::VERSIONS_SURRENDER_LEASES, &[&first, &last, &epoch]).await {
            Ok(Some(row)) if row.get(0) => {
                self.counters.leases_surrendered.inc();
            }
            Ok(_) => {}
            // the write waits
            Err(error) => debug!(%error, "leases were not surrendered"),
        }
    }

    /// Returns the batch whose read has not begun.
    fn current_batch(&self) -> Arc<Batch> {
        let mut next = lock(&self.next);
        if let Some(batch) = &*next {
            return Arc::clone(batch);
        }
        let batch = Arc::<Batch>::default();
        *next = Some(Arc::clone(&batch));
        drop(next);
        self.wake.notify_one();
        batch
    }

    async fn reader_task(self: Arc<Self>) {
        let mut conn = None;
        let mut is_unavailable = false;
        // connects before the first request
        self.try_read(&mut conn, &mut is_unavailable).await;
        loop {
            if tokio::time::timeout(IDLE_READ_INTERVAL, self.wake.notified()).await.is_err() {
                self.current_batch();
            }
            // requests that have arrived on other sockets join the batch: larger batches, fewer queries
            for _ in 0..BATCH_YIELDS {
                tokio::task::yield_now().await;
            }
            // closes the batch: a request that arrives from now on waits for the next one
            let Some(batch) = lock(&self.next).take() else { continue };
            let outcome = self.try_read(&mut conn, &mut is_unavailable).await;
            batch.finish(outcome);
            if !matches!(outcome, Outcome::Read(_)) {
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }

    /// Runs one read and stores its result. `is_unavailable` is the state of this reader, so that an outage is logged
    /// once.
    async fn try_read(&self, conn: &mut Option<VersionConnection>, is_unavailable: &mut bool) -> Outcome {
        let began = Instant::now();
        match self.read_within_timeout(conn).await {
            Ok(versions) => {
                if std::mem::take(is_unavailable) {
                    info!("version reads recovered");
                }
                *lock(&self.last) = Some((versions, began));
                Outcome::Read(versions)
            }
            Err(error) => {
                *conn = None;
                self.counters.failures.inc();
                if !std::mem::replace(is_unavailable, true) {
                    warn!(%error, "version read failed");
                }
                if error.is_unavailable() { Outcome::Unavailable } else { Outcome::Failed }
            }
        }
    }

    /// Runs one read within [`TIMEOUT_SLICES`] of process time. A process that was stopped and resumed loses one slice,
    /// not all of them, so it retries the read before it reports an outage.
    async fn read_within_timeout(&self, conn: &mut Option<VersionConnection>) -> Result<Versions, DbError> {
        let mut read = std::pin::pin!(self.read(conn));
        for _ in 0..TIMEOUT_SLICES {
            if let Ok(result) = tokio::time::timeout(TIMEOUT_SLICE, read.as_mut()).await {
                return result;
            }
        }
        Err(DbError::timed_out("versions/read", TIMEOUT_SLICE * TIMEOUT_SLICES))
    }

    /// Runs one read; replaces a connection that fails.
    async fn read(&self, conn: &mut Option<VersionConnection>) -> Result<Versions, DbError> {
        if let Some(existing) = conn
            && let Ok(Ok(versions)) = tokio::time::timeout(EXISTING_CONNECTION_TIMEOUT, self.read_on(existing)).await
        {
            return Ok(versions);
        }
        *conn = None;
        let conn = conn.insert(VersionConnection::open(&self.database).await?);
        if let Some(lease) = &self.lease {
            lease.forget_tickets();
        }
        self.read_on(conn).await
    }

    async fn read_on(&self, conn: &mut VersionConnection) -> Result<Versions, DbError> {
        if let Some(lease) = &self.lease
            && let Some(versions) = self.read_leased(conn, lease).await?
        {
            return Ok(versions);
        }
        self.counters.reads.inc();
        conn.read(&*self.observer).await
    }

    /// Reads the versions with a lease on them, if a lease is due. Returns `None` if it is not, or if PostgreSQL rejects
    /// the statement: without leases the reader works as well.
    async fn read_leased(&self, conn: &mut VersionConnection, lease: &Lease) -> Result<Option<Versions>, DbError> {
        // before the statement is sent: a writer waits for the whole duration after the ticket was drawn
        let began = boot_time();
        let Some(_request) = lease.begin_request(began) else { return Ok(None) };
        self.counters.reads.inc();
        match conn.read_leased(&*self.observer, lease.min_age()).await {
            Ok((versions, granted)) => {
                let counter = match granted {
                    Granted::For(..) => &self.counters.leases_granted,
                    Granted::Unleased => &self.counters.leases_refused,
                    Granted::Locked => &self.counters.leases_locked,
                };
                counter.inc();
                lease.finish(versions, began, granted, boot_time());
                Ok(Some(versions))
            }
            Err(error) if error.is_unavailable() => Err(error),
            Err(error) => {
                warn!(%error, "leased version read failed");
                self.counters.leases_refused.inc();
                lease.fail(boot_time());
                Ok(None)
            }
        }
    }
}
