//! The cache layer in Redis, shared by all instances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use redis::{Script, Value};
use tracing::warn;
use uuid::Uuid;

use super::{
    codec,
    entry::{Entry, Key},
    fill_budget::{FillLimit, FillPermit, MIN_LIMIT, UNCOUNTED_FILL_BYTES},
};
use crate::{
    http::{Representation, etag::FORMAT_VERSION},
    mac::MacKeys,
    redis::RedisClient,
    timestamps::millis,
    versions::Version,
};

/// Entries expire; an instance that needs an expired entry fills it again.
const ENTRY_TTL: Duration = Duration::from_secs(60);
/// Larger entries are not stored, because Redis serves no other client while it transfers them.
const MAX_ENTRY_BYTES: usize = MIN_LIMIT;
/// A longer value is foreign and is not read: it would take time and memory.
const MAX_VALUE_BYTES: usize = codec::max_value_bytes(MAX_ENTRY_BYTES);
/// How long the lease of an instance keeps the others from the same fill.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How long an instance waits for another one's fill before it does its own.
const LEASE_WAIT_TIMEOUT: Duration = Duration::from_millis(250);
const LEASE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the entry, 3 if it is large and the caller wants none that is large, 1 if the caller now holds the lease, 0 if another instance holds it or the caller wants none, or
/// 2 if the value is too long.
const GET_OR_LEASE_SCRIPT: &str = r"
local length = redis.call('STRLEN', KEYS[1])
if length > tonumber(ARGV[3]) then return 2 end
if length > tonumber(ARGV[4]) then return 3 end
if length > 0 then return redis.call('GET', KEYS[1]) end
if ARGV[1] ~= '' and redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
";
const LEASE_GRANTED: Value = Value::Int(1);
const VALUE_TOO_LONG: Value = Value::Int(2);
const VALUE_LARGE: Value = Value::Int(3);

/// Stores the entry, if there is one, and releases the lease if the caller still holds it.
const RELEASE_SCRIPT: &str = r"
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
";

/// The result of [`RedisCache::get_or_lease`].
#[derive(Debug)]
pub(crate) enum Lookup {
    Hit(Entry),
    /// The caller holds the lease: it fills the entry and calls [`RedisCache::store_and_release`].
    Lease,
    /// Redis is unavailable or another instance takes too long: the caller fills the entry and does not store it.
    Unavailable,
}

pub(crate) struct RedisCache {
    client: Arc<RedisClient>,
    /// Authenticate the values: a client with write access to Redis cannot forge or exchange them.
    keys: MacKeys,
    /// The value of the locks that this instance holds.
    instance: String,
    get_or_lease_script: Script,
    release_script: Script,
    /// The number of values that failed to decode.
    pub(crate) invalid_values: Counter,
    /// Whether an invalid value has been logged; the counter shows the others.
    logged_invalid_value: AtomicBool,
}

impl RedisCache {
    pub(crate) fn new(client: Arc<RedisClient>, keys: MacKeys) -> Self {
        Self {
            client,
            keys,
            instance: Uuid::new_v4().simple().to_string(),
            get_or_lease_script: Script::new(GET_OR_LEASE_SCRIPT),
            release_script: Script::new(RELEASE_SCRIPT),
            invalid_values: Counter::default(),
            logged_invalid_value: AtomicBool::new(false),
        }
    }

    /// Returns the entry; `None` also when Redis is unavailable.
    pub(crate) async fn get(&self, key: &Key, limit: &FillLimit) -> Option<Entry> {
        let name = self.entry_name(key);
        let (value, _permit) = self.look_up(&name, "", limit).await?;
        match value {
            Value::BulkString(value) => self.decode(&name, key, value),
            VALUE_TOO_LONG => self.reject(),
            _ => None,
        }
    }

    /// Returns the entry, or a lease for filling it. Waits up to [`LEASE_WAIT_TIMEOUT`] while another instance holds the
    /// lease.
    pub(crate) async fn get_or_lease(&self, key: &Key, limit: &FillLimit) -> Lookup {
        let name = self.entry_name(key);
        let deadline = Instant::now() + LEASE_WAIT_TIMEOUT;
        loop {
            // an invalid value is replaced without a lease
            let (value, _permit) = self.look_up(&name, &self.instance, limit).await.unzip();
            match value {
                Some(Value::BulkString(value)) => {
                    return self.decode(&name, key, value).map_or(Lookup::Lease, Lookup::Hit);
                }
                Some(VALUE_TOO_LONG) => return self.reject().map_or(Lookup::Lease, Lookup::Hit),
                Some(LEASE_GRANTED) => return Lookup::Lease,
                Some(Value::Int(_)) if Instant::now() < deadline => tokio::time::sleep(LEASE_POLL_INTERVAL).await,
                _ => return Lookup::Unavailable,
            }
        }
    }

    /// Returns what [`call_script`](Self::call_script) returns. A large value needs the permit.
    async fn look_up(&self, name: &str, holder: &str, limit: &FillLimit) -> Option<(Value, Option<FillPermit>)> {
        let value = self.call_script(name, holder, UNCOUNTED_FILL_BYTES).await?;
        if value != VALUE_LARGE {
            return Some((value, None));
        }
        let permit = limit.acquire(MAX_VALUE_BYTES).await.ok()?;
        Some((self.call_script(name, holder, MAX_VALUE_BYTES).await?, permit))
    }

    /// Runs [`GET_OR_LEASE_SCRIPT`] for a key. `holder` is empty if the caller wants no lease; `max_bytes` is the size of
    /// the largest value that it wants now.
    async fn call_script(&self, name: &str, holder: &str, max_bytes: usize) -> Option<Value> {
        let call = |mut connection| async move {
            let mut invocation = self.get_or_lease_script.key(name);
            invocation.key(lease_name(name)).arg(holder).arg(millis(LEASE_TTL)).arg(MAX_VALUE_BYTES).arg(max_bytes);
            invocation.invoke_async::<Value>(&mut connection).await
        };
        self.client.call(call).await
    }

    /// Stores the entry filled under the lease for `key`, or nothing when the fill failed, and releases the lease.
    pub(crate) async fn store_and_release(&self, key: &Key, entry: Option<&Entry>, limit: &FillLimit) {
        // the snapshot of the fill may show a newer version than the one requested
        let entry_key = entry.map(|entry| Key { version: entry.version, ..key.clone() });
        let name = self.entry_name(entry_key.as_ref().unwrap_or(key));
        let stored = entry.filter(|entry| entry.bytes.len() <= MAX_ENTRY_BYTES);
        // the value is a copy
        let permit = limit.acquire(stored.map_or(0, |entry| entry.bytes.len())).await;
        let stored = stored.filter(|_| permit.is_ok());
        let value = stored.map(|entry| codec::encode(&self.keys, &name, entry)).unwrap_or_default();
        let lease_name = lease_name(&self.entry_name(key));
        let release = |mut connection| async move {
            let mut invocation = self.release_script.key(name);
            invocation.key(lease_name).arg(&self.instance).arg(value).arg(millis(ENTRY_TTL));
            invocation.invoke_async::<i64>(&mut connection).await
        };
        self.client.call(release).await;
    }

    /// Returns the name of the entry's key. It contains the format version, so that program versions with other formats
    /// do not read each other's entries.
    fn entry_name(&self, key: &Key) -> String {
        let Key { version: Version { number, token }, list, representation } = key;
        let representation = match representation {
            Representation::Identity => "identity",
            Representation::Gzip => "gzip",
        };
        let (collection, token, query) = (list.collection.name(), token.simple(), &list.query);
        self.client.key(&format!("v{FORMAT_VERSION}:{collection}:{number}:{token}:{representation}:{query}"))
    }

    fn decode(&self, name: &str, key: &Key, value: Vec<u8>) -> Option<Entry> {
        codec::decode(&self.keys, name, key, &value.into()).or_else(|| self.reject())
    }

    /// Records an invalid value. Returns `None`: it is a miss.
    fn reject(&self) -> Option<Entry> {
        self.invalid_values.inc();
        if !self.logged_invalid_value.swap(true, Relaxed) {
            warn!("invalid cache entry in redis; further ones are only counted");
        }
        None
    }
}

fn lease_name(entry_name: &str) -> String {
    format!("{entry_name}:lock")
}
