//! The workbook part: its sheets, the shared strings and the date epoch.

use quick_xml::events::{BytesStart, Event};

use super::{
    package::{Package, not_a_workbook},
    part::attribute,
    relationships::{Kind, PART_LIMIT, Relationships, name_attribute, relationship_id},
    text::SharedStrings,
};
use crate::{
    error::Result,
    products::{
        files::cells::trim_blanks,
        import::{budget::MemoryBudget, error::import_error},
    },
};

/// The export's first sheet; the others are `Products 2` and so on.
pub(super) const FIRST_SHEET: &str = "Products";
const MAX_SHEETS: usize = 256;
/// The workbook part of the binary format.
const BINARY_EXTENSION: &str = ".bin";

pub(super) struct Workbook {
    /// All worksheets.
    pub(super) sheets: Vec<SheetEntry>,
    pub(super) shared_strings: SharedStrings,
    /// Whether date numbers count days from 1904-01-01.
    pub(super) uses_1904_epoch: bool,
}

impl Workbook {
    pub(super) fn read(package: &mut Package, budget: &MemoryBudget) -> Result<Self> {
        let of_package = Relationships::read(package, "")?;
        let path = of_package.first(Kind::Workbook).ok_or_else(not_a_workbook)?.to_owned();
        if path.ends_with(BINARY_EXTENSION) && package.has_part(&path) {
            return Err(import_error("The file is a binary workbook (.xlsb). Save it as an XLSX workbook or as CSV"));
        }
        let relationships = Relationships::read(package, &path)?;

        let (mut sheets, mut sheet_count) = (Vec::new(), 0);
        let mut uses_1904_epoch = false;
        let mut part = package.part(&path, PART_LIMIT)?.ok_or_else(not_a_workbook)?;
        loop {
            match part.next()? {
                Event::Eof => break,
                Event::Start(element) => match element.local_name().as_ref() {
                    "workbookPr" => {
                        let value = attribute(&element, "date1904")?;
                        uses_1904_epoch = value.is_some_and(|value| value == "1" || value == "true");
                    }
                    "sheet" => {
                        sheet_count += 1;
                        if sheet_count > MAX_SHEETS {
                            return Err(import_error(format!("The file has more than {MAX_SHEETS} sheets")));
                        }
                        sheets.extend(SheetEntry::read(&element, &relationships)?);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        drop(part);
        if sheets.is_empty() {
            return Err(import_error("The file has no worksheet"));
        }
        let shared_strings = match relationships.first(Kind::SharedStrings) {
            Some(path) => SharedStrings::read(package, path, budget)?,
            None => SharedStrings::new(budget),
        };
        Ok(Self { sheets, shared_strings, uses_1904_epoch })
    }
}

/// A worksheet that the workbook lists.
pub(super) struct SheetEntry {
    pub(super) name: String,
    /// The name of its part.
    pub(super) path: String,
    pub(super) is_visible: bool,
}

impl SheetEntry {
    /// Returns the entry of a `sheet` element, or `None` for anything but a worksheet, for example a chart.
    fn read(element: &BytesStart<'_>, relationships: &Relationships) -> Result<Option<Self>> {
        let name = name_attribute(element, "name")?.unwrap_or_default();
        let path = relationship_id(element)?.and_then(|id| relationships.worksheet(&id));
        let is_visible = attribute(element, "state")?.is_none_or(|state| state == "visible");
        Ok(path.map(|path| Self { name, path: path.to_owned(), is_visible }))
    }

    /// Returns whether this is the export's first sheet.
    pub(super) fn is_products(&self) -> bool {
        normalize_name(&self.name) == normalize_name(FIRST_SHEET)
    }
}

/// Returns the name of a sheet in the form in which names are compared.
pub(super) fn normalize_name(name: &str) -> String {
    trim_blanks(name).to_lowercase()
}
