//! Files and uploads that are rejected.

use std::io::{Cursor, Write};

use serde_json::json;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{PATH, XLSX, report};
use crate::harness::{TestApp, TestAppBuilder, wait_until};

/// Relationship types of ECMA-376 begin with this.
pub(super) const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const MAIN_PART: &str = "xl/workbook.xml";
pub(super) const HEADER_CELL: &str = "<c r=\"A1\" t=\"inlineStr\"><is><t>Name</t></is></c>";

pub(super) fn zip(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Returns the XML of a worksheet with one row.
fn sheet(cells: &str) -> String {
    format!("<worksheet><sheetData><row r=\"1\">{cells}</row></sheetData></worksheet>")
}

/// Returns a workbook with these shared strings and this sheet.
pub(super) fn workbook(shared_strings: &str, sheet: &str) -> Vec<u8> {
    workbook_in("xl/", MAIN_PART, shared_strings, sheet)
}

/// Returns a workbook whose parts are in `folder`. Its package relationship names `main_part` as the workbook.
fn workbook_in(folder: &str, main_part: &str, shared_strings: &str, sheet: &str) -> Vec<u8> {
    let relationship = |id: &str, kind: &str, target: &str| {
        format!("<Relationship Id=\"{id}\" Type=\"{RELATIONSHIPS}/{kind}\" Target=\"{target}\"/>")
    };
    let relationships = |all: &[String]| format!("<Relationships>{}</Relationships>", all.concat());
    let package = relationships(&[relationship("a", "officeDocument", main_part)]);
    let parts = relationships(&[
        relationship("b", "worksheet", "worksheets/sheet1.xml"),
        relationship("c", "sharedStrings", "sharedStrings.xml"),
    ]);
    let main = format!(
        "<workbook xmlns:r=\"{RELATIONSHIPS}\">\
         <sheets><sheet name=\"Products\" sheetId=\"1\" r:id=\"b\"/></sheets></workbook>"
    );
    zip(&[
        ("_rels/.rels", package.as_bytes()),
        (&format!("{folder}_rels/workbook.xml.rels"), parts.as_bytes()),
        (&format!("{folder}workbook.xml"), main.as_bytes()),
        (&format!("{folder}sharedStrings.xml"), shared_strings.as_bytes()),
        (&format!("{folder}worksheets/sheet1.xml"), sheet.as_bytes()),
    ])
}

/// Returns files that must be rejected: a description, the content type and the content.
fn invalid_files(exported: &[u8]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let corrupted = exported.iter().enumerate().map(|(index, byte)| if index % 97 == 50 { 0 } else { *byte }).collect();
    let compound_file = [&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1], exported].concat();
    let shared_strings_bomb = workbook(&format!("<sst>{}</sst>", " ".repeat(80 << 20)), &sheet(HEADER_CELL));
    let formula_bomb = format!("<c r=\"A1\"><f>{}</f></c>", " ".repeat(400 << 20));
    let first_shared_string =
        "<worksheet><sheetData><row><c r=\"A1\" t=\"s\"><v>0</v></c></row></sheetData></worksheet>";
    let too_many_strings = "<sst uniqueCount=\"99999999999\"></sst>";
    let with_cells = |cells: &str| workbook("<sst/>", &sheet(cells));
    vec![
        ("an empty workbook file", XLSX, vec![]),
        ("half a workbook", XLSX, exported[..exported.len() / 2].to_vec()),
        ("a corrupted workbook", XLSX, corrupted),
        ("another zip archive", XLSX, zip(&[("a.txt", b"hello")])),
        ("an empty CSV file", "text/csv", vec![]),
        ("no header", "text/csv", b"\n,,\n".to_vec()),
        ("an unknown column", "text/csv", b"Name,Colour\n".to_vec()),
        ("a duplicate column", "text/csv", b"Name,name\n".to_vec()),
        ("a decompression bomb in the shared strings", XLSX, shared_strings_bomb),
        ("a decompression bomb in a cell", XLSX, with_cells(&formula_bomb)),
        (
            "a worksheet as the main part",
            XLSX,
            workbook_in("xl/", "xl/worksheets/sheet1.xml", "<sst/>", &sheet(HEADER_CELL)),
        ),
        (
            "too many shared strings in another folder",
            XLSX,
            workbook_in("foo/", "foo/workbook.xml", too_many_strings, first_shared_string),
        ),
        ("a compound file header before the zip archive", XLSX, compound_file),
        ("a missing shared string", XLSX, with_cells("<c r=\"A1\" t=\"s\"><v>7</v></c>")),
        ("a number out of range", XLSX, with_cells("<c r=\"A1\"><v>1e999</v></c>")),
        ("an unknown entity", XLSX, with_cells("<c t=\"inlineStr\"><is><t>&me;</t></is></c>")),
        ("an oversized tag", XLSX, with_cells(&format!("<c r=\"{}\">", "A".repeat(2 << 20)))),
        ("an unclosed comment", XLSX, with_cells(&format!("<!-- {}", "<c/>".repeat(1 << 20)))),
        ("an oversized row", "text/csv", ",".repeat(9 << 20).into_bytes()),
        ("an unclosed worksheet", XLSX, workbook("<sst/>", "<worksheet>")),
    ]
}

#[tokio::test]
async fn invalid_file_is_rejected() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let valid = workbook("<sst uniqueCount=\"0\"></sst>", &sheet(HEADER_CELL));
    assert_eq!(
        staff.import("", XLSX, valid).await.status_and_json(),
        (200, report(0, 0, 0)),
        "`workbook` builds valid files"
    );
    // the declared number of shared strings reserves no memory
    let wrong_count = workbook("<sst uniqueCount=\"99999999999\"></sst>", &sheet(HEADER_CELL));
    assert_eq!(staff.import("", XLSX, wrong_count).await.status_and_json(), (200, report(0, 0, 0)));
    let without_result = sheet(&format!("{HEADER_CELL}</row><row r=\"2\"><c r=\"A2\"><f>1+1</f></c>"));
    let response = staff.import("", XLSX, workbook("<sst/>", &without_result)).await.json();
    assert_eq!(response["errors"][0]["name"], json!(["Not a valid string."]), "formulas are not evaluated");

    let exported = staff.get("/api/products/export/").await.body;
    // compressing the files takes seconds, during which the server on this thread must go on
    let files = tokio::task::spawn_blocking(move || invalid_files(&exported)).await.unwrap();
    for (description, content_type, file) in files {
        let response = staff.import("", content_type, file).await;
        assert_eq!(response.status, 400, "{description}: {}", response.text());
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.starts_with("Import error - ") && !detail.contains("/tmp"), "{description}: {detail}");
    }
    assert_eq!(
        app.metric("testshop_http_requests_total{method=\"POST\",route=\"/api/products/import/\",status=\"500\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn unsupported_upload_is_rejected_before_reading_body() {
    let app = TestAppBuilder::default().with("import-bytes", 1000).spawn().await;
    let staff = app.create_staff("sam").await;
    let response = staff.import("", "application/json", "[]").await;
    assert_eq!(
        response.status_and_json(),
        (415, json!({"detail": "Unsupported media type \"application/json\" in request."}))
    );
    let response = staff.import("", "text/csv", "x".repeat(1001)).await;
    assert_eq!(response.status_and_json(), (413, json!({"detail": "Request body too large."})));
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: text/csv\r\n\
         transfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        staff.token(),
        "x".repeat(1001)
    );
    assert!(staff.raw(chunked.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    for (query, errors) in [
        ("?dry_run=maybe", json!({"dry_run": ["Must be a valid boolean."]})),
        ("?on_error=ignore", json!({"on_error": ["\"ignore\" is not a valid choice."]})),
        (
            "?dryrun=true&x=1",
            json!({"dryrun": ["Unknown parameter. Did you mean \"dry_run\"?"], "x": ["Unknown parameter."]}),
        ),
        ("?dry_run=true&dry_run=true", json!({"dry_run": ["This parameter may be given once only."]})),
    ] {
        assert_eq!(staff.import_csv(query, "").await.status_and_json(), (400, errors), "{query}");
    }
}

#[tokio::test]
async fn slow_upload_times_out() {
    let app = TestAppBuilder::default().with("body-timeout", "1s").spawn().await;
    let staff = app.create_staff("sam").await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: text/csv\r\n\
         content-length: 100000\r\n\r\nName",
        staff.token()
    );
    assert!(staff.raw(head.as_bytes()).await.starts_with("HTTP/1.1 408 "));
    let permits = &app.server.app.import_permits;
    wait_until("the import has returned its permit", async || permits.available_permits() == 2).await;
}
