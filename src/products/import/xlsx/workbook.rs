//! The workbook part: the sheets to read, the shared strings and the date epoch.

use std::collections::HashMap;

use quick_xml::events::{BytesStart, Event};

use super::{
    package::{Package, attribute, not_a_workbook},
    text::SharedStrings,
};
use crate::{error::Result, products::import::cancel::Limit};

/// The export's first sheet; the others are `Products 2` and so on.
const FIRST_SHEET: &str = "Products";
/// Applies to each part other than sheets and shared strings.
const PART_LIMIT: Limit = Limit { bytes: 4 << 20, exceeded: "The file contains a part larger than 4 MiB" };

pub(crate) struct Workbook {
    /// The names and parts of the sheets to read.
    pub(crate) sheets: Vec<(String, String)>,
    pub(crate) shared_strings: SharedStrings,
    /// Whether date numbers count days from 1904-01-01.
    pub(crate) uses_1904_epoch: bool,
}

impl Workbook {
    pub(crate) fn read(package: &mut Package) -> Result<Self> {
        let mut of_package = relationships(package, "")?.into_values();
        let path = of_package.find(|target| target.kind == "officeDocument").ok_or_else(not_a_workbook)?.path;
        let targets = relationships(package, &path)?;

        let mut sheets = Vec::new();
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
                    "sheet" => sheets.extend(SheetEntry::read(&element, &targets)?),
                    _ => {}
                },
                _ => {}
            }
        }
        drop(part);
        let shared_strings = match targets.values().find(|target| target.kind == "sharedStrings") {
            Some(target) => SharedStrings::read(package, &target.path)?,
            None => SharedStrings::default(),
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
    fn read(element: &BytesStart<'_>, targets: &HashMap<String, Target>) -> Result<Option<Self>> {
        let name = attribute(element, "name")?.unwrap_or_default();
        let target = attribute(element, "id")?.and_then(|id| targets.get(&id));
        let is_visible = attribute(element, "state")?.is_none_or(|state| state == "visible");
        let target = target.filter(|target| target.kind == "worksheet");
        Ok(target.map(|target| Self { name, path: target.path.clone(), is_visible }))
    }
}

/// Returns the sheets of an export in order or, if there are none, the first visible sheet. Without a visible one, the
/// first sheet.
fn select_sheets(sheets: &[SheetEntry]) -> Vec<&SheetEntry> {
    let names =
        (1..).map(|number| if number == 1 { FIRST_SHEET.to_owned() } else { format!("{FIRST_SHEET} {number}") });
    let exported: Vec<_> = names.map_while(|name| sheets.iter().find(|sheet| sheet.name == name)).collect();
    if exported.is_empty() {
        return sheets.iter().find(|sheet| sheet.is_visible).or(sheets.first()).into_iter().collect();
    }
    exported
}

/// A part that another part refers to.
struct Target {
    /// The last segment of the relationship type. The segments before it differ between strict and transitional files.
    kind: String,
    /// Its name in the package.
    path: String,
}

/// Returns the relationships of a part, by id. The empty name stands for the package itself.
fn relationships(package: &mut Package, source: &str) -> Result<HashMap<String, Target>> {
    let (folder, name) = source.rsplit_once('/').unwrap_or(("", source));
    let base = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut targets = HashMap::new();
    let Some(mut part) = package.part(&format!("{base}_rels/{name}.rels"), PART_LIMIT)? else { return Ok(targets) };
    loop {
        match part.next()? {
            Event::Eof => return Ok(targets),
            Event::Start(element) if element.local_name().as_ref() == "Relationship" => {
                let (id, kind, target) =
                    (attribute(&element, "Id")?, attribute(&element, "Type")?, attribute(&element, "Target")?);
                if let (Some(id), Some(kind), Some(target)) = (id, kind, target) {
                    let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
                    let path = target.strip_prefix('/').map_or_else(|| format!("{base}{target}"), str::to_owned);
                    targets.insert(id, Target { kind, path });
                }
            }
            _ => {}
        }
    }
}
