//! Sync tokens: where they come from, and which of them expire.

use hyper::Method;

use super::{changes_since, expired, ids_of, list_token, spawn_with_products, token_of};
use crate::harness::TestClient;

#[tokio::test]
async fn every_form_of_the_whole_list_names_its_state() {
    let (app, user) = spawn_with_products(3).await;
    let gzip = user.with_header("accept-encoding", "gzip");
    let token = list_token(&user).await;
    for other in ["?fields=id,name,description,category_name,price,created_at,tags", "?ordering=id", "?", ""] {
        let response = gzip.get(&format!("/api/products/{other}")).await;
        assert_eq!(response.header("x-sync-token"), token, "{other}");
        let client = gzip.with_header("if-none-match", response.header("etag"));
        let not_modified = client.get(&format!("/api/products/{other}")).await;
        assert_eq!((not_modified.status.as_u16(), not_modified.header("x-sync-token")), (304, token.as_str()));
        let head = user.send(Method::HEAD, &format!("/api/products/{other}"), None).await;
        assert_eq!((head.header("x-sync-token"), head.body.len()), (token.as_str(), 0));
    }
    for part in ["?fields=id", "?page_size=1000", "?page=1", "?price_min=0", "?ordering=-id", "export/", "1/"] {
        let response = user.get(&format!("/api/products/{part}")).await;
        assert_eq!((response.status.as_u16(), response.headers.get("x-sync-token")), (200, None), "{part}");
    }
    assert!(user.get("/api/categories/").await.headers.get("x-sync-token").is_none());
    // an instance without a cache, one whose list is in Redis, one that streams the list
    for (flag, value) in [("cache-mode", "off"), ("cache-mode", "redis"), ("cache-entry-bytes", "300")] {
        let other = app.start_instance_with(flag, value).await;
        for client in [&user, &gzip] {
            let client = client.on_instance(other.address);
            for _ in 0..2 {
                let response = client.get("/api/products/").await;
                assert_eq!(response.header("x-sync-token"), token, "{value}: {}", response.header("cache-status"));
                let unmodified = client.with_header("if-none-match", response.header("etag"));
                let unmodified = unmodified.get("/api/products/").await;
                assert_eq!((unmodified.status.as_u16(), unmodified.header("x-sync-token")), (304, token.as_str()));
            }
        }
    }
    let filled = app.start_instance().await;
    let hit = user.on_instance(filled.address).get("/api/products/").await;
    assert!(hit.header("cache-status").contains("redis"), "{}", hit.header("cache-status"));
    assert_eq!(hit.header("x-sync-token"), token);
    app.execute("update products set price = 1 where id = 1", &[]).await;
    assert_ne!(list_token(&user).await, token);
}

/// Asserts that a token is answered like a damaged one.
async fn assert_expired(user: &TestClient, token: &str, reason: &str) {
    let response = changes_since(user, token).await;
    assert_eq!(response.status_and_json(), expired(), "{reason}");
}

#[tokio::test]
async fn tokens_that_name_no_known_state_have_expired() {
    let (app, user) = spawn_with_products(3).await;
    let token = list_token(&user).await;
    app.execute("update products set price = 1", &[]).await;
    let page = user.get(&format!("/api/products/changes/?since={token}&limit=1")).await.json();
    let page_token = token_of(&page).to_owned();
    for token in [&token, &page_token] {
        assert_eq!(changes_since(&user, token).await.status, 200);
        for length in [1, 2, 10, token.len() - 1] {
            assert_expired(&user, &token[..length], "truncated").await;
        }
        for index in (0..token.len()).step_by(3) {
            let mut damaged = token.clone();
            damaged.replace_range(index..=index, if &token[index..=index] == "A" { "B" } else { "A" });
            assert_expired(&user, &damaged, "damaged").await;
        }
    }
    for nonsense in ["x", "%00", "....", "%F0%9F%A6%8A", &"A".repeat(5000)] {
        let status = changes_since(&user, nonsense).await.status.as_u16();
        assert!([400, 410].contains(&status), "{nonsense}: {status}");
    }
    let (_other_app, other_user) = spawn_with_products(3).await;
    let foreign = list_token(&other_user).await;
    assert_expired(&user, &foreign, "of another shop").await;
    assert_expired(&other_user, &token, "of another shop").await;
    assert!(app.metric("testshop_expired_sync_tokens_total").await > 20.0);
}

#[tokio::test]
async fn tokens_of_a_lost_or_pruned_history_have_expired() {
    let (app, user) = spawn_with_products(3).await;
    app.batch_execute(
        "create schema backup; create table backup.catalogue_versions as table catalogue_versions;
         create table backup.catalogue_changes as table catalogue_changes",
    )
    .await;
    let at_backup = list_token(&user).await;
    app.execute("update products set price = 1", &[]).await;
    let lost = list_token(&user).await;
    // a backup is restored
    app.batch_execute(
        "begin; set local session_replication_role = replica;
         delete from catalogue_versions; delete from catalogue_changes;
         insert into catalogue_versions overriding system value table backup.catalogue_versions;
         commit",
    )
    .await;
    assert_expired(&user, &lost, "from the future").await;
    app.batch_execute(
        "select setval(pg_get_serial_sequence('catalogue_versions', 'version'), max(version)) from catalogue_versions",
    )
    .await;
    app.execute("update products set price = 2 where id = 2", &[]).await;
    assert_expired(&user, &lost, "of a history that a restored backup has replaced").await;
    assert_eq!(ids_of(&changes_since(&user, &at_backup).await.json()), (vec![2], vec![]));

    let before = list_token(&user).await;
    app.execute("update products set price = 3 where id = 1", &[]).await;
    let kept = list_token(&user).await;
    app.execute("update products set price = 4 where id = 1", &[]).await;
    app.batch_execute(
        "delete from catalogue_versions where version < (select max(version) - 1 from catalogue_versions)",
    )
    .await;
    assert_expired(&user, &before, "pruned").await;
    assert_eq!(changes_since(&user, &kept).await.status, 200);
}

#[tokio::test]
async fn only_truncate_and_large_transactions_expire_tokens() {
    let (app, user) = spawn_with_products(1100).await;
    for (sql, is_expired) in [
        ("update products set price = price + 1 where id <= 999", false),
        ("update products set price = price + 1 where id <= 500; update products set price = 9 where id <= 999", false),
        ("update products set price = price + 1 where id <= 1001", true),
        ("delete from products where id between 2 and 900", false),
        ("truncate product_tags", true),
        ("update categories set name = 'Games'", false),
    ] {
        let token = list_token(&user).await;
        app.batch_execute(&format!("begin; {sql}; commit")).await;
        let response = changes_since(&user, &token).await;
        assert_eq!(response.status == 410, is_expired, "{sql}: {}", response.status);
    }
    // a token survives many commits
    let token = list_token(&user).await;
    app.batch_execute(
        "do $$ begin for i in 1..1000 loop update products set price = i where id = 1; commit; end loop; end $$",
    )
    .await;
    assert_eq!(ids_of(&changes_since(&user, &token).await.json()), (vec![1], vec![]));
}

#[tokio::test]
async fn instances_accept_the_tokens_of_others() {
    let (app, user) = spawn_with_products(2).await;
    let token = list_token(&user).await;
    app.execute("delete from products where id = 1", &[]).await;
    for flag in [("cache-mode", "full"), ("cache-mode", "off"), ("jwt-secret", crate::harness::JWT_SECRET)] {
        let other = app.start_instance_with(flag.0, flag.1).await;
        let page = changes_since(&user.on_instance(other.address), &token).await.json();
        assert_eq!(ids_of(&page), (vec![], vec![1]));
        assert_eq!(token_of(&page), list_token(&user).await);
    }
}
