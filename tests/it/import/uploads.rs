//! Uploads under other media types and as forms, and files of other formats.

use serde_json::json;

use super::{XLSX, files::zip, report};
use crate::harness::TestApp;

const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";

/// Returns a form with these parts: their headers after `Content-Disposition: form-data; `, and their contents.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (headers, content) in parts {
        form.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {headers}\r\n\r\n").into_bytes());
        form.extend(*content);
        form.extend(b"\r\n");
    }
    form.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    form
}

#[tokio::test]
async fn file_is_found_in_form() {
    let app = TestApp::spawn().await;
    app.seed_products(300).await;
    let staff = app.create_staff("sam").await;
    let form_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let workbook = staff.get("/api/products/export/").await.body;
    let csv = staff.get("/api/products/export/?format=csv").await.body;
    for (headers, file, count) in [
        (format!("name=\"file\"; filename=\"products.xlsx\"\r\nContent-Type: {XLSX}"), &workbook[..], 300),
        ("name=\"file\"; filename=\"products.csv\"\r\nContent-Type: text/csv".to_owned(), &csv[..], 300),
        ("name=file; filename=a".to_owned(), &b"\"ID\"\r\n1\r\n\r\n--\r\n"[..], 1),
        ("name=\"only part\"".to_owned(), &b"ID\n1\n"[..], 1),
        (
            "name=f; filename=a\r\nContent-Type: text/csv; charset=windows-1251".to_owned(),
            &b"ID;Category\n1;\xd1\xef\xee\xf0\xf2"[..],
            0,
        ),
    ] {
        let response = staff.import("?on_error=skip", &form_type, form(&[(&headers, file)])).await;
        assert_eq!((response.status.as_u16(), &response.json()["unchanged"]), (200, &json!(count)), "{headers}");
        let text = response.text();
        let is_decoded = !headers.contains("1251") || text.contains("Object with name=Спорт does not exist.");
        assert!(is_decoded, "{text}");
    }
    let file: (&str, &[u8]) = ("name=file; filename=a.csv", b"ID\n1\n");
    let field: (&str, &[u8]) = ("name=dry_run", b"true");
    let ignored = "Unknown field. The form may hold only a file; options belong in the query string.";
    for (body, errors) in [
        (form(&[file, field]), json!({"dry_run": [ignored]})),
        (form(&[file, file]), json!({"file": ["The form may hold only one file."]})),
        (form(&[]), json!({"file": ["No file was submitted."]})),
        (form(&[file])[..80].to_vec(), json!({"detail": "Multipart form parse error - The form is incomplete"})),
    ] {
        assert_eq!(staff.import("", &form_type, body).await.status_and_json(), (400, errors));
    }
    let without_boundary = staff.import("", "multipart/form-data", form(&[file])).await.status_and_json();
    assert_eq!(
        without_boundary,
        (400, json!({"detail": "Multipart form parse error - Invalid boundary in multipart"}))
    );
}

#[tokio::test]
async fn bytes_decide_the_format() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let workbook = staff.get("/api/products/export/").await.body;
    let csv = staff.get("/api/products/export/?format=csv").await.body;
    for media_type in ["text/csv", XLSX, "application/vnd.ms-excel", "Application/Octet-Stream"] {
        for file in [&workbook, &csv] {
            let response = staff.import("", media_type, file.to_vec()).await;
            assert_eq!(response.status_and_json(), (200, report(0, 0, 3)), "{media_type}");
        }
    }
    for media_type in ["application/json", "text/plain", "multipart/mixed; boundary=a", ""] {
        assert_eq!(staff.import("", media_type, csv.to_vec()).await.status, 415, "{media_type}");
    }
}

#[tokio::test]
async fn other_formats_are_named() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let compound_file = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    let encrypted: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let encrypted = [compound_file.clone(), vec![0; 65_530 - 8], encrypted].concat();
    let relationship =
        "<Relationships><Relationship Id=\"a\" Type=\"x/officeDocument\" Target=\"xl/workbook.bin\"/></Relationships>";
    let xlsb = zip(&[("_rels/.rels", relationship.as_bytes()), ("xl/workbook.bin", b"")]);
    let ods = zip(&[("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), ("content.xml", b"<a/>")]);
    for (file, cause) in [
        (compound_file, "a workbook of an old format (.xls). Save it as an XLSX workbook or as CSV."),
        (encrypted, "protected by a password. Save it without a password."),
        (xlsb, "a binary workbook (.xlsb). Save it as an XLSX workbook or as CSV."),
        (ods, "an OpenDocument file (.ods). Save it as an XLSX workbook or as CSV."),
        (zip(&[("a.txt", b"a")]), "a zip archive, but not an XLSX workbook."),
        (b"%PDF-1.7\n".to_vec(), "a PDF file. Upload an XLSX workbook or CSV."),
        (b"<!DOCTYPE html><table>".to_vec(), "HTML or XML."),
        (b"\xef\xbb\xbf \n<?xml version=\"1.0\"?>".to_vec(), "unknown"),
        (b"<?xml version=\"1.0\"?><Workbook>".to_vec(), "The file is XML."),
        (b"\x1f\x8b\x08".to_vec(), "compressed with gzip."),
        (b"[{\"id\":1}]".to_vec(), "JSON."),
        (b"I\0D\0\n\0".to_vec(), "UTF-16 without a byte order mark."),
        (b"\x00\x01\x02\x03abcdefgh".to_vec(), "a binary file."),
        (vec![], "The file is empty."),
    ] {
        let response = staff.import("", "application/octet-stream", file).await;
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(response.status, 400, "{cause}: {detail}");
        assert!(detail.starts_with("Import error - ") && detail.contains(cause), "{cause}: {detail}");
    }
}

#[tokio::test]
async fn form_and_file_are_the_same_request() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await.with_header("idempotency-key", "one");
    let file = "ID,Price\n1,7\n";
    assert_eq!(staff.import("", "text/csv", file).await.status_and_json(), (200, report(0, 1, 0)));
    for boundary in [BOUNDARY, "another"] {
        let body = String::from_utf8(form(&[("name=file; filename=a.csv", file.as_bytes())])).unwrap();
        let form_type = format!("multipart/form-data; boundary={boundary}");
        let response = staff.import("", &form_type, body.replace(BOUNDARY, boundary)).await;
        assert_eq!(
            (response.header("idempotent-replayed"), response.status_and_json()),
            ("true", (200, report(0, 1, 0)))
        );
    }
    assert_eq!(staff.import("", "text/csv; charset=windows-1251", file).await.status, 422, "another charset");
}
