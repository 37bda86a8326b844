//! The sheets of a workbook (ECMA-376, part 1: SpreadsheetML) as rows. Made by hand because a library that reads workbooks
//! makes room for what a file says it holds: a kilobyte can make it ask for more than there is.

use std::{collections::HashMap, fs::File, sync::Arc};

use quick_xml::events::{BytesRef, BytesStart, Event};

use super::{
    cancel::Cancel,
    error::malformed,
    table::{Abort, Table},
    zip::{Package, XmlPart, attribute},
};
use crate::{error::Result, products::files::cells::Cell};

/// The export's first sheet; others follow as `Products 2`, ...
const FIRST: &str = "Products";
/// All sheets together, unpacked.
const SHEETS_BYTES: u64 = 2 << 30;
/// Texts that cells share, unpacked.
const SHARED_TEXT_BYTES: u64 = 64 << 20;
/// Any other part, unpacked.
const PART_BYTES: u64 = 4 << 20;
/// The text of a cell: twice what a spreadsheet's cell can hold.
const CELL_BYTES: usize = 256 << 10;
/// Days that are counted from 1904 are so many fewer.
const SINCE_1904: f64 = 1462.0;

/// Reads the sheets that the export writes; of a workbook that has none of them, the first one that is shown.
pub(crate) fn read(file: &Arc<File>, cancel: &Cancel, table: &mut Table) -> Result<(), Abort> {
    let mut package = Package::open(file, cancel)?;
    let workbook = Workbook::read(&mut package)?;
    if workbook.from_1904 {
        table.shift_dates(SINCE_1904);
    }
    let count = workbook.sheets.len();
    let mut left = SHEETS_BYTES;
    for (place, (name, path)) in workbook.sheets.iter().enumerate() {
        table.begin_sheet((place > 0).then_some(name));
        let part = package.part(path, left)?.ok_or_else(|| malformed("a sheet is missing"))?;
        let mut sheet = Sheet { part, texts: &workbook.texts, row: 0, column: 0, height: 1.0 };
        sheet.read(table, |part| (count_of(place) + part) / count_of(count))?;
        left = sheet.part.left();
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn count_of(sheets: usize) -> f64 {
    sheets as f64
}

/// What a workbook says besides its sheets.
struct Workbook {
    /// The sheets to read, with the names of their parts.
    sheets: Vec<(String, String)>,
    texts: Texts,
    from_1904: bool,
}

impl Workbook {
    fn read(package: &mut Package) -> Result<Self> {
        let not_one = || malformed("not a workbook");
        let main = relationships(package, "")?.into_values().find(|target| target.kind == "officeDocument");
        let main = main.ok_or_else(not_one)?.path;
        let targets = relationships(package, &main)?;

        let mut all = Vec::new();
        let mut from_1904 = false;
        let mut part = package.part(&main, PART_BYTES)?.ok_or_else(not_one)?;
        loop {
            match part.next()? {
                Event::Eof => break,
                Event::Start(start) if start.local_name().as_ref() == "workbookPr" => {
                    from_1904 =
                        attribute(&start, "date1904")?.is_some_and(|value| ["1", "true"].contains(&value.as_str()));
                }
                Event::Start(start) if start.local_name().as_ref() == "sheet" => {
                    let name = attribute(&start, "name")?.unwrap_or_default();
                    let target = attribute(&start, "id")?.and_then(|id| targets.get(&id));
                    let is_shown = attribute(&start, "state")?.is_none_or(|state| state == "visible");
                    if let Some(target) = target.filter(|target| target.kind == "worksheet") {
                        all.push((name, target.path.clone(), is_shown));
                    }
                }
                _ => {}
            }
        }
        drop(part);
        let shown = all.iter().find(|(.., is_shown)| *is_shown).or(all.first()).cloned();
        let ours = (1..).map(|number| if number == 1 { FIRST.to_owned() } else { format!("{FIRST} {number}") });
        let mut sheets: Vec<_> = ours
            .map_while(|name| all.iter().find(|(known, ..)| *known == name))
            .map(|(name, path, _)| (name.clone(), path.clone()))
            .collect();
        if sheets.is_empty() {
            sheets.extend(shown.map(|(name, path, _)| (name, path)));
        }
        let texts = match targets.values().find(|target| target.kind == "sharedStrings") {
            Some(target) => Texts::read(package, &target.path)?,
            None => Texts::default(),
        };
        Ok(Self { sheets, texts, from_1904 })
    }
}

/// Another part that one refers to.
struct Target {
    /// The last word of its type: strict and transitional files have different ones before it.
    kind: String,
    /// Its name in the package.
    path: String,
}

/// The parts that one refers to, by their ids; of the empty name, those that the package itself does.
fn relationships(package: &mut Package, of: &str) -> Result<HashMap<String, Target>> {
    let (folder, name) = of.rsplit_once('/').unwrap_or(("", of));
    let base = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut found = HashMap::new();
    let Some(mut part) = package.part(&format!("{base}_rels/{name}.rels"), PART_BYTES)? else { return Ok(found) };
    loop {
        match part.next()? {
            Event::Eof => return Ok(found),
            Event::Start(start) if start.local_name().as_ref() == "Relationship" => {
                let (id, kind, target) =
                    (attribute(&start, "Id")?, attribute(&start, "Type")?, attribute(&start, "Target")?);
                if let (Some(id), Some(kind), Some(target)) = (id, kind, target) {
                    let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
                    let path = target.strip_prefix('/').map_or_else(|| format!("{base}{target}"), str::to_owned);
                    found.insert(id, Target { kind, path });
                }
            }
            _ => {}
        }
    }
}

/// Texts that cells share: one after the other, and where each ends.
#[derive(Default)]
struct Texts {
    all: String,
    ends: Vec<u32>,
}

impl Texts {
    fn read(package: &mut Package, path: &str) -> Result<Self> {
        let mut texts = Self::default();
        let Some(mut part) = package.part(path, SHARED_TEXT_BYTES)? else { return Ok(texts) };
        let mut text = Text::default();
        loop {
            match part.next()? {
                Event::Eof => return Ok(texts),
                Event::End(end) if end.local_name().as_ref() == "si" => {
                    texts.all.push_str(&plain(&text.take()));
                    texts.ends.push(u32::try_from(texts.all.len()).map_err(malformed)?);
                }
                event => text.take_in(&event, "t")?,
            }
        }
    }

    fn get(&self, place: usize) -> Option<&str> {
        let begin = place.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.all.get(begin as usize..*self.ends.get(place)? as usize)
    }
}

/// A text that may come in several pieces.
#[derive(Default)]
struct Text {
    text: String,
    is_inside: bool,
    /// How to pronounce a text is not part of it.
    is_phonetic: bool,
}

impl Text {
    /// Takes what stands in elements of this name.
    fn take_in(&mut self, event: &Event<'_>, name: &str) -> Result<()> {
        match event {
            Event::Start(start) if start.local_name().as_ref() == name => self.is_inside = !self.is_phonetic,
            Event::End(end) if end.local_name().as_ref() == name => self.is_inside = false,
            Event::Start(start) if start.local_name().as_ref() == "rPh" => self.is_phonetic = true,
            Event::End(end) if end.local_name().as_ref() == "rPh" => self.is_phonetic = false,
            Event::Text(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::CData(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) if self.is_inside => self.text.push(letter(reference)?),
            _ => {}
        }
        if self.text.len() > CELL_BYTES {
            return Err(malformed("a text is longer than any cell can be"));
        }
        Ok(())
    }

    fn take(&mut self) -> String {
        self.is_inside = false;
        std::mem::take(&mut self.text)
    }
}

/// The letter that `&...;` stands for.
fn letter(reference: &BytesRef<'_>) -> Result<char> {
    if let Some(letter) = reference.resolve_char_ref().map_err(malformed)? {
        return Ok(letter);
    }
    match &**reference {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(malformed("a text refers to what is not there")),
    }
}

/// A text with its `_x000D_` turned into what they stand for: letters that XML cannot hold.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("_x") {
        let (before, from) = rest.split_at(place);
        plain.push_str(before);
        let digits = from.get(2..6).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = digits.filter(|_| from.as_bytes().get(6) == Some(&b'_'));
        if let Some(letter) = code.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?)) {
            plain.push(letter);
            rest = &from[7..];
        } else {
            plain.push_str("_x");
            rest = &from[2..];
        }
    }
    plain.push_str(rest);
    plain
}

/// One sheet.
struct Sheet<'a> {
    part: XmlPart<'a>,
    texts: &'a Texts,
    /// From 1.
    row: u32,
    /// Of the next cell, from 0.
    column: u32,
    /// Rows, as the sheet says.
    height: f64,
}

impl Sheet<'_> {
    fn read(&mut self, table: &mut Table, read: impl Fn(f64) -> f64) -> Result<(), Abort> {
        loop {
            match self.part.next()? {
                Event::Eof => return Err(malformed("a sheet breaks off").into()),
                Event::End(end) if end.local_name().as_ref() == "sheetData" => return Ok(()),
                Event::Start(start) => match start.local_name().as_ref() {
                    "dimension" => {
                        let last = attribute(&start, "ref")?.and_then(|area| position(area.rsplit(':').next()?));
                        self.height = last.map_or(1.0, |(row, _)| f64::from(row.max(1)));
                    }
                    "row" => {
                        let row = attribute(&start, "r")?.and_then(|row| row.parse().ok());
                        (self.row, self.column) = (row.unwrap_or(self.row.saturating_add(1)), 0);
                        table.hand_on_if_full(read((f64::from(self.row) / self.height).min(1.0)))?;
                    }
                    "c" => {
                        if let Some((row, column)) = attribute(&start, "r")?.and_then(|place| position(&place)) {
                            (self.row, self.column) = (row, column);
                        }
                        let kind = Kind::of(&start)?;
                        let (row, column) = (self.row, self.column);
                        self.column = self.column.saturating_add(1);
                        table.cell(row, column, self.cell(kind)?)?;
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// What stands between the begin and the end of a cell.
    fn cell(&mut self, kind: Kind) -> Result<Cell<'static>> {
        let element = if kind == Kind::Inline { "t" } else { "v" };
        let (mut text, mut is_formula, mut has_value) = (Text::default(), false, false);
        loop {
            match self.part.next()? {
                Event::Eof => return Err(malformed("a sheet breaks off")),
                Event::End(end) if end.local_name().as_ref() == "c" => break,
                event => {
                    if let Event::Start(start) = &event {
                        is_formula |= start.local_name().as_ref() == "f";
                        has_value |= start.local_name().as_ref() == element;
                    }
                    text.take_in(&event, element)?;
                }
            }
        }
        let text = text.take();
        Ok(match kind {
            // what it would give is not known here, and is not nothing
            _ if is_formula && !has_value => Cell::Other,
            _ if !has_value => Cell::text(""),
            Kind::Other => Cell::Other,
            Kind::Inline | Kind::Text => Cell::text(plain(&text)),
            Kind::RedisClient => {
                let shared = text.trim().parse().ok().and_then(|place| self.texts.get(place));
                Cell::text(shared.ok_or_else(|| malformed("a cell refers to a text that is not there"))?.to_owned())
            }
            Kind::Number => {
                let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
                Cell::Number(number.ok_or_else(|| malformed("a cell holds a number that is none"))?)
            }
        })
    }
}

/// What a cell's value is, by its type (18.18.11, ST_CellType).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    RedisClient,
    Inline,
    Text,
    Other,
}

impl Kind {
    fn of(cell: &BytesStart<'_>) -> Result<Self> {
        Ok(match attribute(cell, "t")?.as_deref() {
            None | Some("n") => Self::Number,
            Some("s") => Self::RedisClient,
            Some("inlineStr") => Self::Inline,
            Some("str" | "d") => Self::Text,
            Some(_) => Self::Other,
        })
    }
}

/// Row, from 1, and column, from 0, of a reference like `B7`.
fn position(reference: &str) -> Option<(u32, u32)> {
    let digits = reference.find(|letter: char| letter.is_ascii_digit())?;
    let (letters, row) = reference.split_at(digits);
    let mut column = 0_u32;
    for letter in letters.bytes().filter(|letter| *letter != b'$') {
        let place = letter.to_ascii_uppercase().checked_sub(b'A').filter(|place| *place < 26)?;
        column = column.checked_mul(26)?.checked_add(u32::from(place) + 1)?;
    }
    Some((row.trim_start_matches('$').parse().ok()?, column.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_row_and_column() {
        assert_eq!(position("A1"), Some((1, 0)));
        assert_eq!(position("$XFD$1048576"), Some((1_048_576, 16_383)));
        for none in ["", "A", "1", "A1B", "é1", "ZZZZZZZZZZ1", "A99999999999"] {
            assert_eq!(position(none), None, "{none}");
        }
    }

    #[test]
    fn escaped_letters_are_what_they_stand_for() {
        assert_eq!(plain("a_x000D_b_x005F_x0041_"), "a\rb_x0041_");
        assert_eq!(plain("_x_x00_xD800__xzzzz__x000"), "_x_x00_xD800__xzzzz__x000");
        assert_eq!(plain("_xé000_"), "_xé000_");
    }
}
