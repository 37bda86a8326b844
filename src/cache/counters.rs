//! The counters of the cache.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

/// The label of a cache hit: `memory` or `redis`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HitLabels {
    layer: &'static str,
}

#[derive(Debug)]
pub(crate) struct CacheCounters {
    pub(crate) hits: Family<HitLabels, Counter>,
    /// The two counters of `hits`, looked up once.
    pub(super) memory_hits: Counter,
    pub(super) redis_hits: Counter,
    pub(crate) fills: Counter,
    /// Those of `fills` that read only what has changed since the previous version.
    pub(crate) incremental_fills: Counter,
    pub(crate) compressions: Counter,
}

impl Default for CacheCounters {
    fn default() -> Self {
        let hits = Family::<HitLabels, Counter>::default();
        let of_layer = |layer| hits.get_or_create(&HitLabels { layer }).clone();
        let (memory_hits, redis_hits) = (of_layer("memory"), of_layer("redis"));
        let (fills, incremental_fills, compressions) = Default::default();
        Self { hits, memory_hits, redis_hits, fills, incremental_fills, compressions }
    }
}
