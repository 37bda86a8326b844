//! Products as CSV (RFC 4180), in UTF-8: the workbook's columns, for programs.
//!
//! A spreadsheet that opens the file takes a text that begins like a formula for one; such a text, and one that begins
//! with an apostrophe, gets an apostrophe in front (OWASP, "CSV Injection"), which an import takes off again.

use std::{borrow::Cow, io, io::Write};

use csv::{Terminator, Writer, WriterBuilder};

use super::{
    cells::Cell,
    columns::{HEADER, join_tags},
};
use crate::{products::product::Product, timestamps::iso8601};

const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// A table that is being written.
pub(crate) struct ProductCsv<W: Write> {
    writer: Writer<W>,
    tags: String,
}

impl<W: Write> ProductCsv<W> {
    /// Begins with the titles of the columns.
    pub(crate) fn new(file: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(file);
        writer.write_record(HEADER)?;
        Ok(Self { writer, tags: String::new() })
    }

    /// One more row.
    pub(crate) fn write(&mut self, product: &Product<'_>) -> io::Result<()> {
        join_tags(product, &mut self.tags);
        for cell in cells(product, &self.tags) {
            match cell {
                Cell::Text(text) => self.writer.write_field(&*text)?,
                other => unreachable!("CSV has texts only: {other:?}"),
            }
        }
        // the end of the row
        self.writer.write_record(None::<&[u8]>)?;
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// What a row holds of a product: texts.
pub(crate) fn cells<'a>(product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
    [
        Cell::text(product.id.to_string()),
        Cell::Text(harmless(product.name)),
        Cell::Text(harmless(product.description)),
        Cell::Text(harmless(product.category_name)),
        Cell::text(product.price),
        Cell::text(iso8601(product.created_at)),
        Cell::Text(harmless(tags)),
    ]
}

fn harmless(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// A text as it was before it was made harmless.
pub(crate) fn plain(text: &str) -> &str {
    text.strip_prefix('\'').filter(|text| text.starts_with(FORMULA)).unwrap_or(text)
}
