//! The files that the catalogue can be written to and read from.

use std::path::Path;

use super::{cells::Cell, columns::HEADER, csv, xlsx};
use crate::products::product::Product;

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    /// A workbook.
    Xlsx,
    /// A table for programs.
    Csv,
}

/// The media type of a workbook.
pub(crate) const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/// The media type of CSV (RFC 4180), without parameters.
pub(crate) const CSV: &str = "text/csv";

impl FileFormat {
    /// By a media type without parameters, in lower case.
    pub(crate) fn of_media_type(media_type: &str) -> Option<Self> {
        [(XLSX, Self::Xlsx), (CSV, Self::Csv)].into_iter().find(|(known, _)| *known == media_type).map(|(_, it)| it)
    }

    /// By a file's name: CSV if it ends so, else a workbook.
    pub(crate) fn of_file(path: &Path) -> Self {
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv { Self::Csv } else { Self::Xlsx }
    }

    /// What its files end in.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Xlsx => "xlsx",
            Self::Csv => "csv",
        }
    }

    /// What a file of this format holds of a product; `tags` are its tags as [`join_tags`](super::columns::join_tags) gives them.
    pub(crate) fn cells<'a>(self, product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
        match self {
            Self::Xlsx => xlsx::cells(product, tags),
            Self::Csv => csv::cells(product, tags),
        }
    }

    /// Whether a cell that comes back is what is left of a longer text.
    pub(crate) fn is_cut(self, written: &Cell<'_>, cell: &Cell<'_>) -> bool {
        self == Self::Xlsx && xlsx::is_cut(written, cell)
    }

    /// A text as it was before the format made it harmless.
    pub(crate) fn plain(self, text: &str) -> &str {
        match self {
            Self::Xlsx => text,
            Self::Csv => csv::plain(text),
        }
    }
}
