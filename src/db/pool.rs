//! Connections to PostgreSQL: a pool for statements, and connections of their own for what streams for long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, Row, types::ToSql};

use super::{
    conninfo::ConnInfo,
    error::DbError,
    statements::{self, Statement},
};
use crate::sync::lock;

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How to reach the database and what its time may cost.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Where it is.
    pub address: ConnInfo,
    /// Connections in the pool.
    pub pool_size: usize,
    /// One statement, on a pooled connection.
    pub statement_timeout: Duration,
}

/// Getting a connection, all in all: waiting for a free one, connecting, checking it.
const GET_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One address of a host, unless the URL's `connect_timeout` says otherwise: a name may have another one.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that rested longer than this is asked whether it still answers before it is handed out.
const TRUSTED_AFTER_USE: Duration = Duration::from_secs(1);
/// One that has not answered by then is dropped, and with it all that rested longer.
const CHECK_TIMEOUT: Duration = Duration::from_millis(300);
/// Of waiting for others' locks, of holding locks while saying nothing, and of processes that help with one statement: there
/// are many statements at a time, and each is so short that calling others costs more than it saves.
pub(crate) const BOUNDS: [(&str, &str); 3] =
    [("lock_timeout", "2s"), ("idle_in_transaction_session_timeout", "10s"), ("max_parallel_workers_per_gather", "0")];
/// A transaction that the database undid for the sake of another one is tried so often.
pub(crate) const TRIES: usize = 5;

/// The database. A clone is another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    address: ConnInfo,
}

/// A connection with its statements prepared; goes back to the pool when it is dropped.
pub type Connection = deadpool_postgres::Client;

impl Database {
    /// A handle; connects when it is first used.
    pub fn new(settings: &DatabaseSettings) -> Self {
        let address = settings.address.clone().with(|host| bound(host, settings.statement_timeout));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(address.common().clone(), PgConnector(address.clone()), recycling);
        let silence = Arc::<Mutex<Option<Instant>>>::default();
        let timeouts = Timeouts { wait: Some(GET_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(GET_TIMEOUT) };
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    // polled together, they travel together: one round trip for all
                    let all = statements::PREPARED.iter().map(|statement| client.prepare_cached(statement.sql));
                    try_join_all(all).await.map(drop).map_err(HookError::Backend)
                })
            }))
            .pre_recycle(Hook::async_fn(move |client, metrics| {
                let (silence, rested) = (Arc::clone(&silence), metrics.last_used());
                Box::pin(async move { still_answers(client, rested, &silence).await })
            }))
            .build()
            .unwrap_or_else(|error| unreachable!("the pool has a runtime: {error}"));
        Self { pool, address }
    }

    /// Connections that are open, and those of them that are free.
    pub(crate) fn pool_status(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// Closes the pool; what is in use is finished first.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// A connection out of the pool.
    pub(crate) async fn connection(&self) -> Result<Connection, DbError> {
        match tokio::time::timeout(GET_TIMEOUT, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(DbError::pool(error.to_string())),
            Err(_) => Err(DbError::timed_out("connect", GET_TIMEOUT)),
        }
    }

    /// A connection of its own, outside the pool, with nothing prepared. It is closed when the client is dropped.
    pub async fn dedicated(&self) -> Result<Client, DbError> {
        let (client, connection) = self.connect().await?;
        tokio::spawn(until_it_ends(connection));
        Ok(client)
    }

    /// A connection that the caller drives itself, in the task that uses it: nothing is answered while nobody polls it.
    pub(crate) async fn connect(
        &self,
    ) -> Result<(Client, impl Future<Output = Result<(), Error>> + Send + use<>), DbError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.address.connect());
        connecting
            .await
            .map_err(|_| DbError::timed_out("connect", CONNECT_TIMEOUT))?
            .map_err(|error| DbError::postgres("connect", error))
    }

    /// All rows of a statement.
    pub(crate) async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let connection = self.connection().await?;
            let failure = match connection.rows(statement, params).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            if tries == TRIES || !self.may_pass(&failure) {
                return Err(failure);
            }
        }
    }

    /// Whether a transaction that was undone by this failure may be tried again as it is. After a change of the schema
    /// all connections prepare anew.
    pub(crate) fn may_pass(&self, failure: &DbError) -> bool {
        if failure.is_stale_plan() {
            self.pool.manager().statement_caches.clear();
            return true;
        }
        failure.is_passing()
    }

    /// The row of a statement that gives one or none.
    pub(crate) async fn row(&self, statement: &Statement, params: Params<'_>) -> Result<Option<Row>, DbError> {
        Ok(self.rows(statement, params).await?.pop())
    }
}

/// The verbs of a single connection, by statements of the registry.
pub(crate) trait Queryable: Sync {
    /// For what has no verb here.
    fn client(&self) -> &Client;

    /// All rows of a statement.
    fn rows(&self, statement: &Statement, params: Params<'_>)
    -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;

    /// SQL that is not prepared and gives no rows: `begin`, `commit`.
    fn command(&self, sql: &'static str) -> impl Future<Output = Result<(), DbError>> + Send;
}

impl Queryable for Connection {
    fn client(&self) -> &Client {
        self
    }

    async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let failed = |error| DbError::postgres(statement.name, error);
        let prepared = self.prepare_cached(statement.sql).await.map_err(failed)?;
        self.query(&prepared, params).await.map_err(failed)
    }

    async fn command(&self, sql: &'static str) -> Result<(), DbError> {
        self.batch_execute(sql).await.map_err(|error| DbError::postgres(sql, error))
    }
}

impl Queryable for Client {
    fn client(&self) -> &Client {
        self
    }

    async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        self.query(statement.sql, params).await.map_err(|error| DbError::postgres(statement.name, error))
    }

    async fn command(&self, sql: &'static str) -> Result<(), DbError> {
        self.batch_execute(sql).await.map_err(|error| DbError::postgres(sql, error))
    }
}

/// Asks a connection that rested; one that rested since before a silence is not even asked. `silence` is when a connection
/// was last found silent.
async fn still_answers(client: &Client, rested: Duration, silence: &Mutex<Option<Instant>>) -> Result<(), HookError> {
    if rested < TRUSTED_AFTER_USE {
        return Ok(());
    }
    let used = Instant::now().checked_sub(rested);
    if lock(silence).is_some_and(|silence| used < Some(silence)) {
        return Err(HookError::message("rested since before a silence"));
    }
    if let Ok(outcome) = tokio::time::timeout(CHECK_TIMEOUT, client.check_connection()).await {
        return outcome.map_err(HookError::Backend);
    }
    *lock(silence) = Some(Instant::now());
    Err(HookError::message("keeps silent"))
}

/// Connects the pool.
struct PgConnector(ConnInfo);

impl deadpool_postgres::Connect for PgConnector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(async {
            let (client, connection) = self.0.connect().await?;
            Ok((client, tokio::spawn(until_it_ends(connection))))
        })
    }
}

async fn until_it_ends(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the database ended");
    }
}

/// What one connection's time may cost.
fn bound(host: &mut Config, statement_timeout: Duration) {
    let bounds: String = BOUNDS.iter().map(|(name, bound)| format!("-c {name}={bound} ")).collect();
    let bounds = format!(
        "{bounds}-c statement_timeout={} -c default_transaction_isolation=read\\ committed",
        statement_timeout.as_millis()
    );
    // what the operator set stands behind ours and wins
    let options = host.get_options().map_or_else(|| bounds.clone(), |given| format!("{bounds} {given}"));
    host.connect_timeout(host.get_connect_timeout().copied().unwrap_or(ADDRESS_TIMEOUT));
    host.options(options)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(10));
    if host.get_application_name().is_none() {
        host.application_name("testshop");
    }
}
