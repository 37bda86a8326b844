//! CSV files as programs write them: separators, line ends, charsets, numbers and titles.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{XLSX, report};
use crate::harness::TestApp;

const CSV: &str = "text/csv";

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(to_bytes).collect()
}

/// Returns files that hold the product of [`dialects_are_recognized`] unchanged: their content types and contents.
fn files_of_one_product() -> Vec<(&'static str, Vec<u8>)> {
    let text = "id;name;price\r\n1;\"Цена; 1\";1299,90\r\n";
    let windows_1251 = b"id;name\r\n1;\"\xd6\xe5\xed\xe0; 1\"";
    let texts = [
        text,
        "\u{feff}ID,Name,Price\n1,Цена; 1,1299.90",
        "ID\tName\tPrice\r1\tЦена; 1\t1299,90\r",
        "sep=;\r\nID;Name;Price\r\n1;\"Цена; 1\";1299,90",
        "SEP=\t\nID\tPrice\n1\t1299.90",
        "sep=,\nID,Price\n1,1299.90",
        // thousands separators
        "ID;Price\n1;1 299,90",
        "ID;Price\n1;1\u{a0}299,90",
        "ID;Price\n1;1\u{202f}299,90",
        "ID\tPrice\n1\t1.299,90",
        // whole numbers as texts
        "ID,Price\n1.0,1299.90",
        "ID,Price\n1E+00,1299.9",
        "ID;Price\n1,0;1299,9",
        // rows of blanks are no rows
        "\n , \u{a0}\nID,Name\n,\n\u{a0}, \n1,Цена; 1\n\u{202f},\t\n\n",
        // titles
        "\u{a0}id ,category_name,created_at\u{a0}\n1,Sport,2023-08-08T12:00:00Z",
        "\u{feff}\"ID\",category,Created\u{a0}at\n1,Sport,2023-08-08T12:00:00Z",
    ];
    let mut files: Vec<_> = texts.map(|text| (CSV, text.as_bytes().to_vec())).into();
    files.extend([
        (CSV, utf16(text, u16::to_le_bytes)),
        (CSV, utf16(text, u16::to_be_bytes)),
        // the mark wins over the label
        ("text/csv; charset=windows-1251", utf16(text, u16::to_le_bytes)),
        ("text/csv; charset=windows-1251", windows_1251.to_vec()),
        ("application/vnd.ms-excel; charset=\"cp1251\"", windows_1251.to_vec()),
        ("application/vnd.ms-excel", text.as_bytes().to_vec()),
        ("application/octet-stream", text.as_bytes().to_vec()),
        (XLSX, text.as_bytes().to_vec()),
    ]);
    files
}

#[tokio::test]
async fn dialects_are_recognized() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.execute("update products set name = 'Цена; 1', price = 1299.90", &[]).await;
    let staff = app.create_staff("sam").await;
    for (content_type, file) in files_of_one_product() {
        let name = String::from_utf8_lossy(&file).into_owned();
        let response = staff.import("", content_type, file).await;
        assert_eq!(response.status_and_json(), (200, report(0, 0, 1)), "{content_type}: {name:?} {}", response.text());
    }
}

#[tokio::test]
async fn records_are_rows_of_their_own() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let file = "ID,Description,Price\r\n1,belongs to one,1.11\r2,,2.22\r";
    assert_eq!(staff.import("", CSV, file).await.status_and_json(), (200, report(0, 2, 0)));
    let list = staff.get("/api/products/").await.json();
    assert_eq!((&list[0]["description"], &list[1]["description"]), (&json!("belongs to one"), &json!("")));
    // rows are numbered as a spreadsheet numbers lines
    let numbered = staff.import("", CSV, "\rName\r\n\"a\r\nb\"\r\rc\n\n\nd").await.json();
    let rows: Vec<_> = numbered["errors"].as_array().unwrap().iter().map(|error| &error["row"]).collect();
    assert_eq!(rows, [&json!(3), &json!(5), &json!(8)]);
}

/// Files with errors in rows: the content, the number of valid rows and the errors.
fn files_with_row_errors() -> Vec<(Vec<u8>, u64, Value)> {
    let ambiguous =
        "The comma can be read as a decimal point or as a thousands separator. Write the price with a decimal point.";
    let not_utf8 = "The text is not valid UTF-8. Save the file in UTF-8, or name its charset in the Content-Type of the \
                    upload.";
    let untitled = |column: u32| format!("A cell is in a column without a title: column {column}.");
    vec![
        (b"ID;Price\n1;1,299".to_vec(), 0, json!([{"row": 2, "price": [ambiguous]}])),
        (b"ID,Price\n1,\"1,299\"\n2,1.99".to_vec(), 1, json!([{"row": 2, "price": [ambiguous]}])),
        (b"ID,Price\n1,\"1299,90\"".to_vec(), 0, json!([{"row": 2, "price": ["A valid number is required."]}])),
        (b"ID,Price\n1E+03,1".to_vec(), 0, json!([{"row": 2, "id": ["A valid integer is required."]}])),
        (b"ID,Name\n1,\xff\n2,B".to_vec(), 1, json!([{"row": 2, "name": [not_utf8]}])),
        (
            b"ID,Name\n1,\"A\"x\n2,B".to_vec(),
            1,
            json!([{"row": 2, "name": ["The text goes on after its closing quote. A quote in a text is written twice."]}]),
        ),
        (
            b"ID,,Name\n1,x,A\n2, ,B,y".to_vec(),
            0,
            json!([
                {"row": 2, "non_field_errors": [untitled(2)]}, {"row": 3, "non_field_errors": [untitled(4)]},
            ]),
        ),
        (
            b"\xff\xfeI\0D\0,\0N\0a\0m\0e\0\n\x001\0,\0\x00\xd8\n\x002\0,\0B\0".to_vec(),
            1,
            json!([{"row": 2, "name": ["The text is not valid in the charset of the file."]}]),
        ),
    ]
}

#[tokio::test]
async fn unreadable_cells_are_errors_of_their_rows() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    for (file, updated, errors) in files_with_row_errors() {
        let name = String::from_utf8_lossy(&file).into_owned();
        let response = staff.import("?on_error=skip&dry_run=true", CSV, file.clone()).await;
        let skipped = errors.as_array().unwrap().len();
        let expected = json!({"created": 0, "updated": updated, "unchanged": 0, "skipped": skipped, "errors": errors});
        let mut report = response.json();
        // a price of the seeded products is unchanged
        report["updated"] = json!(report["updated"].as_u64().unwrap() + report["unchanged"].as_u64().unwrap());
        report["unchanged"] = json!(0);
        assert_eq!((response.status.as_u16(), report), (200, expected), "{name:?}");
        assert_eq!(staff.import("", CSV, file).await.status, 400, "{name:?}");
    }
}

#[tokio::test]
async fn unreadable_files_are_rejected_with_place_and_cause() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let known = "The known titles are ID, Name, Description, Category, Price, Created at, Tags.";
    for (file, detail) in [
        ("Name\n\na,\"b\nc", "Row 3, column 2: the quote is not closed."),
        ("Name\na,\"b\nc,\"d\"\n", "Row 2, column 2: the quote is closed in another row, in the middle of a text."),
        (
            "Name,Colour",
            &*format!(
                "Row 1, column 2: the title \"Colour\" is unknown. {known} unknown_columns=ignore skips other columns."
            ),
        ),
        (
            "\n\nPrice;2024",
            &*format!(
                "Row 3, column 2: the title \"2024\" is unknown. {known} unknown_columns=ignore skips other columns."
            ),
        ),
        (
            "ID|Name\n1|x",
            "Row 1, column 1: the title \"ID|Name\" is unknown. The titles seem to be separated by |. Separate them by commas, semicolons or tabs.",
        ),
        ("Name,name", "Row 1, column 2: the column \"Name\" occurs twice."),
        ("Category,category_name", "Row 1, column 2: the column \"Category\" occurs twice."),
        ("sep=|\nName", "The first line names a separator other than a comma, a semicolon or a tab."),
    ] {
        let expected = json!({"detail": format!("Import error - {detail}")});
        assert_eq!(staff.import("?on_error=skip", CSV, file).await.status_and_json(), (400, expected), "{file:?}");
    }
}

#[tokio::test]
async fn unknown_columns_are_ignored_on_request() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let file = "Colour,ID,Name,Price (EUR)\nred,1,Product 1,9\n";
    assert_eq!(staff.import("?unknown_columns=ignore", CSV, file).await.status_and_json(), (200, report(0, 0, 1)));
    for query in ["", "?unknown_columns=refuse"] {
        assert_eq!(staff.import(query, CSV, file).await.status, 400, "{query}");
    }
    let untitled = staff.import("?unknown_columns=ignore", CSV, "Colour,ID\nred,1,x\n").await;
    assert_eq!(untitled.status, 400, "{}", untitled.text());
    let without_titles = staff.import("?unknown_columns=ignore", CSV, "a,b\n1,2\n").await.text();
    assert!(without_titles.contains("must hold the titles"), "{without_titles}");
    let invalid = staff.import("?unknown_columns=drop", CSV, file).await.status_and_json();
    assert_eq!(invalid, (400, json!({"unknown_columns": ["\"drop\" is not a valid choice."]})));
    let unknown = staff.import("", "text/csv; charset=klingon", file).await.status_and_json();
    let detail = "Unsupported media type \"text/csv; charset=klingon\" in request.";
    assert_eq!(unknown, (415, json!({"detail": detail})));
}

/// A generated file and the number of its records.
fn files() -> impl Strategy<Value = (String, u64)> {
    let cell = prop_oneof![Just(String::new()), Just(" ".to_owned()), "[a\"\r\n,;\t]{1,4}", "[0-9]{1,3}"];
    let records = prop::collection::vec(prop::array::uniform3(cell), 0..12);
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n", "\r\r\n"]);
    let delimiter = prop::sample::select(vec![",", ";", "\t"]);
    (records, line_end, delimiter).prop_map(|(records, line_end, delimiter)| {
        let quote = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
        let line = |cells: &[String; 3]| cells.each_ref().map(quote).join(delimiter);
        let lines: Vec<_> = records.iter().map(line).collect();
        let count = records.iter().filter(|cells| cells.iter().any(|cell| !cell.trim().is_empty())).count();
        let titles = ["id", "name", "price"].join(delimiter);
        (format!("{titles}{line_end}{}", lines.join(line_end)), count as u64)
    })
}

#[tokio::test]
async fn every_record_is_counted_once() {
    let app = TestApp::spawn().await;
    app.seed_products(20).await;
    let staff = app.create_staff("sam").await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..60 {
        let (file, count) = files().new_tree(&mut runner).unwrap().current();
        let response = staff.import("?on_error=skip&dry_run=true", CSV, file.clone()).await;
        let report = response.json();
        let counted = ["created", "updated", "unchanged", "skipped"].map(|key| report[key].as_u64().unwrap_or(1 << 32));
        assert_eq!(counted.iter().sum::<u64>(), count, "{file:?}: {report}");
    }
}
