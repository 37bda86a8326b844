//! `missing_id=create` and `create_categories`: an export fills an empty shop.

use serde_json::{Value, json};

use super::{XLSX, report, transactions::wait_for_lock_waiter};
use crate::harness::{TestApp, connect};

const RESTORE: &str = "?create_categories=true&missing_id=create";

/// Inserts products with every kind of value that the API accepts, and returns their number.
async fn insert_catalogue(app: &TestApp) -> u64 {
    app.batch_execute(
        r#"insert into categories (id, name) values (5, 'Sport'), (3, 'Möbel; "neu", =x'), (9, 'unused');
           insert into tags (name) values ('new'), ('b'), ('''quoted'), ('=tag'), ('unused');
           insert into products (id, category_id, name, description, price, created_at) values
               (1, 5, 'Plain', 'Words', 19.99, '2023-08-08T12:00:00Z'),
               (-7, 3, '=1+1', '@SUM(A1)', 0, '2023-08-08T12:00:00.000001Z'),
               (0, 5, 'zero', '', 9999999999.99, '0001-01-01T00:00:00Z'),
               (70, 5, '''apostrophe', '''=both', 0.1, '9999-12-29T23:59:59.999999Z'),
               (7000000, 3, E'a\tb\r\nc\rd\\', E'x_x000D_ _x0041_ \u200by', 5, '1900-02-28T23:59:59Z'),
               (64, 5, '<&>"', ']]> <!-- --> &amp; &#10;', 1, '2050-01-01T00:00:00.999999Z');
           insert into products (id, category_id, name, price, created_at)
           select 100 + n, 3, 'Product ' || n, n, timestamptz '1999-12-31Z' + n * 3141592.653589 * interval '1 second'
             from generate_series(1, 1200) n;
           insert into product_tags select p.id, t.id from products p, tags t where (p.id + t.id) % 3 = 0"#,
    )
    .await;
    let count: i64 = app.query_scalar("select count(*) from products").await;
    count.unsigned_abs()
}

fn report_with_categories(created: u64, categories: u64) -> Value {
    let mut report = report(created, 0, 0);
    report["categories_created"] = categories.into();
    report
}

#[tokio::test]
async fn export_fills_empty_shop() {
    let source = TestApp::spawn().await;
    let count = insert_catalogue(&source).await;
    let reader = source.create_staff("sam").await;
    let list = reader.get("/api/products/").await;
    let csv = reader.get("/api/products/export/?format=csv").await;
    for (query, content_type) in [("", XLSX), ("?format=csv&ordering=-name", "text/csv")] {
        let file = reader.get(&format!("/api/products/export/{query}")).await.body;
        let shop = TestApp::spawn().await;
        let staff = shop.create_staff("sam").await;
        let created = report_with_categories(count, 2);
        let tried = staff.import(&format!("{RESTORE}&dry_run=true"), content_type, file.clone()).await;
        assert_eq!(tried.status_and_json(), (200, created.clone()), "{query}");
        assert_eq!(shop.query_scalar::<i64>("select count(*) from categories").await, 0, "a dry run creates nothing");
        let imported = staff.import(RESTORE, content_type, file.clone()).await;
        assert_eq!(imported.status_and_json(), (200, created), "{query}");
        assert!(staff.get("/api/products/").await.body == list.body, "{query}: the lists are equal");
        assert!(staff.get("/api/products/export/?format=csv").await.body == csv.body, "{query}: the exports are equal");
        let again = staff.import(RESTORE, content_type, file).await;
        assert_eq!(again.status_and_json(), (200, report(0, 0, count)), "{query}");
        let next = staff.post("/api/products/", json!({"name": "Next", "price": 1, "category_name": "Sport"})).await;
        assert_eq!(next.json()["id"], 7_000_001, "new ids follow those of the file");
    }
}

#[tokio::test]
async fn ids_of_the_file_are_checked() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let rows = "3,Third,,Sport,1,,\n3,Again,,Sport,1,,\n,Generated,,Sport,1,,\n-3,Negative,,Sport,1,,\n\
                4503599627370496,Large,,Sport,1,,\n9223372036854775808,Larger,,Sport,1,,\n4,Bad,,Sport,x,,\n\
                4,Repeated,,Sport,1,,\n-9007199254740993,Small,,Sport,1,,\n2,Second,,Sport,1,,\n1,Product 1,Number 1,Sport,1.99,,\"eco, new\"\n";
    let response = staff.import_csv("?missing_id=create&on_error=skip", rows).await;
    let errors = json!([
        {"row": 3, "id": ["An earlier row has this id."]},
        {"row": 6, "id": ["Ensure this value is less than or equal to 4503599627370495."]},
        {"row": 7, "id": ["A valid integer is required."]},
        {"row": 8, "price": ["A valid number is required."]},
        {"row": 9, "id": ["An earlier row has this id."]},
        {"row": 10, "id": ["Ensure this value is greater than or equal to -4503599627370495."]},
    ]);
    let expected = json!({"created": 4, "updated": 0, "unchanged": 1, "skipped": 6, "errors": errors});
    assert_eq!(response.status_and_json(), (200, expected));
    let names = "select string_agg(id || ' ' || name, ', ' order by id) from products";
    let stored: String = app.query_scalar(names).await;
    assert_eq!(stored, "-3 Negative, 1 Product 1, 2 Second, 3 Third, 4 Generated");
    assert_eq!(staff.get("/api/products/-3/").await.json()["name"], "Negative");
    for query in ["", "?missing_id=error"] {
        let response = staff.import_csv(query, "9,New,,Sport,1,,\n").await;
        let errors = json!([{"row": 2, "id": ["Invalid pk \"9\" - object does not exist."]}]);
        assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors), "{query}");
    }
    for (query, message) in [
        ("?missing_id=guess", json!({"missing_id": ["\"guess\" is not a valid choice."]})),
        ("?create_categories=maybe", json!({"create_categories": ["Must be a valid boolean."]})),
        ("?missing_ids=create", json!({"missing_ids": ["Unknown parameter. Did you mean \"missing_id\"?"]})),
    ] {
        assert_eq!(staff.import_csv(query, "").await.status_and_json(), (400, message));
    }
}

#[tokio::test]
async fn id_that_is_inserted_meanwhile_is_updated() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for (id, end, expected) in [(7, "commit", report(1, 1, 0)), (20, "rollback", report(2, 0, 0))] {
        let other = connect(app.database_url()).await;
        let insert =
            format!("begin; insert into products (id, category_id, name, price) values ({id}, 1, 'Inserted', 1)");
        other.batch_execute(&insert).await.unwrap();
        let importing = tokio::spawn({
            let staff = staff.clone();
            let rows = format!("{id},Imported,,Sport,2,,\n,New,,Sport,1,,\n");
            async move { staff.import_csv("?missing_id=create", &rows).await }
        });
        wait_for_lock_waiter(&app).await;
        other.batch_execute(end).await.unwrap();
        assert_eq!(importing.await.unwrap().status_and_json(), (200, expected), "{end}");
        let name: String = app.query_scalar(&format!("select name from products where id = {id}")).await;
        assert_eq!(name, "Imported", "{end}");
    }
}

#[tokio::test]
async fn creation_that_meets_an_id_of_another_program_is_retried() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    // the sequence generates an id that another transaction has inserted since
    app.execute("select setval('products_id_seq', 1, false)", &[]).await;
    let body = json!({"name": "New", "price": 1, "category_name": "Sport"});
    let created = staff.post("/api/products/", body.clone()).await;
    assert_eq!((created.status.as_u16(), &created.json()["id"]), (201, &json!(3)), "{}", created.text());
    app.execute("select setval('products_id_seq', 2, false)", &[]).await;
    let created = staff.with_header("idempotency-key", "one").post("/api/products/", body).await;
    assert_eq!((created.status.as_u16(), &created.json()["id"]), (201, &json!(4)), "{}", created.text());
}

#[tokio::test]
async fn categories_of_accepted_rows_are_created() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let long = "x".repeat(101);
    let rows = format!(
        "1,Product 1,Number 1, Books ,1.99,,\"eco, new\"\n,New,,Books,1,,\n,Other,,Tea,1,,\n,Old,,Sport,1,,\n\
         ,Bad,,Ghost,x,,\n,Long,,{long},1,,\n,Blank,, ,1,,\n2,Product 2,Number 2,Sport,2.99,,\"eco, new\"\n"
    );
    let errors = json!([
        {"row": 6, "price": ["A valid number is required."]},
        {"row": 7, "category_name": ["Ensure this field has no more than 100 characters."]},
        {"row": 8, "category_name": ["This field may not be blank."]},
    ]);
    let accepted = json!({"created": 3, "updated": 1, "unchanged": 1, "skipped": 3, "categories_created": 2,
                          "errors": errors});
    let rejected = json!({"created": 0, "updated": 0, "unchanged": 0, "skipped": 8, "errors": errors});
    let names = "select string_agg(name, ',' order by id) from categories";
    let query = "?create_categories=true";
    assert_eq!(staff.import_csv(query, &rows).await.status_and_json(), (400, rejected));
    let tried = staff.import_csv(&format!("{query}&on_error=skip&dry_run=true"), &rows).await;
    assert_eq!(tried.status_and_json(), (200, accepted.clone()));
    assert_eq!(app.query_scalar::<String>(names).await, "Sport");
    let imported = staff.import_csv(&format!("{query}&on_error=skip"), &rows).await;
    assert_eq!(imported.status_and_json(), (200, accepted));
    assert_eq!(app.query_scalar::<String>(names).await, "Sport,Books,Tea");
    assert_eq!(staff.get("/api/products/1/").await.json()["category_name"], "Books");
    let off = staff.import_csv("?create_categories=false", ",New,,Ghost,1,,\n").await;
    let errors = json!([{"row": 2, "category_name": ["Object with name=Ghost does not exist."]}]);
    assert_eq!((off.status.as_u16(), &off.json()["errors"]), (400, &errors));
}

#[tokio::test]
async fn category_that_is_created_meanwhile_is_used() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for (name, end, categories) in [("Books", "commit", 0), ("Tea", "rollback", 1)] {
        let other = connect(app.database_url()).await;
        other.batch_execute(&format!("begin; insert into categories (name) values ('{name}')")).await.unwrap();
        let importing = tokio::spawn({
            let staff = staff.clone();
            let rows = format!("1,Product 1,Number 1,{name},1.99,,\"eco, new\"\n,New,,{name},1,,\n");
            async move { staff.import_csv("?create_categories=true", &rows).await }
        });
        wait_for_lock_waiter(&app).await;
        other.batch_execute(end).await.unwrap();
        let mut expected = report(1, 1, 0);
        if categories > 0 {
            expected["categories_created"] = categories.into();
        }
        assert_eq!(importing.await.unwrap().status_and_json(), (200, expected), "{end}");
        let count = format!("select count(*) from categories where name = '{name}'");
        assert_eq!(app.query_scalar::<i64>(&count).await, 1, "{end}");
        assert_eq!(staff.get("/api/products/1/").await.json()["category_name"], name, "{end}");
    }
}
