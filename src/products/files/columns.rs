//! The columns of an exported file.

use crate::products::product::Product;

/// The columns of both, by their titles.
pub(crate) const HEADER: [&str; 7] = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];

// Indexes into [`HEADER`].
pub(crate) const ID: usize = 0;
pub(crate) const DESCRIPTION: usize = 2;
pub(crate) const PRICE: usize = 4;
pub(crate) const CREATED_AT: usize = 5;
pub(crate) const TAGS: usize = 6;

/// The tags of a product as one cell, written to `text`.
pub(crate) fn join_tags(product: &Product<'_>, text: &mut String) {
    text.clear();
    for (place, tag) in product.tags.iter().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        text.push_str(tag);
    }
}
