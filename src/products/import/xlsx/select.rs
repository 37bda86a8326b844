//! Decides which sheets of a workbook hold products.

use std::collections::HashMap;

use super::{
    sheets::Sheets,
    workbook::{FIRST_SHEET, SheetEntry, normalize_name},
};
use crate::{
    error::Result,
    products::{
        files::columns::HEADER,
        import::{error::import_error, header::TitleRow, place::sheet_name},
    },
};

/// Sheets that a message lists.
const MAX_LISTED: usize = 3;

/// Returns the numbers, from 0, of the sheets to read: `Products`, `Products 2` and so on. Without `Products`, the first
/// visible sheet whose first row that is not blank has a known title. If no sheet is visible, all count as visible.
pub(super) fn select_sheets(sheets: &mut Sheets) -> Result<Vec<usize>> {
    let entries = &sheets.workbook.sheets;
    let exported = exported_sheets(entries);
    if !exported.is_empty() {
        return Ok(exported);
    }
    let is_any_visible = entries.iter().any(|sheet| sheet.is_visible);
    let candidates = (0..entries.len()).filter(|number| entries[*number].is_visible || !is_any_visible);
    let candidates: Vec<_> = candidates.collect();
    if let [only] = candidates[..] {
        return Ok(vec![only]);
    }
    let mut found = Vec::new();
    for number in candidates {
        let titles = read_titles(sheets, number)?;
        if titles.is_known() {
            return Ok(vec![number]);
        }
        if found.len() < MAX_LISTED {
            let name = sheet_name(&sheets.workbook.sheets[number].name);
            let first: String = titles.first_unknown().chars().take(MAX_LISTED * 10).collect();
            found.push(if titles.row == 0 {
                format!("{name} is empty")
            } else {
                format!("{name} starts with \"{first}\"")
            });
        }
    }
    let found = found.join(", ");
    let known = HEADER.join(", ");
    Err(import_error(format!("No sheet has one of the titles {known} in its first row that is not empty. {found}")))
}

/// Returns the sheets of an export in order.
fn exported_sheets(entries: &[SheetEntry]) -> Vec<usize> {
    // of several sheets with one name, the first
    let by_name: HashMap<String, usize> =
        entries.iter().enumerate().rev().map(|(number, sheet)| (normalize_name(&sheet.name), number)).collect();
    let first = normalize_name(FIRST_SHEET);
    let names = (1..).map(|number| if number == 1 { first.clone() } else { format!("{first} {number}") });
    names.map_while(|name| by_name.get(&name).copied()).collect()
}

/// Reads the first row of a sheet that is not blank.
fn read_titles(sheets: &mut Sheets, number: usize) -> Result<TitleRow> {
    sheets.with_sheet(number, |sheet| {
        let mut titles = TitleRow::default();
        while let Some((row, column, cell)) = sheet.next()? {
            if titles.row != 0 && titles.row != row {
                break;
            }
            if !cell.is_blank() {
                titles.add(row, column, &cell);
            }
        }
        Ok(titles)
    })
}
