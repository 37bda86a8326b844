//! The cache of lists: memory, then Redis, then a fill from the database. A Redis outage is a miss.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::{
    entry::{Entry, Headers, Key, Layer, List},
    fill_budget::{FillBudget, FillLimit, FillPermit},
    memory::MemoryCache,
    redis_cache::{Lookup, RedisCache},
    single_flight::SingleFlight,
};
use crate::{
    error::{Error, Result},
    http::Representation,
    sync::lock,
    versions::Version,
};

/// Larger responses are hashed and compressed on a blocking thread, because they would delay other requests of the same
/// worker thread.
const BLOCKING_BYTES: usize = 256 * 1024;
/// When more lists than this are known to be oversized, all are dropped.
const MAX_OVERSIZED: usize = 64;

/// The layers in use. The modes other than `Full` measure what each layer contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CacheMode {
    /// Memory, then Redis.
    #[default]
    Full,
    /// Redis only.
    Redis,
    /// No cache: every request does its own fill.
    Off,
}

/// The result of a cache access.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Entry(Arc<Entry>),
    /// The response exceeds the limit of an entry; the caller streams it.
    TooLarge,
}

/// The result of a fill.
#[derive(Debug)]
pub(crate) struct FillResult {
    /// The version, read in the same snapshot as the rows.
    pub(crate) version: Version,
    /// The body, or `None` when it exceeds the limit of an entry.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) headers: Headers,
    /// The permit of a large list.
    pub(crate) permit: Option<FillPermit>,
}

/// A fill. It owns its state, so a client that disconnects does not cancel it for others.
pub(crate) type FillFuture = Pin<Box<dyn Future<Output = Result<FillResult>> + Send>>;

/// The label of a cache hit: `memory` or `redis`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HitLabels {
    layer: &'static str,
}

#[derive(Debug)]
pub(crate) struct CacheCounters {
    pub(crate) hits: Family<HitLabels, Counter>,
    /// The two counters of `hits`, looked up once.
    memory_hits: Counter,
    redis_hits: Counter,
    pub(crate) fills: Counter,
    pub(crate) compressions: Counter,
}

impl Default for CacheCounters {
    fn default() -> Self {
        let hits = Family::<HitLabels, Counter>::default();
        let of_layer = |layer| hits.get_or_create(&HitLabels { layer }).clone();
        let (memory_hits, redis_hits) = (of_layer("memory"), of_layer("redis"));
        Self { hits, memory_hits, redis_hits, fills: Counter::default(), compressions: Counter::default() }
    }
}

/// The cache of lists.
pub(crate) struct Cache {
    mode: CacheMode,
    entry_limit: usize,
    fill_budget: Arc<FillBudget>,
    /// The complete lists of products, categories and tags.
    complete_lists: MemoryCache,
    /// Lists with parameters and single rows, kept apart so that a crawler of their combinations does not evict the
    /// complete lists.
    filtered_lists: MemoryCache,
    single_flight: SingleFlight<Key, (Outcome, Layer)>,
    redis: Option<Arc<RedisCache>>,
    /// Lists whose last fill exceeded the limit: the next fill most likely does too and is skipped.
    oversized: Mutex<HashSet<List>>,
    pub(crate) counters: CacheCounters,
}

impl Cache {
    /// Creates an empty cache of `capacity` bytes in memory, with entries of at most `entry_limit` bytes.
    pub(crate) fn new(mode: CacheMode, capacity: usize, entry_limit: usize, redis: Option<RedisCache>) -> Arc<Self> {
        Arc::new(Self {
            mode,
            entry_limit,
            fill_budget: FillBudget::new(entry_limit),
            complete_lists: MemoryCache::new(capacity / 2),
            filtered_lists: MemoryCache::new(capacity / 2),
            single_flight: SingleFlight::default(),
            redis: redis.map(Arc::new),
            oversized: Mutex::default(),
            counters: CacheCounters::default(),
        })
    }

    /// Returns what a fill of the list may take. A larger list is streamed instead of cached.
    pub(crate) fn fill_limit(&self, list: &List) -> FillLimit {
        self.fill_budget.limit_of(list)
    }

    /// Returns the counter of invalid values in Redis, if Redis is configured.
    pub(crate) fn invalid_values(&self) -> Option<&Counter> {
        self.redis.as_deref().map(|redis| &redis.invalid_values)
    }

    /// Returns the number of bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.complete_lists.bytes() + self.filtered_lists.bytes()
    }

    /// Returns whether memory can store the entry.
    pub(crate) fn can_store(&self, list: &List, entry: &Entry) -> bool {
        self.mode == CacheMode::Full && self.memory(list).fits(list, entry)
    }

    fn memory(&self, list: &List) -> &MemoryCache {
        if list.is_complete() { &self.complete_lists } else { &self.filtered_lists }
    }

    /// Records the size of a list that was streamed: the next request for one below the limit fills the cache.
    pub(crate) fn record_size(&self, list: &List, bytes: usize) {
        let mut oversized = lock(&self.oversized);
        if bytes <= self.entry_limit {
            oversized.remove(list);
        } else {
            if oversized.len() >= MAX_OVERSIZED {
                oversized.clear();
            }
            oversized.insert(list.clone());
        }
    }

    /// Returns the entry from memory, without a lookup in Redis.
    pub(crate) fn get_from_memory(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = if self.mode == CacheMode::Full { self.memory(&key.list).get(key) } else { None };
        if entry.is_some() {
            self.counters.memory_hits.inc();
        }
        entry
    }

    /// Returns the entry from the first layer that has it, or the result of `fill`.
    pub(crate) async fn get_or_fill(
        self: &Arc<Self>,
        key: Key,
        fill: impl Fn() -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if self.mode == CacheMode::Off {
            return Ok((self.fill(&key, fill).await?, Layer::Bypass));
        }
        if let Some(entry) = self.get_from_memory(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        if self.mode == CacheMode::Redis
            && let Some(redis) = &self.redis
            && let Some(entry) = redis.get(&key, &self.fill_limit(&key.list)).await
        {
            self.counters.redis_hits.inc();
            return Ok((Outcome::Entry(Arc::new(entry)), Layer::Redis));
        }
        if lock(&self.oversized).contains(&key.list) {
            return Ok((Outcome::TooLarge, Layer::Database));
        }
        let this = Arc::clone(self);
        self.single_flight.run(key.clone(), move || async move { this.load(key, fill).await }).await
    }

    /// Loads the entry from Redis or the database. Runs at most once per key at a time.
    async fn load(
        self: Arc<Self>,
        key: Key,
        fill: impl Fn() -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if let Some(entry) = self.memory(&key.list).get(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        let lookup = match &self.redis {
            Some(redis) => redis.get_or_lease(&key, &self.fill_limit(&key.list)).await,
            None => Lookup::Unavailable,
        };
        if let Lookup::Hit(entry) = lookup {
            self.counters.redis_hits.inc();
            return Ok((Outcome::Entry(self.insert(key.list, Arc::new(entry))), Layer::Redis));
        }
        let filled = match key.representation {
            // compressed from the identity entry, so that all representations cost the database one fill
            Representation::Gzip => {
                let identity = Key { representation: Representation::Identity, ..key.clone() };
                match Box::pin(Arc::clone(&self).load(identity, fill)).await {
                    Ok((Outcome::Entry(identity), _)) => self.compress(&key.list, identity).await.map(Outcome::Entry),
                    other => other.map(|(outcome, _)| outcome),
                }
            }
            Representation::Identity => self.fill(&key, fill).await,
        };
        if let (Lookup::Lease, Some(redis)) = (lookup, &self.redis) {
            let entry = match &filled {
                Ok(Outcome::Entry(entry)) => Some(Arc::clone(entry)),
                _ => None,
            };
            let redis = Arc::clone(redis);
            let (key, limit) = (key.clone(), self.fill_limit(&key.list));
            tokio::spawn(async move { redis.store_and_release(&key, entry.as_deref(), &limit).await });
        }
        match filled? {
            Outcome::Entry(entry) => Ok((Outcome::Entry(self.insert(key.list, entry)), Layer::Database)),
            Outcome::TooLarge => Ok((Outcome::TooLarge, Layer::Database)),
        }
    }

    async fn fill(&self, key: &Key, fill: impl Fn() -> FillFuture) -> Result<Outcome> {
        self.counters.fills.inc();
        let FillResult { version, bytes, headers, permit } = fill().await?;
        let Some(bytes) = bytes else {
            self.record_size(&key.list, usize::MAX);
            return Ok(Outcome::TooLarge);
        };
        let size = bytes.len();
        let identity = Arc::new(blocking_if_large(size, move || Entry::identity(version, bytes, headers)).await?);
        drop(permit);
        match key.representation {
            Representation::Identity => Ok(Outcome::Entry(identity)),
            Representation::Gzip => self.compress(&key.list, identity).await.map(Outcome::Entry),
        }
    }

    async fn compress(&self, list: &List, identity: Arc<Entry>) -> Result<Arc<Entry>> {
        let _permit = self.fill_limit(list).acquire(identity.bytes.len()).await?;
        self.counters.compressions.inc();
        blocking_if_large(identity.bytes.len(), move || Arc::new(identity.gzip())).await
    }

    fn insert(&self, list: List, entry: Arc<Entry>) -> Arc<Entry> {
        if self.mode == CacheMode::Full {
            self.memory(&list).put(list.clone(), &entry);
        }
        entry
    }
}

/// Runs `work` on `bytes` bytes, from [`BLOCKING_BYTES`] on in the blocking thread pool.
async fn blocking_if_large<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes < BLOCKING_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
