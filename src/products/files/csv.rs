//! Writes products as CSV (RFC 4180) in UTF-8, with the columns of the workbook.
//!
//! Spreadsheet programs evaluate a text that starts like a formula. Such a text, and one that starts with an
//! apostrophe, is written with a leading apostrophe (OWASP, "CSV Injection"). The import removes it.

use std::{borrow::Cow, io, io::Write};

use csv::{Terminator, Writer, WriterBuilder};

use super::{
    cells::Cell,
    columns::{HEADER, join_tags},
};
use crate::{products::product::Product, timestamps::iso8601};

/// The first characters of texts that need an apostrophe.
const FORMULA_PREFIXES: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// Writes a CSV file row by row.
pub(crate) struct ProductCsv<W: Write> {
    writer: Writer<W>,
    tags: String,
}

impl<W: Write> ProductCsv<W> {
    /// Writes the header row to `file`.
    pub(crate) fn new(file: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(file);
        writer.write_record(HEADER)?;
        Ok(Self { writer, tags: String::new() })
    }

    pub(crate) fn write(&mut self, product: &Product<'_>) -> io::Result<()> {
        join_tags(product, &mut self.tags);
        for cell in cells(product, &self.tags) {
            match cell {
                Cell::Text(text) => self.writer.write_field(&*text)?,
                other => unreachable!("a CSV cell is a text: {other:?}"),
            }
        }
        // ends the row
        self.writer.write_record(None::<&[u8]>)?;
        Ok(())
    }

    /// Flushes buffered rows to the file.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Returns the cells of a product; all of them are texts.
pub(crate) fn cells<'a>(product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
    [
        Cell::text(product.id.to_string()),
        Cell::Text(guard_formula(product.name)),
        Cell::Text(guard_formula(product.description)),
        Cell::Text(guard_formula(product.category_name)),
        Cell::text(product.price),
        Cell::text(iso8601(product.created_at)),
        Cell::Text(guard_formula(tags)),
    ]
}

fn guard_formula(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA_PREFIXES) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Removes the apostrophe that the export writes before a guarded text.
pub(crate) fn strip_formula_guard(text: &str) -> &str {
    text.strip_prefix('\'').filter(|text| text.starts_with(FORMULA_PREFIXES)).unwrap_or(text)
}
