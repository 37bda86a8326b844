//! The header `Cache-Status` (RFC 9211).

use super::entry::Layer;
use crate::versions::VersionRead;

/// Where the answer came from (RFC 9211).
pub(crate) fn cache_status(layer: Layer, reading: &VersionRead) -> &'static str {
    match (reading, layer) {
        (VersionRead::Unverified(_), _) => "TestShop; hit; detail=stale",
        (_, Layer::Memory) => "TestShop; hit; detail=memory",
        (_, Layer::Redis) => "TestShop; hit; detail=redis",
        (_, Layer::Database) => "TestShop; fwd=miss; stored",
        (_, Layer::Bypass) => "TestShop; fwd=bypass",
    }
}
