//! The cache: never stale by construction. A list is kept under the version of the catalogue that the database
//! gave in the same snapshot as the rows; a request serves only what stands under the version that the database
//! gave after the request arrived. No entry is ever invalidated, so nothing can be forgotten to be deleted.
//!
//! Layers: in-process, then Redis, then whoever can make the bytes. An outage of Redis is a miss.

pub mod address;
pub mod counts;
pub mod entry;
pub mod files;
pub mod flight;
pub mod freshness;
pub mod lent;
pub mod shared;
pub mod store;
mod value;

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

pub use self::{
    address::SharedSettings,
    counts::Counts,
    entry::{Entry, Headers, Representation},
    files::Files,
    freshness::{Freshness, Reading, Version, Versions},
    lent::Lent,
    shared::Shared,
};
use self::{flight::Flights, shared::Claim, store::Store};
use crate::error::{Error, Result};

/// Which layers are in use; less than `Full` is for measuring what each is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// In-process over Redis.
    #[default]
    Full,
    /// Redis only.
    Redis,
    /// None: every request makes its own bytes.
    Off,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The process's own memory.
    Memory,
    /// Redis.
    Redis,
    /// Made for this request, or for one that asked a moment before.
    Database,
    /// Made for this request alone; the cache is off.
    Bypass,
}

/// What a query gave.
#[derive(Debug, Clone)]
pub enum Found {
    /// The bytes.
    Entry(Arc<Entry>),
    /// Too many bytes to keep: the caller streams them.
    TooLarge,
}

/// What a fill gives: the version that its snapshot showed, and the bytes unless they are too many.
#[derive(Debug)]
pub struct Filled {
    /// Read in the same snapshot as the rows.
    pub version: Version,
    /// `None`: more than [`Cache::entry_limit`].
    pub bytes: Option<Bytes>,
    /// What else the answer says in its head.
    pub headers: Headers,
}

/// A fill, running on its own: a leaving client cancels nobody's.
pub type Filling = Pin<Box<dyn Future<Output = Result<Filled>> + Send>>;

/// How often each layer answered.
#[derive(Debug, Clone, Default)]
pub struct CacheCounters {
    /// Answers from the process's own memory.
    pub memory: Counter,
    /// Answers from Redis.
    pub redis: Counter,
    /// Fills from the database.
    pub fills: Counter,
    /// Compressions.
    pub compressions: Counter,
}

/// The cache of lists.
pub struct Cache {
    mode: CacheMode,
    entry_limit: usize,
    /// The list without parameters.
    whole: Store,
    /// Everything that is asked for with parameters: a crawler of their combinations pushes out others of its kind only.
    selections: Store,
    flights: Flights<Key, (Found, Layer)>,
    shared: Option<Arc<Shared>>,
    /// Queries whose last fill was over the limit: the next one most likely is too, and is not tried.
    large: Mutex<HashSet<Arc<str>>>,
    /// How often each layer answered.
    pub counters: CacheCounters,
}

/// What an entry is found under, in each layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The version that the database gave to this request.
    pub version: Version,
    /// The normalised query.
    pub query: Arc<str>,
    /// Identity or gzip.
    pub representation: Representation,
}

impl Cache {
    /// An empty cache: `capacity` bytes in the process, entries of at most `entry_limit` bytes.
    pub fn new(mode: CacheMode, capacity: usize, entry_limit: usize, shared: Option<Arc<Shared>>) -> Arc<Self> {
        Arc::new(Self {
            mode,
            entry_limit,
            whole: Store::new(capacity / 2),
            selections: Store::new(capacity / 2),
            flights: Flights::default(),
            shared,
            large: Mutex::default(),
            counters: CacheCounters::default(),
        })
    }

    /// Bytes from which on a list is streamed and not kept.
    pub fn entry_limit(&self) -> usize {
        self.entry_limit
    }

    /// Bytes that the process keeps now.
    pub fn bytes(&self) -> usize {
        self.whole.bytes() + self.selections.bytes()
    }

    /// Whether this process keeps an entry until another takes its place.
    pub fn keeps(&self, query: &str, entry: &Entry) -> bool {
        self.mode == CacheMode::Full && self.store(query).has_room_for(query, entry)
    }

    fn store(&self, query: &str) -> &Store {
        if query.is_empty() { &self.whole } else { &self.selections }
    }

    /// Tells whether a list that was streamed past the cache would have been too large for it.
    pub fn note_size(&self, query: &Arc<str>, bytes: usize) {
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
    pub fn hit(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = if self.mode == CacheMode::Full { self.store(&key.query).get(key) } else { None };
        if entry.is_some() {
            self.counters.memory.inc();
        }
        entry
    }

    /// The entry for this key, from the nearest layer that has it, or made by `fill`.
    pub async fn get(
        self: &Arc<Self>,
        key: Key,
        fill: impl Fn() -> Filling + Send + 'static,
    ) -> Result<(Found, Layer)> {
        if self.mode == CacheMode::Off {
            return Ok((self.make(&key, fill).await?, Layer::Bypass));
        }
        if let Some(entry) = self.hit(&key) {
            return Ok((Found::Entry(entry), Layer::Memory));
        }
        if self.mode == CacheMode::Redis
            && let Some(shared) = &self.shared
            && let Some(entry) = shared.get(&key).await
        {
            self.counters.redis.inc();
            return Ok((Found::Entry(Arc::new(entry)), Layer::Redis));
        }
        if lock(&self.large).contains(&key.query) {
            return Ok((Found::TooLarge, Layer::Database));
        }
        let this = Arc::clone(self);
        self.flights.join(key.clone(), move || async move { this.obtain(key, fill).await }).await
    }

    /// Runs once per key at a time, in a task of its own.
    async fn obtain(self: Arc<Self>, key: Key, fill: impl Fn() -> Filling + Send + 'static) -> Result<(Found, Layer)> {
        if let Some(entry) = self.store(&key.query).get(&key) {
            return Ok((Found::Entry(entry), Layer::Memory));
        }
        let claim = match &self.shared {
            Some(shared) => shared.claim(&key).await,
            None => Claim::Away,
        };
        if let Claim::Found(entry) = claim {
            self.counters.redis.inc();
            return Ok((Found::Entry(self.keep(key.query, Arc::new(entry))), Layer::Redis));
        }
        let made = match key.representation {
            // one identity serves all representations, and costs the database once
            Representation::Gzip => {
                let identity = Key { representation: Representation::Identity, ..key.clone() };
                match Box::pin(Arc::clone(&self).obtain(identity, fill)).await {
                    Ok((Found::Entry(identity), _)) => self.compress(identity).await.map(Found::Entry),
                    other => other.map(|(found, _)| found),
                }
            }
            Representation::Identity => self.make(&key, fill).await,
        };
        if let (Claim::Ours, Some(shared)) = (claim, &self.shared) {
            let stored = match &made {
                Ok(Found::Entry(entry)) => Some(Arc::clone(entry)),
                _ => None,
            };
            let shared = Arc::clone(shared);
            let key = key.clone();
            tokio::spawn(async move { shared.settle(&key, stored.as_deref()).await });
        }
        match made? {
            Found::Entry(entry) => Ok((Found::Entry(self.keep(key.query, entry)), Layer::Database)),
            Found::TooLarge => Ok((Found::TooLarge, Layer::Database)),
        }
    }

    async fn make(&self, key: &Key, fill: impl Fn() -> Filling) -> Result<Found> {
        self.counters.fills.inc();
        let Filled { version, bytes, headers } = fill().await?;
        let Some(bytes) = bytes else {
            self.note_size(&key.query, usize::MAX);
            return Ok(Found::TooLarge);
        };
        let size = bytes.len();
        let identity = Arc::new(off_the_loop(size, move || Entry::identity(version, bytes, headers)).await?);
        match key.representation {
            Representation::Identity => Ok(Found::Entry(identity)),
            Representation::Gzip => self.compress(identity).await.map(Found::Entry),
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

/// A lock; what a panic left behind it is whole, since nothing is changed in more than one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
