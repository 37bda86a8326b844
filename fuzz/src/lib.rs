//! One shop for all that a target tries, and the attempts of the tests.

use std::sync::OnceLock;

use tokio::runtime::Runtime;

#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
mod harness;

#[path = "../../tests/it/hard/inputs/attempt.rs"]
#[allow(dead_code, reason = "the tests try all of it")]
mod tried;

pub use tried::Place;

/// A shop, its staff's token, and what it runs on.
static SHOP: OnceLock<(harness::Shop, String, Runtime)> = OnceLock::new();

/// Tries these bytes; a broken promise ends the process.
pub fn attempt(place: Place, bytes: &[u8]) {
    let (shop, token, runtime) = SHOP.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let (shop, token) = runtime.block_on(tried::shop());
        (shop, token, runtime)
    });
    runtime.block_on(tried::attempt(place, bytes, shop.server.address, token));
}
