//! The layer between the instances: entries in Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use redis::{Script, Value};
use tracing::warn;
use uuid::Uuid;

use super::{
    codec,
    entry::{Entry, Key},
};
use crate::{http::Representation, redis::RedisClient, timestamps::millis, versions::Version};

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

/// What came of asking for an entry.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// It is there.
    Found(Entry),
    /// It is to be made, by the caller, who then must [`RedisClient::settle`].
    Ours,
    /// It is to be made, but not to be shared: Redis is away, or another instance takes too long.
    Away,
}

/// The entries in Redis.
pub(crate) struct RedisCache {
    client: Arc<RedisClient>,
    /// Tells this instance's locks from others'.
    instance: String,
    get_or_lock: Script,
    settle: Script,
    /// Values that no instance wrote.
    pub(crate) invalid_values: Counter,
}

impl RedisCache {
    /// Uses this client.
    pub(crate) fn new(client: Arc<RedisClient>) -> Self {
        Self {
            client,
            instance: Uuid::new_v4().simple().to_string(),
            get_or_lock: Script::new(GET_OR_LOCK),
            settle: Script::new(SETTLE),
            invalid_values: Counter::default(),
        }
    }

    /// The entry, if it is there.
    pub(crate) async fn get(&self, key: &Key) -> Option<Entry> {
        let name = self.entry_name(key);
        let get = |mut connection| async move {
            redis::cmd("GET").arg(name).query_async::<Option<Vec<u8>>>(&mut connection).await
        };
        let value = self.client.call(get).await??;
        self.read(key, value)
    }

    /// The entry, or the task of making it.
    pub(crate) async fn claim(&self, key: &Key) -> Lookup {
        let (name, lock_name) = (&self.entry_name(key), &self.lock_name(key));
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            let ask = |mut connection| async move {
                let mut invocation = self.get_or_lock.key(name);
                invocation.key(lock_name).arg(&self.instance).arg(millis(LOCK_TTL));
                invocation.invoke_async::<Value>(&mut connection).await
            };
            match self.client.call(ask).await {
                Some(Value::BulkString(value)) => {
                    return self.read(key, value).map_or(Lookup::Ours, Lookup::Found);
                }
                Some(Value::Int(1)) => return Lookup::Ours,
                Some(Value::Int(_)) if Instant::now() < patience => tokio::time::sleep(LOCK_POLL).await,
                _ => return Lookup::Away,
            }
        }
    }

    /// Shares what was made under a claim; `None` when nothing came of it.
    pub(crate) async fn settle(&self, key: &Key, entry: Option<&Entry>) {
        // the fill may have seen a newer version than the one it was asked for
        let key_of_entry = entry.map(|entry| Key { version: entry.version, ..key.clone() });
        let name = self.entry_name(key_of_entry.as_ref().unwrap_or(key));
        let value = entry.filter(|entry| entry.bytes.len() <= LARGEST_ENTRY).map(codec::encode).unwrap_or_default();
        let lock_name = self.lock_name(key);
        let settle = |mut connection| async move {
            let mut invocation = self.settle.key(name);
            invocation.key(lock_name).arg(&self.instance).arg(value).arg(millis(ENTRY_TTL));
            invocation.invoke_async::<i64>(&mut connection).await
        };
        self.client.call(settle).await;
    }

    fn entry_name(&self, key: &Key) -> String {
        let Key { version: Version { number, token }, query, representation } = key;
        let representation = match representation {
            Representation::Identity => "identity",
            Representation::Gzip => "gzip",
        };
        self.client.key(&format!("list:{number}:{}:{representation}:{query}", token.simple()))
    }

    fn lock_name(&self, key: &Key) -> String {
        self.entry_name(key) + ":lock"
    }

    fn read(&self, key: &Key, value: Vec<u8>) -> Option<Entry> {
        let entry = codec::decode(key, value.into());
        if entry.is_none() {
            self.invalid_values.inc();
            warn!("the shared cache held something that no instance writes");
        }
        entry
    }
}
