//! Builds workbooks from bytes: each byte decides on the next element, so mutated bytes are still workbooks that reach
//! the reader of sheets.

use std::{fmt::Write as _, io::Write as _};

use zip::{ZipWriter, write::SimpleFileOptions};

const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const TITLES: [&str; 7] = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];
/// How often an element is repeated.
const COUNTS: [usize; 8] = [1, 2, 3, 20, 257, 1100, 2000, 0];
/// Lengths of texts and names in bytes.
const LENGTHS: [usize; 8] = [1, 0, 5, 100, 2000, 33_000, 250_000, 900_000];
const FILLERS: [&str; 8] = ["x", " ", "_x000D_", "&amp;", "é", ",a", "<r><t>y</t></r>", "1"];
const ROWS: [&str; 6] = ["2", "3", "1048576", "4294967295", "0", "x"];
const VALUES: [&str; 8] = ["0", "1", "20", "1.5", "1e308", "-1", "", "x"];
const CELL_TYPES: [&str; 8] =
    ["", " t=\"s\"", " t=\"inlineStr\"", " t=\"str\"", " t=\"b\"", " t=\"e\"", " t=\"d\"", " t=\"n\""];
const SHEET_NAMES: [&str; 4] = ["Products", "One", "Products 2", ""];
const TARGETS: [&str; 4] = ["s.xml", "/xl/s.xml", "missing.xml", "workbook.xml"];
/// Limits the XML of each part, so that building a workbook takes little of the time of an input.
const MAX_PART_BYTES: usize = 512 << 10;

/// The bytes that decide.
struct Decisions<'a>(std::slice::Iter<'a, u8>);

impl Decisions<'_> {
    /// Returns the next byte, and 0 after the last one.
    fn byte(&mut self) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte))
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.byte() % items.len()]
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Returns a text of one of [`FILLERS`], of about one of [`LENGTHS`].
    fn text(&mut self) -> String {
        let (filler, length) = (self.pick(&FILLERS), self.pick(&LENGTHS));
        filler.repeat(length.div_ceil(filler.len()))
    }

    /// Appends an element several times, as far as the part's limit allows it.
    fn repeat(&mut self, part: &mut String, element: impl Fn(usize) -> String) {
        for index in 0..self.pick(&COUNTS) {
            if part.len() < MAX_PART_BYTES {
                part.push_str(&element(index));
            }
        }
    }
}

/// Returns a workbook with shared strings, sheets and cells as `bytes` decide.
pub fn generate(bytes: &[u8]) -> Vec<u8> {
    let mut decisions = Decisions(bytes.iter());
    let strings = shared_strings(&mut decisions);
    let (workbook, relationships) = workbook(&mut decisions);
    let sheet = sheet(&mut decisions);
    let package = format!(
        "<Relationships><Relationship Id=\"w\" Type=\"{RELATIONSHIPS}/officeDocument\" Target=\"xl/workbook.xml\"/>\
         </Relationships>"
    );
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in [
        ("_rels/.rels", package),
        ("xl/_rels/workbook.xml.rels", relationships),
        ("xl/workbook.xml", workbook),
        ("xl/strings.xml", strings),
        ("xl/s.xml", sheet),
    ] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn shared_strings(decisions: &mut Decisions<'_>) -> String {
    let mut part = "<sst>".to_owned();
    for _ in 0..decisions.byte() % 4 {
        let text = decisions.text();
        let tags = if text.contains('<') { ("", "") } else { ("<t>", "</t>") };
        decisions.repeat(&mut part, |_| format!("<si>{}{text}{}</si>", tags.0, tags.1));
    }
    part + "</sst>"
}

/// Returns the workbook part and its relationships.
fn workbook(decisions: &mut Decisions<'_>) -> (String, String) {
    let mut relationships = "<Relationships>".to_owned();
    let mut relationship = |id: &str, kind: &str, target: &str| {
        write!(relationships, "<Relationship Id=\"{id}\" Type=\"{RELATIONSHIPS}/{kind}\" Target=\"{target}\"/>")
            .unwrap();
    };
    relationship("strings", "sharedStrings", "strings.xml");
    let target = match decisions.byte() % 8 {
        0 => decisions.text().replace('<', ""),
        choice => TARGETS[choice / 5 * (choice % 4)].to_owned(),
    };
    relationship("a", "worksheet", &target);
    relationships.push_str("</Relationships>");

    let mut part = format!("<workbook xmlns:r=\"{RELATIONSHIPS}\"><sheets>");
    for _ in 0..=decisions.byte() % 3 {
        let (name, is_numbered) = (decisions.pick(&SHEET_NAMES), decisions.byte() % 2 == 1);
        decisions.repeat(&mut part, |index| {
            let number = if is_numbered { format!(" {index}") } else { String::new() };
            format!("<sheet name=\"{name}{number}\" r:id=\"a\"/>")
        });
    }
    (part + "</sheets></workbook>", relationships)
}

fn sheet(decisions: &mut Decisions<'_>) -> String {
    let titles: String = TITLES.iter().map(|title| format!("<c t=\"inlineStr\"><is><t>{title}</t></is></c>")).collect();
    let mut part = format!("<worksheet><sheetData><row r=\"1\">{titles}</row>");
    while !decisions.is_empty() && part.len() < MAX_PART_BYTES {
        match decisions.byte() % 8 {
            0 => write!(part, "<row r=\"{}\">", decisions.pick(&ROWS)).unwrap(),
            1 => part.push_str("<row>"),
            2 => part.push_str("</row>"),
            3 => decisions.repeat(&mut part, |_| "<a>".to_owned()),
            4 => decisions.repeat(&mut part, |_| "</a>".to_owned()),
            5 => inline_cell(decisions, &mut part),
            _ => cells(decisions, &mut part),
        }
    }
    part + "</sheetData></worksheet>"
}

fn inline_cell(decisions: &mut Decisions<'_>, part: &mut String) {
    let column = decisions.pick(&["A", "B", "C", "D", "G"]);
    let text = decisions.text();
    let text = if text.contains('<') { text } else { format!("<t>{text}</t>") };
    write!(part, "<c r=\"{column}2\" t=\"inlineStr\"><is>{text}</is></c>").unwrap();
}

/// Appends cells with a value: in further columns, in one column of the same row, or in one column of further rows.
fn cells(decisions: &mut Decisions<'_>, part: &mut String) {
    let (cell_type, value, position) = (decisions.pick(&CELL_TYPES), decisions.pick(&VALUES), decisions.byte());
    let column = char::from(b'A' + u8::try_from(position / 4 % 8).unwrap());
    let content = if position >= 128 { format!("<f>A1</f><v>{value}</v>") } else { format!("<v>{value}</v>") };
    decisions.repeat(part, |index| {
        let reference = match position % 4 {
            0 => String::new(),
            1 => format!(" r=\"{column}2\""),
            _ => format!(" r=\"{column}{}\"", index + 2),
        };
        format!("<c{reference}{cell_type}>{content}</c>")
    });
}
