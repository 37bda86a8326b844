//! The files that the catalogue can be written to and read from.

use std::path::Path;

use super::{cell::Cell, csv_table, product::Product, workbook};

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A workbook.
    Xlsx,
    /// A table for programs.
    Csv,
}

/// The media type of a workbook.
pub const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/// The media type of CSV (RFC 4180), without parameters.
pub const CSV: &str = "text/csv";

/// The columns of both, by their titles.
pub const HEADER: [&str; 7] = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];

/// Where columns stand in [`HEADER`].
pub(super) mod column {
    pub const ID: usize = 0;
    pub const DESCRIPTION: usize = 2;
    pub const PRICE: usize = 4;
    pub const CREATED_AT: usize = 5;
    pub const TAGS: usize = 6;
}

impl Format {
    /// By a media type without parameters, in lower case.
    pub(super) fn of_media_type(media_type: &str) -> Option<Self> {
        [(XLSX, Self::Xlsx), (CSV, Self::Csv)].into_iter().find(|(known, _)| *known == media_type).map(|(_, it)| it)
    }

    /// By a file's name: CSV if it ends so, else a workbook.
    pub fn of_file(path: &Path) -> Self {
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv { Self::Csv } else { Self::Xlsx }
    }

    /// What its files end in.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Xlsx => "xlsx",
            Self::Csv => "csv",
        }
    }

    /// What a file of this format holds of a product; `tags` are its tags as [`join_tags`] gives them.
    pub(super) fn cells<'a>(self, product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
        match self {
            Self::Xlsx => workbook::cells(product, tags),
            Self::Csv => csv_table::cells(product, tags),
        }
    }

    /// Whether a cell that comes back is what is left of a longer text.
    pub(super) fn is_cut(self, written: &Cell<'_>, cell: &Cell<'_>) -> bool {
        self == Self::Xlsx && workbook::is_cut(written, cell)
    }

    /// A text as it was before the format made it harmless.
    pub(super) fn plain(self, text: &str) -> &str {
        match self {
            Self::Xlsx => text,
            Self::Csv => csv_table::plain(text),
        }
    }
}

/// The tags of a product as one cell, written to `text`.
pub(super) fn join_tags(product: &Product<'_>, text: &mut String) {
    text.clear();
    for (place, tag) in product.tags.iter().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        text.push_str(tag);
    }
}
