//! Connections to PostgreSQL: a pool for statements, and dedicated connections for long streams.

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

#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    pub conninfo: ConnInfo,
    /// The maximum number of connections in the pool.
    pub pool_size: usize,
    /// The limit of a statement on a pooled connection.
    pub statement_timeout: Duration,
}

/// The total time to get a connection: to wait for an idle one, to connect, to ping it.
const GET_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time to connect to one address of a host, unless the URL has a `connect_timeout`: a host name may have several.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is pinged before it is reused.
const SKIP_PING_WITHIN: Duration = Duration::from_secs(1);
/// After a ping without a response, this connection and all that have been idle for longer are closed.
const PING_TIMEOUT: Duration = Duration::from_millis(300);
/// The session parameters of every connection. Parallel workers are off because many short statements run at a time,
/// and starting a worker costs more than it saves. JIT compilation is off because it takes up to 2 s, and the planner
/// requests it for short statements whose parameters it does not know, such as products/changed.
pub(crate) const SESSION_LIMITS: [(&str, &str); 4] = [
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];
/// The number of attempts at a transaction that fails with a transient error.
pub(crate) const MAX_ATTEMPTS: usize = 5;

/// The database. A clone is another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    conninfo: ConnInfo,
}

/// A pooled connection with its statements prepared; returns to the pool when it is dropped.
pub type Connection = deadpool_postgres::Client;

impl Database {
    /// Creates a pool that connects on first use.
    pub fn new(settings: &DatabaseSettings) -> Self {
        let conninfo =
            settings.conninfo.clone().map_hosts(|host| apply_session_limits(host, settings.statement_timeout));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(conninfo.base_config().clone(), PgConnector(conninfo.clone()), recycling);
        let unresponsive_since = Arc::<Mutex<Option<Instant>>>::default();
        let timeouts = Timeouts { wait: Some(GET_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(GET_TIMEOUT) };
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    // polled together, they are pipelined: one round trip for all
                    let all = statements::PREPARED.iter().map(|statement| client.prepare_cached(statement.sql));
                    try_join_all(all).await.map(drop).map_err(HookError::Backend)
                })
            }))
            .pre_recycle(Hook::async_fn(move |client, metrics| {
                let (unresponsive_since, idle) = (Arc::clone(&unresponsive_since), metrics.last_used());
                Box::pin(async move { ping_before_reuse(client, idle, &unresponsive_since).await })
            }))
            .build()
            .unwrap_or_else(|error| unreachable!("the pool has a runtime: {error}"));
        Self { pool, conninfo }
    }

    /// Returns the number of open connections and of idle ones.
    pub(crate) fn pool_status(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// Closes the pool. Connections in use are closed when they are dropped.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// Returns a connection from the pool.
    pub(crate) async fn connection(&self) -> Result<Connection, DbError> {
        match tokio::time::timeout(GET_TIMEOUT, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(DbError::pool(error.to_string())),
            Err(_) => Err(DbError::timed_out("connect", GET_TIMEOUT)),
        }
    }

    /// Opens a connection outside the pool, without prepared statements. It is closed when the client is dropped.
    pub async fn dedicated(&self) -> Result<Client, DbError> {
        let (client, connection) = self.connect().await?;
        tokio::spawn(drive_connection(connection));
        Ok(client)
    }

    /// Opens a connection outside the pool that the caller must poll while it waits for responses.
    pub(crate) async fn connect(
        &self,
    ) -> Result<(Client, impl Future<Output = Result<(), Error>> + Send + use<>), DbError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.conninfo.connect());
        connecting
            .await
            .map_err(|_| DbError::timed_out("connect", CONNECT_TIMEOUT))?
            .map_err(|error| DbError::postgres("connect", error))
    }

    /// Returns all rows of a statement. Retries transient errors.
    pub(crate) async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let mut attempt = 1;
        loop {
            let connection = self.connection().await?;
            match connection.rows(statement, params).await {
                Err(error) if attempt < MAX_ATTEMPTS && self.should_retry(&error) => attempt += 1,
                result => return result,
            }
        }
    }

    /// Returns whether a transaction that failed with this error may be retried unchanged.
    ///
    /// After a schema change, clears the statement caches of all connections, so that the retry prepares again.
    pub(crate) fn should_retry(&self, error: &DbError) -> bool {
        if error.is_stale_plan() {
            self.pool.manager().statement_caches.clear();
            return true;
        }
        error.is_transient()
    }

    /// Returns the row of a statement that returns at most one. Retries transient errors.
    pub(crate) async fn row(&self, statement: &Statement, params: Params<'_>) -> Result<Option<Row>, DbError> {
        Ok(self.rows(statement, params).await?.pop())
    }
}

/// A connection, pooled or dedicated.
pub(crate) trait Queryable: Sync {
    /// Returns the underlying client, for operations without a method here.
    fn client(&self) -> &Client;

    /// Returns all rows of a statement.
    fn rows(&self, statement: &Statement, params: Params<'_>)
    -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;

    /// Runs an unprepared command without rows, such as `begin` or `commit`.
    fn run_command(&self, sql: &'static str) -> impl Future<Output = Result<(), DbError>> + Send;
}

impl Queryable for Connection {
    fn client(&self) -> &Client {
        self
    }

    async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let error = |error| DbError::statement(statement, error);
        let prepared = self.prepare_cached(statement.sql).await.map_err(error)?;
        self.query(&prepared, params).await.map_err(error)
    }

    async fn run_command(&self, sql: &'static str) -> Result<(), DbError> {
        self.batch_execute(sql).await.map_err(|error| DbError::postgres(sql, error))
    }
}

impl Queryable for Client {
    fn client(&self) -> &Client {
        self
    }

    async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        self.query(statement.sql, params).await.map_err(|error| DbError::statement(statement, error))
    }

    async fn run_command(&self, sql: &'static str) -> Result<(), DbError> {
        self.batch_execute(sql).await.map_err(|error| DbError::postgres(sql, error))
    }
}

/// Fails when a connection that has been `idle` this long must not be reused.
///
/// Pings the connection, unless it was last used before the last ping without a response, whose time is
/// `unresponsive_since`.
async fn ping_before_reuse(
    client: &Client,
    idle: Duration,
    unresponsive_since: &Mutex<Option<Instant>>,
) -> Result<(), HookError> {
    if idle < SKIP_PING_WITHIN {
        return Ok(());
    }
    let last_used = Instant::now().checked_sub(idle);
    if lock(unresponsive_since).is_some_and(|since| last_used < Some(since)) {
        return Err(HookError::message("last used before another connection became unresponsive"));
    }
    if let Ok(result) = tokio::time::timeout(PING_TIMEOUT, client.check_connection()).await {
        return result.map_err(HookError::Backend);
    }
    *lock(unresponsive_since) = Some(Instant::now());
    Err(HookError::message("connection unresponsive"))
}

/// Opens the connections of the pool.
struct PgConnector(ConnInfo);

impl deadpool_postgres::Connect for PgConnector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(async {
            let (client, connection) = self.0.connect().await?;
            Ok((client, tokio::spawn(drive_connection(connection))))
        })
    }
}

async fn drive_connection(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "database connection closed");
    }
}

/// Sets the session parameters, the timeouts and the keepalives of connections to `host`.
fn apply_session_limits(host: &mut Config, statement_timeout: Duration) {
    let limits: String = SESSION_LIMITS.iter().map(|(name, limit)| format!("-c {name}={limit} ")).collect();
    let limits = format!(
        "{limits}-c statement_timeout={} -c default_transaction_isolation=read\\ committed",
        statement_timeout.as_millis()
    );
    // the operator's options come last and take precedence
    let options = host.get_options().map_or_else(|| limits.clone(), |given| format!("{limits} {given}"));
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
