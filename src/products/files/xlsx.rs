//! Writes products as an XLSX workbook: typed cells, no formulas, further sheets beyond Excel's row limit.
//!
//! Also converts between ids and the numbers of spreadsheet cells, for export and import.

use std::{borrow::Cow, io::Write, path::Path};

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::{
    cells::Cell,
    columns::{HEADER, join_tags},
    serial::serial_from_timestamp,
};
use crate::{
    products::{
        fields::{Field, Fields},
        product::Product,
    },
    timestamps::iso8601,
};

/// Column widths in characters, in the order of [`HEADER`].
const WIDTHS: [f64; HEADER.len()] = [10.0, 30.0, 50.0, 20.0, 14.0, 20.0, 30.0];
/// Excel's limit of rows per sheet, header included.
pub const MAX_SHEET_ROWS: u32 = 1_048_576;
/// Excel's limit of UTF-16 units per cell.
const MAX_CELL_UTF16_UNITS: usize = 32_767;
/// Ends a text that was too long for a cell.
const TRUNCATION_MARK: &str = "… [cut]";
/// Zip needs its 64-bit format from 4 GiB on. The sheet's XML is larger than the estimate of [`ProductWorkbook`].
const ZIP64_MIN_BYTES: u64 = 1 << 30;

/// Writes a workbook row by row in constant memory; rows are spooled to a temporary file.
pub struct ProductWorkbook {
    workbook: Workbook,
    /// The columns.
    fields: Fields,
    sheets: usize,
    /// The index of the last row that was written to the current sheet; the header is row 0.
    row: u32,
    max_sheet_rows: u32,
    /// A lower bound of the bytes of XML.
    estimated_bytes: u64,
    header_format: Format,
    price_format: Format,
    date_format: Format,
    tags: String,
}

impl ProductWorkbook {
    /// Creates a workbook with an empty sheet. Temporary files go to `dir`. The time of creation is fixed, so that equal
    /// rows are equal bytes. A sheet has at most `max_sheet_rows` rows, header included. The columns are `fields`. Fails
    /// when `dir` is not writable.
    pub fn new(dir: &Path, max_sheet_rows: u32, fields: Fields) -> Result<Self, XlsxError> {
        let mut workbook = Workbook::new();
        workbook.set_tempdir(dir)?;
        let created = ExcelDateTime::from_timestamp(0)?;
        workbook.set_properties(&DocProperties::new().set_creation_datetime(&created));
        let mut this = Self {
            workbook,
            fields,
            sheets: 0,
            row: 0,
            max_sheet_rows: max_sheet_rows.min(MAX_SHEET_ROWS),
            estimated_bytes: 0,
            header_format: Format::new().set_bold(),
            price_format: Format::new().set_num_format("0.00"),
            date_format: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            tags: String::new(),
        };
        this.start_sheet()?;
        Ok(this)
    }

    fn start_sheet(&mut self) -> Result<(), XlsxError> {
        self.sheets += 1;
        let name = if self.sheets == 1 { "Products".to_owned() } else { format!("Products {}", self.sheets) };
        let sheet = self.workbook.add_worksheet_with_constant_memory()?;
        sheet.set_name(name)?.set_freeze_panes(1, 0)?;
        for (column, field) in (0..).zip(self.fields.iter()) {
            sheet.set_column_width(column, WIDTHS[field as usize])?;
            sheet.write_string_with_format(0, column, HEADER[field as usize], &self.header_format)?;
        }
        self.row = 0;
        Ok(())
    }

    fn finish_sheet(&mut self) -> Result<(), XlsxError> {
        let (last_row, columns) = (self.row, (0..).zip(self.fields.iter()));
        let last_column = columns.last().map_or(0, |(column, _)| column);
        current_sheet(&mut self.workbook, self.sheets)?.autofilter(0, 0, last_row, last_column)?;
        Ok(())
    }

    pub fn write(&mut self, product: &Product<'_>) -> Result<(), XlsxError> {
        if self.row + 1 == self.max_sheet_rows {
            self.finish_sheet()?;
            self.start_sheet()?;
        }
        self.row += 1;
        let row = self.row;
        join_tags(product, &mut self.tags);
        let sheet = current_sheet(&mut self.workbook, self.sheets)?;
        let cells = Field::ALL.into_iter().zip(cells(product, &self.tags));
        for (column, (field, cell)) in (0..).zip(cells.filter(|(field, _)| self.fields.contains(*field))) {
            self.estimated_bytes += 16;
            match cell {
                Cell::Text(text) if text.is_empty() => continue,
                Cell::Text(text) => {
                    self.estimated_bytes += text.len() as u64 + 48;
                    // never a formula: `=1+1` stays a text
                    sheet.write_string(row, column, &*text)?
                }
                Cell::Number(price) if field == Field::Price => {
                    sheet.write_number_with_format(row, column, price, &self.price_format)?
                }
                Cell::Number(number) => sheet.write_number(row, column, number)?,
                Cell::Date(date) => sheet.write_number_with_format(row, column, date, &self.date_format)?,
                Cell::Unsupported | Cell::Unreadable(_) => unreachable!("every value of a product has a cell type"),
            };
        }
        Ok(())
    }

    /// Finishes the last sheet and writes the workbook to `file`.
    pub fn save(mut self, file: impl Write + Send) -> Result<(), XlsxError> {
        self.finish_sheet()?;
        self.workbook.use_zip_large_file(self.estimated_bytes > ZIP64_MIN_BYTES);
        self.workbook.save_to_writer(file)
    }
}

/// Not a method: the caller borrows other fields of [`ProductWorkbook`] at the same time.
fn current_sheet(workbook: &mut Workbook, sheets: usize) -> Result<&mut Worksheet, XlsxError> {
    workbook.worksheet_from_index(sheets - 1)
}

/// Returns the cells of a product: numbers and dates where a spreadsheet can represent the value, texts otherwise.
pub(crate) fn cells<'a>(product: &Product<'a>, tags: &'a str) -> [Cell<'a>; HEADER.len()] {
    [
        number_from_id(product.id).map_or_else(|| Cell::text(product.id.to_string()), Cell::Number),
        Cell::Text(truncate(product.name)),
        Cell::Text(truncate(product.description)),
        Cell::Text(truncate(product.category_name)),
        product.price.parse().map_or_else(|_| Cell::text(product.price), Cell::Number),
        serial_from_timestamp(product.created_at).map_or_else(|| Cell::text(iso8601(product.created_at)), Cell::Date),
        Cell::Text(truncate(tags)),
    ]
}

/// Returns the id as a number; `None` for an id beyond 2^53, which a neighbouring id would equal.
fn number_from_id(id: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    (id.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS).then_some(id as f64)
}

/// Returns the id that a number represents exactly.
pub(crate) fn id_from_number(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the next line compares the result with the number")]
    let id = number as i64;
    number_from_id(id).filter(|exact| *exact == number).map(|_| id)
}

/// Returns the text, shortened to the limit of a cell and ended by [`TRUNCATION_MARK`] if it exceeds the limit.
fn truncate(text: &str) -> Cow<'_, str> {
    // a UTF-16 unit takes at least one byte of UTF-8
    if text.len() <= MAX_CELL_UTF16_UNITS || text.encode_utf16().count() <= MAX_CELL_UTF16_UNITS {
        return text.into();
    }
    let max_units = MAX_CELL_UTF16_UNITS - TRUNCATION_MARK.encode_utf16().count();
    let mut units = 0;
    let end = text
        .char_indices()
        .find(|(_, character)| {
            units += character.len_utf16();
            units > max_units
        })
        .map_or(text.len(), |(index, _)| index);
    format!("{}{TRUNCATION_MARK}", &text[..end]).into()
}

/// Returns whether the export truncated the text of `exported`, and `imported` still ends with the mark.
pub(crate) fn is_truncated(exported: &Cell<'_>, imported: &Cell<'_>) -> bool {
    let is_marked = |cell: &Cell<'_>| matches!(cell, Cell::Text(text) if text.ends_with(TRUNCATION_MARK));
    is_marked(exported) && exported.text_bytes() >= MAX_CELL_UTF16_UNITS && is_marked(imported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_beyond_the_cell_limit_is_truncated_with_mark() {
        assert_eq!(truncate("short"), "short");
        let longest = "x".repeat(MAX_CELL_UTF16_UNITS);
        assert_eq!(truncate(&longest), longest);
        for character in ["x", "ä", "€", "🐢"] {
            let long = character.repeat(MAX_CELL_UTF16_UNITS) + "x";
            let truncated = truncate(&long);
            let units = truncated.encode_utf16().count();
            assert!(truncated.ends_with(TRUNCATION_MARK), "{character}");
            assert!((MAX_CELL_UTF16_UNITS - 1..=MAX_CELL_UTF16_UNITS).contains(&units), "{character}: {units}");
        }
    }
}
