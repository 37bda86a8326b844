//! The sheets of a workbook as rows.

use std::{fs::File, io::BufReader, sync::Arc};

use calamine::{DataRef, Reader, Xlsx, XlsxError};

use super::{
    bounds::{Metered, inspect},
    rows::{Stop, Table, malformed},
};
use crate::products::cell::Cell;

/// The export's first sheet; others follow as `Products 2`, ...
const FIRST: &str = "Products";
/// Days that are counted from 1904 are so many fewer.
const SINCE_1904: f64 = 1462.0;

/// Reads the sheets that the export writes; of a workbook that has none of them, the first sheet.
#[expect(clippy::cast_precision_loss, reason = "for eyes")]
pub(super) fn read(file: &Arc<File>, table: &mut Table) -> Result<(), Stop> {
    inspect(file)?;
    let metered = Metered::whole(file);
    let allowance = metered.allowance();
    let broken = |error: XlsxError| Stop::Fault(malformed(format!("not a workbook: {error}")));
    let mut workbook: Xlsx<_> = Xlsx::new(BufReader::new(metered)).map_err(broken)?;
    let from_1904 = workbook.has_1904_epoch();
    let names = workbook.sheet_names();
    let mut sheets: Vec<&String> = names.iter().filter(|name| is_ours(name)).collect();
    if sheets.is_empty() {
        sheets.extend(names.first());
    }
    let count = sheets.len() as f64;
    for (place, name) in sheets.into_iter().enumerate() {
        table.begin_sheet((place > 0).then_some(name));
        allowance.cell();
        let mut cells = workbook.worksheet_cells_reader(name).map_err(broken)?;
        let height = f64::from(cells.dimensions().end.0.max(1));
        loop {
            allowance.cell();
            let Some(cell) = cells.next_cell().map_err(broken)? else { break };
            let (row, column) = cell.get_position();
            table.cell(row.saturating_add(1), column, value(cell.get_value(), from_1904))?;
            table.hand_on_if_full((place as f64 + (f64::from(row) / height).min(1.0)) / count)?;
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let rest = name.strip_prefix(FIRST);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(' ').is_some_and(|n| n.parse::<u32>().is_ok()))
}

fn value(value: &DataRef<'_>, from_1904: bool) -> Cell<'static> {
    #[expect(clippy::cast_precision_loss, reason = "a spreadsheet has no other numbers")]
    match value {
        DataRef::Empty => Cell::text(""),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => Cell::text(text.clone()),
        DataRef::SharedString(text) => Cell::text((*text).to_owned()),
        DataRef::Int(number) => Cell::Number(*number as f64),
        DataRef::Float(number) if number.is_finite() => Cell::Number(*number),
        DataRef::DateTime(date) if date.as_f64().is_finite() => {
            Cell::Date(date.as_f64() + if from_1904 { SINCE_1904 } else { 0.0 })
        }
        DataRef::Float(_) | DataRef::DateTime(_) | DataRef::Bool(_) | DataRef::Error(_) => Cell::Other,
    }
}
