//! How many rows a filter lets through, by version: counting them is worth it once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{sync::lock, versions::Version};

/// Counts of the latest version that was asked about.
#[derive(Debug, Default)]
pub(crate) struct CountCache(Mutex<Option<Snapshot>>);

#[derive(Debug)]
struct Snapshot {
    version: Version,
    by_filter: HashMap<Arc<str>, i64>,
    /// Of the filters' texts.
    bytes: usize,
}

/// So many filters, and bytes of them, are remembered; then all are forgotten.
const MAX_FILTERS: usize = 10_000;
const MAX_BYTES: usize = 1 << 20;

impl CountCache {
    /// The count, if it was taken at this very version.
    pub(crate) fn get(&self, version: Version, filter: &str) -> Option<i64> {
        let known = lock(&self.0);
        let known = known.as_ref().filter(|known| known.version == version)?;
        known.by_filter.get(filter).copied()
    }

    /// Remembers a count; those of other versions are forgotten.
    pub(crate) fn put(&self, version: Version, filter: Arc<str>, count: i64) {
        let mut known = lock(&self.0);
        let same = known.take().filter(|known| known.version == version && known.has_room(filter.len()));
        let mut now = same.unwrap_or_else(|| Snapshot { version, by_filter: HashMap::new(), bytes: 0 });
        now.bytes += filter.len();
        now.by_filter.insert(filter, count);
        *known = Some(now);
    }
}

impl Snapshot {
    fn has_room(&self, bytes: usize) -> bool {
        self.by_filter.len() < MAX_FILTERS && self.bytes + bytes <= MAX_BYTES
    }
}
