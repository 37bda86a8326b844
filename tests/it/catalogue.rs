//! One product, writes, categories, tags.

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{TestApp, TestClient, product_names};

#[tokio::test]
async fn list_is_array_with_keys_in_order() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport');
         insert into tags (name) values ('yes'), ('no'), ('example'), ('Zebra');
         insert into products (category_id, name, description, price, created_at) values
             (1, 'Example Product 1', 'This is the first example product.', 19.99, '2023-08-08T12:00:00Z'),
             (1, '<b>Żółw & \"co\"</b>', '', 0.1, '2023-08-08T14:00:00.000123+02'),
             (1, 'Dear', '', 9999999999.99, '2023-08-08T12:00:00Z');
         insert into product_tags select 1, id from tags",
    )
    .await;
    let response = app.create_user("ann").await.get("/api/products/").await;
    assert_eq!(
        response.text(),
        concat!(
            r#"[{"id":1,"name":"Example Product 1","description":"This is the first example product.","category_name":"Sport","#,
            r#""price":19.99,"created_at":"2023-08-08T12:00:00Z","tags":["Zebra","example","no","yes"]},"#,
            r#"{"id":2,"name":"<b>Żółw & \"co\"</b>","description":"","category_name":"Sport","#,
            r#""price":0.10,"created_at":"2023-08-08T12:00:00.000123Z","tags":[]},"#,
            r#"{"id":3,"name":"Dear","description":"","category_name":"Sport","#,
            r#""price":9999999999.99,"created_at":"2023-08-08T12:00:00Z","tags":[]}]"#,
        )
    );
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(response.header("cache-control"), "private, no-cache");
    assert_eq!(response.header("vary"), "Accept-Encoding, Authorization");
}

#[tokio::test]
async fn empty_list_is_empty_array() {
    let app = TestApp::spawn().await;
    let response = app.create_user("ann").await.get("/api/products/").await;
    assert_eq!(response.text(), "[]");
}

#[tokio::test]
async fn product_detail_matches_list_entry_and_has_etag() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    let one = user.get("/api/products/2/").await;
    let list = user.get("/api/products/").await.json();
    assert_eq!(one.json(), list[1]);
    let etag = one.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "strong: {etag}");
    let again = user.with_header("if-none-match", etag).get("/api/products/2/").await;
    assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, etag));
    app.execute("update tags set name = 'newer' where name = 'new'", &[]).await;
    assert_eq!(user.with_header("if-none-match", etag).get("/api/products/2/").await.status, 200);
    for id in ["3", "0", "99999999999999999999999"] {
        let missing = user.get(&format!("/api/products/{id}/")).await;
        assert_eq!(missing.status_and_json(), (404, json!({"detail": "No Product matches the given query."})), "{id}");
    }
}

#[tokio::test]
async fn product_is_created_with_tags() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let created = staff
        .post(
            "/api/products/",
            json!({"name": " Ball ", "price": "19.9", "category_name": "Sport", "tags": ["new", "round", "new"]}),
        )
        .await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("location"), "/api/products/2/");
    let object = created.json();
    assert_eq!(
        (&object["name"], &object["description"], &object["tags"]),
        (&json!("Ball"), &json!(""), &json!(["new", "round"]))
    );
    assert!(created.text().contains("\"price\":19.90,"), "{}", created.text());
    let shown = staff.get("/api/products/2/").await;
    assert_eq!((shown.text(), shown.header("etag")), (created.text(), created.header("etag")));
    assert_eq!(staff.get("/api/products/").await.json()[1], object, "and in the very next list");

    let by_id =
        staff.post("/api/products/", json!({"name": "Bat", "price": 5, "category_id": 1, "description": "d"})).await;
    assert_eq!(by_id.status, 201);
    assert!(by_id.text().contains("\"price\":5.00,"));
}

#[tokio::test]
async fn product_validation_errors_are_returned_together_and_nothing_is_written() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let told = async |body: Value| staff.post("/api/products/", body).await.status_and_json();
    let required = json!(["This field is required."]);
    assert_eq!(told(json!({})).await, (400, json!({"name": required, "price": required, "category_id": required})));
    assert_eq!(
        told(json!({"name": "x".repeat(101), "price": "1.999", "category_name": " ", "tags": ["ok", " ", 5, true, null], "description": null})).await,
        (400, json!({
            "name": ["Ensure this field has no more than 100 characters."],
            "price": ["Ensure that there are no more than 2 decimal places."],
            "category_name": ["This field may not be blank."],
            "description": ["This field may not be null."],
            "tags": {
                "1": ["This field may not be blank."],
                "3": ["Not a valid string."],
                "4": ["This field may not be null."],
            },
        }))
    );
    // what only the database knows among them
    for (field, value, words) in [
        ("category_id", json!(99), "Invalid pk \"99\" - object does not exist."),
        ("category_name", json!("Nope"), "Object with name=Nope does not exist."),
    ] {
        let body = json!({"name": " ", "price": "1", field: value});
        let faults = json!({"name": ["This field may not be blank."], field: [words]});
        assert_eq!(told(body.clone()).await, (400, faults.clone()));
        assert_eq!(staff.put("/api/products/1/", body.clone()).await.status_and_json(), (400, faults.clone()));
        assert_eq!(staff.patch("/api/products/1/", body).await.status_and_json(), (400, faults));
    }
    let good = |name: &str, value: Value| {
        let mut body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": ["made"]});
        body[name] = value;
        body
    };
    for (field, value, words) in [
        ("price", json!("abc"), "A valid number is required."),
        ("price", json!(true), "A valid number is required."),
        ("price", json!(-0.01), "Ensure this value is greater than or equal to 0."),
        ("price", json!("10000000000"), "Ensure that there are no more than 10 digits before the decimal point."),
        ("price", json!("99999999999.99"), "Ensure that there are no more than 12 digits in total."),
        ("tags", json!("new"), "Expected a list of items but got type \"str\"."),
        ("tags", json!({"a": 1}), "Expected a list of items but got type \"dict\"."),
        ("name", json!("a\u{0}b"), "Null characters are not allowed."),
        ("name", json!(["a"]), "Not a valid string."),
        ("category_id", json!(99), "Invalid pk \"99\" - object does not exist."),
        ("category_id", json!("99999999999999999999"), "Invalid pk \"99999999999999999999\" - object does not exist."),
        ("category_id", json!("one"), "Incorrect type. Expected pk value, received str."),
        ("category_id", json!(true), "Incorrect type. Expected pk value, received bool."),
    ] {
        assert_eq!(told(good(field, value.clone())).await, (400, json!({field: [words]})), "{field} {value}");
    }
    let unknown = json!({"name": "Ball", "price": 1, "category_name": "Nowhere", "tags": ["made"]});
    assert_eq!(told(unknown).await, (400, json!({"category_name": ["Object with name=Nowhere does not exist."]})));
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1);
    assert_eq!(
        app.query_scalar::<i64>("select count(*) from tags").await,
        2,
        "no tag was made for a product that was not"
    );
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    assert_eq!(
        told(good("tags", json!(many))).await,
        (400, json!({"tags": ["Ensure this field has no more than 100 elements."]}))
    );
}

#[tokio::test]
async fn numeric_strings_are_accepted_and_prices_are_exact() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for (sent, shown) in
        [("0.10", "0.10"), ("9999999999.99", "9999999999.99"), ("0", "0.00"), ("1e3", "1000.00"), ("2.50", "2.50")]
    {
        let body = format!(r#"{{"name":1.5,"price":{sent},"category_id":"1"}}"#);
        let response =
            staff.send_bytes(Method::POST, "/api/products/", Some("application/json"), body.into_bytes()).await;
        assert_eq!(response.status, 201, "{}", response.text());
        assert!(response.text().contains(&format!("\"price\":{shown},")), "{}", response.text());
        assert_eq!(response.json()["name"], "1.5");
    }
}

#[tokio::test]
async fn put_replaces_and_patch_updates_named_fields() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.execute("insert into categories (name) values ('Books')", &[]).await;
    let staff = app.create_staff("sam").await;
    let patched = staff.patch("/api/products/1/", json!({"price": "5"})).await;
    assert_eq!(patched.status, 200);
    let object = patched.json();
    assert_eq!((&object["name"], &object["tags"]), (&json!("Product 1"), &json!(["eco", "new"])));
    assert!(patched.text().contains("\"price\":5.00,"));
    let patched =
        staff.patch("/api/products/1/", json!({"tags": ["eco", "red"], "category_name": "Books"})).await.json();
    assert_eq!((&patched["tags"], &patched["category_name"]), (&json!(["eco", "red"]), &json!("Books")));
    assert_eq!(staff.patch("/api/products/1/", json!({})).await.json(), patched, "nothing named, nothing changed");
    assert_eq!(staff.patch("/api/products/1/", json!({"tags": []})).await.json()["tags"], json!([]));

    let put = staff.put("/api/products/2/", json!({"name": "Two", "price": 2, "category_id": 2})).await;
    assert_eq!(put.status, 200);
    let object = put.json();
    assert_eq!(
        (&object["description"], &object["tags"], &object["category_name"]),
        (&json!(""), &json!([]), &json!("Books"))
    );
    assert_eq!(staff.get("/api/products/2/").await.text(), put.text());
    let required = json!({"name": ["This field is required."], "price": ["This field is required."], "category_id": ["This field is required."]});
    assert_eq!(staff.put("/api/products/2/", json!({})).await.status_and_json(), (400, required));
    let unknown = json!({"category_id": ["Invalid pk \"9\" - object does not exist."]});
    assert_eq!(
        staff.patch("/api/products/2/", json!({"category_id": 9, "name": "Not written"})).await.status_and_json(),
        (400, unknown)
    );
    assert_eq!(staff.get("/api/products/2/").await.text(), put.text());

    let missing = (404, json!({"detail": "No Product matches the given query."}));
    assert_eq!(staff.patch("/api/products/9/", json!({"price": 1})).await.status_and_json(), missing);
    assert_eq!(
        staff.patch("/api/products/9/", json!({"price": "x"})).await.status_and_json(),
        missing,
        "said before the faults"
    );
    assert_eq!(staff.patch("/api/products/9/", json!({"category_id": 9})).await.status_and_json(), missing);
    assert_eq!(
        staff.put("/api/products/9/", json!({"name": "N", "price": 1, "category_id": 1})).await.status_and_json(),
        missing
    );
}

#[tokio::test]
async fn deleted_product_returns_404() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let gone = staff.delete("/api/products/1/").await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    assert_eq!(staff.delete("/api/products/1/").await.status, 404);
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 2"]);
    assert_eq!(app.query_scalar::<i64>("select count(*) from product_tags").await, 2);
}

#[tokio::test]
async fn if_match_prevents_lost_updates() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let failed = (412, json!({"detail": "Precondition failed."}));
    let etag = staff.get("/api/products/1/").await.header("etag").to_owned();
    let mine = staff.with_header("if-match", &etag);
    let changed = mine.patch("/api/products/1/", json!({"price": 7})).await;
    assert_eq!(changed.status, 200);
    for response in [
        mine.patch("/api/products/1/", json!({"price": 8})).await,
        mine.put("/api/products/1/", json!({"name": "N", "price": 8, "category_id": 1})).await,
        mine.delete("/api/products/1/").await,
    ] {
        assert_eq!(response.status_and_json(), failed);
    }
    assert!(staff.get("/api/products/1/").await.text().contains("\"price\":7.00,"));
    let next = staff.with_header("if-match", &format!("\"other\", {}", changed.header("etag")));
    assert_eq!(next.patch("/api/products/1/", json!({"price": 9})).await.status, 200, "a list of tags");
    let weak = format!("W/{}", staff.get("/api/products/1/").await.header("etag"));
    assert_eq!(
        staff.with_header("if-match", &weak).delete("/api/products/1/").await.status_and_json(),
        failed,
        "the comparison is strong"
    );
    assert_eq!(staff.with_header("if-match", "*").delete("/api/products/1/").await.status, 204);
    assert_eq!(staff.with_header("if-match", "*").delete("/api/products/1/").await.status, 404);
    // what a product shows comes from other tables too
    let etag = staff.get("/api/products/2/").await.header("etag").to_owned();
    app.execute("update categories set name = 'Sports'", &[]).await;
    assert_eq!(staff.with_header("if-match", &etag).delete("/api/products/2/").await.status_and_json(), failed);
}

#[tokio::test]
async fn concurrent_if_match_has_one_winner() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let staff = staff.with_header("if-match", staff.get("/api/products/1/").await.header("etag"));
    let writing = (0..10).map(|number| {
        let staff = staff.clone();
        async move { staff.patch("/api/products/1/", json!({"price": 100 + number})).await.status.as_u16() }
    });
    let mut statuses = futures_util::future::join_all(writing).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn concurrent_writes_are_atomic_and_deadlock_free() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.execute("insert into categories (name) values ('Books')", &[]).await;
    let staff = app.create_staff("sam").await;
    let writing = (0..60).map(|number| {
        let staff = staff.clone();
        async move {
            let set = [json!(["a", "b", "c"]), json!(["x", "y"]), json!(["c", "x"])][number % 3].clone();
            match number % 4 {
                0 => staff.patch("/api/products/1/", json!({"tags": set})).await,
                1 => {
                    staff
                        .put(
                            "/api/products/1/",
                            json!({"name": "N", "price": 1, "category_id": 1 + number % 2, "tags": set}),
                        )
                        .await
                }
                2 => {
                    staff
                        .post("/api/products/", json!({"name": "P", "price": 1, "category_name": "Books", "tags": set}))
                        .await
                }
                _ => staff.patch("/api/categories/2/", json!({"name": "Books"})).await,
            }
        }
    });
    for response in futures_util::future::join_all(writing).await {
        assert!(response.status.is_success(), "{} {}", response.status, response.text());
    }
    let tags = staff.get("/api/products/1/").await.json()["tags"].clone();
    assert!([json!(["a", "b", "c"]), json!(["x", "y"]), json!(["c", "x"])].contains(&tags), "{tags}");
    assert_eq!(app.query_scalar::<i64>("select count(*) from tags where name in ('a','b','c','x','y')").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_tag_creation_does_not_deadlock() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    for round in 0..12 {
        let writes = (0..24).map(|number| {
            let caller = if number % 2 == 0 { staff.clone() } else { staff.on_instance(other.address) };
            // 8 of 12 tags, all of them new to this round
            let tags: Vec<_> =
                (0..8).map(|tag| format!("r{round} {:x}", (number * 5 + tag * 7) % 12 * 0x9e37)).collect();
            let body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": tags});
            tokio::spawn(async move {
                if number % 3 == 0 {
                    caller.patch("/api/products/1/", body).await.status.as_u16()
                } else {
                    caller.post("/api/products/", body).await.status.as_u16()
                }
            })
        });
        let statuses = futures_util::future::join_all(writes.collect::<Vec<_>>()).await;
        let statuses: Vec<_> = statuses.into_iter().map(Result::unwrap).collect();
        assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{statuses:?}");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.query_scalar::<i64>(deadlocks).await, 0);
}

#[tokio::test]
async fn sequences_advance_past_explicit_ids() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    // as a table that is moved over, with the very next ids among them
    app.batch_execute(
        "insert into categories (id, name) values (1, 'Sport'), (2, 'Home');
         insert into tags (id, name) select i, 'tag ' || i from generate_series(1, 5) i;
         insert into products (id, category_id, name, price) values (1, 1, 'Ball', 1), (70, 2, 'Pot', 2);
         insert into users (id, username, email, password) values (2, 'ann', 'ann@example.com', '!')",
    )
    .await;
    let made =
        staff.post("/api/products/", json!({"name": "Cup", "price": 3, "category_id": 2, "tags": ["new"]})).await;
    assert_eq!((made.status.as_u16(), made.json()["id"].clone()), (201, json!(71)));
    for path in ["/api/categories/", "/api/tags/"] {
        assert_eq!(staff.post(path, json!({"name": "another"})).await.status, 201, "{path}");
    }
    app.create_user("bob").await;
    assert_eq!(app.query_scalar::<i64>("select id from tags where name = 'another'").await, 7);
    // smaller ones set nothing back
    app.batch_execute("insert into products (id, category_id, name, price) values (5, 1, 'Late', 1)").await;
    let made = staff.post("/api/products/", json!({"name": "Mug", "price": 3, "category_id": 2})).await;
    assert_eq!(made.json()["id"], 72);
}

async fn named_rows(staff: &TestClient, path: &str, model: &str) {
    let created = staff.post(path, json!({"name": " First "})).await;
    let id = created.json()["id"].as_i64().unwrap();
    assert_eq!(created.status_and_json(), (201, json!({"id": id, "name": "First"})));
    let own = format!("{path}{id}/");
    assert_eq!(created.header("location"), own);
    let exists = (400, json!({"name": [format!("{} with this name already exists.", model.to_lowercase())]}));
    assert_eq!(staff.post(path, json!({"name": "First"})).await.status_and_json(), exists);
    let second = staff.post(path, json!({"name": "Second"})).await.json()["id"].as_i64().unwrap();
    assert_eq!(staff.put(&format!("{path}{second}/"), json!({"name": "First"})).await.status_and_json(), exists);
    assert_eq!(
        staff.put(&own, json!({"name": "Renamed"})).await.status_and_json(),
        (200, json!({"id": id, "name": "Renamed"}))
    );
    assert_eq!(staff.patch(&own, json!({})).await.status_and_json(), (200, json!({"id": id, "name": "Renamed"})));
    assert_eq!(staff.get(&own).await.status_and_json(), (200, json!({"id": id, "name": "Renamed"})));
    let list = staff.get(path).await.json();
    assert!(list.as_array().unwrap().contains(&json!({"id": second, "name": "Second"})));
    assert_eq!(staff.put(&own, json!({})).await.status_and_json(), (400, json!({"name": ["This field is required."]})));
    let long = json!({"name": ["Ensure this field has no more than 100 characters."]});
    assert_eq!(staff.post(path, json!({"name": "x".repeat(101)})).await.status_and_json(), (400, long));
    assert_eq!(staff.delete(&own).await.status, 204);
    let missing = (404, json!({"detail": format!("No {model} matches the given query.")}));
    for response in [
        staff.get(&own).await,
        staff.delete(&own).await,
        staff.put(&own, json!({"name": "N"})).await,
        staff.patch(&own, json!({"name": ""})).await,
    ] {
        assert_eq!(response.status_and_json(), missing);
    }
}

#[tokio::test]
async fn categories_and_tags_behave_alike() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    named_rows(&staff, "/api/categories/", "Category").await;
    named_rows(&staff, "/api/tags/", "Tag").await;
    let user = app.create_user("ann").await;
    assert_eq!(user.get("/api/categories/").await.status, 200);
    assert_eq!(user.get("/api/tags/").await.status, 200);
}

#[tokio::test]
async fn category_in_use_cannot_be_deleted_and_tag_in_use_can() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let in_use = staff.delete("/api/categories/1/").await;
    assert_eq!(in_use.status_and_json(), (409, json!({"detail": "Category is used by 3 products."})));
    assert_eq!(staff.delete("/api/tags/1/").await.status, 204);
    assert_eq!(staff.get("/api/products/1/").await.json()["tags"], json!(["eco"]));
    app.execute("delete from products where id > 1", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.json(), json!({"detail": "Category is used by 1 product."}));
    app.execute("delete from products", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.status, 204);
}

#[tokio::test]
async fn writes_use_one_statement_or_one_transaction() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    staff.get("/api/me/").await;
    app.reset_statement_stats().await;
    let body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": ["new", "made"]});
    assert_eq!(staff.post("/api/products/", body).await.status, 201);
    assert_eq!(app.statement_calls("%insert into products%").await, 1);
    assert_eq!(app.statement_calls("begin%").await, 0);
    assert_eq!(app.statement_calls("%from users%").await, 0, "who the caller is was known");
    app.reset_statement_stats().await;
    assert_eq!(staff.patch("/api/products/1/", json!({"price": 2})).await.status, 200);
    assert_eq!((app.statement_calls("begin%").await, app.statement_calls("commit%").await), (1, 1));
    assert_eq!(app.statement_calls("%products%").await, 2, "the lock and the write");
}
