//! Import of exported files, unchanged or as other programs save them.

use rust_xlsxwriter::{Format, Workbook};
use serde_json::json;

use super::{XLSX, report};
use crate::harness::TestApp;

/// Inserts products with every kind of value that the database accepts, and returns their number.
async fn insert_edge_cases(app: &TestApp) -> u64 {
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
               (999999999999999, 1, '15 digits', 1), (1234567890123456, 1, '16 digits', 1),
               (9007199254740991, 1, '2^53 - 1', 1), (9007199254740993, 1, '2^53 + 1', 1);
           insert into product_tags select p.id, t.id from products p, tags t where (p.id + t.id) % 3 = 0;
           insert into tags (name) select 'tag ' || i from generate_series(1, 150) i;
           insert into product_tags select 1, id from tags on conflict do nothing"#,
    )
    .await;
    // texts with characters of one to three bytes in UTF-8, the same in each run
    app.execute(
        r"insert into products (category_id, name, description, price)
          select 1, left(t, 100), t, n
            from generate_series(1, 300) n,
                 lateral (select coalesce(string_agg(chr(1 + (n * 7919 + i * 104729)
                                                             % (array[127, 55000, 2000])[1 + i % 3]), ''), '') as t
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
    let count = insert_edge_cases(&app).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await;
    for (query, content_type) in [("", XLSX), ("?format=csv", "text/csv; charset=utf-8"), ("?ordering=-name", XLSX)] {
        let file = staff.get(&format!("/api/products/export/{query}")).await;
        let response = staff.import("", content_type, file.body).await;
        assert_eq!(response.status_and_json(), (200, report(0, 0, count)), "{query}");
    }
    let after = staff.get("/api/products/").await;
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.header("cache-status"), "TestShop; hit; detail=memory", "the import wrote nothing");
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
    // many programs save 15 significant digits
    sheet.write(1, 0, 1).unwrap().write(1, 2, 1.99).unwrap();
    sheet.write_number_with_format(1, 1, 46_349.542_911_376, &date).unwrap();
    let response = staff.import("", XLSX, workbook.save_to_buffer().unwrap()).await;
    assert_eq!(response.status_and_json(), (200, report(0, 0, 1)), "{}", response.text());
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
        {"row": 2, "description": ["The export truncated this text. Change it through the API."]},
        {"row": 3, "tags": ["A tag of this product contains a comma. Change its tags through the API."]},
    ]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors), "{}", response.text());
}
