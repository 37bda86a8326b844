//! `If-Match` on categories and tags, and on requests that it cannot apply to.

use serde_json::json;

use crate::harness::{PASSWORD, TestApp, TestClient};

fn precondition_failed() -> (u16, serde_json::Value) {
    (412, json!({"detail": "Precondition failed."}))
}

fn if_match(client: &TestClient, tag: &str) -> TestClient {
    client.with_header("if-match", tag)
}

#[tokio::test]
async fn writes_of_names_honour_if_match() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    for collection in ["/api/categories/", "/api/tags/"] {
        let created = staff.post(collection, json!({"name": "First"})).await;
        let path = format!("{collection}{}/", created.json()["id"]);
        let first = created.header("etag").to_owned();
        assert_eq!(staff.get(&path).await.header("etag"), first);
        let nonsense = if_match(&staff, "\"nonsense\"");
        assert_eq!(nonsense.put(&path, json!({"name": "Lost"})).await.status_and_json(), precondition_failed());
        assert_eq!(nonsense.patch(&path, json!({"name": "Lost"})).await.status_and_json(), precondition_failed());
        assert_eq!(nonsense.patch(&path, json!({})).await.status_and_json(), precondition_failed());
        assert_eq!(nonsense.delete(&path).await.status_and_json(), precondition_failed());
        assert_eq!(if_match(&staff, &format!("W/{first}")).delete(&path).await.status, 412, "a weak tag never matches");
        assert_eq!(staff.get(&path).await.json()["name"], "First");

        let renamed = if_match(&staff, &first).put(&path, json!({"name": "Second"})).await;
        let second = renamed.header("etag").to_owned();
        assert_eq!((renamed.status.as_u16(), staff.get(&path).await.header("etag")), (200, second.as_str()));
        assert_eq!(if_match(&staff, &first).put(&path, json!({"name": "Lost"})).await.status, 412, "a spent tag");
        // the tag of the compressed representation names the same state
        let gzip = staff.with_header("accept-encoding", "gzip").get(&path).await;
        let list = format!("\"other\", {}", gzip.header("etag"));
        let patched = if_match(&staff, &list).patch(&path, json!({"name": "Third"})).await;
        assert_eq!((patched.status.as_u16(), patched.json()["name"].as_str()), (200, Some("Third")));
        staff.post(collection, json!({"name": "Taken"})).await;
        assert_eq!(if_match(&staff, "*").put(&path, json!({"name": "Taken"})).await.status, 400);
        assert_eq!(if_match(&staff, patched.header("etag")).delete(&path).await.status, 204);
        for missing in [if_match(&staff, "*"), if_match(&staff, patched.header("etag"))] {
            assert_eq!(missing.delete(&path).await.status, 404);
            assert_eq!(missing.put(&path, json!({"name": "Lost"})).await.status, 404);
        }
    }
}

#[tokio::test]
async fn one_of_concurrent_conditional_renames_succeeds() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for path in ["/api/categories/1/", "/api/tags/1/"] {
        let conditional = if_match(&staff, staff.get(path).await.header("etag"));
        let renames = (0..8).map(|number| {
            let conditional = conditional.clone();
            async move { conditional.put(path, json!({"name": format!("Name {number}")})).await.status.as_u16() }
        });
        let mut statuses = futures_util::future::join_all(renames).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412], "{path}");
    }
    let in_use = if_match(&staff, staff.get("/api/categories/1/").await.header("etag"));
    assert_eq!(in_use.delete("/api/categories/1/").await.status, 409);
    assert_eq!(if_match(&staff, "\"nonsense\"").delete("/api/categories/1/").await.status, 412);
}

#[tokio::test]
async fn post_with_false_if_match_is_not_performed() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let account = json!({"username": "eve", "email": "eve@example.com", "password": PASSWORD});
    let product = json!({"name": "Lost", "price": 1, "category_id": 1});
    let passwords = json!({"old_password": PASSWORD, "new_password": "another s3cret"});
    let refresh = app.anonymous().post("/api/login/", json!({"username": "sam", "password": PASSWORD})).await;
    let refresh = json!({"refresh": refresh.json()["refresh"]});
    let requests = [
        ("/api/products/", product, true),
        ("/api/categories/", json!({"name": "Lost"}), true),
        ("/api/tags/", json!({"name": "Lost"}), true),
        ("/api/register/", account, false),
        ("/api/login/", json!({"username": "sam", "password": PASSWORD}), false),
        ("/api/token/refresh/", refresh.clone(), false),
        ("/api/password/", passwords, false),
        ("/api/logout/", json!({}), false),
        ("/api/logout/all/", json!({}), false),
    ];
    for (path, body, has_representation) in &requests {
        let response = if_match(&staff, "\"nonsense\"").post(path, body.clone()).await;
        assert_eq!(response.status_and_json(), precondition_failed(), "{path}");
        let expected = if *has_representation { 201 } else { 412 };
        assert_eq!(if_match(&staff, "*").post(path, body.clone()).await.status, expected, "{path}");
    }
    assert_eq!(app.query_scalar::<i64>("select count(*) from products where name = 'Lost'").await, 1, "only by *");
    assert_eq!(app.query_scalar::<i64>("select count(*) from users").await, 1);
    assert_eq!(app.anonymous().post("/api/token/refresh/", refresh).await.status, 200, "the token is not spent");
    let anonymous = if_match(&app.anonymous(), "\"nonsense\"");
    assert_eq!(anonymous.post("/api/tags/", json!({"name": "x"})).await.status, 401, "authentication comes first");
}
