//! Files that come back: what they change, what is wrong with them, and that none of them hurts.

use std::io::{Cursor, Write};

use hyper::Method;
use rust_xlsxwriter::{Format, Workbook};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{TestApp, TestAppBuilder, TestClient, TestResponse, connect, product_names, wait_until};

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const PATH: &str = "/api/products/import/";
/// Connections of a shop's database that wait for a lock.
const WAITING: &str = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
const TITLES: &str = "ID,Name,Description,Category,Price,Created at,Tags\n";

impl TestClient {
    async fn import(&self, query: &str, content_type: &str, file: impl Into<Vec<u8>>) -> TestResponse {
        self.send_bytes(Method::POST, &format!("{PATH}{query}"), Some(content_type), file.into()).await
    }

    async fn import_csv(&self, query: &str, rows: &str) -> TestResponse {
        self.import(query, "text/csv", format!("{TITLES}{rows}")).await
    }
}

/// A JSON number, digit for digit.
fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn counts(created: u64, updated: u64, unchanged: u64) -> Value {
    json!({"created": created, "updated": updated, "unchanged": unchanged, "skipped": 0, "errors": []})
}

/// A catalogue of everything that psql lets in.
async fn odd_catalogue(app: &TestApp) -> u64 {
    app.batch_execute(
        r#"insert into categories (name) values ('Sport'), (' odd, "one" '), ('');
           insert into tags (name) values ('new'), ('a, b'), ('b'), (' '), ('''quoted'), ('=tag'), ('');
           insert into products (category_id, name, description, price, created_at) values
               (1, 'Plain', 'Words', 19.99, '2023-08-08T12:00:00Z'),
               (2, '=1+1', '@SUM(A1)', 0, '2023-08-08T12:00:00.000001Z'),
               (3, '', '', 9999999999.99, '0001-01-01T00:00:00Z'),
               (1, ' spaced ', E'\n', 0.1, '9999-12-29T23:59:59.999999Z'),
               (1, E'a\tb\r\nc\rd\\', E'\x01\x1f_x000D_ _x0041_ \u200b\ufeff', 5, '1900-02-28T23:59:59Z'),
               (1, '''apostrophe', '''=both', 1.50, '1900-03-01T00:00:00Z'),
               (1, '<&>"', ']]> <!-- --> &amp; &#10;', 1, '2000-01-01T00:00:00.5Z'),
               (1, 'long', repeat('🐢', 20000), 1, '2038-01-19T03:14:08Z'),
               (1, 'marked', repeat('x', 40000) || '… [cut]', 1, '2038-01-19T03:14:08Z'),
               (1, '5', '1e5', 3, '2038-01-19T03:14:08Z'),
               (1, 'TRUE', '#N/A', 3, '2038-01-19T03:14:08Z'),
               (1, E'\u00a0nbsp\u3000', E'\ufffd', 3, '2038-01-19T03:14:08Z');
           insert into products (id, category_id, name, price) values
               (999999999999999, 1, 'far', 1), (1234567890123456, 1, 'farther', 1), (9007199254740991, 1, 'farthest', 1),
               (9007199254740993, 1, 'beyond', 1);
           insert into product_tags select p.id, t.id from products p, tags t where (p.id + t.id) % 3 = 0;
           insert into tags (name) select 'tag ' || i from generate_series(1, 150) i;
           insert into product_tags select 1, id from tags on conflict do nothing"#,
    )
    .await;
    // texts of every kind of letter, the same each time
    app.execute(
        r"insert into products (category_id, name, description, price)
          select 1, left(t, 100), t, n
            from generate_series(1, 300) n,
                 lateral (select coalesce(string_agg(chr(1 + ((n * 7919 + i * 104729) % case i % 3 when 0 then 127 when 1 then 55000
                                                                                       else 2000 end)), ''), '') as t
                            from generate_series(1, n % 50) i) texts",
        &[],
    )
    .await;
    let count: i64 = app.query_scalar("select count(*) from products").await;
    count.unsigned_abs()
}

#[tokio::test]
async fn exported_catalogue_reimports_unchanged() {
    let app = TestApp::spawn().await;
    let count = odd_catalogue(&app).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await;
    for (query, content_type) in [("", XLSX), ("?format=csv", "text/csv; charset=utf-8"), ("?ordering=-name", XLSX)] {
        let file = staff.get(&format!("/api/products/export/{query}")).await;
        let response = staff.import("", content_type, file.body).await;
        assert_eq!(response.status_and_json(), (200, counts(0, 0, count)), "{query}");
    }
    let after = staff.get("/api/products/").await;
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.header("cache-status"), "TestShop; hit; detail=memory", "nothing was written at all");
}

#[tokio::test]
async fn rows_with_id_update_and_rows_without_id_create() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.batch_execute("insert into categories (name) values ('Books')").await;
    let staff = app.create_staff("sam").await;
    let response = staff
        .import_csv(
            "",
            "1,Product 1,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
             2, Renamed ,,Books,7,2024-01-01,\"new,rare , new\"\n\
             3,Product 3,Number 3,Sport,+3.99,2023-08-08T14:00:00+02:00,\"new,eco\"\n\
             ,'=1+1,Fresh,Books,0.10,2020-02-29T01:02:03.000004Z,rare\n\
             \n\
             ,Now,,Sport,5,,\n",
        )
        .await;
    // rows are numbered as a spreadsheet does: empty lines count, line breaks in a cell do not
    let numbered = staff.import_csv("", "\n,A,\"two\nlines\",Sport,x,,\n\r\n\n,B,,Sport,x,,").await.json();
    assert_eq!((&numbered["errors"][0]["row"], &numbered["errors"][1]["row"]), (&json!(3), &json!(6)));
    assert_eq!(response.status_and_json(), (200, counts(2, 1, 2)), "{}", response.text());
    let list = staff.get("/api/products/").await.json();
    assert_eq!(product_names(&list), ["Product 1", "Renamed", "Product 3", "=1+1", "Now"]);
    let expected = json!({"id": 2, "name": "Renamed", "description": "", "category_name": "Books", "price": number("7.00"),
                          "created_at": "2024-01-01T00:00:00Z", "tags": ["new", "rare"]});
    assert_eq!(list[1], expected);
    assert_eq!(list[3]["created_at"], "2020-02-29T01:02:03.000004Z");
    assert_eq!((&list[3]["price"], &list[3]["tags"]), (&number("0.10"), &json!(["rare"])));
    assert_eq!(list[4]["tags"], json!([]));
}

#[tokio::test]
async fn missing_column_keeps_stored_values() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let response = staff.import("", "text/csv", "price, id \n8.50,2\n1.99,1\n").await;
    assert_eq!(response.status_and_json(), (200, counts(0, 1, 1)));
    let list = staff.get("/api/products/").await.json();
    let expected = json!({"id": 2, "name": "Product 2", "description": "Number 2", "category_name": "Sport", "price": number("8.50"),
                          "created_at": "2023-08-08T12:00:00Z", "tags": ["eco", "new"]});
    assert_eq!(list[1], expected);
    let response = staff.import("", "text/csv", "name\nNew\n").await;
    let errors =
        json!([{"row": 2, "price": ["This field is required."], "category_name": ["This field is required."]}]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors));
}

#[tokio::test]
async fn workbooks_of_spreadsheet_programs_are_read() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let date = Format::new().set_num_format("dd/mm/yy hh:mm");
    let mut workbook = Workbook::new();
    workbook.add_worksheet().set_name("Notes").unwrap().write(0, 0, "not for us").unwrap();
    for (name, first) in [("Products", 0), ("Products 2", 10)] {
        let sheet = workbook.add_worksheet().set_name(name).unwrap();
        // texts shared, titles lower and elsewhere, columns in another order, rows left out
        for (column, title) in (3..).zip(["tags", "NAME", "Price", "created AT", "Category", "ID"]) {
            sheet.write(2, column, title).unwrap();
        }
        sheet.write(5, 3, "new, added").unwrap().write(5, 4, 2024 + first).unwrap();
        sheet.write(5, 5, 0.1 + 0.2).unwrap().write(5, 7, "Sport").unwrap();
        sheet.write_number_with_format(5, 6, 45_146.500_011_574, &date).unwrap();
    }
    let sheet = workbook.worksheet_from_name("Products 2").unwrap();
    sheet
        .write(9, 8, 1)
        .unwrap()
        .write(9, 4, "=2*3")
        .unwrap()
        .write(9, 5, "4.00")
        .unwrap()
        .write(9, 7, "Sport")
        .unwrap();
    sheet.write_formula(9, 3, rust_xlsxwriter::Formula::new("=1+1").set_result("")).unwrap();
    let staff = app.create_staff("sam").await;
    let response = staff.import("", XLSX, workbook.save_to_buffer().unwrap()).await;
    // emptied cells are told, not guessed at; a formula counts as what it gave
    let errors = json!([{"sheet": "Products 2", "row": 10, "created_at": ["This field may not be null."]}]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors), "{}", response.text());
    let response = staff.import("?on_error=skip", XLSX, workbook.save_to_buffer().unwrap()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let list = staff.get("/api/products/").await.json();
    assert_eq!(product_names(&list), ["Product 1", "2024", "2034"]);
    assert_eq!((&list[1]["price"], &list[1]["created_at"]), (&number("0.30"), &json!("2023-08-08T12:00:01Z")));
    assert_eq!(list[2]["tags"], json!(["added", "new"]));
}

const FAULTY: &str = "1,Product 1,,Sport,abc,2023-08-08T12:00:00Z,\"eco, new\"\n\
                      77,Nobody,,Sport,1,,\n\
                      x,Nobody,,Sport,1,,\n\
                      ,,,Nowhere,-1,yesterday,\"a,,b\"\n\
                      ,Good,,Sport,1,,\n\
                      ,Bad,,Nowhere,1,,\n\
                      2,Renamed,Number 2,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
                      2,Again,,Sport,1,,\n\
                      ,Good,,Sport,1,,,,stray\n\
                      ,Null,\0,Sport,1,,\n";

fn faults() -> Value {
    json!([
        {"row": 2, "price": ["A valid number is required."]},
        {"row": 3, "id": ["Invalid pk \"77\" - object does not exist."]},
        {"row": 4, "id": ["A valid integer is required."]},
        {"row": 5, "name": ["This field may not be blank."], "price": ["Ensure this value is greater than or equal to 0."],
         "tags": {"1": ["This field may not be blank."]},
         "created_at": ["Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."]},
        {"row": 7, "category_name": ["Object with name=Nowhere does not exist."]},
        {"row": 9, "id": ["An earlier row has this id."]},
        {"row": 10, "non_field_errors": ["A cell stands under no title."]},
        {"row": 11, "description": ["Null characters are not allowed."]},
    ])
}

#[tokio::test]
async fn invalid_row_rejects_import_unless_skipped() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await;
    for query in ["", "?on_error=abort", "?dry_run=true", "?dry_run=false"] {
        let response = staff.import_csv(query, FAULTY).await;
        let report = json!({"created": 0, "updated": 0, "unchanged": 0, "skipped": 10, "errors": faults()});
        assert_eq!(response.status_and_json(), (400, report), "{query}");
    }
    let taken = json!({"created": 1, "updated": 1, "unchanged": 0, "skipped": 8, "errors": faults()});
    assert_eq!(staff.import_csv("?dry_run=true&on_error=skip", FAULTY).await.status_and_json(), (200, taken.clone()));
    assert_eq!(staff.get("/api/products/").await.header("etag"), before.header("etag"), "nothing changed");
    assert_eq!(staff.import_csv("?on_error=skip", FAULTY).await.status_and_json(), (200, taken));
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1", "Renamed", "Good"]);
}

#[tokio::test]
async fn first_1000_errors_are_reported_and_others_counted() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let report = staff.import_csv("", &",,,,,,x\n".repeat(2500)).await.json();
    assert_eq!((report["errors"].as_array().unwrap().len(), &report["errors_omitted"]), (1000, &json!(1500)));
    assert_eq!(report["skipped"], 2500);
}

/// A zip of parts.
fn packed(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A workbook with these shared texts and this sheet.
fn crafted(main: &str, shared: &str, sheet: &str) -> Vec<u8> {
    in_folder("xl/", main, shared, sheet)
}

/// One whose parts stand elsewhere, with a cell that refers to a shared text.
fn elsewhere(folder: &str, shared: &str) -> Vec<u8> {
    let sheet = "<worksheet><sheetData><row><c r=\"A1\" t=\"s\"><v>0</v></c></row></sheetData></worksheet>";
    in_folder(folder, &format!("{folder}workbook.xml"), shared, sheet)
}

fn in_folder(folder: &str, main: &str, shared: &str, sheet: &str) -> Vec<u8> {
    let relationships = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let wrap = |inner: &str| format!("<Relationships>{inner}</Relationships>").into_bytes();
    packed(&[
        ("_rels/.rels", wrap(&format!("<Relationship Id=\"a\" Type=\"{relationships}/officeDocument\" Target=\"{main}\"/>"))),
        (
            &format!("{folder}_rels/workbook.xml.rels"),
            wrap(&format!("<Relationship Id=\"b\" Type=\"{relationships}/worksheet\" Target=\"worksheets/sheet1.xml\"/><Relationship Id=\"c\" Type=\"{relationships}/sharedStrings\" Target=\"sharedStrings.xml\"/>")),
        ),
        (
            &format!("{folder}workbook.xml"),
            format!("<workbook xmlns:r=\"{relationships}\"><sheets><sheet name=\"Products\" sheetId=\"1\" r:id=\"b\"/></sheets></workbook>")
                .into_bytes(),
        ),
        (&format!("{folder}sharedStrings.xml"), shared.as_bytes().to_vec()),
        (&format!("{folder}worksheets/sheet1.xml"), sheet.as_bytes().to_vec()),
    ])
}

#[tokio::test]
async fn invalid_file_is_rejected() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let whole = staff.get("/api/products/export/").await.body.to_vec();
    let sheet = |cells: &str| format!("<worksheet><sheetData><row r=\"1\">{cells}</row></sheetData></worksheet>");
    let title = "<c r=\"A1\" t=\"inlineStr\"><is><t>Name</t></is></c>";
    let sound = crafted("xl/workbook.xml", "<sst uniqueCount=\"0\"></sst>", &sheet(title));
    assert_eq!(
        staff.import("", XLSX, sound).await.status_and_json(),
        (200, counts(0, 0, 0)),
        "the crafted ones are read as such"
    );
    // what a file says of itself is not believed
    let boastful = crafted("xl/workbook.xml", "<sst uniqueCount=\"99999999999\"></sst>", &sheet(title));
    assert_eq!(staff.import("", XLSX, boastful).await.status_and_json(), (200, counts(0, 0, 0)));
    let unknown = format!("{title}</row><row r=\"2\"><c r=\"A2\"><f>1+1</f></c>");
    let unknown = staff.import("", XLSX, crafted("xl/workbook.xml", "<sst/>", &sheet(&unknown))).await.json();
    assert_eq!(
        unknown["errors"][0]["name"],
        json!(["Not a valid string."]),
        "what a formula would give is not guessed at"
    );
    let huge = " ".repeat(80 << 20);
    for (what, content_type, file) in [
        ("nothing", XLSX, vec![]),
        ("half a workbook", XLSX, whole[..whole.len() / 2].to_vec()),
        (
            "a broken one",
            XLSX,
            whole.iter().enumerate().map(|(place, byte)| if place % 97 == 50 { 0 } else { *byte }).collect(),
        ),
        ("CSV as a workbook", XLSX, TITLES.as_bytes().to_vec()),
        ("a workbook as CSV", "text/csv", whole.clone()),
        ("another zip", XLSX, packed(&[("a.txt", b"hello".to_vec())])),
        ("nothing as CSV", "text/csv", vec![]),
        ("no titles", "text/csv", b"\n,,\n".to_vec()),
        ("another title", "text/csv", b"Name,Colour\n".to_vec()),
        ("a title twice", "text/csv", b"Name,name\n".to_vec()),
        ("no UTF-8", "text/csv", b"Name\n\xff\n".to_vec()),
        ("a bomb of shared texts", XLSX, crafted("xl/workbook.xml", &format!("<sst>{huge}</sst>"), &sheet(title))),
        (
            "a bomb in a cell",
            XLSX,
            crafted("xl/workbook.xml", "<sst/>", &sheet(&format!("<c r=\"A1\"><f>{}</f></c>", " ".repeat(400 << 20)))),
        ),
        ("a workbook in the place of a sheet", XLSX, crafted("xl/worksheets/sheet1.xml", "<sst/>", &sheet(title))),
        ("room for too many texts elsewhere", XLSX, elsewhere("foo/", "<sst uniqueCount=\"99999999999\"></sst>")),
        ("something before the zip", XLSX, [&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1], &whole[..]].concat()),
        (
            "a text that is not there",
            XLSX,
            crafted("xl/workbook.xml", "<sst/>", &sheet("<c r=\"A1\" t=\"s\"><v>7</v></c>")),
        ),
        ("a number that is none", XLSX, crafted("xl/workbook.xml", "<sst/>", &sheet("<c r=\"A1\"><v>1e999</v></c>"))),
        (
            "a letter that is none",
            XLSX,
            crafted("xl/workbook.xml", "<sst/>", &sheet("<c t=\"inlineStr\"><is><t>&me;</t></is></c>")),
        ),
        (
            "a tag without end",
            XLSX,
            crafted("xl/workbook.xml", "<sst/>", &sheet(&format!("<c r=\"{}\">", "A".repeat(2 << 20)))),
        ),
        (
            "a comment without end",
            XLSX,
            crafted("xl/workbook.xml", "<sst/>", &sheet(&format!("<!-- {}", "<c/>".repeat(1 << 20)))),
        ),
        ("a row of commas", "text/csv", ",".repeat(9 << 20).into_bytes()),
        ("a sheet that is none", XLSX, crafted("xl/workbook.xml", "<sst/>", "<worksheet>")),
    ] {
        let response = staff.import("", content_type, file).await;
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.starts_with("Import error - ") && !detail.contains("/tmp"), "{what}: {detail}");
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
    for (query, told) in [
        ("?dry_run=maybe", json!({"dry_run": ["Must be a valid boolean."]})),
        ("?on_error=ignore", json!({"on_error": ["\"ignore\" is not a valid choice."]})),
        (
            "?dryrun=true&x=1",
            json!({"dryrun": ["Unknown parameter. Did you mean \"dry_run\"?"], "x": ["Unknown parameter."]}),
        ),
        ("?dry_run=true&dry_run=true", json!({"dry_run": ["This parameter may be given once only."]})),
    ] {
        assert_eq!(staff.import_csv(query, "").await.status_and_json(), (400, told), "{query}");
    }
}

#[tokio::test]
async fn aborted_import_changes_nothing() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: text/csv\r\n\
         content-length: 100000\r\n\r\n{TITLES},New,,Sport,1,,\n",
        staff.token()
    );
    let mut socket = tokio::net::TcpStream::connect(staff.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let app = &app.server.app;
    wait_until("the import has begun", || async { app.imports.available_permits() == 1 }).await;
    drop(socket);
    wait_until("the import has ended", || async { app.imports.available_permits() == 2 }).await;
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
}

#[tokio::test]
async fn import_changes_nothing_when_database_is_lost() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // it waits for a lock, and then for nothing more
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; update products set price = 2").await.unwrap();
    let importing = tokio::spawn({
        let staff = staff.clone();
        async move { staff.import_csv("", "1,Renamed,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n").await }
    });
    wait_until("it waits", || async { app.query_scalar::<i64>(&format!("select count(*) {WAITING}")).await == 1 })
        .await;
    app.execute(&format!("select pg_terminate_backend(pid) {WAITING}"), &[]).await;
    assert_eq!(importing.await.unwrap().status, 503);
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
}

#[tokio::test]
async fn import_retries_on_conflict() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let other = connect(app.database_url()).await;
    let theirs = "begin; delete from products where id = 2; update products set description = 'Theirs' where id = 1";
    other.batch_execute(theirs).await.unwrap();
    let importing = tokio::spawn({
        let staff = staff.clone();
        let rows = "1,Ours,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
                    2,Ours,Number 2,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\n";
        async move { staff.import_csv("?on_error=skip", rows).await }
    });
    wait_until("it waits", || async { app.query_scalar::<i64>(&format!("select count(*) {WAITING}")).await == 1 })
        .await;
    other.batch_execute("commit").await.unwrap();
    let report = importing.await.unwrap().json();
    let errors = json!([{"row": 3, "id": ["Invalid pk \"2\" - object does not exist."]}]);
    assert_eq!((&report["updated"], &report["errors"]), (&json!(1), &errors), "{report}");
    // looked at anew, the description is no longer what the file says
    assert_eq!(staff.get("/api/products/1/").await.json()["description"], "Number 1");
}

#[tokio::test]
async fn concurrent_imports_and_writes_lose_nothing() {
    let app = TestApp::spawn().await;
    app.seed_products(50).await;
    let staff = app.create_staff("sam").await;
    let rows = |name: &str| -> String {
        (1..=50).map(|id| format!("{id},{name} {id},Number {id},Sport,{id}.99,2023-08-08T12:00:00Z,{name}\n")).collect()
    };
    let importing = ["one", "two"].map(|name| {
        let (staff, rows) = (staff.clone(), rows(name) + &format!(",{name} new,,Sport,1,,shared\n"));
        tokio::spawn(async move { staff.import_csv("", &rows).await })
    });
    let writing = (0..20).map(|number| {
        let staff = staff.clone();
        async move {
            let made = json!({"name": format!("made {number}"), "price": 1, "category_id": 1, "tags": ["shared", "one", "two"]});
            (staff.post("/api/products/", made).await.status, staff.patch("/api/products/7/", json!({"price": 70})).await.status)
        }
    });
    let written = futures_util::future::join_all(writing).await;
    assert!(written.iter().all(|(made, changed)| (made.as_u16(), changed.as_u16()) == (201, 200)), "{written:?}");
    for import in importing {
        let response = import.await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let list = staff.get("/api/products/").await.json();
    let (mut made, mut new) = (0, 0);
    for product in list.as_array().unwrap() {
        let name = product["name"].as_str().unwrap();
        made += u64::from(name.starts_with("made"));
        new += u64::from(name.ends_with("new"));
        if product["id"].as_u64().unwrap() <= 50 {
            let (winner, _) = name.split_once(' ').unwrap();
            assert_eq!(product["tags"], json!([winner]), "{product}");
        }
    }
    assert_eq!((made, new), (20, 2));
}

#[tokio::test]
async fn imports_over_limit_are_rejected_and_full_disk_fails_only_imports() {
    let app = TestAppBuilder::default()
        .with("import-concurrency", 1)
        .with("export-dir", "/nowhere/to/be/found")
        .spawn()
        .await;
    let staff = app.create_staff("sam").await;
    let held = app.server.app.imports.clone().try_acquire_owned().unwrap();
    assert_eq!(staff.import_csv("", "").await.status, 503);
    drop(held);
    let response = staff.import_csv("", "").await;
    assert_eq!(
        response.status_and_json(),
        (503, json!({"detail": "Service temporarily unavailable."})),
        "and no path is told"
    );
    assert_eq!(staff.get("/api/products/").await.status, 200);
}

#[tokio::test]
async fn reimport_from_spreadsheet_is_unchanged() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.execute("update products set created_at = '2026-11-23T13:01:47.542885Z'", &[]).await;
    let staff = app.create_staff("sam").await;
    let date = Format::new().set_num_format("yyyy-mm-dd hh:mm:ss");
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, title) in (0..).zip(["ID", "Created at", "Price"]) {
        sheet.write(0, column, title).unwrap();
    }
    // 15 digits, as many programs write them
    sheet.write(1, 0, 1).unwrap().write(1, 2, 1.99).unwrap();
    sheet.write_number_with_format(1, 1, 46_349.542_911_376, &date).unwrap();
    let response = staff.import("", XLSX, workbook.save_to_buffer().unwrap()).await;
    assert_eq!(response.status_and_json(), (200, counts(0, 0, 1)), "{}", response.text());
}

#[tokio::test]
async fn truncated_cells_are_not_imported() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.execute("update products set description = repeat('x', 40000) where id = 1", &[]).await;
    app.batch_execute("insert into tags (name) values ('k, l'); insert into product_tags values (2, 3)").await;
    let staff = app.create_staff("sam").await;
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, title) in (0..).zip(["ID", "Description", "Tags"]) {
        sheet.write(0, column, title).unwrap();
    }
    sheet.write(1, 0, 1).unwrap().write(1, 1, "y… [cut]").unwrap().write(1, 2, "eco, new").unwrap();
    sheet.write(2, 0, 2).unwrap().write(2, 1, "Number 2").unwrap().write(2, 2, "eco, k, l, new, more").unwrap();
    let response = staff.import("", XLSX, workbook.save_to_buffer().unwrap()).await;
    let errors = json!([
        {"row": 2, "description": ["This text was cut when it was exported; change it elsewhere."]},
        {"row": 3, "tags": ["A tag of this product has a comma; change its tags elsewhere."]},
    ]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors), "{}", response.text());
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
    wait_until("its permit is back", || async { app.server.app.imports.available_permits() == 2 }).await;
}
