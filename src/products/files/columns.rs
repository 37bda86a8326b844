//! The columns of an exported file.

use crate::products::product::Product;

/// The column titles, in the order of the file.
pub(crate) const HEADER: [&str; 7] = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];

// Indexes into [`HEADER`].
pub(crate) const ID: usize = 0;
pub(crate) const DESCRIPTION: usize = 2;
pub(crate) const PRICE: usize = 4;
pub(crate) const CREATED_AT: usize = 5;
pub(crate) const TAGS: usize = 6;

/// Replaces `text` with the tags of `product`, separated by `, `.
pub(crate) fn join_tags(product: &Product<'_>, text: &mut String) {
    text.clear();
    for (index, tag) in product.tags.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(tag);
    }
}
