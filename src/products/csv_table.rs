//! Products as CSV (RFC 4180), in UTF-8: the workbook's columns, for programs.
//!
//! A spreadsheet that opens the file takes a text that begins like a formula for one; such a text, and one that begins
//! with an apostrophe, gets an apostrophe in front (OWASP, "CSV Injection"), which an import takes off again.

use std::{borrow::Cow, io, io::Write};

use csv::{Terminator, Writer, WriterBuilder};

use super::{product::Product, workbook::HEADER};
use crate::timestamps::iso8601;

const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// A table that is being written.
pub struct ProductCsv<W: Write>(Writer<W>);

impl<W: Write> ProductCsv<W> {
    /// Begins with the titles of the columns.
    pub fn new(file: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(file);
        writer.write_record(HEADER)?;
        Ok(Self(writer))
    }

    /// One more row.
    pub fn write(&mut self, product: &Product<'_>) -> io::Result<()> {
        let tags = product.tags.join(", ");
        let mut id = itoa::Buffer::new();
        self.0.write_record([
            id.format(product.id),
            &harmless(product.name),
            &harmless(product.description),
            &harmless(product.category_name),
            product.price,
            &iso8601(product.created_at),
            &harmless(&tags),
        ])?;
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn harmless(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}
