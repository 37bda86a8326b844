//! Version reads, batched: a request may use only a read that began after it arrived, and all that arrive while
//! one is in flight share the next. At any request rate there are at most [`READERS`] small queries under way.
//!
//! The same read tells whether an account or a token was revoked, so that too holds from the next request on.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio_postgres::Client;
use tracing::{info, warn};

use super::version::{Version, VersionRead, Versions};
use crate::{
    db::{Database, DbError, statements},
    error::{Error, Result},
    sync::lock,
};

/// Learns of each new version of the accounts before any request that must see it goes on.
pub(crate) trait AccountObserver: Send + Sync + 'static {
    /// Catches up with the database on the connection of the version read. `reconnected`: the connection is new, so
    /// what was learnt before may belong to another history.
    fn catch_up<'a>(
        &'a self,
        client: &'a Client,
        accounts: Version,
        reconnected: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>>;
}

/// Queries under way at a time.
const READERS: usize = 2;
/// How often a reader lets all other tasks have their turn before it closes a batch.
const ROUNDS_OF_ARRIVALS: usize = 3;
/// A version read may take so many slices, reconnecting included; then the database counts as unreachable.
const READ_SLICES: u32 = 20;
const READ_SLICE: Duration = Duration::from_millis(100);
/// On the connection that is there; then a new one gets the rest of the time.
const LINK_TIMEOUT: Duration = Duration::from_millis(800);
/// After a failure a reader rests so long: a database that is starting is not helped by thousands of attempts a second.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Without requests the versions are read this often, so that an outage finds them known.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What version reads cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct VersionReaderCounters {
    /// Queries sent.
    pub(crate) reads: Counter,
    /// Queries that failed.
    pub(crate) failures: Counter,
}

/// The present versions, on request.
pub(crate) struct VersionReader {
    database: Database,
    follower: Arc<dyn AccountObserver>,
    stale_if_error: Duration,
    /// The batch that no reader has begun yet.
    next: Mutex<Option<Arc<Batch>>>,
    wake: Notify,
    known: Mutex<Option<(Versions, Instant)>>,
    /// What version reads cost.
    pub(crate) counters: VersionReaderCounters,
}

/// How a read went.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Read(Versions),
    /// The database cannot be reached.
    Away,
    /// It answers, but not with versions.
    Failed,
}

/// Requests that share one read. A list of wakers, and not a `Notify`: this is passed by each request, and half of what a
/// `Notify` does is for waiters that give up.
#[derive(Default)]
struct Batch {
    outcome: OnceLock<Outcome>,
    waiting: Mutex<Vec<Waker>>,
}

impl Batch {
    async fn outcome(&self) -> Outcome {
        let mut place: Option<usize> = None;
        poll_fn(|cx| {
            if let Some(outcome) = self.outcome.get() {
                return Poll::Ready(*outcome);
            }
            let mut waiting = lock(&self.waiting);
            // it may have come before the lock did
            if let Some(outcome) = self.outcome.get() {
                return Poll::Ready(*outcome);
            }
            if let Some(place) = place {
                waiting[place].clone_from(cx.waker());
            } else {
                place = Some(waiting.len());
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn finish(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl VersionReader {
    /// Starts the readers; they end with the runtime.
    pub(crate) fn start(database: Database, follower: Arc<dyn AccountObserver>, stale_if_error: Duration) -> Arc<Self> {
        let freshness = Arc::new(Self {
            database,
            follower,
            stale_if_error,
            next: Mutex::new(None),
            wake: Notify::new(),
            known: Mutex::new(None),
            counters: VersionReaderCounters::default(),
        });
        for _ in 0..READERS {
            tokio::spawn(Arc::clone(&freshness).read_for_ever());
        }
        freshness
    }

    /// The versions as of now, or, while the database cannot be reached, as of at most `STALE_IF_ERROR` ago.
    pub(crate) async fn now(&self) -> Result<VersionRead> {
        // ends in time: each read has its bound, and at most one is finished before this batch's own begins
        match (self.board().outcome().await, *lock(&self.known)) {
            (Outcome::Read(versions), _) => Ok(VersionRead::Current(versions)),
            (Outcome::Away, Some((versions, read))) if read.elapsed() < self.stale_if_error => {
                Ok(VersionRead::Unverified(versions))
            }
            _ => Err(Error::unavailable("the versions cannot be read: the database is away")),
        }
    }

    /// A place in the batch that no reader has begun yet.
    fn board(&self) -> Arc<Batch> {
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

    async fn read_for_ever(self: Arc<Self>) {
        let mut link = None;
        let mut away = false;
        // connected before the first request asks
        self.attempt(&mut link, &mut away).await;
        loop {
            if tokio::time::timeout(HEARTBEAT, self.wake.notified()).await.is_err() {
                self.board();
            }
            // whatever has arrived on other sockets meanwhile is let in first: larger batches, fewer queries
            for _ in 0..ROUNDS_OF_ARRIVALS {
                tokio::task::yield_now().await;
            }
            // from here on the batch is closed: a request that arrives now waits for the next
            let Some(batch) = lock(&self.next).take() else { continue };
            let outcome = self.attempt(&mut link, &mut away).await;
            batch.finish(outcome);
            if !matches!(outcome, Outcome::Read(_)) {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// One read within its time; what it says is remembered, and an outage is logged once.
    async fn attempt(&self, link: &mut Option<Reader>, away: &mut bool) -> Outcome {
        let began = Instant::now();
        match self.read_in_time(link).await {
            Ok(versions) => {
                if std::mem::take(away) {
                    info!("the database answers again");
                }
                *lock(&self.known) = Some((versions, began));
                Outcome::Read(versions)
            }
            Err(failure) => {
                *link = None;
                self.counters.failures.inc();
                if !std::mem::replace(away, true) {
                    warn!(%failure, "the versions cannot be read");
                }
                if failure.is_away() { Outcome::Away } else { Outcome::Failed }
            }
        }
    }

    /// One read within [`READ_SLICES`] of the time in which this process runs: stopped and continued, it finds one slice
    /// gone and not all of them, and asks the database before it speaks of an outage.
    async fn read_in_time(&self, link: &mut Option<Reader>) -> Result<Versions, DbError> {
        let mut reading = std::pin::pin!(self.read(link));
        for _ in 0..READ_SLICES {
            if let Ok(outcome) = tokio::time::timeout(READ_SLICE, reading.as_mut()).await {
                return outcome;
            }
        }
        Err(DbError::timed_out("versions/read", READ_SLICE * READ_SLICES))
    }

    /// One read; a connection that broke while it rested is replaced first.
    async fn read(&self, link: &mut Option<Reader>) -> Result<Versions, DbError> {
        if let Some(reader) = link
            && let Ok(Ok(versions)) = tokio::time::timeout(LINK_TIMEOUT, self.read_on(reader)).await
        {
            return Ok(versions);
        }
        *link = None;
        let reader = link.insert(Reader::connect(&self.database).await?);
        self.read_on(reader).await
    }

    async fn read_on(&self, reader: &mut Reader) -> Result<Versions, DbError> {
        self.counters.reads.inc();
        let Reader { client, connection, statement, fresh } = reader;
        let reading = async {
            let versions = read_versions(client, statement).await?;
            self.follower.catch_up(client, versions.accounts, *fresh).await?;
            Ok(versions)
        };
        let versions = drive(reading, connection).await?;
        *fresh = false;
        Ok(versions)
    }
}

/// A connection that does nothing but version reads. It is driven by the task that reads: a connection in a task of its
/// own would cost two wake-ups more a read.
struct Reader {
    client: Client,
    connection: Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>,
    statement: tokio_postgres::Statement,
    fresh: bool,
}

impl Reader {
    async fn connect(database: &Database) -> Result<Self, DbError> {
        let (client, connection) = database.connect().await?;
        let mut connection: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(connection);
        let sql = statements::VERSIONS_READ.sql;
        let preparing = async { client.prepare(sql).await.map_err(failed) };
        let statement = drive(preparing, &mut connection).await?;
        Ok(Self { client, connection, statement, fresh: true })
    }
}

fn failed(error: tokio_postgres::Error) -> DbError {
    DbError::of(&statements::VERSIONS_READ, error)
}

async fn read_versions(client: &Client, statement: &tokio_postgres::Statement) -> Result<Versions, DbError> {
    let row = client.query_one(statement, &[]).await.map_err(failed)?;
    Ok(Versions {
        catalogue: Version { number: row.get(0), token: row.get(1) },
        accounts: Version { number: row.get(2), token: row.get(3) },
    })
}

/// Runs work on a connection and the connection itself, until the work is done.
async fn drive<T>(
    work: impl Future<Output = Result<T, DbError>>,
    connection: &mut (impl Future<Output = Result<(), tokio_postgres::Error>> + Unpin),
) -> Result<T, DbError> {
    let work = std::pin::pin!(work);
    // the connection first: an answer that has arrived is seen in the same poll
    match select(connection, work).await {
        Either::Right((outcome, _)) => outcome,
        // it has ended, and nothing will be answered on it
        Either::Left((ended, _)) => Err(DbError::ended(&statements::VERSIONS_READ, ended.err())),
    }
}
