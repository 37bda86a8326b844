//! Reads the rows of a CSV file.

mod dialect;
mod parser;
#[cfg(test)]
mod tests;

use std::io::{BufRead, BufReader, Cursor, Read};

use encoding_rs::Encoding;

use self::{
    dialect::Dialect,
    parser::{Parser, SplitError},
};
use super::{
    cancel::{CancellableFile, CancellationToken},
    decode::{Utf8Reader, charset_of_text},
    error::{import_error, read_error},
    file_range::FileRange,
    place::{cell_name, row_name},
    table::{Abort, Table},
};
use crate::{
    error::{Error, Result},
    products::files::cells::Cell,
};

const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes from the beginning of a file in which its first row is looked for.
const HEAD_BYTES: u64 = 64 * 1024;
const UTF8_MARK: &[u8] = "\u{feff}".as_bytes();
const NOT_UTF8: &str =
    "The text is not valid UTF-8. Save the file in UTF-8, or name its charset in the Content-Type of the upload.";
const NOT_IN_CHARSET: &str = "The text is not valid in the charset of the file.";
const TEXT_AFTER_QUOTES: &str = "The text goes on after its closing quote. A quote in a text is written twice.";

/// Sends the rows of a file to `table`. `charset` is that of a file without a byte order mark; `None` is UTF-8.
pub(crate) fn read(
    file: &FileRange,
    charset: Option<&'static Encoding>,
    token: &CancellationToken,
    table: &mut Table,
) -> Result<(), Abort> {
    let mut bytes = BufReader::with_capacity(BUFFER_BYTES, CancellableFile::new(file, token));
    let charset = charset_of_text(bytes.fill_buf().map_err(|error| read_error(&error))?, charset);
    let mut text = Utf8Reader::new(bytes, charset);
    let head = read_head(&mut text)?;
    let dialect = Dialect::of(&head)?;
    table.set_decimal_comma(dialect.has_decimal_comma());
    let rest = Cursor::new(&head[dialect.skipped_bytes..]).chain(text);
    let invalid_text = if charset.is_some() { NOT_IN_CHARSET } else { NOT_UTF8 };
    read_records(Parser::new(rest, dialect.delimiter), file.length, invalid_text, table)
}

/// Returns the first bytes of a text, without a byte order mark.
fn read_head(text: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    text.take(HEAD_BYTES).read_to_end(&mut head).map_err(|error| read_error(&error))?;
    if head.starts_with(UTF8_MARK) {
        head.drain(..UTF8_MARK.len());
    }
    Ok(head)
}

#[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
fn read_records(
    mut parser: Parser<impl BufRead>,
    length: u64,
    invalid_text: &'static str,
    table: &mut Table,
) -> Result<(), Abort> {
    while parser.next().map_err(split_error)? {
        for (column, bytes) in parser.cells().enumerate() {
            let cell = match std::str::from_utf8(bytes) {
                _ if parser.is_malformed(column) => Cell::Unreadable(TEXT_AFTER_QUOTES),
                Ok(text) => Cell::text(text.to_owned()),
                Err(_) => Cell::Unreadable(invalid_text),
            };
            table.push_cell(parser.row(), u32::try_from(column).unwrap_or(u32::MAX), cell)?;
        }
        // the text of another charset has another length
        table.set_progress((parser.bytes_read() as f64 / length.max(1) as f64).min(1.0));
    }
    Ok(())
}

fn split_error(error: SplitError) -> Error {
    let column = |column: usize| u32::try_from(column).unwrap_or(u32::MAX);
    match error {
        SplitError::Io(error) => read_error(&error),
        SplitError::UnclosedQuote(row, quoted) => {
            import_error(format!("{}: the quote is not closed", cell_name(None, row, column(quoted))))
        }
        SplitError::MisplacedQuote(row, quoted) => {
            let place = cell_name(None, row, column(quoted));
            import_error(format!("{place}: the quote is closed in another row, in the middle of a text"))
        }
        SplitError::TooLong(row, Some(quoted)) => {
            let place = cell_name(None, row, column(quoted));
            import_error(format!("{place}: the quote is not closed within 2 MiB"))
        }
        SplitError::TooLong(row, None) => import_error(format!("{} is larger than 2 MiB", row_name(None, row))),
        SplitError::TooManyColumns(row) => import_error(format!("{} has too many columns", row_name(None, row))),
        SplitError::TooManyRows => import_error("The file has too many rows"),
    }
}
