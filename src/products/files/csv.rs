//! Writes products as CSV (RFC 4180) in UTF-8, with the columns of the workbook, on request after a byte order mark.
//! Excel reads a file without the mark in the encoding of the system.
//!
//! Spreadsheet programs evaluate a text that starts like a formula (OWASP, "CSV Injection"). A program whose list
//! separator is `;` or a tab finds other cells in the file than those at the commas, and starts some of them in the
//! middle of a text. So an apostrophe is written before everything that could start a formula at the beginning of a
//! text or after a separator or line break in it, and before an apostrophe at these places. The import removes it.
//!
//! The first title is quoted, because Excel takes a file that starts with `ID` for the format SYLK.

use std::{borrow::Cow, io, io::Write};

use csv::{Terminator, Writer, WriterBuilder};

use super::{
    cells::Cell,
    columns::{HEADER, join_tags},
};
use crate::{
    products::{
        fields::{Field, Fields},
        product::Product,
    },
    timestamps::iso8601,
};

/// The characters that need an apostrophe where a cell starts. The full-width ones stand for the others in programs for
/// East Asian languages.
const GUARDED: [char; 9] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\''];
/// They need one at the start of a text, because some programs skip them in front of a formula.
const GUARDED_BLANKS: [char; 3] = ['\t', '\r', '\n'];

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Writes a CSV file row by row.
pub(crate) struct ProductCsv<W: Write> {
    writer: Writer<W>,
    fields: Fields,
    tags: String,
}

impl<W: Write> ProductCsv<W> {
    /// Writes the byte order mark, if the file has one, and the header row to `file`. The columns are `fields`.
    pub(crate) fn new(mut file: W, has_bom: bool, fields: Fields) -> io::Result<Self> {
        if has_bom {
            write!(file, "{BYTE_ORDER_MARK}")?;
        }
        for (index, field) in fields.iter().enumerate() {
            let title = HEADER[field as usize];
            if index == 0 { write!(file, "\"{title}\"")? } else { write!(file, ",{title}")? }
        }
        write!(file, "\r\n")?;
        let writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(file);
        Ok(Self { writer, fields, tags: String::new() })
    }

    pub(crate) fn write(&mut self, product: &Product<'_>) -> io::Result<()> {
        join_tags(product, &mut self.tags);
        let cells = Field::ALL.into_iter().zip(cells(product, &self.tags));
        for (_, cell) in cells.filter(|(field, _)| self.fields.contains(*field)) {
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
        // a negative id would be a formula
        Cell::text(if product.id < 0 { format!("'{}", product.id) } else { product.id.to_string() }),
        Cell::Text(guard_formulas(product.name)),
        Cell::Text(guard_formulas(product.description)),
        Cell::Text(guard_formulas(product.category_name)),
        Cell::text(product.price),
        Cell::text(iso8601(product.created_at)),
        Cell::Text(guard_formulas(tags)),
    ]
}

/// Returns the positions in a text where a cell may start: its beginning, and those after separators and line breaks.
fn cell_starts(text: &str) -> impl Iterator<Item = usize> {
    let is_separator = |byte: u8| matches!(byte, b',' | b';' | b'\t' | b'\r' | b'\n');
    std::iter::once(0).chain((1..).zip(text.bytes()).filter(move |(_, byte)| is_separator(*byte)).map(|(next, _)| next))
}

/// Whether `text`, from a cell's start on, needs an apostrophe. Quotes are skipped: the file doubles them, and programs
/// differ in which of them they remove.
fn needs_guard(text: &str, is_beginning: bool) -> bool {
    let text = text.trim_start_matches('"');
    text.starts_with(GUARDED) || (is_beginning && text.starts_with(GUARDED_BLANKS))
}

/// Returns the text with an apostrophe at every place that needs one.
fn guard_formulas(text: &str) -> Cow<'_, str> {
    let (mut guarded, mut copied) = (String::new(), 0);
    for start in cell_starts(text).filter(|start| needs_guard(&text[*start..], *start == 0)) {
        guarded.push_str(&text[copied..start]);
        guarded.push('\'');
        copied = start;
    }
    if guarded.is_empty() { text.into() } else { (guarded + &text[copied..]).into() }
}

/// Removes the apostrophes that the export has added.
pub(crate) fn strip_formula_guards(text: &str) -> Cow<'_, str> {
    let (mut stripped, mut copied) = (String::new(), 0);
    let is_guard =
        |start: usize| text[start..].strip_prefix('\'').is_some_and(|guarded| needs_guard(guarded, start == 0));
    for start in cell_starts(text).filter(|start| is_guard(*start)) {
        stripped.push_str(&text[copied..start]);
        copied = start + 1;
    }
    if copied == 0 { text.into() } else { (stripped + &text[copied..]).into() }
}

#[cfg(test)]
mod tests {
    use csv::ReaderBuilder;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    /// Returns the file of one product with these texts.
    fn write_file(name: &str, description: &str, tag: &str) -> Vec<u8> {
        let (price, created_at) = ("1.00", Timestamp::UNIX_EPOCH);
        let tags = vec![tag];
        let product = Product { id: -7, name, description, category_name: description, price, created_at, tags };
        let mut file = Vec::new();
        let mut csv = ProductCsv::new(&mut file, false, Fields::ALL).unwrap();
        csv.write(&product).unwrap();
        csv.finish().unwrap();
        file
    }

    /// Returns the cells of a file for a program that splits it at `delimiter`.
    fn read_file(file: &[u8], delimiter: u8, has_quotes: bool) -> Vec<String> {
        let mut reader = ReaderBuilder::new();
        reader.delimiter(delimiter).quoting(has_quotes).has_headers(false).flexible(true);
        let records = reader.from_reader(file).into_records().map(Result::unwrap);
        records.flat_map(|record| record.iter().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn assert_no_formula(file: &[u8]) {
        for (delimiter, has_quotes) in [b',', b';', b'\t'].into_iter().flat_map(|byte| [(byte, true), (byte, false)]) {
            for cell in read_file(file, delimiter, has_quotes) {
                // some programs skip quotes and blanks in front of a formula
                let text = cell.trim_start_matches(['"', '\t', '\r', '\n']);
                assert!(!text.starts_with(&GUARDED[..8]), "{cell:?} in {}", file.escape_ascii());
                // only what splits the file as it was written finds these cells
                let is_whole = delimiter == b',' && has_quotes;
                assert!(!is_whole || !cell.starts_with(GUARDED_BLANKS), "{cell:?} in {}", file.escape_ascii());
            }
        }
    }

    /// Returns texts in which separators, quotes and the starts of formulas are frequent.
    fn texts() -> impl Strategy<Value = String> {
        let special = "[=+@＝＋－＠',;\t\r\n\"a -]";
        proptest::collection::vec(prop_oneof![9 => special, 1 => "\\PC"], 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_text_becomes_a_formula_and_all_are_restored(name in texts(), description in texts(), tag in texts()) {
            let file = write_file(&name, &description, &tag);
            assert_no_formula(&file);
            let cells = read_file(&file, b',', true);
            let restored: Vec<_> = cells[HEADER.len()..].iter().map(|cell| strip_formula_guards(cell)).collect();
            prop_assert_eq!(&restored[..4], &["-7", &name, &description, &description]);
            prop_assert_eq!(&*restored[6], &*tag);
        }
    }

    #[test]
    fn guards_are_added_only_where_a_cell_may_start() {
        for (text, guarded) in [
            ("plain; text, 'quoted' and 1-2", "plain; text, 'quoted' and 1-2"),
            ("=1", "'=1"),
            ("'tis", "''tis"),
            ("a;=1,+2\t@3", "a;'=1,'+2\t'@3"),
            ("list:\r\n- a\n\n- b", "list:\r\n'- a\n\n'- b"),
            ("\n＝1", "'\n'＝1"),
            ("\"=1\";\"\"-2", "'\"=1\";'\"\"-2"),
        ] {
            assert_eq!(guard_formulas(text), guarded);
            assert_eq!(strip_formula_guards(guarded), text);
        }
        assert_eq!(strip_formula_guards("'90s"), "'90s", "typed by a user");
    }

    #[test]
    fn file_starts_with_quoted_title() {
        let file = String::from_utf8(write_file("a", "b", "c")).unwrap();
        assert!(file.starts_with("\"ID\",Name,Description,Category,Price,Created at,Tags\r\n"), "{file}");
    }
}
