//! The cache layer in memory: for each list and representation the entry of one version, within a limit of bytes.

use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::HashMap;
use hyper::header::HeaderValue;

use super::entry::{Entry, Key, List};
use crate::{http::Representation, sync::lock};

/// With fewer entries than this, eviction frees no more than it must.
const MIN_ENTRIES_FOR_BULK_EVICTION: usize = 64;
/// The memory of an entry besides its query, `Link` and body.
const OVERHEAD_BYTES: usize = 512;

/// A cache of entries that evicts the least recently used.
#[derive(Debug)]
pub(crate) struct MemoryCache {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_list: HashMap<(List, Representation), Slot>,
    bytes: usize,
    /// The part of the capacity that another owner uses.
    reserved: usize,
    /// Incremented by each access.
    tick: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    last_used: u64,
}

impl Entries {
    /// Evicts the least recently used entries until the others fit, but never those of the last `kept` uses.
    ///
    /// Frees an eighth of the capacity more than needed, so that the sort is amortized over many insertions.
    fn evict(&mut self, capacity: usize, kept: usize) {
        let mut by_last_use: Vec<_> = self.by_list.iter().map(|(key, slot)| (slot.last_used, key.clone())).collect();
        by_last_use.sort_unstable_by_key(|(last_used, _)| *last_used);
        by_last_use.truncate(by_last_use.len().saturating_sub(kept));
        let capacity = capacity - self.reserved;
        let target = if by_last_use.len() < MIN_ENTRIES_FOR_BULK_EVICTION { capacity } else { capacity - capacity / 8 };
        for (_, key) in by_last_use {
            if self.bytes <= target {
                break;
            }
            if let Some(slot) = self.by_list.remove(&key) {
                self.bytes -= size(&key.0, &slot.entry);
            }
        }
    }
}

/// Returns the approximate memory of an entry: its body, its query, and `Link`, which may repeat the query.
fn size(list: &List, entry: &Entry) -> usize {
    let link = entry.headers.link.as_ref().map_or(0, HeaderValue::len);
    OVERHEAD_BYTES + list.query.len() + entry.bytes.len() + link
}

impl MemoryCache {
    /// Creates an empty cache of at most `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        lock(&self.entries)
    }

    /// Returns the number of bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.entries();
        entries.bytes + entries.reserved
    }

    /// Sets the bytes of the capacity that another owner uses. Returns whether the capacity is enough.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let mut entries = self.entries();
        let fits = bytes <= self.capacity;
        entries.reserved = if fits { bytes } else { 0 };
        if entries.bytes + entries.reserved > self.capacity {
            entries.evict(self.capacity, 0);
        }
        fits
    }

    /// Returns the entry of exactly this version.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let mut entries = self.entries();
        entries.tick += 1;
        let now = entries.tick;
        let slot = entries.by_list.get_mut(&(key.list.clone(), key.representation))?;
        if slot.entry.version != key.version {
            return None;
        }
        slot.last_used = now;
        Some(Arc::clone(&slot.entry))
    }

    /// Returns whether the entry fits into an empty cache.
    pub(crate) fn fits(&self, list: &List, entry: &Entry) -> bool {
        size(list, entry) <= self.capacity - self.entries().reserved
    }

    /// Stores an entry in place of the one of another version. An entry that does not fit is ignored.
    pub(crate) fn put(&self, list: List, entry: &Arc<Entry>) {
        if !self.fits(&list, entry) {
            return;
        }
        let size = size(&list, entry);
        let mut entries = self.entries();
        entries.tick += 1;
        let slot = Slot { entry: Arc::clone(entry), last_used: entries.tick };
        entries.bytes += size;
        if let Some(replaced) = entries.by_list.insert((list.clone(), entry.representation), slot) {
            entries.bytes -= self::size(&list, &replaced.entry);
        }
        if entries.bytes + entries.reserved > self.capacity {
            // the last use is the entry just inserted
            entries.evict(self.capacity, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        cache::entry::{Collection, PageHeaders},
        versions::Version,
    };

    fn version(number: i64) -> Version {
        Version { number, token: Uuid::from_u128(u128::from(number.unsigned_abs())) }
    }

    fn list(query: &str) -> List {
        List { collection: Collection::Products, query: query.into() }
    }

    fn key(query: &str, number: i64) -> Key {
        Key { version: version(number), list: list(query), representation: Representation::Identity }
    }

    fn put(cache: &MemoryCache, query: &str, number: i64, bytes: usize) {
        cache.put(list(query), &Arc::new(Entry::identity(version(number), vec![b' '; bytes].into(), Arc::default())));
    }

    #[test]
    fn entry_is_returned_for_its_version_only() {
        let cache = MemoryCache::new(100_000);
        put(&cache, "", 7, 10);
        assert!(cache.get(&key("", 7)).is_some());
        assert!(cache.get(&key("", 8)).is_none());
        let restored = Key { version: Version { number: 7, token: Uuid::from_u128(99) }, ..key("", 7) };
        assert!(cache.get(&restored).is_none(), "the same number with another token is another version");
    }

    #[test]
    fn collections_have_separate_entries() {
        let cache = MemoryCache::new(100_000);
        put(&cache, "", 7, 10);
        let tags = Key { list: List::complete(Collection::Tags), ..key("", 7) };
        assert!(cache.get(&tags).is_none() && cache.get(&key("", 7)).is_some());
    }

    #[test]
    fn least_recently_used_entries_are_evicted() {
        let cache = MemoryCache::new(3 * (1001 + OVERHEAD_BYTES));
        for query in ["a", "b", "c"] {
            put(&cache, query, 1, 1000);
        }
        assert!(cache.get(&key("a", 1)).is_some());
        put(&cache, "d", 1, 1000);
        assert!(cache.get(&key("b", 1)).is_none());
        assert!(cache.get(&key("a", 1)).is_some() && cache.get(&key("d", 1)).is_some());
        put(&cache, "d", 2, 10);
        assert_eq!(cache.bytes(), 2 * 1000 + 10 + 3 * (1 + OVERHEAD_BYTES));
        put(&cache, "huge", 1, 1_000_000);
        assert!(cache.get(&key("a", 1)).is_some(), "an entry that does not fit evicts nothing");
    }

    #[test]
    fn reserved_bytes_count_towards_capacity() {
        let cache = MemoryCache::new(10_000);
        put(&cache, "a", 1, 4_000);
        assert!(cache.reserve(5_000) && cache.get(&key("a", 1)).is_some());
        assert!(cache.reserve(6_000) && cache.get(&key("a", 1)).is_none());
        put(&cache, "a", 1, 4_000);
        assert!(cache.get(&key("a", 1)).is_none(), "it does not fit beside the reserved bytes");
        put(&cache, "a", 1, 3_000);
        assert_eq!(cache.bytes(), 6_000 + 3_000 + 1 + OVERHEAD_BYTES);
        assert!(!cache.reserve(10_001), "more than the capacity");
        assert_eq!(cache.bytes(), 3_000 + 1 + OVERHEAD_BYTES);
    }

    #[test]
    fn queries_and_headers_count_towards_capacity() {
        let cache = MemoryCache::new(1_000_000);
        let link = HeaderValue::from_str(&"x".repeat(40_000)).unwrap();
        for number in 0..100 {
            let headers = PageHeaders { link: Some(link.clone()), total_count: None };
            let entry = Entry::identity(version(1), vec![b' '; 10].into(), headers.into());
            cache.put(list(&format!("{number}{}", "q".repeat(10_000))), &Arc::new(entry));
        }
        assert!(cache.entries().by_list.len() <= 20 && cache.bytes() <= 1_000_000, "{}", cache.bytes());
    }
}
