//! A Redis client with bounded calls. When Redis is unavailable, calls return `None` at once.
//!
//! The redis crate's own connection manager makes callers wait for seconds while it reconnects. Here callers never wait
//! for a connection: a call uses the connection that exists, and one background task reconnects.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use redis::{AsyncConnectionConfig, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::url::{RedisSettings, Target};
use crate::sync::lock;

/// The time of one call.
const CALL_TIMEOUT: Duration = Duration::from_millis(150);
/// The time to connect to a server.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// The time to find the master and connect to it. The Sentinels are queried in turn and some may be down; no request
/// waits.
pub(crate) const SENTINELS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed attempt to connect.
const RECONNECT_BACKOFF: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Default)]
pub(crate) struct RedisCounters {
    pub(crate) calls: Counter,
    /// Calls that failed or timed out.
    pub(crate) failures: Counter,
}

pub(crate) struct RedisClient {
    target: Target,
    key_prefix: String,
    state: Mutex<ConnState>,
    /// Notified when an attempt to connect ends.
    attempt_ended: Notify,
    pub(crate) counters: RedisCounters,
}

enum ConnState {
    Up(MultiplexedConnection),
    Connecting,
    Down {
        retry_at: Instant,
        /// Whether the outage has been logged.
        already_logged: bool,
    },
}

impl RedisClient {
    /// Creates a client that connects on first use. Fails when the settings are invalid.
    pub(crate) fn new(settings: &RedisSettings) -> RedisResult<Arc<Self>> {
        Ok(Arc::new(Self {
            target: settings.target()?,
            key_prefix: settings.prefix.clone(),
            state: Mutex::new(ConnState::Down { retry_at: Instant::now(), already_logged: false }),
            attempt_ended: Notify::new(),
            counters: RedisCounters::default(),
        }))
    }

    /// Returns the key with the configured prefix.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.key_prefix)
    }

    /// Returns whether Redis responds; waits up to `connect_timeout` for a new connection.
    pub(crate) async fn ping(self: &Arc<Self>, connect_timeout: Duration) -> bool {
        let ping = |mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        if self.call(ping).await.is_some() {
            return true;
        }
        // after an outage the connection is down, or broken and not yet recognized as such
        self.connect_within(connect_timeout).await;
        self.call(ping).await.is_some()
    }

    /// Runs one call within [`CALL_TIMEOUT`]. Returns `None` when it fails or Redis is unavailable.
    pub(crate) async fn call<T, F>(self: &Arc<Self>, work: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let connection = self.connection()?;
        self.counters.calls.inc();
        let error = match tokio::time::timeout(CALL_TIMEOUT, work(connection)).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) if !is_connection_error(&error) => {
                self.counters.failures.inc();
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {CALL_TIMEOUT:?}"),
        };
        self.counters.failures.inc();
        let mut state = lock(&self.state);
        if matches!(*state, ConnState::Up(_)) {
            warn!(%error, "redis connection lost");
            // Redis may only have restarted: the next call reconnects without a pause
            *state = ConnState::Down { retry_at: Instant::now(), already_logged: true };
        }
        None
    }

    fn connection(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        match &*lock(&self.state) {
            ConnState::Up(connection) => return Some(connection.clone()),
            ConnState::Connecting => return None,
            ConnState::Down { .. } => {}
        }
        self.ensure_connecting();
        None
    }

    /// Starts an attempt to connect, unless one is running or the last one failed less than [`RECONNECT_BACKOFF`] ago.
    fn ensure_connecting(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if let ConnState::Down { retry_at, already_logged } = *state
            && Instant::now() >= retry_at
        {
            *state = ConnState::Connecting;
            drop(state);
            tokio::spawn(Arc::clone(self).connect(already_logged));
        }
    }

    /// Connects if necessary, and waits for it up to `timeout`.
    pub(crate) async fn connect_within(self: &Arc<Self>, timeout: Duration) {
        let mut attempt_ended = std::pin::pin!(self.attempt_ended.notified());
        attempt_ended.as_mut().enable();
        self.ensure_connecting();
        if matches!(*lock(&self.state), ConnState::Connecting) {
            let _ = tokio::time::timeout(timeout, attempt_ended).await;
        }
    }

    /// Runs one attempt to connect. The caller has set the state to `Connecting`.
    async fn connect(self: Arc<Self>, already_logged: bool) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CALL_TIMEOUT));
        let timeout = match &self.target {
            Target::Server(_) => CONNECT_TIMEOUT,
            Target::Sentinels(_) => SENTINELS_TIMEOUT,
        };
        let error = match tokio::time::timeout(timeout, self.target.connect(&config)).await {
            Ok(Ok(connection)) => {
                info!("redis connected");
                *lock(&self.state) = ConnState::Up(connection);
                return self.attempt_ended.notify_waiters();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {timeout:?}"),
        };
        if !already_logged {
            warn!(%error, "redis connection failed");
        }
        *lock(&self.state) = ConnState::Down { retry_at: Instant::now() + RECONNECT_BACKOFF, already_logged: true };
        self.attempt_ended.notify_waiters();
    }
}

/// Returns whether the connection is unusable after this error. `READONLY` means that a replica has replaced the
/// master.
fn is_connection_error(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.code() == Some("READONLY")
}
