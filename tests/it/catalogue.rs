//! One product, writes, categories, tags.

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{Caller, Shop, names};

#[tokio::test]
async fn the_list_is_a_bare_array_with_its_keys_in_order() {
    let shop = Shop::open().await;
    shop.script(
        "insert into categories (name) values ('Sport');
         insert into tags (name) values ('yes'), ('no'), ('example'), ('Zebra');
         insert into products (category_id, name, description, price, created_at) values
             (1, 'Example Product 1', 'This is the first example product.', 19.99, '2023-08-08T12:00:00Z'),
             (1, '<b>Żółw & \"co\"</b>', '', 0.1, '2023-08-08T14:00:00.000123+02'),
             (1, 'Dear', '', 9999999999.99, '2023-08-08T12:00:00Z');
         insert into product_tags select 1, id from tags",
    )
    .await;
    let answer = shop.user("ann").await.get("/api/products/").await;
    assert_eq!(
        answer.text(),
        concat!(
            r#"[{"id":1,"name":"Example Product 1","description":"This is the first example product.","category_name":"Sport","#,
            r#""price":19.99,"created_at":"2023-08-08T12:00:00Z","tags":["Zebra","example","no","yes"]},"#,
            r#"{"id":2,"name":"<b>Żółw & \"co\"</b>","description":"","category_name":"Sport","#,
            r#""price":0.10,"created_at":"2023-08-08T12:00:00.000123Z","tags":[]},"#,
            r#"{"id":3,"name":"Dear","description":"","category_name":"Sport","#,
            r#""price":9999999999.99,"created_at":"2023-08-08T12:00:00Z","tags":[]}]"#,
        )
    );
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(answer.header("vary"), "Accept-Encoding, Authorization");
}

#[tokio::test]
async fn an_empty_list_is_an_empty_array() {
    let shop = Shop::open().await;
    let answer = shop.user("ann").await.get("/api/products/").await;
    assert_eq!(answer.text(), "[]");
}

#[tokio::test]
async fn one_product_is_the_same_object_with_a_tag_of_its_own() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    let user = shop.user("ann").await;
    let one = user.get("/api/products/2/").await;
    let list = user.get("/api/products/").await.json();
    assert_eq!(one.json(), list[1]);
    let etag = one.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "strong: {etag}");
    let again = user.with("if-none-match", etag).get("/api/products/2/").await;
    assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, etag));
    shop.run("update tags set name = 'newer' where name = 'new'", &[]).await;
    assert_eq!(user.with("if-none-match", etag).get("/api/products/2/").await.status, 200);
    for id in ["3", "0", "99999999999999999999999"] {
        let missing = user.get(&format!("/api/products/{id}/")).await;
        assert_eq!(missing.told(), (404, json!({"detail": "No Product matches the given query."})), "{id}");
    }
}

#[tokio::test]
async fn a_product_is_created_with_its_tags() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
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
async fn all_faults_of_a_product_are_told_at_once_and_nothing_is_written() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    let told = async |body: Value| staff.post("/api/products/", body).await.told();
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
        assert_eq!(staff.put("/api/products/1/", body.clone()).await.told(), (400, faults.clone()));
        assert_eq!(staff.patch("/api/products/1/", body).await.told(), (400, faults));
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
    assert_eq!(shop.value::<i64>("select count(*) from products").await, 1);
    assert_eq!(shop.value::<i64>("select count(*) from tags").await, 2, "no tag was made for a product that was not");
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    assert_eq!(
        told(good("tags", json!(many))).await,
        (400, json!({"tags": ["Ensure this field has no more than 100 elements."]}))
    );
}

#[tokio::test]
async fn numbers_are_accepted_where_texts_are_wanted_and_prices_keep_every_digit() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    for (sent, shown) in
        [("0.10", "0.10"), ("9999999999.99", "9999999999.99"), ("0", "0.00"), ("1e3", "1000.00"), ("2.50", "2.50")]
    {
        let body = format!(r#"{{"name":1.5,"price":{sent},"category_id":"1"}}"#);
        let answer =
            staff.send_bytes(Method::POST, "/api/products/", Some("application/json"), body.into_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(answer.text().contains(&format!("\"price\":{shown},")), "{}", answer.text());
        assert_eq!(answer.json()["name"], "1.5");
    }
}

#[tokio::test]
async fn put_replaces_and_patch_changes_what_it_names() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    shop.run("insert into categories (name) values ('Books')", &[]).await;
    let staff = shop.staff("sam").await;
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
    assert_eq!(staff.put("/api/products/2/", json!({})).await.told(), (400, required));
    let unknown = json!({"category_id": ["Invalid pk \"9\" - object does not exist."]});
    assert_eq!(
        staff.patch("/api/products/2/", json!({"category_id": 9, "name": "Not written"})).await.told(),
        (400, unknown)
    );
    assert_eq!(staff.get("/api/products/2/").await.text(), put.text());

    let missing = (404, json!({"detail": "No Product matches the given query."}));
    assert_eq!(staff.patch("/api/products/9/", json!({"price": 1})).await.told(), missing);
    assert_eq!(staff.patch("/api/products/9/", json!({"price": "x"})).await.told(), missing, "said before the faults");
    assert_eq!(staff.patch("/api/products/9/", json!({"category_id": 9})).await.told(), missing);
    assert_eq!(staff.put("/api/products/9/", json!({"name": "N", "price": 1, "category_id": 1})).await.told(), missing);
}

#[tokio::test]
async fn a_deleted_product_is_gone() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    let staff = shop.staff("sam").await;
    let gone = staff.delete("/api/products/1/").await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    assert_eq!(staff.delete("/api/products/1/").await.status, 404);
    assert_eq!(names(&staff.get("/api/products/").await.json()), ["Product 2"]);
    assert_eq!(shop.value::<i64>("select count(*) from product_tags").await, 2);
}

#[tokio::test]
async fn if_match_keeps_one_writer_from_undoing_another() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let staff = shop.staff("sam").await;
    let failed = (412, json!({"detail": "Precondition failed."}));
    let etag = staff.get("/api/products/1/").await.header("etag").to_owned();
    let mine = staff.with("if-match", &etag);
    let changed = mine.patch("/api/products/1/", json!({"price": 7})).await;
    assert_eq!(changed.status, 200);
    for answer in [
        mine.patch("/api/products/1/", json!({"price": 8})).await,
        mine.put("/api/products/1/", json!({"name": "N", "price": 8, "category_id": 1})).await,
        mine.delete("/api/products/1/").await,
    ] {
        assert_eq!(answer.told(), failed);
    }
    assert!(staff.get("/api/products/1/").await.text().contains("\"price\":7.00,"));
    let next = staff.with("if-match", &format!("\"other\", {}", changed.header("etag")));
    assert_eq!(next.patch("/api/products/1/", json!({"price": 9})).await.status, 200, "a list of tags");
    let weak = format!("W/{}", staff.get("/api/products/1/").await.header("etag"));
    assert_eq!(
        staff.with("if-match", &weak).delete("/api/products/1/").await.told(),
        failed,
        "the comparison is strong"
    );
    assert_eq!(staff.with("if-match", "*").delete("/api/products/1/").await.status, 204);
    assert_eq!(staff.with("if-match", "*").delete("/api/products/1/").await.status, 404);
    // what a product shows comes from other tables too
    let etag = staff.get("/api/products/2/").await.header("etag").to_owned();
    shop.run("update categories set name = 'Sports'", &[]).await;
    assert_eq!(staff.with("if-match", &etag).delete("/api/products/2/").await.told(), failed);
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    let staff = staff.with("if-match", staff.get("/api/products/1/").await.header("etag"));
    let writing = (0..10).map(|number| {
        let staff = staff.clone();
        async move { staff.patch("/api/products/1/", json!({"price": 100 + number})).await.status.as_u16() }
    });
    let mut statuses = futures_util::future::join_all(writing).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn concurrent_writers_never_leave_a_mixture_or_a_deadlock() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    shop.run("insert into categories (name) values ('Books')", &[]).await;
    let staff = shop.staff("sam").await;
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
    for answer in futures_util::future::join_all(writing).await {
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.text());
    }
    let tags = staff.get("/api/products/1/").await.json()["tags"].clone();
    assert!([json!(["a", "b", "c"]), json!(["x", "y"]), json!(["c", "x"])].contains(&tags), "{tags}");
    assert_eq!(shop.value::<i64>("select count(*) from tags where name in ('a','b','c','x','y')").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_that_share_new_tags_never_wait_in_a_circle() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let other = shop.another_instance().await;
    let staff = shop.staff("sam").await;
    for round in 0..12 {
        let writes = (0..24).map(|number| {
            let caller = if number % 2 == 0 { staff.clone() } else { staff.at(other.address) };
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
    assert_eq!(shop.value::<i64>(deadlocks).await, 0);
}

#[tokio::test]
async fn ids_that_others_chose_are_stepped_over() {
    let shop = Shop::open().await;
    let staff = shop.staff("sam").await;
    // as a table that is moved over, with the very next ids among them
    shop.script(
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
    shop.user("bob").await;
    assert_eq!(shop.value::<i64>("select id from tags where name = 'another'").await, 7);
    // smaller ones set nothing back
    shop.script("insert into products (id, category_id, name, price) values (5, 1, 'Late', 1)").await;
    let made = staff.post("/api/products/", json!({"name": "Mug", "price": 3, "category_id": 2})).await;
    assert_eq!(made.json()["id"], 72);
}

async fn named_rows(staff: &Caller, path: &str, model: &str) {
    let created = staff.post(path, json!({"name": " First "})).await;
    let id = created.json()["id"].as_i64().unwrap();
    assert_eq!(created.told(), (201, json!({"id": id, "name": "First"})));
    let own = format!("{path}{id}/");
    assert_eq!(created.header("location"), own);
    let exists = (400, json!({"name": [format!("{} with this name already exists.", model.to_lowercase())]}));
    assert_eq!(staff.post(path, json!({"name": "First"})).await.told(), exists);
    let second = staff.post(path, json!({"name": "Second"})).await.json()["id"].as_i64().unwrap();
    assert_eq!(staff.put(&format!("{path}{second}/"), json!({"name": "First"})).await.told(), exists);
    assert_eq!(staff.put(&own, json!({"name": "Renamed"})).await.told(), (200, json!({"id": id, "name": "Renamed"})));
    assert_eq!(staff.patch(&own, json!({})).await.told(), (200, json!({"id": id, "name": "Renamed"})));
    assert_eq!(staff.get(&own).await.told(), (200, json!({"id": id, "name": "Renamed"})));
    let list = staff.get(path).await.json();
    assert!(list.as_array().unwrap().contains(&json!({"id": second, "name": "Second"})));
    assert_eq!(staff.put(&own, json!({})).await.told(), (400, json!({"name": ["This field is required."]})));
    let long = json!({"name": ["Ensure this field has no more than 100 characters."]});
    assert_eq!(staff.post(path, json!({"name": "x".repeat(101)})).await.told(), (400, long));
    assert_eq!(staff.delete(&own).await.status, 204);
    let missing = (404, json!({"detail": format!("No {model} matches the given query.")}));
    for answer in [
        staff.get(&own).await,
        staff.delete(&own).await,
        staff.put(&own, json!({"name": "N"})).await,
        staff.patch(&own, json!({"name": ""})).await,
    ] {
        assert_eq!(answer.told(), missing);
    }
}

#[tokio::test]
async fn categories_and_tags_are_kept_alike() {
    let shop = Shop::open().await;
    let staff = shop.staff("sam").await;
    named_rows(&staff, "/api/categories/", "Category").await;
    named_rows(&staff, "/api/tags/", "Tag").await;
    let user = shop.user("ann").await;
    assert_eq!(user.get("/api/categories/").await.status, 200);
    assert_eq!(user.get("/api/tags/").await.status, 200);
}

#[tokio::test]
async fn a_category_in_use_stays_and_a_tag_in_use_goes() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let staff = shop.staff("sam").await;
    let in_use = staff.delete("/api/categories/1/").await;
    assert_eq!(in_use.told(), (409, json!({"detail": "Category is used by 3 products."})));
    assert_eq!(staff.delete("/api/tags/1/").await.status, 204);
    assert_eq!(staff.get("/api/products/1/").await.json()["tags"], json!(["eco"]));
    shop.run("delete from products where id > 1", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.json(), json!({"detail": "Category is used by 1 product."}));
    shop.run("delete from products", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.status, 204);
}

#[tokio::test]
async fn a_write_costs_one_statement_or_one_transaction() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    staff.get("/api/me/").await;
    shop.forget_calls().await;
    let body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": ["new", "made"]});
    assert_eq!(staff.post("/api/products/", body).await.status, 201);
    assert_eq!(shop.calls("%insert into products%").await, 1);
    assert_eq!(shop.calls("begin%").await, 0);
    assert_eq!(shop.calls("%from users%").await, 0, "who the caller is was known");
    shop.forget_calls().await;
    assert_eq!(staff.patch("/api/products/1/", json!({"price": 2})).await.status, 200);
    assert_eq!((shop.calls("begin%").await, shop.calls("commit%").await), (1, 1));
    assert_eq!(shop.calls("%products%").await, 2, "the lock and the write");
}
