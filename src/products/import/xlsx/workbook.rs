//! The workbook part: the sheets to read, the shared strings and the date epoch.

use std::collections::HashMap;

use quick_xml::events::{BytesStart, Event};

use super::{
    package::{Package, attribute, not_a_workbook},
    text::SharedStrings,
};
use crate::{
    error::Result,
    products::import::{budget::MemoryBudget, cancel::Limit, error::import_error},
};

/// The export's first sheet; the others are `Products 2` and so on.
const FIRST_SHEET: &str = "Products";
/// Applies to each part other than sheets and shared strings.
const PART_LIMIT: Limit = Limit { bytes: 4 << 20, exceeded: "The file contains a part larger than 4 MiB" };
const MAX_SHEETS: usize = 256;
/// Relationships of one part.
const MAX_RELATIONSHIPS: usize = 256;
/// Bytes of a sheet's name, of a relationship's id and of its target. Excel allows names of 31 characters.
const MAX_NAME_BYTES: usize = 1024;

pub(crate) struct Workbook {
    /// The names and parts of the sheets to read.
    pub(crate) sheets: Vec<(String, String)>,
    pub(crate) shared_strings: SharedStrings,
    /// Whether date numbers count days from 1904-01-01.
    pub(crate) uses_1904_epoch: bool,
}

impl Workbook {
    pub(crate) fn read(package: &mut Package, budget: &MemoryBudget) -> Result<Self> {
        let of_package = Relationships::read(package, "")?;
        let path = of_package.first(Kind::Workbook).ok_or_else(not_a_workbook)?.to_owned();
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
        let shared_strings = match relationships.first(Kind::SharedStrings) {
            Some(path) => SharedStrings::read(package, path, budget)?,
            None => SharedStrings::new(budget),
        };
        let sheets = select_sheets(&sheets).into_iter().map(|sheet| (sheet.name.clone(), sheet.path.clone())).collect();
        Ok(Self { sheets, shared_strings, uses_1904_epoch })
    }
}

/// A sheet that the workbook lists.
struct SheetEntry {
    name: String,
    /// The name of its part.
    path: String,
    is_visible: bool,
}

impl SheetEntry {
    /// Returns the entry of a `sheet` element, or `None` for anything but a worksheet, for example a chart.
    fn read(element: &BytesStart<'_>, relationships: &Relationships) -> Result<Option<Self>> {
        let name = name_attribute(element, "name")?.unwrap_or_default();
        let path = name_attribute(element, "id")?.and_then(|id| relationships.worksheet(&id));
        let is_visible = attribute(element, "state")?.is_none_or(|state| state == "visible");
        Ok(path.map(|path| Self { name, path: path.to_owned(), is_visible }))
    }
}

/// Returns the sheets of an export in order or, if there are none, the first visible sheet. Without a visible one, the
/// first sheet.
fn select_sheets(sheets: &[SheetEntry]) -> Vec<&SheetEntry> {
    // of several sheets with one name, the first
    let by_name: HashMap<&str, &SheetEntry> = sheets.iter().rev().map(|sheet| (sheet.name.as_str(), sheet)).collect();
    let names =
        (1..).map(|number| if number == 1 { FIRST_SHEET.to_owned() } else { format!("{FIRST_SHEET} {number}") });
    let exported: Vec<_> = names.map_while(|name| by_name.get(name.as_str()).copied()).collect();
    if exported.is_empty() {
        return sheets.iter().find(|sheet| sheet.is_visible).or(sheets.first()).into_iter().collect();
    }
    exported
}

/// The kinds of parts that the import reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Workbook,
    Worksheet,
    SharedStrings,
}

impl Kind {
    /// Returns the kind of a relationship type. Its last segment decides: the segments before it differ between strict
    /// and transitional files.
    fn of(relationship_type: &str) -> Option<Self> {
        match relationship_type.rsplit('/').next()? {
            "officeDocument" => Some(Self::Workbook),
            "worksheet" => Some(Self::Worksheet),
            "sharedStrings" => Some(Self::SharedStrings),
            _ => None,
        }
    }
}

/// A reference from one part to another.
struct Relationship {
    id: String,
    kind: Kind,
    /// The name of the other part in the package.
    path: String,
}

/// The relationships of a part, in the order of the file; those of kinds that the import does not read are left out.
#[derive(Default)]
struct Relationships(Vec<Relationship>);

impl Relationships {
    /// Reads the relationships of the part `source`. The empty name stands for the package itself.
    fn read(package: &mut Package, source: &str) -> Result<Self> {
        let (folder, name) = source.rsplit_once('/').unwrap_or(("", source));
        let base = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let (mut relationships, mut count) = (Self::default(), 0);
        let Some(mut part) = package.part(&format!("{base}_rels/{name}.rels"), PART_LIMIT)? else {
            return Ok(relationships);
        };
        loop {
            match part.next()? {
                Event::Eof => return Ok(relationships),
                Event::Start(element) if element.local_name().as_ref() == "Relationship" => {
                    count += 1;
                    if count > MAX_RELATIONSHIPS {
                        let message = format!("A part of the file has more than {MAX_RELATIONSHIPS} relationships");
                        return Err(import_error(message));
                    }
                    relationships.0.extend(Relationship::read(&element, &base)?);
                }
                _ => {}
            }
        }
    }

    /// Returns the path of the first relationship of a kind.
    fn first(&self, kind: Kind) -> Option<&str> {
        self.0.iter().find(|relationship| relationship.kind == kind).map(|relationship| relationship.path.as_str())
    }

    /// Returns the path of the worksheet with this id. Of several relationships with one id, the last.
    fn worksheet(&self, id: &str) -> Option<&str> {
        let relationship = self.0.iter().rev().find(|relationship| relationship.id == id)?;
        (relationship.kind == Kind::Worksheet).then_some(relationship.path.as_str())
    }
}

impl Relationship {
    /// Returns `None` for a kind that the import does not read. `base` is the folder of the source, with its slash.
    fn read(element: &BytesStart<'_>, base: &str) -> Result<Option<Self>> {
        let Some(kind) = attribute(element, "Type")?.and_then(|value| Kind::of(&value)) else { return Ok(None) };
        let (id, target) = (name_attribute(element, "Id")?, name_attribute(element, "Target")?);
        let (Some(id), Some(target)) = (id, target) else { return Ok(None) };
        let path = target.strip_prefix('/').map_or_else(|| format!("{base}{target}"), str::to_owned);
        Ok(Some(Self { id, kind, path }))
    }
}

/// Returns the value of an attribute that holds a name.
fn name_attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    let value = attribute(element, name)?;
    if value.as_ref().is_some_and(|value| value.len() > MAX_NAME_BYTES) {
        return Err(import_error(format!("The file contains a name longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(value)
}
