//! The workbook: a sheet of products, a second one when Excel's rows run out, and never a formula.

use std::{borrow::Cow, io::Write, path::Path};

use jiff::Timestamp;
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::{
    cells::Cell,
    columns::{HEADER, PRICE, join_tags},
};
use crate::{
    products::product::Product,
    timestamps::{self, iso8601},
};

const WIDTHS: [f64; 7] = [10.0, 30.0, 50.0, 20.0, 14.0, 20.0, 30.0];
const COLUMNS: u16 = 7;
/// Rows of a sheet, the header's included.
pub const SHEET_ROWS: u32 = 1_048_576;
/// UTF-16 units of a cell.
const CELL_UNITS: usize = 32_767;
/// Stands at the end of a text that a cell could not hold.
const CUT: &str = "… [cut]";
/// Zip needs its 64-bit form from 4 GiB on; the sheet's XML is larger than the texts in it.
const ZIP64_FROM_TEXT_BYTES: u64 = 1 << 30;
const SECONDS_OF_A_DAY: f64 = 86_400.0;
/// 1899-12-30, the day 0 of spreadsheets, in seconds before 1970.
const DAY_ZERO: f64 = 25_569.0;
/// 1900-03-01: before it spreadsheets count a day that never was.
const FIRST_DATE: f64 = 61.0;

/// A workbook that is being written, row by row, in constant memory: rows go to a temporary file.
pub struct ProductWorkbook {
    workbook: Workbook,
    sheets: usize,
    row: u32,
    sheet_rows: u32,
    text_bytes: u64,
    header: Format,
    price: Format,
    date: Format,
    text: String,
}

impl ProductWorkbook {
    /// An empty sheet. `made` is told as the time of creation: two instances write the same bytes for the same state.
    /// Fails when nothing can be written to `folder`.
    pub fn new(folder: &Path, made: Timestamp, sheet_rows: u32) -> Result<Self, XlsxError> {
        let mut workbook = Workbook::new();
        workbook.set_tempdir(folder)?;
        let made = ExcelDateTime::from_timestamp(made.as_second())?;
        workbook.set_properties(&DocProperties::new().set_creation_datetime(&made));
        let mut this = Self {
            workbook,
            sheets: 0,
            row: 0,
            sheet_rows: sheet_rows.min(SHEET_ROWS),
            text_bytes: 0,
            header: Format::new().set_bold(),
            price: Format::new().set_num_format("0.00"),
            date: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            text: String::new(),
        };
        this.add_sheet()?;
        Ok(this)
    }

    fn sheet(&mut self) -> Result<&mut Worksheet, XlsxError> {
        self.workbook.worksheet_from_index(self.sheets - 1)
    }

    fn add_sheet(&mut self) -> Result<(), XlsxError> {
        let header = self.header.clone();
        self.sheets += 1;
        let name = if self.sheets == 1 { "Products".to_owned() } else { format!("Products {}", self.sheets) };
        let sheet = self.workbook.add_worksheet_with_constant_memory()?;
        sheet.set_name(name)?.set_freeze_panes(1, 0)?;
        for (column, width) in (0..).zip(WIDTHS) {
            sheet.set_column_width(column, width)?;
        }
        for (column, title) in (0..).zip(HEADER) {
            sheet.write_string_with_format(0, column, title, &header)?;
        }
        self.row = 0;
        Ok(())
    }

    fn end_sheet(&mut self) -> Result<(), XlsxError> {
        let last = self.row;
        self.sheet()?.autofilter(0, 0, last, COLUMNS - 1)?;
        Ok(())
    }

    /// One more row.
    pub fn write(&mut self, product: &Product<'_>) -> Result<(), XlsxError> {
        if self.row + 1 == self.sheet_rows {
            self.end_sheet()?;
            self.add_sheet()?;
        }
        self.row += 1;
        let mut tags = std::mem::take(&mut self.text);
        join_tags(product, &mut tags);
        let row = self.row;
        // not `self.sheet()`: the formats are borrowed beside it
        let sheet = self.workbook.worksheet_from_index(self.sheets - 1)?;
        for (column, cell) in (0..).zip(cells(product, &tags)) {
            self.text_bytes += 16;
            match cell {
                Cell::Text(text) if text.is_empty() => continue,
                Cell::Text(text) => {
                    self.text_bytes += text.len() as u64 + 48;
                    // whatever it looks like: `=1+1` stays what it is
                    sheet.write_string(row, column, &*text)?
                }
                Cell::Number(price) if usize::from(column) == PRICE => {
                    sheet.write_number_with_format(row, column, price, &self.price)?
                }
                Cell::Number(number) => sheet.write_number(row, column, number)?,
                Cell::Date(date) => sheet.write_number_with_format(row, column, date, &self.date)?,
                Cell::Other => unreachable!("a product has none"),
            };
        }
        self.text = tags;
        Ok(())
    }

    /// Ends the last sheet and writes the file.
    pub fn save(mut self, file: impl Write + Send) -> Result<(), XlsxError> {
        self.end_sheet()?;
        self.workbook.use_zip_large_file(self.text_bytes > ZIP64_FROM_TEXT_BYTES);
        self.workbook.save_to_writer(file)
    }
}

/// What a row holds of a product: numbers and dates, but for those that a spreadsheet cannot count, and texts.
pub(crate) fn cells<'a>(product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
    [
        number_of(product.id).map_or_else(|| Cell::text(product.id.to_string()), Cell::Number),
        Cell::Text(fitting(product.name)),
        Cell::Text(fitting(product.description)),
        Cell::Text(fitting(product.category_name)),
        product.price.parse().map_or_else(|_| Cell::text(product.price), Cell::Number),
        serial_date(product.created_at).map_or_else(|| Cell::text(iso8601(product.created_at)), Cell::Date),
        Cell::Text(fitting(tags)),
    ]
}

/// The number that stands for an id; none from where on they would be mistaken for their neighbours.
fn number_of(id: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "exact up to the bound")]
    (id.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS).then_some(id as f64)
}

/// The text, cut with a visible mark where a cell cannot hold it.
fn fitting(text: &str) -> Cow<'_, str> {
    // a UTF-16 unit takes at least one byte
    if text.len() <= CELL_UNITS || text.encode_utf16().count() <= CELL_UNITS {
        return text.into();
    }
    let room = CELL_UNITS - CUT.encode_utf16().count();
    let mut units = 0;
    let end = text
        .char_indices()
        .find(|(_, letter)| {
            units += letter.len_utf16();
            units > room
        })
        .map_or(text.len(), |(place, _)| place);
    format!("{}{CUT}", &text[..end]).into()
}

/// Days since 1899-12-30, UTC; none for what a spreadsheet cannot count.
fn serial_date(moment: Timestamp) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a spreadsheet has no other numbers")]
    let seconds = moment.as_microsecond() as f64 / 1e6;
    let days = seconds / SECONDS_OF_A_DAY + DAY_ZERO;
    (days >= FIRST_DATE).then_some(days)
}

/// The id that a number stands for.
pub(crate) fn id_of(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "looked at afterwards")]
    let id = number as i64;
    number_of(id).filter(|exact| *exact == number).map(|_| id)
}

/// Whether a cell that comes back still bears the mark of the text that was cut for it.
pub(crate) fn is_cut(written: &Cell<'_>, cell: &Cell<'_>) -> bool {
    let marked = |cell: &Cell<'_>| matches!(cell, Cell::Text(text) if text.ends_with(CUT));
    marked(written) && written.bytes() >= CELL_UNITS && marked(cell)
}

/// A moment as a spreadsheet shows it.
pub(crate) fn as_shown(moment: Timestamp) -> Option<Timestamp> {
    self::moment(serial_date(moment)?)
}

/// The moment of a serial date, to the millisecond: more than that no spreadsheet shows.
pub(crate) fn moment(days: f64) -> Option<Timestamp> {
    let milliseconds = ((days - DAY_ZERO) * SECONDS_OF_A_DAY * 1e3).round();
    if days < FIRST_DATE || milliseconds > 1e15 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within bounds")]
    timestamps::stored(Timestamp::from_millisecond(milliseconds as i64).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_cell_cannot_hold_is_cut_with_a_mark() {
        assert_eq!(fitting("short"), "short");
        let full = "x".repeat(CELL_UNITS);
        assert_eq!(fitting(&full), full);
        for letter in ["x", "ä", "€", "🐢"] {
            let long = letter.repeat(CELL_UNITS);
            let cut = fitting(&format!("{long}x")).into_owned();
            let units = cut.encode_utf16().count();
            assert!(cut.ends_with(CUT) && (CELL_UNITS - 1..=CELL_UNITS).contains(&units), "{letter}: {units}");
        }
    }

    #[test]
    fn dates_are_days_since_1899() {
        let of = |text: &str| serial_date(text.parse().unwrap());
        assert_eq!(of("1900-03-01T00:00:00Z"), Some(61.0));
        assert_eq!(of("2023-08-08T12:00:00Z"), Some(45146.5));
        assert_eq!(of("1900-02-28T23:59:59Z"), None);
    }
}
