//! The cache: never stale by construction. A list is kept under the version of the catalogue that the database
//! gave in the same snapshot as the rows; a request serves only what stands under the version that the database
//! gave after the request arrived. No entry is ever invalidated, so nothing can be forgotten to be deleted.
//!
//! Layers: in-process, then Redis, then whoever can make the bytes. An outage of Redis is a miss.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

use super::{
    entry::{Entry, Headers, Key, Layer},
    memory::MemoryCache,
    redis_cache::{Lookup, RedisCache},
    single_flight::SingleFlight,
};
use crate::{
    error::{Error, Result},
    http::Representation,
    redis::RedisClient,
    sync::lock,
    versions::Version,
};

/// Which layers are in use; less than `Full` is for measuring what each is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CacheMode {
    /// In-process over Redis.
    #[default]
    Full,
    /// Redis only.
    Redis,
    /// None: every request makes its own bytes.
    Off,
}

/// What a query gave.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The bytes.
    Entry(Arc<Entry>),
    /// Too many bytes to keep: the caller streams them.
    TooLarge,
}

/// What a fill gives: the version that its snapshot showed, and the bytes unless they are too many.
#[derive(Debug)]
pub(crate) struct FillResult {
    /// Read in the same snapshot as the rows.
    pub(crate) version: Version,
    /// `None`: more than [`Cache::entry_limit`].
    pub(crate) bytes: Option<Bytes>,
    /// What else the answer says in its head.
    pub(crate) headers: Headers,
}

/// A fill, running on its own: a leaving client cancels nobody's.
pub(crate) type FillFuture = Pin<Box<dyn Future<Output = Result<FillResult>> + Send>>;

/// How often each layer answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheCounters {
    /// Answers from the process's own memory.
    pub(crate) memory: Counter,
    /// Answers from Redis.
    pub(crate) redis: Counter,
    /// Fills from the database.
    pub(crate) fills: Counter,
    /// Compressions.
    pub(crate) compressions: Counter,
}

/// The cache of lists.
pub(crate) struct Cache {
    mode: CacheMode,
    entry_limit: usize,
    /// The list without parameters.
    whole: MemoryCache,
    /// Everything that is asked for with parameters: a crawler of their combinations pushes out others of its kind only.
    selections: MemoryCache,
    flights: SingleFlight<Key, (Outcome, Layer)>,
    redis: Option<Arc<RedisCache>>,
    /// Queries whose last fill was over the limit: the next one most likely is too, and is not tried.
    large: Mutex<HashSet<Arc<str>>>,
    /// How often each layer answered.
    pub(crate) counters: CacheCounters,
}

impl Cache {
    /// An empty cache: `capacity` bytes in the process, entries of at most `entry_limit` bytes.
    pub(crate) fn new(
        mode: CacheMode,
        capacity: usize,
        entry_limit: usize,
        redis: Option<Arc<RedisClient>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            mode,
            entry_limit,
            whole: MemoryCache::new(capacity / 2),
            selections: MemoryCache::new(capacity / 2),
            flights: SingleFlight::default(),
            redis: redis.map(|client| Arc::new(RedisCache::new(client))),
            large: Mutex::default(),
            counters: CacheCounters::default(),
        })
    }

    /// Bytes from which on a list is streamed and not kept.
    pub(crate) fn entry_limit(&self) -> usize {
        self.entry_limit
    }

    /// Returns the number of values in Redis that no instance wrote.
    pub(crate) fn invalid_values(&self) -> Option<&Counter> {
        self.redis.as_deref().map(|redis| &redis.invalid_values)
    }

    /// Bytes that the process keeps now.
    pub(crate) fn bytes(&self) -> usize {
        self.whole.bytes() + self.selections.bytes()
    }

    /// Whether this process keeps an entry until another takes its place.
    pub(crate) fn keeps(&self, query: &str, entry: &Entry) -> bool {
        self.mode == CacheMode::Full && self.store(query).has_room_for(query, entry)
    }

    fn store(&self, query: &str) -> &MemoryCache {
        if query.is_empty() { &self.whole } else { &self.selections }
    }

    /// Tells whether a list that was streamed past the cache would have been too large for it.
    pub(crate) fn note_size(&self, query: &Arc<str>, bytes: usize) {
        let mut large = lock(&self.large);
        if bytes <= self.entry_limit {
            large.remove(query);
        } else {
            if large.len() >= MAX_LARGE {
                large.clear();
            }
            large.insert(Arc::clone(query));
        }
    }

    /// The entry for this key, if the process's own memory has it.
    pub(crate) fn hit(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = if self.mode == CacheMode::Full { self.store(&key.query).get(key) } else { None };
        if entry.is_some() {
            self.counters.memory.inc();
        }
        entry
    }

    /// The entry for this key, from the nearest layer that has it, or made by `fill`.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: Key,
        fill: impl Fn() -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if self.mode == CacheMode::Off {
            return Ok((self.make(&key, fill).await?, Layer::Bypass));
        }
        if let Some(entry) = self.hit(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        if self.mode == CacheMode::Redis
            && let Some(redis) = &self.redis
            && let Some(entry) = redis.get(&key).await
        {
            self.counters.redis.inc();
            return Ok((Outcome::Entry(Arc::new(entry)), Layer::Redis));
        }
        if lock(&self.large).contains(&key.query) {
            return Ok((Outcome::TooLarge, Layer::Database));
        }
        let this = Arc::clone(self);
        self.flights.join(key.clone(), move || async move { this.obtain(key, fill).await }).await
    }

    /// Runs once per key at a time, in a task of its own.
    async fn obtain(
        self: Arc<Self>,
        key: Key,
        fill: impl Fn() -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if let Some(entry) = self.store(&key.query).get(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        let claim = match &self.redis {
            Some(redis) => redis.claim(&key).await,
            None => Lookup::Away,
        };
        if let Lookup::Found(entry) = claim {
            self.counters.redis.inc();
            return Ok((Outcome::Entry(self.keep(key.query, Arc::new(entry))), Layer::Redis));
        }
        let made = match key.representation {
            // one identity serves all representations, and costs the database once
            Representation::Gzip => {
                let identity = Key { representation: Representation::Identity, ..key.clone() };
                match Box::pin(Arc::clone(&self).obtain(identity, fill)).await {
                    Ok((Outcome::Entry(identity), _)) => self.compress(identity).await.map(Outcome::Entry),
                    other => other.map(|(found, _)| found),
                }
            }
            Representation::Identity => self.make(&key, fill).await,
        };
        if let (Lookup::Ours, Some(redis)) = (claim, &self.redis) {
            let stored = match &made {
                Ok(Outcome::Entry(entry)) => Some(Arc::clone(entry)),
                _ => None,
            };
            let redis = Arc::clone(redis);
            let key = key.clone();
            tokio::spawn(async move { redis.settle(&key, stored.as_deref()).await });
        }
        match made? {
            Outcome::Entry(entry) => Ok((Outcome::Entry(self.keep(key.query, entry)), Layer::Database)),
            Outcome::TooLarge => Ok((Outcome::TooLarge, Layer::Database)),
        }
    }

    async fn make(&self, key: &Key, fill: impl Fn() -> FillFuture) -> Result<Outcome> {
        self.counters.fills.inc();
        let FillResult { version, bytes, headers } = fill().await?;
        let Some(bytes) = bytes else {
            self.note_size(&key.query, usize::MAX);
            return Ok(Outcome::TooLarge);
        };
        let size = bytes.len();
        let identity = Arc::new(off_the_loop(size, move || Entry::identity(version, bytes, headers)).await?);
        match key.representation {
            Representation::Identity => Ok(Outcome::Entry(identity)),
            Representation::Gzip => self.compress(identity).await.map(Outcome::Entry),
        }
    }

    async fn compress(&self, identity: Arc<Entry>) -> Result<Arc<Entry>> {
        self.counters.compressions.inc();
        off_the_loop(identity.bytes.len(), move || Arc::new(identity.gzip())).await
    }

    fn keep(&self, query: Arc<str>, entry: Arc<Entry>) -> Arc<Entry> {
        if self.mode == CacheMode::Full {
            self.store(&query).put(Arc::clone(&query), &entry);
        }
        entry
    }
}

/// So many queries are remembered as too large.
const MAX_LARGE: usize = 64;
/// From this many bytes on, hashing and compressing would hold up other requests of the same thread.
const BLOCKING_BYTES: usize = 256 * 1024;

async fn off_the_loop<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes < BLOCKING_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
