//! What a response contains: the versions of its rows.

use std::collections::HashSet;

use serde::Deserialize;

use super::model::{CATEGORIES, PRODUCTS, SLOTS, TWINS, price};

/// A product in a response.
#[derive(Deserialize)]
pub struct ProductRow {
    pub id: i64,
    pub name: String,
    pub description: String,
    pub category_name: String,
    pub price: serde_json::Number,
    pub tags: Vec<String>,
}

/// The versions in a response. Its rows agree with themselves and with each other.
pub struct Observation {
    pub products: [Option<u64>; PRODUCTS],
    pub categories: [Option<u64>; CATEGORIES],
    pub twins: [Option<u64>; 2],
    /// Generations.
    pub slots: [Option<u64>; SLOTS],
}

impl Observation {
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let rows = serde_json::from_slice::<Vec<ProductRow>>(json);
        Self::from_rows(&rows.map_err(|error| format!("not a list: {error}: {}", String::from_utf8_lossy(json)))?)
    }

    /// Fails when a row is torn, or contradicts another one.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a ProductRow>) -> Result<Self, String> {
        let mut observation =
            Self { products: [None; PRODUCTS], categories: [None; CATEGORIES], twins: [None; 2], slots: [None; SLOTS] };
        let mut ids = HashSet::new();
        for row in rows {
            if !ids.insert(row.id) {
                return Err(format!("product {} appears twice", row.id));
            }
            observation.add_category(&row.category_name)?;
            if let Some(slot) = row.name.strip_prefix("slot ") {
                let (slot, generation) = slot.split_once(' ').ok_or_else(|| row.name.clone())?;
                observation.slots[slot.parse::<usize>().unwrap()] = Some(generation.parse().unwrap());
                continue;
            }
            let version = row_version(row)?;
            let twin = TWINS.iter().position(|twin| *twin == row.id);
            let register = match (usize::try_from(row.id).unwrap(), twin) {
                (_, Some(twin)) => &mut observation.twins[twin],
                (id @ 1..=PRODUCTS, _) => &mut observation.products[id - 1],
                _ => return Err(format!("a product that was not created: {}", row.name)),
            };
            *register = Some(version);
        }
        Ok(observation)
    }

    /// Fails when the same category has another version in another row.
    fn add_category(&mut self, name: &str) -> Result<(), String> {
        let (category, version) = split_version(name)?;
        let id: usize = category.trim_start_matches('C').parse().map_err(|_| name.to_owned())?;
        let register = self.categories.get_mut(id - 1).ok_or_else(|| name.to_owned())?;
        let known = *register.get_or_insert(version);
        if known != version {
            return Err(format!("a torn list: {name} and v{known}"));
        }
        Ok(())
    }
}

/// Splits a name such as `P7 v12` into the register and the version.
fn split_version(name: &str) -> Result<(&str, u64), String> {
    let split = name.split_once(" v").and_then(|(register, version)| Some((register, version.parse().ok()?)));
    split.ok_or_else(|| name.to_owned())
}

/// Returns the version of a row; fails when a column has another version.
fn row_version(row: &ProductRow) -> Result<u64, String> {
    let (register, version) = split_version(&row.name)?;
    let is_consistent = register == format!("P{}", row.id)
        && row.description == version.to_string()
        && row.price.to_string() == price(version)
        && row.tags == ["eco", "new"]
        && row.category_name.starts_with(&format!("C{} ", 1 + row.id % 3));
    let message =
        || format!("a torn row: {} {} {} {} {:?}", row.name, row.description, row.price, row.category_name, row.tags);
    is_consistent.then_some(version).ok_or_else(message)
}
