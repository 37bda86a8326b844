//! Pages of changes: parameters, headers, limits, faults.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use hyper::Method;
use serde_json::{Value, json};

use super::{changes_since, ids_of, list_token, spawn_with_products, token_of};
use crate::harness::{LinkState, Proxy, TestAppBuilder, host_and_port, required_env};

#[tokio::test]
async fn parameters_are_validated() {
    let (_app, user) = spawn_with_products(1).await;
    let token = list_token(&user).await;
    let required = json!({"since": ["This field is required."]});
    for (query, errors) in [
        ("", required.clone()),
        ("?since=", required.clone()),
        ("?limit=5", required),
        ("?since=a&since=b", json!({"since": ["This parameter may be given once only."]})),
        ("?since=T&limit=0", json!({"limit": ["Ensure this value is greater than or equal to 1."]})),
        ("?since=T&limit=10001", json!({"limit": ["Ensure this value is less than or equal to 10000."]})),
        ("?since=T&limit=x", json!({"limit": ["A valid integer is required."]})),
        (
            "?sinse=T",
            json!({
                "sinse": ["Unknown parameter. Did you mean \"since\"?"], "since": ["This field is required."],
            }),
        ),
        ("?since=T&category=Sport", json!({"category": ["Unknown parameter."]})),
    ] {
        let path = format!("/api/products/changes/{}", query.replace("=T", &format!("={token}")));
        assert_eq!(user.get(&path).await.status_and_json(), (400, errors), "{query}");
    }
    for limit in [1, 10_000] {
        let response = user.get(&format!("/api/products/changes/?since={token}&limit={limit}")).await;
        assert_eq!(response.status_and_json(), (200, json!({"token": token, "changed": [], "deleted": []})));
    }
}

#[tokio::test]
async fn page_has_present_products_and_deleted_ids() {
    let (app, user) = spawn_with_products(5).await;
    let token = list_token(&user).await;
    app.batch_execute(
        "update products set price = 7 where id = 2; delete from products where id in (1, 4);
         insert into products (category_id, name, price, created_at) values (1, 'New', 1, '2024-01-01Z');
         update products set price = 0.10 where id = 2; insert into products (category_id, name, price) values (1, 'x', 1);
         delete from products where name = 'x'",
    )
    .await;
    let page = changes_since(&user, &token).await.json();
    let list = user.get("/api/products/").await;
    let products: Vec<Value> = list
        .json()
        .as_array()
        .unwrap()
        .iter()
        .filter(|product| [2, 6].contains(&product["id"].as_i64().unwrap()))
        .cloned()
        .collect();
    assert_eq!(page, json!({"token": list.header("x-sync-token"), "changed": products, "deleted": [1, 4, 7]}));
    assert!(changes_since(&user, &token).await.text().contains("\"price\":0.10,"));
    // a version that changes no product
    app.execute("insert into categories (name) values ('Empty')", &[]).await;
    let next = changes_since(&user, token_of(&page)).await.json();
    assert_eq!(next, json!({"token": list_token(&user).await, "changed": [], "deleted": []}));
}

#[tokio::test]
async fn unchanged_state_costs_no_statement() {
    let (app, user) = spawn_with_products(2).await;
    let token = list_token(&user).await;
    app.reset_statement_stats().await;
    for _ in 0..5 {
        assert_eq!(token_of(&changes_since(&user, &token).await.json()), token);
    }
    assert_eq!(app.statement_calls("%catalogue_changes%").await, 0);
    app.execute("update products set price = 1 where id = 1", &[]).await;
    assert_eq!(ids_of(&changes_since(&user, &token).await.json()), (vec![1], vec![]));
    assert_eq!(app.statement_calls("%catalogue_changes%").await, 1);
}

#[tokio::test]
async fn headers_are_those_of_the_list() {
    let (app, user) = spawn_with_products(3).await;
    let token = list_token(&user).await;
    let path = format!("/api/products/changes/?since={token}");
    let empty = user.get(&path).await;
    let unchanged = user.with_header("if-none-match", empty.header("etag")).get(&path).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    app.execute("update products set description = repeat('long ', 100) where id < 3", &[]).await;
    let plain = user.with_header("if-none-match", empty.header("etag")).get(&path).await;
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("cache-control"), "private, no-cache");
    assert_eq!(plain.header("vary"), "Accept-Encoding, Authorization");
    assert_eq!(plain.header("content-type"), "application/json");
    let compressed = user.with_header("accept-encoding", "gzip").get(&path).await;
    assert_eq!(compressed.header("content-encoding"), "gzip");
    assert_ne!(compressed.header("etag"), plain.header("etag"));
    let mut text = String::new();
    MultiGzDecoder::new(&*compressed.body).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text());
    for response in [&plain, &compressed] {
        let conditional = user.with_header("if-none-match", response.header("etag"));
        let conditional = conditional.with_header("accept-encoding", response.header("content-encoding"));
        assert_eq!(conditional.get(&path).await.status, 304);
    }
    let head = user.send(Method::HEAD, &path, None).await;
    assert_eq!(
        (head.header("etag"), head.header("content-length")),
        (plain.header("etag"), &*plain.body.len().to_string())
    );
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn page_ends_early_when_products_are_large() {
    let (app, user) = spawn_with_products(20).await;
    let token = list_token(&user).await;
    app.batch_execute(
        "update products set description = repeat('x', 1000000) where id <= 12;
         update products set description = repeat('y', 9000000) where id = 14; delete from products where id in (3, 13)",
    )
    .await;
    let (mut token, mut pages, mut changed, mut deleted) = (token, 0, Vec::new(), Vec::new());
    loop {
        let response = user.get(&format!("/api/products/changes/?since={token}&limit=10000")).await;
        assert_eq!(response.status, 200);
        let page = response.json();
        let ids = ids_of(&page);
        assert!(response.body.len() < 6_000_000 || ids.0 == [14], "{}: {ids:?}", response.body.len());
        changed.extend(ids.0);
        deleted.extend(ids.1);
        pages += 1;
        token = token_of(&page).to_owned();
        if page["more"] != json!(true) {
            break;
        }
    }
    let expected: Vec<i64> = (1..=12).filter(|id| *id != 3).chain([14]).collect();
    assert_eq!((changed, deleted), (expected, vec![3, 13]));
    assert!(pages >= 4, "{pages}");
    assert_eq!(token, list_token(&user).await);
}

#[tokio::test]
async fn changes_are_unavailable_without_the_database() {
    let proxy = Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    let list = user.get("/api/products/").await;
    let token = list.header("x-sync-token").to_owned();
    proxy.set_state(LinkState::Cut);
    let unavailable = changes_since(&user, &token).await;
    assert_eq!((unavailable.status.as_u16(), unavailable.header("retry-after")), (503, "1"));
    // the list is served stale, with the state that it shows
    let stale = user.get("/api/products/").await;
    assert!(stale.header("cache-status").contains("stale"), "{}", stale.header("cache-status"));
    assert_eq!(stale.header("x-sync-token"), token);
    let unchanged = user.with_header("if-none-match", list.header("etag")).get("/api/products/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("x-sync-token")), (304, token.as_str()));
}
