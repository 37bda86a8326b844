//! Random numbers for jitter and log ids. They are not secret: keys and tokens use ring's generator.

use std::hash::{BuildHasher, RandomState};

/// Returns 64 random bits.
pub(crate) fn random_u64() -> u64 {
    // each RandomState has different keys
    RandomState::new().hash_one(())
}
