//! The in-process layer: for each query and representation the entry of one version, within a bound of bytes.

use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::HashMap;

use super::entry::{Entry, Key};
use crate::{http::Representation, sync::lock};

/// Entries in memory; those unused for longest make room.
#[derive(Debug)]
pub(crate) struct MemoryCache {
    capacity: usize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_query: HashMap<(Arc<str>, Representation), Slot>,
    bytes: usize,
    clock: u64,
}

impl Slots {
    /// Drops what was unused for longest, an eighth more than needed: looking for it is worth it once for many.
    fn make_room(&mut self, capacity: usize) {
        let mut by_use: Vec<_> = self.by_query.iter().map(|(query, slot)| (slot.used, query.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        // the last is the one that needs the room
        by_use.pop();
        let goal = if by_use.len() < FEW { capacity } else { capacity - capacity / 8 };
        for (_, query) in by_use {
            if self.bytes <= goal {
                break;
            }
            if let Some(old) = self.by_query.remove(&query) {
                self.bytes -= size(&query.0, &old.entry);
            }
        }
    }
}

/// What an entry costs, roughly: its bytes, the query by which it is found, and its headers, which repeat that.
fn size(query: &str, entry: &Entry) -> usize {
    let headers = entry.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    OVERHEAD_BYTES + query.len() + entry.bytes.len() + headers.sum::<usize>()
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    used: u64,
}

/// Of so few entries none is dropped before its time.
const FEW: usize = 64;
/// What an entry costs besides its texts.
const OVERHEAD_BYTES: usize = 512;

impl MemoryCache {
    /// An empty store of at most `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, slots: Mutex::default() }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.slots)
    }

    /// Bytes kept now.
    pub(crate) fn bytes(&self) -> usize {
        self.slots().bytes
    }

    /// The entry under exactly this version.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let mut slots = self.slots();
        slots.clock += 1;
        let now = slots.clock;
        let slot = slots.by_query.get_mut(&(Arc::clone(&key.query), key.representation))?;
        if slot.entry.version != key.version {
            return None;
        }
        slot.used = now;
        Some(Arc::clone(&slot.entry))
    }

    /// Whether an entry can be kept at all.
    pub(crate) fn has_room_for(&self, query: &str, entry: &Entry) -> bool {
        size(query, entry) <= self.capacity
    }

    /// Takes the place of what stood there under another version.
    pub(crate) fn put(&self, query: Arc<str>, entry: &Arc<Entry>) {
        if !self.has_room_for(&query, entry) {
            return;
        }
        let size = size(&query, entry);
        let mut slots = self.slots();
        slots.clock += 1;
        let slot = Slot { entry: Arc::clone(entry), used: slots.clock };
        slots.bytes += size;
        if let Some(old) = slots.by_query.insert((Arc::clone(&query), entry.representation), slot) {
            slots.bytes -= self::size(&query, &old.entry);
        }
        if slots.bytes > self.capacity {
            slots.make_room(self.capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::versions::Version;

    fn version(number: i64) -> Version {
        Version { number, token: Uuid::from_u128(u128::from(number.unsigned_abs())) }
    }

    fn key(query: &str, number: i64) -> Key {
        Key { version: version(number), query: query.into(), representation: Representation::Identity }
    }

    fn put(store: &MemoryCache, query: &str, number: i64, bytes: usize) {
        store.put(query.into(), &Arc::new(Entry::identity(version(number), vec![b' '; bytes].into(), Arc::default())));
    }

    #[test]
    fn an_entry_is_found_under_its_own_version_only() {
        let store = MemoryCache::new(100_000);
        put(&store, "", 7, 10);
        assert!(store.get(&key("", 7)).is_some());
        assert!(store.get(&key("", 8)).is_none());
        let restored = Key { version: Version { number: 7, token: Uuid::from_u128(99) }, ..key("", 7) };
        assert!(store.get(&restored).is_none(), "the same number dealt a second time is another version");
    }

    #[test]
    fn what_was_used_last_stays_within_the_bound() {
        let store = MemoryCache::new(3 * (1001 + OVERHEAD_BYTES));
        for query in ["a", "b", "c"] {
            put(&store, query, 1, 1000);
        }
        assert!(store.get(&key("a", 1)).is_some());
        put(&store, "d", 1, 1000);
        assert!(store.get(&key("b", 1)).is_none());
        assert!(store.get(&key("a", 1)).is_some() && store.get(&key("d", 1)).is_some());
        put(&store, "d", 2, 10);
        assert_eq!(store.bytes(), 2 * 1000 + 10 + 3 * (1 + OVERHEAD_BYTES));
        put(&store, "huge", 1, 1_000_000);
        assert!(store.get(&key("a", 1)).is_some(), "what can never fit pushes nothing out");
    }

    #[test]
    fn long_queries_and_headers_count() {
        let store = MemoryCache::new(1_000_000);
        let link = hyper::header::HeaderValue::from_str(&"x".repeat(40_000)).unwrap();
        for number in 0..100 {
            let headers = [(hyper::header::LINK, link.clone())].into();
            let entry = Entry::identity(version(1), vec![b' '; 10].into(), headers);
            store.put(format!("{number}{}", "q".repeat(10_000)).into(), &Arc::new(entry));
        }
        assert!(store.slots().by_query.len() <= 20 && store.bytes() <= 1_000_000, "{}", store.bytes());
    }
}
