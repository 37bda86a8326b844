//! `If-Match` on categories and tags, and on requests that it cannot apply to; `If-None-Match` on writes.

use hyper::Method;
use serde_json::{Value, json};
use testshop::{http::router::RouteSummary, routes};

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

/// Returns a digest of what unsafe routes change. A login that is performed adds a session.
async fn digest(app: &TestApp) -> String {
    let tables = ["users", "sessions", "revocations", "products", "product_tags", "categories", "tags"];
    let rows = tables.map(|table| format!("select '{table}' || t::text as row from {table} t"));
    app.query_scalar(&format!("select md5(string_agg(row, '' order by row)) from ({}) t", rows.join(" union all ")))
        .await
}

/// Returns a body with which the route changes something.
fn body_of(method: &Method, path: &str) -> (&'static str, Value) {
    let body = match path.trim_end_matches('/') {
        "/api/register" => json!({"username": "eve", "email": "eve@example.com", "password": PASSWORD}),
        "/api/login" => json!({"username": "sam", "password": PASSWORD}),
        "/api/password" => json!({"old_password": PASSWORD, "new_password": "another s3cret"}),
        "/api/products/import" => return ("text/csv", json!("ID,Name\n1,Renamed\n")),
        "/api/products" | "/api/products/1" if method != Method::PATCH => {
            json!({"name": "Written", "price": 1, "category_id": 1})
        }
        _ => json!({"name": "Written"}),
    };
    ("application/json", body)
}

#[tokio::test]
async fn no_unsafe_route_performs_request_with_false_condition() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.create_staff("sam").await;
    let login = app.anonymous().post("/api/login/", json!({"username": "sam", "password": PASSWORD})).await.json();
    let staff = app.anonymous().with_token(login["token"].as_str().unwrap());
    let before = digest(&app).await;
    let mut checked = 0;
    for RouteSummary { method, path, .. } in routes::summary().into_iter().filter(|route| !route.method.is_safe()) {
        let path = path.replace("{id}", "1");
        let (media_type, body) = body_of(&method, &path);
        let body = match body {
            Value::String(text) => text.into_bytes(),
            _ if path == "/api/token/refresh/" => json!({"refresh": login["refresh"]}).to_string().into_bytes(),
            body => body.to_string().into_bytes(),
        };
        let is_row = path.ends_with("/1/");
        let is_collection = ["/api/products/", "/api/categories/", "/api/tags/"].contains(&path.as_str());
        let current = if is_row { staff.get(&path).await.header("etag").to_owned() } else { String::new() };
        let conditions = [
            ("if-match", "\"nonsense\"", true),
            ("if-match", "*", !is_row && !is_collection && path != "/api/products/import/"),
            ("if-none-match", "*", is_row || is_collection),
            ("if-none-match", &current, is_row),
            ("if-none-match", &format!("\"other\", W/{current}"), is_row),
        ];
        for (name, value, _) in conditions.into_iter().filter(|(.., is_false)| *is_false) {
            let client = staff.with_header(name, value);
            let response = client.send_bytes(method.clone(), &path, Some(media_type), body.clone()).await;
            assert_eq!(response.status_and_json(), precondition_failed(), "{method} {path} {name}: {value}");
            checked += 1;
        }
        assert_eq!(digest(&app).await, before, "{method} {path}");
    }
    assert_eq!(checked, 19 + 6 + 12 + 9 + 9);
    // a true condition, and one that depends on a date that no row has
    for (name, value) in [("if-none-match", "\"other\""), ("if-unmodified-since", "Mon, 01 Jan 2001 00:00:00 GMT")] {
        let written = staff.with_header(name, value).patch("/api/products/1/", json!({"name": name})).await;
        assert_eq!((written.status.as_u16(), written.json()["name"].as_str()), (200, Some(name)));
        assert_eq!(staff.with_header(name, value).post("/api/tags/", json!({"name": name})).await.status, 201);
    }
}
