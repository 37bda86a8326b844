//! Names of places in a file, for messages.

use crate::products::files::format::FileFormat;

/// Characters of a sheet's name in a message. Excel allows 31.
const MAX_SHEET_CHARACTERS: usize = 40;

/// Returns the letters that a spreadsheet shows for a column, or its number, from 1, for a CSV file.
pub(crate) fn column_name(column: u32, format: FileFormat) -> String {
    match format {
        FileFormat::Xlsx => column_letters(column),
        FileFormat::Csv => (u64::from(column) + 1).to_string(),
    }
}

/// Returns the letters of a column: `A` for 0.
fn column_letters(column: u32) -> String {
    let (mut letters, mut rest) = (Vec::new(), u64::from(column) + 1);
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'A' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
    }
    letters.iter().rev().collect()
}

/// Returns the name of a sheet in quotes.
pub(crate) fn sheet_name(sheet: &str) -> String {
    format!("Sheet \"{}\"", sheet.chars().take(MAX_SHEET_CHARACTERS).collect::<String>())
}

/// Returns a row of a sheet, or of a CSV file if `sheet` is `None`.
pub(crate) fn row_name(sheet: Option<&str>, row: u32) -> String {
    match sheet {
        Some(sheet) => format!("{}, row {row}", sheet_name(sheet)),
        None => format!("Row {row}"),
    }
}

/// Returns a cell of a sheet, or of a CSV file if `sheet` is `None`. `column` counts from 0.
pub(crate) fn cell_name(sheet: Option<&str>, row: u32, column: u32) -> String {
    match sheet {
        Some(sheet) => format!("{}, cell {}{row}", sheet_name(sheet), column_letters(column)),
        None => format!("Row {row}, column {}", u64::from(column) + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_letters() {
        let letters = [0, 25, 26, 701, 702, 16_383, u32::MAX].map(column_letters);
        assert_eq!(letters, ["A", "Z", "AA", "ZZ", "AAA", "XFD", "MWLQKWV"]);
    }

    #[test]
    fn cells_are_named_as_the_file_format_shows_them() {
        assert_eq!(cell_name(Some("Products"), 1, 3), "Sheet \"Products\", cell D1");
        assert_eq!(cell_name(None, 1, 3), "Row 1, column 4");
    }
}
