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
use redis::{AsyncConnectionConfig, RedisError, RedisResult, Script, Value, aio::MultiplexedConnection};
use tokio::sync::Notify;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Key,
    address::{SharedSettings, Source},
    entry::{Entry, Representation},
    freshness::Version,
    lock, value,
};

/// One call, all in all.
const CALL_TIMEOUT: Duration = Duration::from_millis(150);
/// One attempt to connect to a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Sentinels are asked in turn, and each may be the one that is dead; nobody waits for it.
pub const SENTINELS_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure nobody tries for so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// An entry dies by itself; an instance that needs it later makes it anew.
const ENTRY_TTL: Duration = Duration::from_secs(60);
/// Larger entries are not worth the time they would block Redis for everybody else.
const LARGEST_ENTRY: usize = 8 * 1024 * 1024;
/// How long the instance that makes an entry keeps the others from making it too.
const LOCK_TTL: Duration = Duration::from_secs(3);
/// How long an instance waits for another one's entry before it makes its own.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Gives the entry, or 1 to the one that is to make it, or 0 while another one does.
const GET_OR_LOCK: &str = r"
local entry = redis.call('GET', KEYS[1])
if entry then return entry end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
";

/// Stores the entry, if there is one, and gives the lock back if it is still ours.
const SETTLE: &str = r"
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
";

/// How the calls went.
#[derive(Debug, Clone, Default)]
pub struct SharedCounters {
    /// Calls made.
    pub calls: Counter,
    /// Calls that failed or took too long.
    pub failures: Counter,
    /// Values that were not what an instance writes.
    pub garbage: Counter,
}

/// Redis, as all instances share it.
pub struct Shared {
    source: Source,
    prefix: String,
    link: Mutex<Link>,
    /// An attempt to connect has come to its end.
    settled: Notify,
    /// Tells this instance's locks from others'.
    instance: String,
    get_or_lock: Script,
    settle: Script,
    /// How the calls went.
    pub counters: SharedCounters,
}

enum Link {
    Up(MultiplexedConnection),
    Connecting,
    /// Nobody tries before this; `known`: it was logged.
    Down {
        retry_at: Instant,
        known: bool,
    },
}

/// What came of asking for an entry.
#[derive(Debug)]
pub enum Claim {
    /// It is there.
    Found(Entry),
    /// It is to be made, by the caller, who then must [`Shared::settle`].
    Ours,
    /// It is to be made, but not to be shared: Redis is away, or another instance takes too long.
    Away,
}

impl Shared {
    /// A handle. Fails when the settings lead nowhere.
    pub fn new(settings: &SharedSettings) -> RedisResult<Arc<Self>> {
        Ok(Arc::new(Self {
            source: settings.source()?,
            prefix: settings.prefix.clone(),
            link: Mutex::new(Link::Down { retry_at: Instant::now(), known: false }),
            settled: Notify::new(),
            instance: Uuid::new_v4().simple().to_string(),
            get_or_lock: Script::new(GET_OR_LOCK),
            settle: Script::new(SETTLE),
            counters: SharedCounters::default(),
        }))
    }

    /// A key of this shop.
    pub fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// Whether Redis answers right now; waits so long for an attempt to connect.
    pub async fn answers(self: &Arc<Self>, patience: Duration) -> bool {
        let ping = |mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        if self.call(ping).await.is_some() {
            return true;
        }
        // the first question after an outage finds a link that is down, or dead and not known to be
        self.start(patience).await;
        self.call(ping).await.is_some()
    }

    /// Runs one call within its bound; `None` when Redis is away.
    pub async fn call<T, F>(self: &Arc<Self>, work: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
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
        if matches!(*link, Link::Up(_)) {
            warn!(%failure, "the shared cache is away");
            // it may only have been restarted: the next call tries at once
            *link = Link::Down { retry_at: Instant::now(), known: true };
        }
        None
    }

    fn connection(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        match &*lock(&self.link) {
            Link::Up(connection) => return Some(connection.clone()),
            Link::Connecting => return None,
            Link::Down { .. } => {}
        }
        self.connect_in_time();
        None
    }

    /// Sees to it that somebody connects, unless somebody does already or it failed a moment ago.
    fn connect_in_time(self: &Arc<Self>) {
        let mut link = lock(&self.link);
        if let Link::Down { retry_at, known } = *link
            && Instant::now() >= retry_at
        {
            *link = Link::Connecting;
            drop(link);
            tokio::spawn(Arc::clone(self).connect(known));
        }
    }

    /// Connects, and waits a while for it: the next call finds the link up if there is one.
    pub async fn start(self: &Arc<Self>, patience: Duration) {
        let mut settled = std::pin::pin!(self.settled.notified());
        settled.as_mut().enable();
        self.connect_in_time();
        if matches!(*lock(&self.link), Link::Connecting) {
            let _ = tokio::time::timeout(patience, settled).await;
        }
    }

    /// One at a time. `known`: that Redis is away was said already.
    async fn connect(self: Arc<Self>, known: bool) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CALL_TIMEOUT));
        let bound = match &self.source {
            Source::Server(_) => CONNECT_TIMEOUT,
            Source::Sentinels(_) => SENTINELS_TIMEOUT,
        };
        let failure = match tokio::time::timeout(bound, self.source.connect(&config)).await {
            Ok(Ok(connection)) => {
                info!("the shared cache answers");
                *lock(&self.link) = Link::Up(connection);
                return self.settled.notify_waiters();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {bound:?}"),
        };
        if !known {
            warn!(%failure, "the shared cache cannot be reached");
        }
        *lock(&self.link) = Link::Down { retry_at: Instant::now() + RETRY_AFTER, known: true };
        self.settled.notify_waiters();
    }

    /// The entry, if it is there.
    pub async fn get(self: &Arc<Self>, key: &Key) -> Option<Entry> {
        let name = self.entry_name(key);
        let get = |mut connection| async move {
            redis::cmd("GET").arg(name).query_async::<Option<Vec<u8>>>(&mut connection).await
        };
        let value = self.call(get).await??;
        self.read(key, value)
    }

    /// The entry, or the task of making it.
    pub async fn claim(self: &Arc<Self>, key: &Key) -> Claim {
        let (name, lock_name) = (&self.entry_name(key), &self.lock_name(key));
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            let ask = |mut connection| async move {
                let mut invocation = self.get_or_lock.key(name);
                invocation.key(lock_name).arg(&self.instance).arg(millis(LOCK_TTL));
                invocation.invoke_async::<Value>(&mut connection).await
            };
            match self.call(ask).await {
                Some(Value::BulkString(value)) => {
                    return self.read(key, value).map_or(Claim::Ours, Claim::Found);
                }
                Some(Value::Int(1)) => return Claim::Ours,
                Some(Value::Int(_)) if Instant::now() < patience => tokio::time::sleep(LOCK_POLL).await,
                _ => return Claim::Away,
            }
        }
    }

    /// Shares what was made under a claim; `None` when nothing came of it.
    pub async fn settle(self: &Arc<Self>, key: &Key, entry: Option<&Entry>) {
        // the fill may have seen a newer version than the one it was asked for
        let key_of_entry = entry.map(|entry| Key { version: entry.version, ..key.clone() });
        let name = self.entry_name(key_of_entry.as_ref().unwrap_or(key));
        let value = entry.filter(|entry| entry.bytes.len() <= LARGEST_ENTRY).map(value::write).unwrap_or_default();
        let lock_name = self.lock_name(key);
        let settle = |mut connection| async move {
            let mut invocation = self.settle.key(name);
            invocation.key(lock_name).arg(&self.instance).arg(value).arg(millis(ENTRY_TTL));
            invocation.invoke_async::<i64>(&mut connection).await
        };
        self.call(settle).await;
    }

    fn entry_name(&self, key: &Key) -> String {
        let Key { version: Version { number, token }, query, representation } = key;
        let representation = match representation {
            Representation::Identity => "identity",
            Representation::Gzip => "gzip",
        };
        self.key(&format!("list:{number}:{}:{representation}:{query}", token.simple()))
    }

    fn lock_name(&self, key: &Key) -> String {
        self.entry_name(key) + ":lock"
    }

    fn read(&self, key: &Key, value: Vec<u8>) -> Option<Entry> {
        let entry = value::read(key, value.into());
        if entry.is_none() {
            self.counters.garbage.inc();
            warn!("the shared cache held something that no instance writes");
        }
        entry
    }
}

fn breaks_link(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.code() == Some("READONLY")
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
