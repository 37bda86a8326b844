//! The categories that the rows of an import name.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use super::{
    budget::{MemoryBudget, Reservation},
    diff::Change,
};
use crate::{
    db::{DbError, pool::Queryable, statements::IMPORTS_CATEGORIES},
    error::Result,
};

/// Ids of categories that are kept in memory, besides those of the present batch.
const MAX_CACHED_IDS: usize = 4096;
/// Bytes of a name in a set, besides its text.
const NAME_BYTES: usize = 64;

pub(super) struct Categories {
    /// Ids by name.
    ids: HashMap<String, i64>,
    /// Whether the import creates the categories that do not exist.
    creates_missing: bool,
    /// The names of the categories to create.
    missing: HashSet<String>,
    /// The memory of `missing`.
    memory: Reservation,
}

impl Categories {
    pub(super) fn new(creates_missing: bool, budget: &MemoryBudget) -> Self {
        let memory = budget.reservation("categories");
        Self { ids: HashMap::new(), creates_missing, missing: HashSet::new(), memory }
    }

    /// Loads the ids of the categories with these names.
    pub(super) async fn load(&mut self, client: &Client, names: impl Iterator<Item = &str>) -> Result<(), DbError> {
        if self.ids.len() > MAX_CACHED_IDS {
            self.ids.clear();
        }
        let unknown: HashSet<&str> =
            names.filter(|name| !self.ids.contains_key(*name) && !self.missing.contains(*name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let found = client.rows(&IMPORTS_CATEGORIES, &[&unknown]).await?;
        self.ids.extend(found.iter().map(|row| (row.get("name"), row.get("id"))));
        Ok(())
    }

    /// Whether a row may name this category, which has been loaded.
    pub(super) fn accepts(&self, name: &str) -> bool {
        self.creates_missing || self.ids.contains_key(name)
    }

    /// Sets the category id of a change whose category has been loaded. A category to create gets its id in
    /// sql/imports/merge.sql. Returns `false` if the category does not exist, and an error when the names exceed the
    /// memory budget.
    pub(super) fn resolve(&mut self, change: &mut Change) -> Result<bool> {
        let Some(name) = &change.input.category_name else { return Ok(true) };
        change.input.category_id = self.ids.get(name).copied();
        if change.input.category_id.is_none() && self.creates_missing && !self.missing.contains(name) {
            self.memory.grow(NAME_BYTES + name.len())?;
            self.missing.insert(name.clone());
        }
        Ok(self.accepts(name))
    }

    /// Returns the number of the categories to create.
    pub(super) fn missing(&self) -> u64 {
        self.missing.len() as u64
    }
}
