//! The columns of an exported file.

use crate::products::{fields::Field, product::Product};

/// The column titles, in the order of the file.
pub(crate) const HEADER: [&str; Field::ALL.len()] =
    ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];

// Indexes into [`HEADER`], which has the order of the fields.
pub(crate) const ID: usize = Field::Id as usize;
pub(crate) const DESCRIPTION: usize = Field::Description as usize;
pub(crate) const PRICE: usize = Field::Price as usize;
pub(crate) const CREATED_AT: usize = Field::CreatedAt as usize;
pub(crate) const TAGS: usize = Field::Tags as usize;

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
