//! Recognizes what separates the cells of a CSV file, from its first line.

use super::parser::Parser;
use crate::{
    error::Result,
    products::{
        files::cells::is_blank,
        import::{error::import_error, header::column_of_title},
    },
};

/// The supported separators, the preferred one first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
/// Begins a first line that names the separator, as Excel writes it.
const DECLARATION: &[u8] = b"sep=";

/// How a file is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// Bytes of the line that names the separator. It is not a row.
    pub(super) skipped_bytes: usize,
}

impl Dialect {
    /// Recognizes the separator by the beginning of a file: a line `sep=;` names it, or the one is taken that splits the
    /// first row into most titles. Without any, it is the comma.
    pub(super) fn of(head: &[u8]) -> Result<Self> {
        if let Some(declared) = Self::declared(head)? {
            return Ok(declared);
        }
        let (mut delimiter, mut most) = (DELIMITERS[0], 0);
        for candidate in DELIMITERS {
            let count = count_titles(head, candidate);
            if count > most {
                (delimiter, most) = (candidate, count);
            }
        }
        Ok(Self { delimiter, skipped_bytes: 0 })
    }

    /// Returns the separator that the first line names.
    fn declared(head: &[u8]) -> Result<Option<Self>> {
        let length = head.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
        let (line, rest) = head.split_at(length);
        // some programs quote the line
        let text = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
        let Some((start, separator)) = text.split_at_checked(DECLARATION.len()) else { return Ok(None) };
        if !start.eq_ignore_ascii_case(DECLARATION) {
            return Ok(None);
        }
        let [delimiter] = *separator else { return Err(unsupported_separator()) };
        if !DELIMITERS.contains(&delimiter) {
            return Err(unsupported_separator());
        }
        let line_break = if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) };
        Ok(Some(Self { delimiter, skipped_bytes: length + line_break }))
    }

    /// Returns whether a comma may be a decimal point: it separates no cells.
    pub(super) fn has_decimal_comma(&self) -> bool {
        self.delimiter != b','
    }
}

fn unsupported_separator() -> crate::error::Error {
    import_error("The first line names a separator other than a comma, a semicolon or a tab")
}

/// Returns the number of known titles in the first row that is not blank.
fn count_titles(head: &[u8], delimiter: u8) -> usize {
    let mut parser = Parser::new(head, delimiter);
    while parser.next().unwrap_or(false) {
        let texts = || parser.cells().filter_map(|cell| std::str::from_utf8(cell).ok());
        if texts().any(|text| !is_blank(text)) {
            return texts().filter(|text| column_of_title(text).is_some()).count();
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separator_is_recognized_by_the_titles() {
        for (head, delimiter) in [
            ("", b','),
            ("Name", b','),
            ("ID,Name", b','),
            ("\"ID\";\"Name\"", b';'),
            ("id\tname\tx,y;z", b'\t'),
            ("\n\n;;\nName;Colour,Price\n1,2,3,4", b';'),
            ("\"Name, Price\";Tags", b';'),
            ("a|b", b','),
            ("separator;Price", b';'),
        ] {
            assert_eq!(Dialect::of(head.as_bytes()).unwrap(), Dialect { delimiter, skipped_bytes: 0 }, "{head:?}");
        }
    }

    #[test]
    fn first_line_can_name_the_separator() {
        for (head, delimiter, skipped_bytes) in [
            ("sep=;\r\nID,Name", b';', 7),
            ("SEP=,\nID;Name", b',', 6),
            ("\"sep=\t\"\rName", b'\t', 8),
            ("sep=,", b',', 5),
        ] {
            assert_eq!(Dialect::of(head.as_bytes()).unwrap(), Dialect { delimiter, skipped_bytes }, "{head:?}");
        }
        for head in ["sep=|\nName", "sep=\nName", "sep=;;\nName"] {
            assert!(Dialect::of(head.as_bytes()).is_err(), "{head:?}");
        }
    }
}
