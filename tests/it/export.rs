//! Exported files. Workbooks are opened by an independent reader.

use std::io::{Cursor, Read};

use calamine::{Data, Range, Reader, Xlsx};
use hyper::Method;
use serde_json::{Value, json};
use testshop::limits::Client;

use crate::harness::{Process, TestApp, TestAppBuilder, TestClient, TestResponse};

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

fn open(response: &TestResponse) -> Xlsx<Cursor<Vec<u8>>> {
    assert_eq!(response.status, 200, "{}", response.text());
    Xlsx::new(Cursor::new(response.body.to_vec())).expect("a workbook")
}

fn sheet(response: &TestResponse) -> Range<Data> {
    open(response).worksheet_range("Products").expect("the sheet Products")
}

#[tokio::test]
async fn xlsx_export_has_typed_cells_and_no_formulas() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport');
         insert into tags (name) values ('new'), ('eco'), ('@sum');
         insert into products (category_id, name, description, price, created_at) values
             (1, '=1+1', '', 19.99, '2023-08-08T12:00:00Z'),
             (1, '+cmd|x', E'two\nlines & <tags> \"quotes\" \x01', 9999999999.99, '2023-08-08T12:00:00.5Z'),
             (1, '-2', '@SUM(A1)', 0, '1066-10-14T00:00:00Z');
         insert into product_tags select 1, id from tags",
    )
    .await;
    let response = app.create_user("ann").await.get("/api/products/export/").await;
    assert_eq!(response.header("content-type"), XLSX);
    assert_eq!(response.header("content-disposition"), "attachment; filename=\"products.xlsx\"");
    assert_eq!(response.header("content-length"), response.body.len().to_string());
    let mut workbook = open(&response);
    assert_eq!(workbook.sheet_names(), ["Products"]);
    let formulas = workbook.worksheet_formula("Products").unwrap();
    assert_eq!(formulas.used_cells().count(), 0, "the workbook has no formulas");
    let cells = workbook.worksheet_range("Products").unwrap();
    let header: Vec<String> = cells.rows().next().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(header, ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]);
    let cell = |row, column| cells.get((row, column)).unwrap().clone();
    assert_eq!((cell(1, 0), cell(1, 4)), (Data::Float(1.0), Data::Float(19.99)));
    assert_eq!((cell(1, 1), cell(1, 6)), (Data::String("=1+1".into()), Data::String("@sum, eco, new".into())));
    let Data::DateTime(created) = cell(1, 5) else { panic!("not a date: {:?}", cell(1, 5)) };
    assert_eq!(created.to_ymd_hms_milli(), (2023, 8, 8, 12, 0, 0, 0));
    assert_eq!(cell(2, 4), Data::Float(9_999_999_999.99));
    assert_eq!(cell(2, 2).to_string(), "two\nlines & <tags> \"quotes\" \u{1}");
    assert_eq!((cell(2, 1), cell(3, 1)), (Data::String("+cmd|x".into()), Data::String("-2".into())));
    assert_eq!(cell(3, 5), Data::String("1066-10-14T00:00:00Z".into()), "a date before the epoch of spreadsheets");
    assert_eq!(cells.height(), 4);
}

#[tokio::test]
async fn export_is_an_octet_stream_for_clients_that_accept_nothing_else() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    let octet_stream = "application/octet-stream";
    let as_is = user.get("/api/products/export/").await;
    for (accepted, expected) in [
        (octet_stream.to_owned(), octet_stream),
        (format!("{octet_stream}, application/json"), octet_stream),
        (format!("{octet_stream}, {XLSX}, text/csv"), XLSX),
        (format!("{octet_stream}, */*;q=0.1"), XLSX),
        ("application/json".to_owned(), XLSX),
    ] {
        let response = user.with_header("accept", &accepted).get("/api/products/export/").await;
        assert_eq!(response.header("content-type"), expected, "{accepted}");
        assert_eq!(response.header("vary"), "Accept, Accept-Encoding, Authorization");
        assert!(response.body == as_is.body && response.header("etag") == as_is.header("etag"));
    }
    let csv = user.with_header("accept", octet_stream).get("/api/products/export/?format=csv").await;
    assert_eq!(csv.header("content-type"), octet_stream);
    let unchanged = user.with_header("if-none-match", as_is.header("etag")).get("/api/products/export/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("vary")), (304, as_is.header("vary")));
}

#[tokio::test]
async fn xlsx_export_of_empty_catalogue_has_header() {
    let app = TestApp::spawn().await;
    let cells = sheet(&app.create_user("ann").await.get("/api/products/export/").await);
    assert_eq!(cells.height(), 1);
}

#[tokio::test]
async fn overlong_text_is_truncated_and_reported() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.execute("update products set description = repeat('🐢', 20000)", &[]).await;
    let cells = sheet(&app.create_user("ann").await.get("/api/products/export/").await);
    let text = cells.get((1, 2)).unwrap().to_string();
    assert!(text.ends_with("🐢… [cut]") && text.encode_utf16().count() <= 32_767);
}

#[tokio::test]
async fn export_is_built_once_per_version_and_fresh() {
    let app = TestApp::spawn().await;
    app.seed_products(300).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    app.reset_statement_stats().await;
    let requests = (0..10).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/export/").await }
    });
    let responses = futures_util::future::join_all(requests).await;
    assert!(responses.iter().all(|response| response.body == responses[0].body));
    assert_eq!(app.statement_calls("%from products p%").await, 1, "ten concurrent requests build one export");
    let first = &responses[0];
    let hit = user.get("/api/products/export/").await;
    assert_eq!(hit.header("cache-status"), "TestShop; hit; detail=memory");
    assert_eq!(hit.body, first.body);
    let unchanged = user.with_header("if-none-match", first.header("etag")).get("/api/products/export/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    let from_other = user.on_instance(other.address).get("/api/products/export/").await;
    assert_eq!(
        (from_other.header("etag"), &from_other.body),
        (first.header("etag"), &first.body),
        "all instances build the same bytes"
    );

    app.execute("update tags set name = 'newest' where name = 'new'", &[]).await;
    let fresh = user.with_header("if-none-match", first.header("etag")).get("/api/products/export/").await;
    assert_eq!(sheet(&fresh).get((1, 6)).unwrap().to_string(), "eco, newest");
    assert_ne!(fresh.header("etag"), first.header("etag"));
}

#[tokio::test]
async fn etag_of_export_changes_only_when_its_bytes_do() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let queries = ["", "?format=csv", "?format=csv&price_max=2.5", "?fields=id,name", "?page_size=2&ordering=-id"];
    let on_other = user.on_instance(other.address);
    let export_all = async |user: &TestClient| {
        let mut exports = Vec::new();
        for query in queries {
            let response = user.get(&format!("/api/products/export/{query}")).await;
            exports.push((response.header("etag").to_owned(), response.body));
        }
        exports
    };
    let before = export_all(&user).await;
    for (sql, changed) in [
        ("insert into categories (name) values ('Unused'); insert into tags (name) values ('unused')", &[][..]),
        ("update products set price = 9 where id = 3; update products set price = 3.99 where id = 3", &[]),
        ("update products set description = 'Changed' where id = 3", &["", "?format=csv", "?page_size=2&ordering=-id"]),
        (
            "update categories set name = 'Sports' where name = 'Sport'",
            &["", "?format=csv", "?format=csv&price_max=2.5", "?page_size=2&ordering=-id"],
        ),
    ] {
        let before = export_all(&user).await;
        app.batch_execute(sql).await;
        let after = export_all(&user).await;
        assert_eq!(after, export_all(&on_other).await, "{sql}");
        for ((query, before), after) in queries.iter().zip(&before).zip(&after) {
            let expected = if changed.contains(query) { (true, true) } else { (false, false) };
            assert_eq!((after.0 != before.0, after.1 != before.1), expected, "{sql}: {query}");
        }
    }
    app.batch_execute(
        "update categories set name = 'Sport' where name = 'Sports';
         update products set description = 'Number 3' where id = 3",
    )
    .await;
    assert_eq!(export_all(&on_other).await, before);
    let unchanged = user.with_header("if-none-match", &before[0].0).get("/api/products/export/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
}

#[tokio::test]
async fn export_cache_stays_within_limit() {
    let app = TestAppBuilder::default().with("export-bytes", 20_000).spawn().await;
    app.seed_products(200).await;
    let user = app.create_user("ann").await;
    for version in 0..4 {
        app.execute("update products set description = $1", &[&version.to_string()]).await;
        assert_eq!(user.get("/api/products/export/").await.status, 200);
        assert!(app.metric("testshop_export_cache_bytes").await <= 20_000.0);
    }
    assert_eq!(app.metric("testshop_exports_total").await, 4.0);
}

#[tokio::test]
async fn unwritable_export_directory_fails_only_exports() {
    let app = TestAppBuilder::default().with("export-dir", "/nowhere/to/be/found").spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    let response = user.get("/api/products/export/").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "{\"detail\":\"Service temporarily unavailable.\"}", "the message contains no path");
    assert!(!response.header("retry-after").is_empty());
    assert_eq!(user.get("/api/products/").await.status, 200);
    assert_eq!(user.send(Method::HEAD, "/api/products/", None).await.status, 200);
}

#[tokio::test]
async fn exports_over_concurrency_limit_are_rejected() {
    let app = TestAppBuilder::default().with("export-concurrency", 1).spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    let permit = app.server.app.export_permits.try_acquire(Client::new(0, None)).unwrap();
    assert_eq!(user.get("/api/products/export/").await.status, 503);
    drop(permit);
    assert_eq!(user.get("/api/products/export/").await.status, 200);
}

#[tokio::test]
async fn export_downloads_are_limited_per_user() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let permits: Vec<_> =
        std::iter::from_fn(|| app.server.app.download_permits.try_acquire(Client::new(id, None))).collect();
    assert_eq!(permits.len(), 16);
    assert_eq!(ann.get("/api/products/export/").await.status, 503);
    let response = bob.get("/api/products/export/").await;
    assert_eq!(response.status, 200);
    let conditional = ann.with_header("if-none-match", response.header("etag"));
    assert_eq!(conditional.get("/api/products/export/").await.status, 304, "a 304 needs no permit");
    drop(permits);
    assert_eq!(ann.get("/api/products/export/").await.status, 200);
}

#[tokio::test]
async fn export_cache_bounds_open_files() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let token = app.create_user("ann").await.token().to_owned();
    let server = Process::serve(&app, &[]);
    let user = TestClient::new(server.address).with_token(&token);
    for price in 0..150 {
        let path = format!("/api/products/export/?format=csv&price_min={price}");
        assert_eq!(user.get(&path).await.status, 200, "{path}");
    }
    assert!(server.descriptors() < 120, "{}", server.descriptors());
}

#[test]
fn rows_over_sheet_limit_continue_in_next_sheet() {
    use testshop::products::{fields::Fields, files::xlsx::ProductWorkbook, product::Product};
    let directory = std::env::temp_dir();
    let mut workbook = ProductWorkbook::new(&directory, 4, Fields::ALL).unwrap();
    for id in 1..=7 {
        let created_at = jiff::Timestamp::from_second(1_691_496_000).unwrap();
        let product =
            Product { id, name: "n", description: "", category_name: "c", price: "1.00", created_at, tags: vec![] };
        workbook.write(&product).unwrap();
    }
    let mut file = Vec::new();
    workbook.save(&mut file).unwrap();
    let mut workbook = Xlsx::new(Cursor::new(file)).unwrap();
    assert_eq!(workbook.sheet_names(), ["Products", "Products 2", "Products 3"]);
    for (name, rows) in [("Products", 4), ("Products 2", 4), ("Products 3", 2)] {
        let cells = workbook.worksheet_range(name).unwrap();
        assert_eq!((cells.height(), cells.get((0, 0)).unwrap()), (rows, &Data::String("ID".into())), "{name}");
    }
}

#[tokio::test]
async fn csv_export_escapes_formulas() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.execute("update products set name = '=1+1', description = E'say \"hi\",\n''tis' where id = 1", &[]).await;
    app.execute("update products set description = '''tis' where id = 2", &[]).await;
    let user = app.create_user("ann").await;
    let response = user.get("/api/products/export/?format=csv&ordering=-id").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(response.header("content-disposition"), "attachment; filename=\"products.csv\"");
    let expected = "\"ID\",Name,Description,Category,Price,Created at,Tags\r\n\
                    2,Product 2,''tis,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\r\n\
                    1,'=1+1,\"say \"\"hi\"\",\n''tis\",Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\r\n";
    assert_eq!(response.text(), expected);
    let unchanged = user
        .with_header("if-none-match", response.header("etag"))
        .get("/api/products/export/?format=csv&ordering=-id")
        .await;
    assert_eq!(unchanged.status, 304);
    assert_ne!(user.get("/api/products/export/?ordering=-id").await.header("etag"), response.header("etag"));
}

#[tokio::test]
async fn invalid_export_params_are_reported_together() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    let duplicate = "This parameter may be given once only.";
    let only_csv = "Only a file with \"format=csv\" can have a byte order mark.";
    for (query, errors) in [
        ("format=pdf", json!({"format": ["\"pdf\" is not a valid choice."]})),
        ("format=csv&format=csv", json!({"format": [duplicate]})),
        ("bom=true", json!({"bom": [only_csv]})),
        ("bom=1&format=xlsx", json!({"bom": [only_csv]})),
        ("bom=yes&format=csv", json!({"bom": ["Must be a valid boolean."]})),
        ("bom=true&bom=true&format=csv", json!({"bom": [duplicate]})),
        ("bon=true&format=csv", json!({"bon": ["Unknown parameter. Did you mean \"bom\"?"]})),
        ("fields=id,prise", json!({"fields": ["\"prise\" is not a valid choice. Did you mean \"price\"?"]})),
        (
            "format=pdf&bom=x&price_min=x&id=x",
            json!({
                "format": ["\"pdf\" is not a valid choice."], "bom": ["Must be a valid boolean."],
                "price_min": ["A valid number is required."], "id": ["A valid integer is required."],
            }),
        ),
    ] {
        let response = user.get(&format!("/api/products/export/?{query}")).await;
        assert_eq!(response.status_and_json(), (400, errors), "{query}");
    }
    for query in ["bom=false", "bom=&format=", "format=csv&bom=0"] {
        assert_eq!(user.get(&format!("/api/products/export/?{query}")).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn byte_order_mark_is_written_on_request() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let plain = staff.get("/api/products/export/?format=csv").await;
    let marked = staff.get("/api/products/export/?format=csv&bom=true").await;
    assert_eq!(marked.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(marked.body, [b"\xef\xbb\xbf", &*plain.body].concat());
    assert!(marked.body.starts_with(b"\xef\xbb\xbf\"ID\",Name,"));
    assert_ne!(marked.header("etag"), plain.header("etag"));
    let conditional = staff.with_header("if-none-match", marked.header("etag"));
    assert_eq!(conditional.get("/api/products/export/?bom=True&format=csv").await.status, 304);
    assert_eq!(conditional.get("/api/products/export/?format=csv").await.status, 200);
    assert_eq!(app.metric("testshop_exports_total").await, 2.0, "a file each");
    let report = staff.send_bytes(Method::POST, "/api/products/import/", Some("text/csv"), marked.body.to_vec()).await;
    assert_eq!((report.status.as_u16(), &report.json()["unchanged"]), (200, &json!(2)), "{}", report.text());
}

#[tokio::test]
async fn export_has_the_selected_columns() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.execute("update products set description = '' where id = 2", &[]).await;
    let user = app.create_user("ann").await;
    let csv = async |fields: &str| user.get(&format!("/api/products/export/?format=csv&fields={fields}")).await.text();
    assert_eq!(csv("price,id").await, "\"ID\",Price\r\n1,1.99\r\n2,2.99\r\n3,3.99\r\n");
    assert_eq!(csv("tags,name").await.lines().next(), Some("\"Name\",Tags"), "the first title is quoted");
    // an empty line would be no row
    assert_eq!(csv("description").await.lines().nth(2), Some("\"\""));
    assert_eq!(csv("description").await.lines().count(), 4);

    let response = user.get("/api/products/export/?fields=created_at,price,name&id=3").await;
    let cells = sheet(&response);
    assert_eq!((cells.height(), cells.width()), (2, 3));
    let row = |row| (0..3).map(|column| cells.get((row, column)).unwrap().clone()).collect::<Vec<_>>();
    assert_eq!(row(0), ["Name", "Price", "Created at"].map(|title| Data::String(title.into())));
    assert_eq!(row(1)[..2], [Data::String("Product 3".into()), Data::Float(3.99)]);
    assert!(matches!(row(1)[2], Data::DateTime(_)), "{:?}", row(1)[2]);
    let xml = sheet_xml(&response);
    assert!(xml.contains("<autoFilter ref=\"A1:C2\"/>"), "{xml}");
    // widths of the columns Name, Price and Created at; the library adds the padding of a cell
    let widths: Vec<_> =
        xml.split("<col min=").skip(1).map(|column| column.split("width=\"").nth(1).unwrap()).collect();
    assert!(widths[0].starts_with("30.") && widths[1].starts_with("14.") && widths[2].starts_with("20."), "{widths:?}");

    let all = user.get("/api/products/export/").await;
    let reordered = "fields=tags,created_at,price,category_name,description,name,id";
    let named = user.get(&format!("/api/products/export/?{reordered}")).await;
    assert_eq!(named.header("etag"), all.header("etag"), "all columns are the file without the parameter");
}

/// Programs that read numbers as they are written, such as openpyxl, would take `1.0` for a fraction.
#[tokio::test]
async fn whole_numbers_are_written_without_fraction() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.execute("update products set price = 5", &[]).await;
    let xml = sheet_xml(&app.create_user("ann").await.get("/api/products/export/").await);
    assert!(xml.contains("<c r=\"A2\"><v>1</v></c>") && xml.contains("<v>5</v>"), "{xml}");
}

/// Returns the XML of the first sheet.
fn sheet_xml(response: &TestResponse) -> String {
    let mut archive = zip::ZipArchive::new(Cursor::new(&*response.body)).unwrap();
    let mut xml = String::new();
    archive.by_name("xl/worksheets/sheet1.xml").unwrap().read_to_string(&mut xml).unwrap();
    xml
}

/// Users export two columns, edit one and import the file.
#[tokio::test]
async fn import_of_selected_columns_changes_only_those() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await.json();
    let import = async |media_type: &str, file: Vec<u8>| -> Value {
        let report = staff.send_bytes(Method::POST, "/api/products/import/", Some(media_type), file).await;
        assert_eq!(report.status, 200, "{}", report.text());
        report.json()
    };
    let counts = |updated: u64, unchanged: u64| json!({"created": 0, "updated": updated, "unchanged": unchanged, "skipped": 0, "errors": []});
    for (query, media_type) in [("", XLSX), ("&format=csv&bom=true", "text/csv")] {
        for fields in ["id,price", "id,tags", "created_at,id", "description,id,category_name", "id"] {
            let file = staff.get(&format!("/api/products/export/?fields={fields}{query}")).await;
            assert_eq!(import(media_type, file.body.to_vec()).await, counts(0, 3), "{fields}{query}");
        }
    }
    let prices = staff.get("/api/products/export/?fields=id,price&format=csv&id=1&id=2").await.text();
    assert_eq!(import("text/csv", prices.replace("2.99", "7.50").into()).await, counts(1, 1));
    let mut expected = before;
    expected[1]["price"] = serde_json::from_str("7.50").unwrap();
    assert_eq!(staff.get("/api/products/").await.json(), expected);
}
