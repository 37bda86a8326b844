//! The cells of one sheet.

use quick_xml::events::{BytesStart, Event};

use super::{
    package::{XmlPart, attribute},
    text::{SharedStrings, TextContent, unescape_xstring},
};
use crate::{
    error::{Error, Result},
    products::{
        files::cells::Cell,
        import::{
            error::import_error,
            table::{Abort, Table},
        },
    },
};

pub(crate) struct Sheet<'a> {
    part: XmlPart<'a>,
    shared_strings: &'a SharedStrings,
    /// The current row, from 1.
    row: u32,
    /// The column of the next cell, from 0.
    column: u32,
    /// The number of rows that the sheet declares, for the progress only.
    row_count: f64,
}

impl<'a> Sheet<'a> {
    pub(crate) fn new(part: XmlPart<'a>, shared_strings: &'a SharedStrings) -> Self {
        Self { part, shared_strings, row: 0, column: 0, row_count: 1.0 }
    }

    /// Returns the unpacked bytes that remain of the limit for sheets.
    pub(crate) fn remaining(&self) -> u64 {
        self.part.remaining()
    }

    /// Sends all cells to `table`. `progress` converts the fraction read of the sheet to that of the file.
    pub(crate) fn read(&mut self, table: &mut Table, progress: impl Fn(f64) -> f64) -> Result<(), Abort> {
        loop {
            match self.part.next()? {
                Event::Eof => return Err(incomplete_sheet().into()),
                Event::End(end) if end.local_name().as_ref() == "sheetData" => return Ok(()),
                Event::Start(start) => match start.local_name().as_ref() {
                    "dimension" => {
                        let last = attribute(&start, "ref")?.and_then(|area| parse_reference(area.rsplit(':').next()?));
                        self.row_count = last.map_or(1.0, |(row, _)| f64::from(row.max(1)));
                    }
                    "row" => {
                        let row = attribute(&start, "r")?.and_then(|row| row.parse().ok());
                        (self.row, self.column) = (row.unwrap_or(self.row.saturating_add(1)), 0);
                        table.set_progress(progress((f64::from(self.row) / self.row_count).min(1.0)));
                    }
                    "c" => {
                        let reference = attribute(&start, "r")?;
                        if let Some(position) = reference.and_then(|reference| parse_reference(&reference)) {
                            (self.row, self.column) = position;
                        }
                        let cell_type = CellType::of(&start)?;
                        let (row, column) = (self.row, self.column);
                        self.column = self.column.saturating_add(1);
                        table.push_cell(row, column, self.read_cell(cell_type)?)?;
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// Reads the content of a cell up to its end tag.
    fn read_cell(&mut self, cell_type: CellType) -> Result<Cell<'static>> {
        let element = if cell_type == CellType::InlineString { "t" } else { "v" };
        let (mut content, mut is_formula, mut has_value) = (TextContent::default(), false, false);
        loop {
            match self.part.next()? {
                Event::Eof => return Err(incomplete_sheet()),
                Event::End(end) if end.local_name().as_ref() == "c" => break,
                event => {
                    if let Event::Start(start) = &event {
                        is_formula |= start.local_name().as_ref() == "f";
                        has_value |= start.local_name().as_ref() == element;
                    }
                    content.push_event(&event, element)?;
                }
            }
        }
        let text = content.take();
        Ok(match cell_type {
            // the result of the formula is not stored, and is not known to be empty
            _ if is_formula && !has_value => Cell::Unsupported,
            _ if !has_value => Cell::text(""),
            CellType::Unsupported => Cell::Unsupported,
            CellType::InlineString | CellType::String => Cell::text(unescape_xstring(&text)),
            CellType::SharedString => {
                let string = text.trim().parse().ok().and_then(|index| self.shared_strings.get(index));
                let string = string.ok_or_else(|| import_error("A cell refers to a shared string that does not exist"));
                Cell::text(string?.to_owned())
            }
            CellType::Number => {
                let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
                Cell::Number(number.ok_or_else(|| import_error("A cell contains an invalid number"))?)
            }
        })
    }
}

fn incomplete_sheet() -> Error {
    import_error("A sheet of the workbook is incomplete")
}

/// The type of a cell's value (18.18.11, ST_CellType).
#[derive(Clone, Copy, PartialEq, Eq)]
enum CellType {
    Number,
    SharedString,
    InlineString,
    /// The result of a formula, or a date in ISO 8601.
    String,
    Unsupported,
}

impl CellType {
    fn of(cell: &BytesStart<'_>) -> Result<Self> {
        Ok(match attribute(cell, "t")?.as_deref() {
            None | Some("n") => Self::Number,
            Some("s") => Self::SharedString,
            Some("inlineStr") => Self::InlineString,
            Some("str" | "d") => Self::String,
            Some(_) => Self::Unsupported,
        })
    }
}

/// Returns the row, from 1, and the column, from 0, of a cell reference such as `B7` or `$B$7`.
fn parse_reference(reference: &str) -> Option<(u32, u32)> {
    let digits = reference.find(|character: char| character.is_ascii_digit())?;
    let (letters, row) = reference.split_at(digits);
    let mut column = 0_u32;
    for letter in letters.bytes().filter(|letter| *letter != b'$') {
        let index = letter.to_ascii_uppercase().checked_sub(b'A').filter(|index| *index < 26)?;
        column = column.checked_mul(26)?.checked_add(u32::from(index) + 1)?;
    }
    Some((row.trim_start_matches('$').parse().ok()?, column.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_references_are_parsed_to_row_and_column() {
        assert_eq!(parse_reference("A1"), Some((1, 0)));
        assert_eq!(parse_reference("$XFD$1048576"), Some((1_048_576, 16_383)));
        for invalid in ["", "A", "1", "A1B", "é1", "ZZZZZZZZZZ1", "A99999999999"] {
            assert_eq!(parse_reference(invalid), None, "{invalid}");
        }
    }
}
