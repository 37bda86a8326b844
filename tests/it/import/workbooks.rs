//! Workbooks as programs write them: names of parts and sheets, encodings and cells.

use serde_json::{Value, json};

use super::{
    XLSX,
    files::{RELATIONSHIPS, zip},
    report,
};
use crate::harness::TestApp;

/// The name and the bytes of a part.
type Part = (String, Vec<u8>);

/// A row of titles: `ID`, `Name`, `Price`.
const TITLES: &str = "<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c><c r=\"B1\" t=\"s\"><v>1</v></c>\
                      <c r=\"C1\" t=\"inlineStr\"><is><t>Price</t></is></c></row>";
const SHARED_STRINGS: &str = "<sst><si><t>ID</t></si><si><r><t>Na</t></r><r><t>me</t></r><rPh><t>x</t></rPh></si>\
                              <si><t>Product 1</t></si></sst>";
/// The first seeded product.
const PRODUCT: &str =
    "<row r=\"3\"><c r=\"A3\"><v>1</v></c><c r=\"B3\" t=\"s\"><v>2</v></c><c r=\"C3\"><v>1.99</v></c></row>";

/// Returns the parts of a workbook with these sheets: the name, the attributes and the rows of each.
fn parts(sheets: &[(&str, &str, &str)]) -> Vec<Part> {
    let relationship = |id: &str, kind: &str, target: &str| {
        format!("<Relationship Id=\"{id}\" Type=\"{RELATIONSHIPS}/{kind}\" Target=\"{target}\"/>")
    };
    let numbered = || (1..).zip(sheets);
    let entries: String = numbered()
        .map(|(number, (name, attributes, _))| format!("<sheet name=\"{name}\" {attributes} r:id=\"s{number}\"/>"))
        .collect();
    let mut relationships: String = numbered()
        .map(|(number, _)| relationship(&format!("s{number}"), "worksheet", &format!("worksheets/sheet{number}.xml")))
        .collect();
    relationships += &relationship("t", "sharedStrings", "sharedStrings.xml");
    let mut parts = vec![
        (
            "_rels/.rels".to_owned(),
            format!("<Relationships>{}</Relationships>", relationship("a", "officeDocument", "xl/workbook.xml")),
        ),
        ("xl/_rels/workbook.xml.rels".to_owned(), format!("<Relationships>{relationships}</Relationships>")),
        (
            "xl/workbook.xml".to_owned(),
            format!("<workbook xmlns:r=\"{RELATIONSHIPS}\"><sheets>{entries}</sheets></workbook>"),
        ),
        ("xl/sharedStrings.xml".to_owned(), SHARED_STRINGS.to_owned()),
    ];
    parts.extend(numbered().map(|(number, (_, _, rows))| {
        (format!("xl/worksheets/sheet{number}.xml"), format!("<worksheet><sheetData>{rows}</sheetData></worksheet>"))
    }));
    parts.into_iter().map(|(name, xml)| (name, xml.into_bytes())).collect()
}

fn pack(parts: &[Part]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    zip(&parts)
}

/// Returns a workbook whose only sheet has these rows below the titles.
fn with_rows(rows: &str) -> Vec<u8> {
    pack(&parts(&[("Products", "", &format!("{TITLES}{rows}"))]))
}

/// Returns the parts with another name for each and other XML.
fn edited(name: impl Fn(&str) -> String, bytes: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let parts = parts(&[("Products", "", &format!("{TITLES}{PRODUCT}"))]);
    let edit = |(part, xml): Part| (name(&part), bytes(std::str::from_utf8(&xml).unwrap()));
    pack(&parts.into_iter().map(edit).collect::<Vec<_>>())
}

/// Returns workbooks that hold the first product unchanged, with a description of each.
fn readable_workbooks() -> Vec<(&'static str, Vec<u8>)> {
    let same_name = str::to_owned;
    let same_bytes = |xml: &str| xml.as_bytes().to_vec();
    let utf16 = |xml: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let text = format!("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?>{xml}");
        text.encode_utf16().flat_map(to_bytes).collect()
    };
    let targets = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        edited(str::to_owned, move |xml| xml.replace(&from, &to).into_bytes())
    };
    let table = &format!("{TITLES}{PRODUCT}");
    let sheets = |sheets: &[(&str, &str, &str)]| pack(&parts(sheets));
    let text = "<row><c t=\"inlineStr\"><is><t>Read this first</t></is></c></row>";
    let cells = |cells: &str| with_rows(&format!("<row r=\"2\">{cells}</row>{PRODUCT}"));
    vec![
        ("other cases", edited(str::to_uppercase, same_bytes)),
        ("backslashes in names", edited(|name| name.replace('/', "\\"), same_bytes)),
        ("relative target", targets("\"worksheets/", "\"./worksheets/")),
        ("target through the parent", targets("\"worksheets/", "\"../xl/Worksheets/")),
        ("absolute target", targets("\"worksheets/", "\"/xl/worksheets/")),
        ("backslashes in targets", targets("\"worksheets/", "\"worksheets\\")),
        ("UTF-8 with a mark", edited(same_name, |xml| format!("\u{feff}{xml}").into_bytes())),
        ("UTF-16LE", edited(same_name, move |xml| utf16(xml, u16::to_le_bytes))),
        ("UTF-16BE", edited(same_name, move |xml| utf16(xml, u16::to_be_bytes))),
        (
            "namespace prefixes",
            edited(same_name, |xml| xml.replace("<row", "<x:row").replace("</row", "</x:row").into_bytes()),
        ),
        ("an empty value", cells("<c r=\"A2\"><v/></c><c r=\"B2\" t=\"s\"><v></v></c><c r=\"C2\"><f>1</f><v/></c>")),
        ("a row of blanks", cells("<c r=\"A2\" t=\"str\"><v> </v></c><c r=\"D2\" t=\"str\"><v>\u{a0}</v></c>")),
        ("whole numbers as text", with_rows(&PRODUCT.replace("<c r=\"A3\"><v>1<", "<c r=\"A3\" t=\"str\"><v>1.0<"))),
        ("a sheet in another case", sheets(&[("Notes", "", table), (" PRODUCTS\u{a0}", "", table)])),
        ("an empty sheet first", sheets(&[("Sheet1", "", ""), ("Data", "", table)])),
        ("instructions first", sheets(&[("Read me", "", text), ("Data", "", table), ("Other", "", table)])),
        ("a hidden sheet first", sheets(&[("Hidden", "state=\"hidden\"", table), ("Data", "", table)])),
        ("hidden sheets only", sheets(&[("A", "state=\"hidden\"", text), ("B", "state=\"veryHidden\"", table)])),
    ]
}

#[tokio::test]
async fn workbooks_of_other_programs_are_read() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for (name, file) in readable_workbooks() {
        let response = staff.import("", XLSX, file).await;
        assert_eq!(response.status_and_json(), (200, report(0, 0, 1)), "{name}: {}", response.text());
    }
}

/// Returns cells that cannot be read, with the error of their row.
fn unreadable_cells() -> Vec<(String, Value)> {
    let name = |cell: &str| format!("<c r=\"A2\"><v>2</v></c><c r=\"B2\" {cell}</c>");
    let long = format!("t=\"str\"><v>{}</v>", "x".repeat(300 << 10));
    vec![
        (name("t=\"s\"><v>77</v>"), json!({"name": ["The cell refers to a shared text that the file does not have."]})),
        (name("t=\"s\"><v>x</v>"), json!({"name": ["The number of a shared text is invalid."]})),
        (name("><v>1e999</v>"), json!({"name": ["The cell holds an invalid number."]})),
        (name("><v>one</v>"), json!({"name": ["The cell holds an invalid number."]})),
        (name(&long), json!({"name": ["The text is longer than 256 KiB."]})),
        (name("t=\"b\"><v>1</v>"), json!({"name": ["Not a valid string."]})),
        (name("t=\"e\"><v>#N/A</v>"), json!({"name": ["Not a valid string."]})),
        (name("><v>1</v></c><c r=\"B2\"><v>2</v>"), json!({"name": ["The row has two cells in this column."]})),
        ("<c r=\"A2\"><v>x</v></c>".to_owned(), json!({"id": ["The cell holds an invalid number."]})),
        (
            name("t=\"str\"><v>A</v></c><c r=\"E2\"><v>1</v>"),
            json!({"non_field_errors": ["A cell is in a column without a title: column E."]}),
        ),
    ]
}

#[tokio::test]
async fn unreadable_cell_is_an_error_of_its_row() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    for (cells, mut error) in unreadable_cells() {
        let file = with_rows(&format!("<row r=\"2\">{cells}<c r=\"C2\"><v>2.99</v></c></row>{PRODUCT}"));
        error["row"] = json!(2);
        let expected = json!({"created": 0, "updated": 0, "unchanged": 1, "skipped": 1, "errors": [error]});
        assert_eq!(staff.import("?on_error=skip", XLSX, file).await.status_and_json(), (200, expected), "{cells:.100}");
    }
    let in_sheet = pack(&parts(&[("Notes", "", ""), ("Data", "", &format!("{TITLES}<row><c><v>9</v></c></row>"))]));
    let errors = json!([{"sheet": "Data", "row": 2, "id": ["Invalid pk \"9\" - object does not exist."]}]);
    assert_eq!(staff.import("", XLSX, in_sheet).await.json()["errors"], errors);
}

#[tokio::test]
async fn damaged_workbooks_are_rejected_with_place_and_cause() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let row = |number: u32| format!("<row r=\"{number}\"><c r=\"A{number}\"><v>{number}</v></c></row>");
    let in_order = "A row may occur only once, and rows must be in order.";
    let titles = |titles: &str| pack(&parts(&[("Products", "", &format!("<row r=\"1\">{titles}</row>"))]));
    let name = "<c r=\"A1\" t=\"str\"><v>Name</v></c>";
    let text = "<row><c t=\"str\"><v>Read me</v></c></row>";
    let known = "ID, Name, Description, Category, Price, Created at, Tags";
    for (file, detail) in [
        (with_rows(&(row(2) + &row(2))), format!("Sheet \"Products\", row 2 comes after row 2. {in_order}")),
        (with_rows(&(row(3) + &row(2))), format!("Sheet \"Products\", row 2 comes after row 3. {in_order}")),
        (with_rows("<row r=\"2\"><c r=\"A2\"><v>1</v></c><c r=\"B3\"><v>1</v></c></row>"), "Sheet \"Products\", row 2 contains a cell of row 3.".to_owned()),
        (
            titles(&format!("{name}<c r=\"D1\" t=\"str\"><v>Colour</v></c>")),
            format!("Sheet \"Products\", cell D1: the title \"Colour\" is unknown. The known titles are {known}. unknown_columns=ignore skips other columns."),
        ),
        (
            titles(&format!("{name}<c r=\"AB1\"><v>2024</v></c>")),
            format!("Sheet \"Products\", cell AB1: the title \"2024\" is unknown. The known titles are {known}. unknown_columns=ignore skips other columns."),
        ),
        (
            titles("<c r=\"A1\" t=\"str\"><v>ID;Name;Price</v></c>"),
            "Sheet \"Products\", cell A1: the title \"ID;Name;Price\" is unknown. The titles seem to be separated by ;. Separate them by commas, semicolons or tabs.".to_owned(),
        ),
        (
            pack(&parts(&[("A", "", text), ("B", "", "")])),
            format!("No sheet has one of the titles {known} in its first row that is not empty. Sheet \"A\" starts with \"Read me\", Sheet \"B\" is empty."),
        ),
    ] {
        let expected = json!({"detail": format!("Import error - {detail}")});
        assert_eq!(staff.import("?on_error=skip", XLSX, file).await.status_and_json(), (400, expected));
    }
    assert_eq!(
        staff.import("?dry_run=true", XLSX, with_rows(&format!("<row r=\"2\"/>{PRODUCT}"))).await.json(),
        report(0, 0, 1)
    );
}
