//! Lists in the cache.

use super::{ids, list_ids, spawn_with_products};
use crate::harness::{TestAppBuilder, product_names};

#[tokio::test]
async fn cache_ignores_parameter_order_and_reflects_writes() {
    let (app, user) = spawn_with_products().await;
    let fills = async || app.metric("testshop_cache_fills_total").await;
    let before = fills().await;
    let first = user.get("/api/products/?category=Sport&category=Books+%26+Co&price_max=9&search=number+product").await;
    let reordered = user
        .get("/api/products/?search=PRODUCT++number&price_max=9.00&category=Books+%26+Co&category=Sport&category=Sport")
        .await;
    assert_eq!((fills().await - before, first.header("etag")), (1.0, reordered.header("etag")));
    assert!(reordered.header("cache-status").contains("hit"), "{}", reordered.header("cache-status"));

    let id = ids(&first.json())[0];
    app.execute("update products set name = 'Renamed number product' where id = $1", &[&id]).await;
    let changed =
        user.get("/api/products/?category=Sport&category=Books+%26+Co&price_max=9&search=number+product").await;
    assert!(product_names(&changed.json()).contains(&"Renamed number product"));
    app.execute("update categories set name = 'Games' where name = 'Sport'", &[]).await;
    assert_eq!(list_ids(&user, "category=Sport").await, Vec::<i64>::new());
    assert_eq!(list_ids(&user, "category=Games").await.len(), 4);
}

#[tokio::test]
async fn filtered_lists_do_not_evict_full_list() {
    let app = TestAppBuilder::default().with("cache-bytes", "200000").with("redis-url", "").spawn().await;
    app.seed_products(50).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    for number in 0..200 {
        assert_eq!(user.get(&format!("/api/products/?price_max={number}")).await.status, 200);
    }
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
    assert!(app.metric("testshop_cache_bytes").await <= 200_000.0);
}

#[tokio::test]
async fn oversized_filtered_lists_are_streamed() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", "2000").with("redis-url", "").spawn().await;
    app.seed_products(50).await;
    let user = app.create_user("ann").await;
    for _ in 0..2 {
        let response = user.get("/api/products/?price_min=11&ordering=-price").await;
        assert_eq!(response.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
        assert_eq!(ids(&response.json()), (11..=50).rev().collect::<Vec<_>>());
        let small = user.get("/api/products/?price_min=49").await;
        assert!(!small.header("cache-status").contains("streamed"));
        let etag = response.header("etag").to_owned();
        assert_eq!(
            user.with_header("if-none-match", &etag).get("/api/products/?price_min=11&ordering=-price").await.status,
            304
        );
        assert_eq!(user.with_header("if-none-match", &etag).get("/api/products/?price_min=12").await.status, 200);
    }
}
