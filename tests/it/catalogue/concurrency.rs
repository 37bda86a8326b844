//! Concurrent writes, and writes by other programs.

use serde_json::json;

use crate::harness::TestApp;

#[tokio::test]
async fn if_match_prevents_lost_updates() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let precondition_failed = (412, json!({"detail": "Precondition failed."}));
    let etag = staff.get("/api/products/1/").await.header("etag").to_owned();
    let first_version = staff.with_header("if-match", &etag);
    let changed = first_version.patch("/api/products/1/", json!({"price": 7})).await;
    assert_eq!(changed.status, 200);
    for response in [
        first_version.patch("/api/products/1/", json!({"price": 8})).await,
        first_version.put("/api/products/1/", json!({"name": "N", "price": 8, "category_id": 1})).await,
        first_version.delete("/api/products/1/").await,
    ] {
        assert_eq!(response.status_and_json(), precondition_failed);
    }
    assert!(staff.get("/api/products/1/").await.text().contains("\"price\":7.00,"));

    let etag_list = staff.with_header("if-match", &format!("\"other\", {}", changed.header("etag")));
    assert_eq!(etag_list.patch("/api/products/1/", json!({"price": 9})).await.status, 200);
    let weak_etag = format!("W/{}", staff.get("/api/products/1/").await.header("etag"));
    assert_eq!(
        staff.with_header("if-match", &weak_etag).delete("/api/products/1/").await.status_and_json(),
        precondition_failed,
        "If-Match uses the strong comparison"
    );
    assert_eq!(staff.with_header("if-match", "*").delete("/api/products/1/").await.status, 204);
    assert_eq!(staff.with_header("if-match", "*").delete("/api/products/1/").await.status, 404);

    // a category's name is part of the product's representation
    let etag = staff.get("/api/products/2/").await.header("etag").to_owned();
    app.execute("update categories set name = 'Sports'", &[]).await;
    let response = staff.with_header("if-match", &etag).delete("/api/products/2/").await;
    assert_eq!(response.status_and_json(), precondition_failed);
}

#[tokio::test]
async fn concurrent_if_match_has_one_winner() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let staff = staff.with_header("if-match", staff.get("/api/products/1/").await.header("etag"));
    let writes = (0..10).map(|number| {
        let staff = staff.clone();
        async move { staff.patch("/api/products/1/", json!({"price": 100 + number})).await.status.as_u16() }
    });
    let mut statuses = futures_util::future::join_all(writes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn concurrent_writes_are_atomic_and_deadlock_free() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.execute("insert into categories (name) values ('Books')", &[]).await;
    let staff = app.create_staff("sam").await;
    let tag_sets = [json!(["a", "b", "c"]), json!(["x", "y"]), json!(["c", "x"])];
    let writes = (0..60).map(|number| {
        let (staff, tags) = (staff.clone(), tag_sets[number % 3].clone());
        let category = 1 + number % 2;
        async move {
            match number % 4 {
                0 => staff.patch("/api/products/1/", json!({"tags": tags})).await,
                1 => {
                    let body = json!({"name": "N", "price": 1, "category_id": category, "tags": tags});
                    staff.put("/api/products/1/", body).await
                }
                2 => {
                    let body = json!({"name": "P", "price": 1, "category_name": "Books", "tags": tags});
                    staff.post("/api/products/", body).await
                }
                _ => staff.patch("/api/categories/2/", json!({"name": "Books"})).await,
            }
        }
    });
    for response in futures_util::future::join_all(writes).await {
        assert!(response.status.is_success(), "{} {}", response.status, response.text());
    }
    let tags = staff.get("/api/products/1/").await.json()["tags"].clone();
    assert!(tag_sets.contains(&tags), "{tags}");
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
            let client = if number % 2 == 0 { staff.clone() } else { staff.on_instance(other.address) };
            // 8 of the round's 12 new tags, in an order that differs from write to write
            let tags: Vec<_> =
                (0..8).map(|tag| format!("r{round} {:x}", (number * 5 + tag * 7) % 12 * 0x9e37)).collect();
            let body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": tags});
            tokio::spawn(async move {
                if number % 3 == 0 {
                    client.patch("/api/products/1/", body).await.status.as_u16()
                } else {
                    client.post("/api/products/", body).await.status.as_u16()
                }
            })
        });
        let statuses = futures_util::future::join_all(writes.collect::<Vec<_>>()).await;
        let statuses: Vec<_> = statuses.into_iter().map(Result::unwrap).collect();
        assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{statuses:?}");
    }
    // PostgreSQL publishes the statistics of a connection at the latest when it ends
    let terminate = "select pg_terminate_backend(pid, 20000) from pg_stat_activity
                      where datname = current_database() and backend_type = 'client backend'
                        and pid <> pg_backend_pid()";
    app.batch_execute(terminate).await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.query_scalar::<i64>(deadlocks).await, 0);
}

#[tokio::test]
async fn sequences_advance_past_explicit_ids() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    // like a restored table; some of the ids are the next values of the sequences
    app.batch_execute(
        "insert into categories (id, name) values (1, 'Sport'), (2, 'Home');
         insert into tags (id, name) select i, 'tag ' || i from generate_series(1, 5) i;
         insert into products (id, category_id, name, price) values (1, 1, 'Ball', 1), (70, 2, 'Pot', 2);
         insert into users (id, username, email, password) values (2, 'ann', 'ann@example.com', '!')",
    )
    .await;
    let created =
        staff.post("/api/products/", json!({"name": "Cup", "price": 3, "category_id": 2, "tags": ["new"]})).await;
    assert_eq!((created.status.as_u16(), created.json()["id"].clone()), (201, json!(71)));
    for path in ["/api/categories/", "/api/tags/"] {
        assert_eq!(staff.post(path, json!({"name": "another"})).await.status, 201, "{path}");
    }
    app.create_user("bob").await;
    assert_eq!(app.query_scalar::<i64>("select id from tags where name = 'another'").await, 7);
    // a smaller explicit id does not set the sequence back
    app.batch_execute("insert into products (id, category_id, name, price) values (5, 1, 'Late', 1)").await;
    let created = staff.post("/api/products/", json!({"name": "Mug", "price": 3, "category_id": 2})).await;
    assert_eq!(created.json()["id"], 72);
}
