//! Imports in random histories of the catalogue: an edited part of the list, with new products.

use std::fmt::Write;

use serde_json::Value;

use crate::{changes::follower::Follower, stress::Rng};

/// Products that a file creates.
const NEW_ROWS: usize = 20;
/// Larger ids and those below the negative one are not accepted.
const MAX_ID: u64 = (1 << 52) - 1;

/// Returns a file of at most this number of rows. They change consecutive products of the list, and create some.
pub fn edited_file(rng: &mut Rng, rows: u64, list: &Follower) -> String {
    let products: Vec<&Value> =
        list.products.iter().filter(|(id, _)| id.unsigned_abs() <= MAX_ID).map(|(_, product)| &**product).collect();
    let changed = products.len().min(usize::try_from(rows).unwrap() - NEW_ROWS);
    let first = rng.index(products.len() - changed + 1);
    let mut file = "ID,Name,Category,Price,Tags\r\n".to_owned();
    for (row, product) in products[first..first + changed].iter().enumerate() {
        // every other product gets the tags of another one
        let tagged = if row % 2 == 0 { product } else { rng.pick(&products) };
        push_row(&mut file, &product["id"].to_string(), product, rng.below(100_000), tagged);
    }
    for _ in 0..NEW_ROWS {
        let (product, tagged) = (*rng.pick(&products), *rng.pick(&products));
        push_row(&mut file, "", product, rng.below(100_000), tagged);
    }
    file
}

fn push_row(file: &mut String, id: &str, product: &Value, cents: u64, tagged: &Value) {
    let tags: Vec<_> = tagged["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    let (name, category) = (product["name"].as_str().unwrap(), product["category_name"].as_str().unwrap());
    let tags = tags.join(", ");
    write!(file, "{id},{name},{category},{}.{:02},\"{tags}\"\r\n", cents / 100, cents % 100).unwrap();
}
