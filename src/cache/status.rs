//! The `Cache-Status` header (RFC 9211).

use super::entry::Layer;
use crate::versions::VersionRead;

/// Returns the value of `Cache-Status` for a response from `layer`.
pub(crate) fn cache_status(layer: Layer, read: &VersionRead) -> &'static str {
    match (read, layer) {
        (VersionRead::Stale(_), _) => "TestShop; hit; detail=stale",
        (_, Layer::Memory) => "TestShop; hit; detail=memory",
        (_, Layer::Redis) => "TestShop; hit; detail=redis",
        (_, Layer::Database) => "TestShop; fwd=miss; stored",
        (_, Layer::Bypass) => "TestShop; fwd=bypass",
    }
}
