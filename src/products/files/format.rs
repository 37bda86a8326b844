//! The supported file formats and what depends on the format.

use std::{borrow::Cow, path::Path};

use super::{cells::Cell, columns::HEADER, csv, xlsx};
use crate::products::product::Product;

/// The format of an exported or imported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Xlsx,
    Csv,
}

pub(crate) const XLSX_MEDIA_TYPE: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/// RFC 4180, without parameters.
pub(crate) const CSV_MEDIA_TYPE: &str = "text/csv";
/// Bytes of any format.
pub(crate) const OCTET_STREAM_MEDIA_TYPE: &str = "application/octet-stream";

impl FileFormat {
    /// Returns CSV for a path with the extension `csv` in any case, and XLSX for all others.
    pub(crate) fn from_path(path: &Path) -> Self {
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv { Self::Csv } else { Self::Xlsx }
    }

    /// Returns the media type without parameters.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Xlsx => XLSX_MEDIA_TYPE,
            Self::Csv => CSV_MEDIA_TYPE,
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Xlsx => "xlsx",
            Self::Csv => "csv",
        }
    }

    /// Returns the cells that an export writes for a product. `tags` is the result of
    /// [`join_tags`](super::columns::join_tags).
    pub(crate) fn cells<'a>(self, product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
        match self {
            Self::Xlsx => xlsx::cells(product, tags),
            Self::Csv => csv::cells(product, tags),
        }
    }

    /// Returns whether the export truncated the text of `exported`, and `imported` still bears the mark of it.
    pub(crate) fn is_truncated(self, exported: &Cell<'_>, imported: &Cell<'_>) -> bool {
        self == Self::Xlsx && xlsx::is_truncated(exported, imported)
    }

    /// Returns the text that the export has guarded against evaluation as a formula.
    pub(crate) fn strip_formula_guards(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Xlsx => text.into(),
            Self::Csv => csv::strip_formula_guards(text),
        }
    }
}
