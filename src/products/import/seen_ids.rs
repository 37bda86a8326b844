//! The ids of the products that an import has changed or compared so far.

use std::collections::HashMap;

use super::budget::{MemoryBudget, Reservation};
use crate::error::Result;

/// Bytes of a block in the map, its share of the free slots included.
const BLOCK_BYTES: usize = 48;

/// A set of ids as blocks of 64 bits: ids that a sequence has drawn take less than a byte each.
pub(crate) struct SeenIds {
    /// The bits of the ids `64 * key` to `64 * key + 63`.
    blocks: HashMap<i64, u64>,
    memory: Reservation,
}

impl SeenIds {
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self { blocks: HashMap::new(), memory: budget.reservation("ids") }
    }

    /// Adds an id. Returns whether it is new, or an error when the ids exceed the memory budget.
    pub(crate) fn insert(&mut self, id: i64) -> Result<bool> {
        let (key, bit) = (id >> 6, 1_u64 << (id & 63));
        if !self.blocks.contains_key(&key) {
            self.memory.grow(BLOCK_BYTES)?;
        }
        let bits = self.blocks.entry(key).or_default();
        let is_new = *bits & bit == 0;
        *bits |= bit;
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ImportPool;

    #[test]
    fn ids_are_new_once() {
        let mut ids = SeenIds::new(&MemoryBudget::new(&ImportPool::new()));
        for id in [0, 1, 63, 64, -1, -64, -65, i64::MAX, i64::MIN] {
            assert!(ids.insert(id).unwrap(), "{id}");
            assert!(!ids.insert(id).unwrap(), "{id}");
        }
        assert_eq!(ids.blocks.len(), 6);
    }
}
