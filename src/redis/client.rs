//! The layer between the instances: Redis. Every call is bounded, and an outage is a miss.
//!
//! The redis crate's own connection manager makes callers wait for seconds while it reconnects; here the link is
//! either up, and then used, or not, and then nobody waits: one task tries again in the background.

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

/// One call, all in all.
const CALL_TIMEOUT: Duration = Duration::from_millis(150);
/// One attempt to connect to a server.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Sentinels are asked in turn, and each may be the one that is dead; nobody waits for it.
pub(crate) const SENTINELS_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure nobody tries for so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How the calls went.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedisCounters {
    /// Calls made.
    pub(crate) calls: Counter,
    /// Calls that failed or took too long.
    pub(crate) failures: Counter,
}

/// Redis, as all instances share it.
pub(crate) struct RedisClient {
    source: Target,
    prefix: String,
    link: Mutex<ConnState>,
    /// An attempt to connect has come to its end.
    settled: Notify,
    /// How the calls went.
    pub(crate) counters: RedisCounters,
}

enum ConnState {
    Up(MultiplexedConnection),
    Connecting,
    /// Nobody tries before this; `known`: it was logged.
    Down {
        retry_at: Instant,
        known: bool,
    },
}

impl RedisClient {
    /// A handle. Fails when the settings lead nowhere.
    pub(crate) fn new(settings: &RedisSettings) -> RedisResult<Arc<Self>> {
        Ok(Arc::new(Self {
            source: settings.source()?,
            prefix: settings.prefix.clone(),
            link: Mutex::new(ConnState::Down { retry_at: Instant::now(), known: false }),
            settled: Notify::new(),
            counters: RedisCounters::default(),
        }))
    }

    /// A key of this shop.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// Whether Redis answers right now; waits so long for an attempt to connect.
    pub(crate) async fn answers(self: &Arc<Self>, patience: Duration) -> bool {
        let ping = |mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        if self.call(ping).await.is_some() {
            return true;
        }
        // the first question after an outage finds a link that is down, or dead and not known to be
        self.start(patience).await;
        self.call(ping).await.is_some()
    }

    /// Runs one call within its bound; `None` when Redis is away.
    pub(crate) async fn call<T, F>(self: &Arc<Self>, work: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let connection = self.connection()?;
        self.counters.calls.inc();
        let failure = match tokio::time::timeout(CALL_TIMEOUT, work(connection)).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) if !breaks_link(&error) => {
                self.counters.failures.inc();
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
        };
        self.counters.failures.inc();
        let mut link = lock(&self.link);
        if matches!(*link, ConnState::Up(_)) {
            warn!(%failure, "the shared cache is away");
            // it may only have been restarted: the next call tries at once
            *link = ConnState::Down { retry_at: Instant::now(), known: true };
        }
        None
    }

    fn connection(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        match &*lock(&self.link) {
            ConnState::Up(connection) => return Some(connection.clone()),
            ConnState::Connecting => return None,
            ConnState::Down { .. } => {}
        }
        self.connect_in_time();
        None
    }

    /// Sees to it that somebody connects, unless somebody does already or it failed a moment ago.
    fn connect_in_time(self: &Arc<Self>) {
        let mut link = lock(&self.link);
        if let ConnState::Down { retry_at, known } = *link
            && Instant::now() >= retry_at
        {
            *link = ConnState::Connecting;
            drop(link);
            tokio::spawn(Arc::clone(self).connect(known));
        }
    }

    /// Connects, and waits a while for it: the next call finds the link up if there is one.
    pub(crate) async fn start(self: &Arc<Self>, patience: Duration) {
        let mut settled = std::pin::pin!(self.settled.notified());
        settled.as_mut().enable();
        self.connect_in_time();
        if matches!(*lock(&self.link), ConnState::Connecting) {
            let _ = tokio::time::timeout(patience, settled).await;
        }
    }

    /// One at a time. `known`: that Redis is away was said already.
    async fn connect(self: Arc<Self>, known: bool) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CALL_TIMEOUT));
        let bound = match &self.source {
            Target::Server(_) => CONNECT_TIMEOUT,
            Target::Sentinels(_) => SENTINELS_TIMEOUT,
        };
        let failure = match tokio::time::timeout(bound, self.source.connect(&config)).await {
            Ok(Ok(connection)) => {
                info!("the shared cache answers");
                *lock(&self.link) = ConnState::Up(connection);
                return self.settled.notify_waiters();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {bound:?}"),
        };
        if !known {
            warn!(%failure, "the shared cache cannot be reached");
        }
        *lock(&self.link) = ConnState::Down { retry_at: Instant::now() + RETRY_AFTER, known: true };
        self.settled.notify_waiters();
    }
}

fn breaks_link(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.code() == Some("READONLY")
}
