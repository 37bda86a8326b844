//! Row counts by filter, for the latest version.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{sync::lock, versions::Version};

/// The row counts of filters at the latest version that was counted.
#[derive(Debug, Default)]
pub(crate) struct CountCache(Mutex<Option<Snapshot>>);

#[derive(Debug)]
struct Snapshot {
    version: Version,
    by_filter: HashMap<Arc<str>, i64>,
    /// Total length of the filters.
    bytes: usize,
}

/// When a count would exceed one of these limits, all counts are dropped.
const MAX_FILTERS: usize = 10_000;
const MAX_BYTES: usize = 1 << 20;

impl CountCache {
    /// Returns the count of `filter` at exactly this version.
    pub(crate) fn get(&self, version: Version, filter: &str) -> Option<i64> {
        let snapshot = lock(&self.0);
        let snapshot = snapshot.as_ref().filter(|snapshot| snapshot.version == version)?;
        snapshot.by_filter.get(filter).copied()
    }

    /// Stores a count and drops the counts of other versions.
    pub(crate) fn put(&self, version: Version, filter: Arc<str>, count: i64) {
        let mut stored = lock(&self.0);
        let reusable = stored.take().filter(|snapshot| snapshot.version == version && snapshot.fits(filter.len()));
        let mut snapshot = reusable.unwrap_or_else(|| Snapshot { version, by_filter: HashMap::new(), bytes: 0 });
        snapshot.bytes += filter.len();
        snapshot.by_filter.insert(filter, count);
        *stored = Some(snapshot);
    }
}

impl Snapshot {
    fn fits(&self, bytes: usize) -> bool {
        self.by_filter.len() < MAX_FILTERS && self.bytes + bytes <= MAX_BYTES
    }
}
