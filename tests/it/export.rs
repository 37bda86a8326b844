//! The workbook, opened by an independent reader.

use std::io::Cursor;

use calamine::{Data, Range, Reader, Xlsx};
use hyper::Method;

use crate::harness::{Answer, Caller, Plan, Process, Shop};

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

fn open(answer: &Answer) -> Xlsx<Cursor<Vec<u8>>> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    Xlsx::new(Cursor::new(answer.body.to_vec())).expect("a workbook")
}

fn sheet(answer: &Answer) -> Range<Data> {
    open(answer).worksheet_range("Products").expect("the sheet Products")
}

#[tokio::test]
async fn the_workbook_has_typed_cells_and_never_a_formula() {
    let shop = Shop::open().await;
    shop.script(
        "insert into categories (name) values ('Sport');
         insert into tags (name) values ('new'), ('eco'), ('@sum');
         insert into products (category_id, name, description, price, created_at) values
             (1, '=1+1', '', 19.99, '2023-08-08T12:00:00Z'),
             (1, '+cmd|x', E'two\nlines & <tags> \"quotes\" \x01', 9999999999.99, '2023-08-08T12:00:00.5Z'),
             (1, '-2', '@SUM(A1)', 0, '1066-10-14T00:00:00Z');
         insert into product_tags select 1, id from tags",
    )
    .await;
    let answer = shop.user("ann").await.get("/api/products/export/").await;
    assert_eq!(answer.header("content-type"), XLSX);
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"products.xlsx\"");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let mut workbook = open(&answer);
    assert_eq!(workbook.sheet_names(), ["Products"]);
    let formulas = workbook.worksheet_formula("Products").unwrap();
    assert_eq!(formulas.used_cells().count(), 0, "no cell is a formula");
    let cells = workbook.worksheet_range("Products").unwrap();
    let header: Vec<String> = cells.rows().next().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(header, ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]);
    let cell = |row, column| cells.get((row, column)).unwrap().clone();
    assert_eq!((cell(1, 0), cell(1, 4)), (Data::Float(1.0), Data::Float(19.99)));
    assert_eq!((cell(1, 1), cell(1, 6)), (Data::String("=1+1".into()), Data::String("@sum, eco, new".into())));
    let Data::DateTime(created) = cell(1, 5) else { panic!("no date: {:?}", cell(1, 5)) };
    assert_eq!(created.to_ymd_hms_milli(), (2023, 8, 8, 12, 0, 0, 0));
    assert_eq!(cell(2, 4), Data::Float(9_999_999_999.99));
    assert_eq!(cell(2, 2).to_string(), "two\nlines & <tags> \"quotes\" \u{1}");
    assert_eq!((cell(2, 1), cell(3, 1)), (Data::String("+cmd|x".into()), Data::String("-2".into())));
    assert_eq!(cell(3, 5), Data::String("1066-10-14T00:00:00Z".into()), "a date that spreadsheets cannot count");
    assert_eq!(cells.height(), 4);
}

#[tokio::test]
async fn the_workbook_of_an_empty_catalogue_has_its_header() {
    let shop = Shop::open().await;
    let cells = sheet(&shop.user("ann").await.get("/api/products/export/").await);
    assert_eq!(cells.height(), 1);
}

#[tokio::test]
async fn a_text_too_long_for_a_cell_is_cut_and_told() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    shop.run("update products set description = repeat('🐢', 20000)", &[]).await;
    let cells = sheet(&shop.user("ann").await.get("/api/products/export/").await);
    let text = cells.get((1, 2)).unwrap().to_string();
    assert!(text.ends_with("🐢… [cut]") && text.encode_utf16().count() <= 32_767);
}

#[tokio::test]
async fn an_export_is_made_once_a_version_and_is_never_stale() {
    let shop = Shop::open().await;
    shop.stock(300).await;
    let other = shop.another_instance().await;
    let user = shop.user("ann").await;
    shop.forget_calls().await;
    let asking = (0..10).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/export/").await }
    });
    let answers = futures_util::future::join_all(asking).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(shop.calls("%from products p%").await, 1, "ten that ask at once cost one");
    let first = &answers[0];
    let again = user.get("/api/products/export/").await;
    assert_eq!(again.header("cache-status"), "TestShop; hit; detail=memory");
    assert_eq!(again.body, first.body);
    let unchanged = user.with("if-none-match", first.header("etag")).get("/api/products/export/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    let elsewhere = user.at(other.address).get("/api/products/export/").await;
    assert_eq!(
        (elsewhere.header("etag"), &elsewhere.body),
        (first.header("etag"), &first.body),
        "the same bytes elsewhere"
    );

    shop.run("update tags set name = 'newest' where name = 'new'", &[]).await;
    let fresh = user.with("if-none-match", first.header("etag")).get("/api/products/export/").await;
    assert_eq!(sheet(&fresh).get((1, 6)).unwrap().to_string(), "eco, newest");
    assert_ne!(fresh.header("etag"), first.header("etag"));
}

#[tokio::test]
async fn kept_files_stay_within_their_bound() {
    let shop = Plan::default().with("export-bytes", 20_000).open().await;
    shop.stock(200).await;
    let user = shop.user("ann").await;
    for version in 0..4 {
        shop.run("update products set description = $1", &[&version.to_string()]).await;
        assert_eq!(user.get("/api/products/export/").await.status, 200);
        assert!(shop.metric("testshop_export_bytes").await <= 20_000.0);
    }
    assert_eq!(shop.metric("testshop_exports_total").await, 4.0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_the_exports_and_nothing_else() {
    let shop = Plan::default().with("export-dir", "/nowhere/to/be/found").open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    let answer = user.get("/api/products/export/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "{\"detail\":\"Service temporarily unavailable.\"}", "and no path is told");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(user.get("/api/products/").await.status, 200);
    assert_eq!(user.send(Method::HEAD, "/api/products/", None).await.status, 200);
}

#[tokio::test]
async fn too_many_exports_at_a_time_are_turned_away() {
    let shop = Plan::default().with("export-concurrency", 1).open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    let held = shop.server.app.exports.try_take(0).unwrap();
    assert_eq!(user.get("/api/products/export/").await.status, 503);
    drop(held);
    assert_eq!(user.get("/api/products/export/").await.status, 200);
}

#[tokio::test]
async fn who_reads_many_exports_at_a_time_leaves_some_to_others() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let (ann, bob) = (shop.user("ann").await, shop.user("bob").await);
    let id = ann.id().await;
    let held: Vec<_> = std::iter::from_fn(|| shop.server.app.downloads.try_take(id)).collect();
    assert_eq!(held.len(), 32);
    assert_eq!(ann.get("/api/products/export/").await.status, 503);
    let answer = bob.get("/api/products/export/").await;
    assert_eq!(answer.status, 200);
    let known = ann.with("if-none-match", answer.header("etag"));
    assert_eq!(known.get("/api/products/export/").await.status, 304, "nothing is read");
    drop(held);
    assert_eq!(ann.get("/api/products/export/").await.status, 200);
}

#[tokio::test]
async fn many_small_exports_hold_few_descriptors() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let token = shop.user("ann").await.token().to_owned();
    let server = Process::serve(&shop, &[]);
    let user = Caller::new(server.address).bearing(&token);
    for price in 0..150 {
        let path = format!("/api/products/export/?format=csv&price_min={price}");
        assert_eq!(user.get(&path).await.status, 200, "{path}");
    }
    assert!(server.descriptors() < 120, "{}", server.descriptors());
}

#[test]
fn rows_over_the_limit_go_on_in_another_sheet() {
    use testshop::products::{files::xlsx::ProductWorkbook, product::Product};
    let folder = std::env::temp_dir();
    let mut workbook = ProductWorkbook::new(&folder, jiff::Timestamp::UNIX_EPOCH, 4).unwrap();
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
async fn programs_get_csv_that_no_spreadsheet_takes_for_formulas() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    shop.run("update products set name = '=1+1', description = E'say \"hi\",\n''tis' where id = 1", &[]).await;
    shop.run("update products set description = '''tis' where id = 2", &[]).await;
    let user = shop.user("ann").await;
    let answer = user.get("/api/products/export/?format=csv&ordering=-id").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"products.csv\"");
    let expected = "ID,Name,Description,Category,Price,Created at,Tags\r\n\
                    2,Product 2,''tis,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\r\n\
                    1,'=1+1,\"say \"\"hi\"\",\n'tis\",Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\r\n";
    assert_eq!(answer.text(), expected);
    let again =
        user.with("if-none-match", answer.header("etag")).get("/api/products/export/?format=csv&ordering=-id").await;
    assert_eq!(again.status, 304);
    assert_ne!(user.get("/api/products/export/?ordering=-id").await.header("etag"), answer.header("etag"));
    for (query, words) in [
        ("format=pdf", "\"pdf\" is not a valid choice."),
        ("format=csv&format=csv", "This parameter may be given once only."),
    ] {
        let told = user.get(&format!("/api/products/export/?{query}")).await.told();
        assert_eq!(told, (400, serde_json::json!({"format": [words]})));
    }
}
