//! The cells of one sheet.

use quick_xml::events::{BytesStart, Event};

use super::{
    part::{XmlPart, attribute},
    text::{SharedStrings, TextContent, unescape_xstring},
};
use crate::{
    error::{Error, Result},
    products::{
        files::cells::Cell,
        import::{
            error::import_error,
            place::{row_name, sheet_name},
        },
    },
};

/// The validation error of a cell such as `<c t="inlineStr"><v>text</v></c>`.
const MISPLACED: &str = "The cell has a value of another type than it says.";

/// A cell with its row, from 1, and its column, from 0.
pub(crate) type PlacedCell = (u32, u32, Cell<'static>);

/// What decides the number of the current row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowState {
    /// There is no current row.
    Closed,
    /// The row consists of cells outside of a `row` element.
    Implicit,
    /// The number of the first cell decides.
    Unnumbered,
    Numbered,
}

/// Reads the cells of a sheet in the order of the file.
pub(crate) struct Sheet<'a> {
    name: &'a str,
    part: XmlPart<'a>,
    shared_strings: &'a SharedStrings,
    /// The current row, from 1.
    row: u32,
    row_state: RowState,
    /// The column of the next cell, from 0.
    column: u32,
    /// The number of rows that the sheet declares, for the progress only.
    row_count: f64,
}

impl<'a> Sheet<'a> {
    pub(crate) fn new(name: &'a str, mut part: XmlPart<'a>, shared_strings: &'a SharedStrings) -> Self {
        part.set_name(sheet_name(name));
        Self { name, part, shared_strings, row: 0, row_state: RowState::Closed, column: 0, row_count: 1.0 }
    }

    /// Returns the unpacked bytes that remain of the limit for sheets.
    pub(crate) fn remaining(&self) -> u64 {
        self.part.remaining()
    }

    /// Returns the fraction of the sheet that has been read, from 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        (f64::from(self.row) / self.row_count).min(1.0)
    }

    /// Reads the rest of the part after the last cell: its checksum is compared at the end. Fails if the part is damaged
    /// or has another table.
    pub(crate) fn finish(&mut self) -> Result<()> {
        loop {
            match self.part.next()? {
                Event::Eof => return Ok(()),
                Event::Start(start) if start.local_name().as_ref() == "sheetData" => {
                    return Err(import_error(format!("{} has two tables", sheet_name(self.name))));
                }
                _ => {}
            }
        }
    }

    /// Returns the next cell, or `None` after the last. The numbers of rows increase.
    pub(crate) fn next(&mut self) -> Result<Option<PlacedCell>> {
        loop {
            match self.part.next()? {
                Event::Eof => return Err(self.incomplete()),
                Event::End(end) => match end.local_name().as_ref() {
                    "sheetData" => return Ok(None),
                    "row" => self.row_state = RowState::Closed,
                    _ => {}
                },
                Event::Start(start) => match start.local_name().as_ref() {
                    "dimension" => {
                        let last = attribute(&start, "ref")?.and_then(|area| parse_reference(area.rsplit(':').next()?));
                        self.row_count = last.map_or(1.0, |(row, _)| f64::from(row.max(1)));
                    }
                    "row" if !matches!(self.row_state, RowState::Closed | RowState::Implicit) => {
                        let place = row_name(Some(self.name), self.row);
                        return Err(import_error(format!("{place} contains another row")));
                    }
                    "row" => {
                        let number = attribute(&start, "r")?.and_then(|row| row.trim().parse().ok());
                        self.start_row(number)?;
                        self.row_state = if number.is_some() { RowState::Numbered } else { RowState::Unnumbered };
                    }
                    "c" => {
                        let cell_type = CellType::of(&start)?;
                        let reference = attribute(&start, "r")?;
                        self.place_cell(reference.and_then(|reference| parse_reference(&reference)))?;
                        let (row, column) = (self.row, self.column);
                        self.column = self.column.saturating_add(1);
                        return Ok(Some((row, column, self.read_cell(cell_type)?)));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// Starts a row. Without a number, it follows the row before it.
    fn start_row(&mut self, number: Option<u32>) -> Result<()> {
        let number = number.unwrap_or(self.row.saturating_add(1));
        if number <= self.row {
            let row = row_name(Some(self.name), number);
            let message =
                format!("{row} comes after row {}. A row may occur only once, and rows must be in order", self.row);
            return Err(import_error(message));
        }
        (self.row, self.column) = (number, 0);
        self.part.set_row(number);
        Ok(())
    }

    /// Moves to the row and column of a cell's reference. A cell outside of a row starts one.
    fn place_cell(&mut self, position: Option<(u32, u32)>) -> Result<()> {
        let is_outside = matches!(self.row_state, RowState::Closed | RowState::Implicit);
        if self.row_state == RowState::Closed && position.is_none() {
            self.start_row(None)?;
        }
        if let Some((row, column)) = position {
            if self.row_state == RowState::Closed || self.row_state != RowState::Numbered && row != self.row {
                self.start_row(Some(row))?;
            } else if row != self.row {
                let place = row_name(Some(self.name), self.row);
                return Err(import_error(format!("{place} contains a cell of row {row}")));
            }
            self.column = column;
        }
        self.row_state = if is_outside { RowState::Implicit } else { RowState::Numbered };
        Ok(())
    }

    /// Reads the content of a cell up to its end tag.
    fn read_cell(&mut self, cell_type: CellType) -> Result<Cell<'static>> {
        let element = if cell_type == CellType::InlineString { "t" } else { "v" };
        let (mut content, mut is_formula, mut has_value) = (TextContent::default(), false, false);
        // a text outside of the element that holds the value of this type
        let (mut is_in_formula, mut has_other_text) = (false, false);
        loop {
            match self.part.next()? {
                Event::Eof => return Err(self.incomplete()),
                Event::End(end) if end.local_name().as_ref() == "c" => break,
                event => {
                    match &event {
                        Event::Start(start) => {
                            is_in_formula = start.local_name().as_ref() == "f";
                            is_formula |= is_in_formula;
                            has_value |= start.local_name().as_ref() == element;
                        }
                        Event::End(_) => is_in_formula = false,
                        Event::Text(text) if !is_in_formula && !content.is_inside() => {
                            has_other_text |= !text.trim().is_empty();
                        }
                        _ => {}
                    }
                    content.push_event(&event, element);
                }
            }
        }
        Ok(match content.take() {
            Err(reason) => Cell::Unreadable(reason),
            // the result of such a formula is not stored, and is not known to be empty
            Ok(_) if is_formula && !has_value => Cell::Unsupported,
            Ok(text) if text.is_empty() && has_other_text => Cell::Unreadable(MISPLACED),
            Ok(text) => self.cell(cell_type, &text),
        })
    }

    /// Returns the cell of a value. An empty value is an empty cell.
    fn cell(&self, cell_type: CellType, text: &str) -> Cell<'static> {
        match cell_type {
            CellType::InlineString | CellType::String => Cell::text(unescape_xstring(text)),
            _ if text.trim().is_empty() => Cell::text(""),
            CellType::Unsupported => Cell::Unsupported,
            CellType::SharedString => {
                let index = text.trim().parse::<usize>().map_err(|_| "The number of a shared text is invalid.");
                match index.and_then(|index| self.shared_strings.get(index)) {
                    Ok(string) => Cell::text(string.to_owned()),
                    Err(reason) => Cell::Unreadable(reason),
                }
            }
            CellType::Number => {
                let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
                number.map_or(Cell::Unreadable("The cell holds an invalid number."), Cell::Number)
            }
        }
    }

    fn incomplete(&self) -> Error {
        import_error(format!("The file is incomplete: {} has no end", sheet_name(self.name)))
    }
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
