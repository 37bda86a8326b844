//! The cache of lists: memory, then Redis, then a fill from the database. A Redis outage is a miss.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use prometheus_client::metrics::counter::Counter;

use super::{
    counters::CacheCounters,
    entry::{Entry, Key, Layer, List},
    fill::{FillContent, FillFuture, FillResult, Previous, blocking_if_large},
    fill_budget::{FillBudget, FillLimit},
    latest_list::{ChunkedEntry, LatestList, Turn},
    memory::MemoryCache,
    redis_cache::{Lookup, RedisCache},
    single_flight::SingleFlight,
};
use crate::{error::Result, http::Representation, sync::lock};

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
    /// A list of several chunks.
    Chunked(Arc<ChunkedEntry>),
    /// The response exceeds the limit of an entry; the caller streams it.
    TooLarge,
}

/// The cache of lists.
pub(crate) struct Cache {
    mode: CacheMode,
    fill_budget: Arc<FillBudget>,
    /// The complete lists of products, categories and tags.
    complete_lists: MemoryCache,
    /// Lists with parameters and single rows, kept apart so that a crawler of their combinations does not evict the
    /// complete lists.
    filtered_lists: MemoryCache,
    /// The list of all products. Its memory is part of `complete_lists`.
    latest: LatestList,
    single_flight: SingleFlight<Key, (Outcome, Layer)>,
    redis: Option<Arc<RedisCache>>,
    /// Lists whose last fill exceeded the limit, with the size up to which one is within it: the next fill most likely
    /// exceeds it too and is skipped.
    oversized: Mutex<HashMap<List, usize>>,
    pub(crate) counters: CacheCounters,
}

impl Cache {
    /// Creates an empty cache of `capacity` bytes in memory, with entries of at most `entry_limit` bytes.
    pub(crate) fn new(mode: CacheMode, capacity: usize, entry_limit: usize, redis: Option<RedisCache>) -> Arc<Self> {
        Arc::new(Self {
            mode,
            fill_budget: FillBudget::new(entry_limit, capacity / 2),
            complete_lists: MemoryCache::new(capacity / 2),
            filtered_lists: MemoryCache::new(capacity / 2),
            latest: LatestList::default(),
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

    /// Returns whether memory holds this version of a chunked list.
    pub(crate) fn is_latest(&self, entry: &ChunkedEntry) -> bool {
        self.latest.get_version(entry.version).is_some()
    }

    fn memory(&self, list: &List) -> &MemoryCache {
        if list.is_complete() { &self.complete_lists } else { &self.filtered_lists }
    }

    /// Records the size of a list that was streamed: the next request for one below the limit fills the cache.
    pub(crate) fn record_size(&self, list: &List, bytes: usize) {
        let mut oversized = lock(&self.oversized);
        if oversized.get(list).is_some_and(|fitting_bytes| bytes <= *fitting_bytes) {
            oversized.remove(list);
        }
    }

    fn record_oversized(&self, list: &List, fitting_bytes: usize) {
        let mut oversized = lock(&self.oversized);
        if oversized.len() >= MAX_OVERSIZED {
            oversized.clear();
        }
        oversized.insert(list.clone(), fitting_bytes);
    }

    /// Returns the entry from memory, without a lookup in Redis.
    pub(crate) fn get_from_memory(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = if self.mode == CacheMode::Full { self.memory(&key.list).get(key) } else { None };
        if entry.is_some() {
            self.counters.memory_hits.inc();
        }
        entry
    }

    /// Returns a list of several chunks from memory.
    pub(crate) fn get_chunked(&self, key: &Key) -> Option<Arc<ChunkedEntry>> {
        if !key.list.is_chunked() {
            return None;
        }
        let can_serve = |entry: &Arc<ChunkedEntry>| {
            !entry.is_small() && (key.representation == Representation::Identity || entry.list.is_compressed())
        };
        let entry = self.latest.get_version(key.version).filter(can_serve);
        if entry.is_some() {
            self.counters.memory_hits.inc();
        }
        entry
    }

    /// Returns the latest version of a chunked list, which the fill of the next version starts from.
    fn previous(&self, list: &List) -> Previous {
        if list.is_chunked() { self.latest.get() } else { None }
    }

    /// Returns the entry from the first layer that has it, or the result of `fill`, which gets the latest version of a
    /// chunked list.
    pub(crate) async fn get_or_fill(
        self: &Arc<Self>,
        key: Key,
        fill: impl Fn(Previous) -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if self.mode == CacheMode::Off {
            return Ok((self.fill(&key, fill).await?, Layer::Bypass));
        }
        if let Some(entry) = self.get_from_memory(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        if let Some(entry) = self.get_chunked(&key) {
            return Ok((Outcome::Chunked(entry), Layer::Memory));
        }
        if self.mode == CacheMode::Redis
            && let Some(redis) = &self.redis
            && let Some(entry) = redis.get(&key, &self.fill_limit(&key.list)).await
        {
            self.counters.redis_hits.inc();
            return Ok((Outcome::Entry(Arc::new(entry)), Layer::Redis));
        }
        if lock(&self.oversized).contains_key(&key.list) {
            return Ok((Outcome::TooLarge, Layer::Database));
        }
        let this = Arc::clone(self);
        self.single_flight.run(key.clone(), move || async move { this.load(key, fill).await }).await
    }

    /// Loads the entry from Redis or the database. Runs at most once per key at a time.
    async fn load(
        self: Arc<Self>,
        key: Key,
        fill: impl Fn(Previous) -> FillFuture + Send + 'static,
    ) -> Result<(Outcome, Layer)> {
        if let Some(entry) = self.memory(&key.list).get(&key) {
            return Ok((Outcome::Entry(entry), Layer::Memory));
        }
        let lookup = match &self.redis {
            // the changes since the previous list take no longer to read than the entry in Redis
            Some(redis) if self.previous(&key.list).is_none() => {
                redis.get_or_lease(&key, &self.fill_limit(&key.list)).await
            }
            _ => Lookup::Unavailable,
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
                    Ok((Outcome::Chunked(entry), _)) => self.chunked_outcome(entry, key.representation).await,
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
        let outcome = match filled? {
            Outcome::Entry(entry) => Outcome::Entry(self.insert(key.list, entry)),
            other => other,
        };
        Ok((outcome, Layer::Database))
    }

    async fn fill(&self, key: &Key, fill: impl Fn(Previous) -> FillFuture) -> Result<Outcome> {
        if self.mode == CacheMode::Full && key.list.is_chunked() {
            return self.fill_chunked(key, fill).await;
        }
        self.counters.fills.inc();
        self.outcome(key, fill(None).await?).await
    }

    /// Loads a chunked list from the latest version of it, one version at a time.
    async fn fill_chunked(&self, key: &Key, fill: impl Fn(Previous) -> FillFuture) -> Result<Outcome> {
        let turn = match self.latest.begin_fill(key.version).await {
            Turn::Filled(entry) => return self.chunked_outcome(entry, key.representation).await,
            Turn::Fill(turn) => turn,
        };
        self.counters.fills.inc();
        let filled = fill(self.latest.get()).await?;
        if filled.is_incremental {
            self.counters.incremental_fills.inc();
        }
        let FillContent::Chunked(list) = &filled.content else {
            turn.clear();
            self.complete_lists.reserve(0);
            return self.outcome(key, filled).await;
        };
        if list.is_compressed() {
            self.counters.compressions.inc();
        }
        let mut entry = Arc::new(ChunkedEntry::new(filled.version, Arc::clone(list)));
        let mut fits = self.complete_lists.reserve(entry.memory_bytes());
        if !fits {
            let complete = Arc::clone(&entry);
            entry = blocking_if_large(list.json_bytes(), move || Arc::new(complete.without_json())).await?;
            fits = self.complete_lists.reserve(entry.memory_bytes());
        }
        if fits {
            turn.store(Arc::clone(&entry), filled.is_current);
        } else {
            turn.clear();
        }
        self.chunked_outcome(entry, key.representation).await
    }

    /// Returns a small list in one piece, which Redis can store, and another one in chunks, compressed for gzip.
    async fn chunked_outcome(&self, entry: Arc<ChunkedEntry>, representation: Representation) -> Result<Outcome> {
        if representation == Representation::Gzip && !entry.list.is_compressed() {
            self.counters.compressions.inc();
            let list = Arc::clone(&entry.list);
            blocking_if_large(list.json_bytes(), move || list.compress()).await?;
        }
        let is_small = entry.is_small();
        Ok(if is_small { Outcome::Entry(Arc::new(entry.to_entry(representation))) } else { Outcome::Chunked(entry) })
    }

    /// Returns the outcome of a fill in the representation of the key.
    async fn outcome(&self, key: &Key, filled: FillResult) -> Result<Outcome> {
        let FillResult { version, content, headers, permit, .. } = filled;
        match content {
            FillContent::TooLarge { fitting_bytes } => {
                self.record_oversized(&key.list, fitting_bytes);
                Ok(Outcome::TooLarge)
            }
            FillContent::Chunked(list) => {
                self.counters.compressions.inc();
                self.chunked_outcome(Arc::new(ChunkedEntry::new(version, list)), key.representation).await
            }
            FillContent::Json(bytes) => {
                let size = bytes.len();
                let identity = blocking_if_large(size, move || Entry::identity(version, bytes, headers)).await?;
                drop(permit);
                match key.representation {
                    Representation::Identity => Ok(Outcome::Entry(Arc::new(identity))),
                    Representation::Gzip => self.compress(&key.list, Arc::new(identity)).await.map(Outcome::Entry),
                }
            }
        }
    }

    async fn compress(&self, list: &List, identity: Arc<Entry>) -> Result<Arc<Entry>> {
        if let Some(chunked) = self.previous(list).filter(|chunked| chunked.version == identity.version) {
            if !chunked.list.is_compressed() {
                self.counters.compressions.inc();
            }
            let compress = move || Arc::new(chunked.to_entry(Representation::Gzip));
            return blocking_if_large(identity.bytes.len(), compress).await;
        }
        let _permit = self.fill_limit(list).acquire(identity.bytes.len()).await?;
        self.counters.compressions.inc();
        let compress = if list.is_chunked() { Entry::gzip_as_chunk } else { Entry::gzip };
        blocking_if_large(identity.bytes.len(), move || Arc::new(compress(&identity))).await
    }

    fn insert(&self, list: List, entry: Arc<Entry>) -> Arc<Entry> {
        if self.mode == CacheMode::Full {
            self.memory(&list).put(list.clone(), &entry);
        }
        entry
    }
}
