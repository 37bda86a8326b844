//! Index use of list queries.

use std::collections::BTreeSet;

use super::link_target;
use crate::harness::{TestApp, wait_until};

/// A query of a large table must use an index instead of a sequential scan.
#[tokio::test]
async fn every_filter_ordering_and_search_uses_an_index() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) select 'Category ' || i from generate_series(1, 50) i;
         insert into tags (name) select 'Tag ' || i from generate_series(1, 50) i;
         insert into products (category_id, name, description, price, created_at)
         select 1 + i % 50, 'Thing ' || md5(i::text), 'About ' || md5((i * 7)::text), i % 10000,
                timestamptz '2024-01-01Z' + i * interval '1 minute'
           from generate_series(1, 50000) i;
         insert into product_tags select i, 1 + i % 50 from generate_series(1, 50000) i;
         analyze",
    )
    .await;
    let user = app.create_user("ann").await;
    // the statistics of the inserts above
    app.batch_execute("select pg_stat_force_next_flush()").await;
    let scans = "select seq_scan + idx_scan from pg_stat_user_tables where relname = 'products'";
    let rows_of_sequential_scans = "select seq_tup_read from pg_stat_user_tables where relname = 'products'";
    let rows_of_all_scans = "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'products'";
    let ids: String = (0..300).map(|number| format!("id={}&", number * 10_007)).collect();
    let mut checked = BTreeSet::new();
    for query in [
        "page_size=100",
        "ordering=price&page_size=100",
        "ordering=-price&page_size=100",
        "ordering=name&page_size=100",
        "ordering=-name&page_size=100",
        "ordering=created_at&page_size=100",
        "ordering=-created_at&page_size=100",
        "category=Category+7&page_size=100",
        "category=Category+7&ordering=-price&page_size=100",
        "tag=Tag+9&page_size=100",
        "price_min=500&price_max=501&page_size=100",
        "created_after=2024-02-01&ordering=created_at&page_size=100",
        "search=abcde&page_size=100",
        "search=abcde+12345&ordering=price&page_size=100",
        "category=Category+7&tag=Tag+8&search=abc&page_size=100",
        // most of these ids do not exist
        &ids,
        &format!("{ids}page_size=1"),
        &format!("{ids}page=1&page_size=1&fields=id"),
        &format!("{ids}ordering=-id&page_size=1"),
        &format!("{ids}ordering=price&page_size=1"),
        &format!("{ids}ordering=-price&page_size=1"),
        &format!("{ids}ordering=name&page_size=1"),
        &format!("{ids}ordering=-created_at&page_size=1"),
        &format!("{ids}category=Category+8&ordering=price&page_size=1"),
        &format!("{ids}tag=Tag+8&page_size=1"),
        &format!("{ids}search=about&price_max=99999"),
    ] {
        // ids are looked up; the ordering and the other filters apply to the rows found
        let (counted_rows, max_rows) =
            if query.starts_with("id=") { (rows_of_all_scans, 50) } else { (rows_of_sequential_scans, 50_000) };
        let (scans_before, rows_before): (i64, i64) =
            (app.query_scalar(scans).await, app.query_scalar(counted_rows).await);
        let instance = app.start_instance_with("db-pool-size", 1).await;
        let user = user.on_instance(instance.address);
        let first = user.get(&format!("/api/products/?{query}")).await;
        assert_eq!(first.status, 200, "{query}: {}", first.text());
        if let Some(next) = link_target(&first, "next") {
            assert_eq!(user.get(&next).await.status, 200, "{next}");
        }
        // PostgreSQL publishes the statistics of a connection at the latest when it ends
        instance.stop().await;
        wait_until("the statistics are complete", async || app.query_scalar::<i64>(scans).await > scans_before).await;
        let rows = app.query_scalar::<i64>(counted_rows).await - rows_before;
        assert!(rows < max_rows, "{query} reads {rows} rows");
        checked.insert(query.to_owned());
    }
    assert_eq!(checked.len(), 26);
}

/// The statements of a fill after a change must read the rows that have changed, and neither the log nor the catalogue.
#[tokio::test]
async fn fill_after_a_change_reads_only_what_has_changed() {
    let app = TestApp::spawn().await;
    app.seed_products(20_000).await;
    app.batch_execute(
        "begin;
         alter table catalogue_changes disable trigger insert_catalogue_version;
         insert into catalogue_versions (transaction) select (1000000 + i)::text::xid8 from generate_series(1, 20000) i;
         insert into catalogue_changes (transaction, products)
         select transaction, array[1 + version % 20000] from catalogue_versions where transaction > '1000000';
         alter table catalogue_changes enable always trigger insert_catalogue_version;
         commit;
         analyze",
    )
    .await;
    let user = app.create_user("ann").await;
    let rows = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_user_tables
                 where relname in ('products', 'product_tags', 'catalogue_versions', 'catalogue_changes')";
    app.batch_execute("select pg_stat_force_next_flush()").await;
    let before: i64 = app.query_scalar(rows).await;
    let instance = app.start_instance_with_settings(&[("db-pool-size", "1"), ("redis-url", "")]).await;
    let reader = user.on_instance(instance.address);
    reader.get("/api/products/").await;
    // PostgreSQL uses a plan for unknown parameters after five executions
    for product in 7_001..=7_012 {
        app.execute(&format!("update products set name = 'Changed' where id = {product}"), &[]).await;
        assert_eq!(reader.get("/api/products/").await.json()[product - 1]["name"], "Changed");
    }
    assert_eq!(app.metric_on(&instance, "testshop_cache_incremental_fills_total").await, 12.0);
    instance.stop().await;
    app.batch_execute("select pg_stat_force_next_flush()").await;
    // the first fill reads the products and their links
    let full_fill = 20_000 + 40_000;
    wait_until("the statistics are complete", async || app.query_scalar::<i64>(rows).await >= before + full_fill).await;
    let rows = app.query_scalar::<i64>(rows).await - before - full_fill;
    assert!(rows < 5_000, "{rows} rows for 12 changes");
}

/// The plans that were made for a log of a few rows must suit a long one, because connections keep them.
#[tokio::test]
async fn plans_that_were_made_for_a_short_log_read_a_long_one_by_its_indexes() {
    let app = TestApp::spawn().await;
    app.seed_products(10).await;
    app.batch_execute("analyze").await;
    let user = app.create_user("ann").await;
    let rows = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_user_tables
                 where relname in ('accounts_versions', 'catalogue_versions', 'catalogue_changes')";
    let instance = app.start_instance_with_settings(&[("db-pool-size", "1"), ("redis-url", "")]).await;
    let reader = user.on_instance(instance.address);
    let token = reader.get("/api/products/").await.header("x-sync-token").to_owned();
    let change = "update products set price = price + 1 where id = 1";
    let changes_path = format!("/api/products/changes/?since={token}");
    for _ in 0..10 {
        app.batch_execute(change).await;
        assert_eq!(reader.get("/api/products/").await.status, 200);
        assert_eq!(reader.get(&changes_path).await.status, 200);
    }
    // each in a transaction of its own
    app.batch_execute(&format!("do $$ begin for i in 1..3000 loop {change}; commit; end loop; end $$")).await;
    reader.get("/api/products/").await;
    app.batch_execute("select pg_stat_force_next_flush()").await;
    let before: i64 = app.query_scalar(rows).await;
    for _ in 0..10 {
        app.batch_execute(change).await;
        assert_eq!(reader.get("/api/products/").await.status, 200);
    }
    instance.stop().await;
    app.batch_execute("select pg_stat_force_next_flush()").await;
    wait_until("the statistics are complete", async || app.query_scalar::<i64>(rows).await > before).await;
    let rows = app.query_scalar::<i64>(rows).await - before;
    // those of the first requests are counted as well, which were published late
    assert!(rows < 10_000, "{rows} rows of the logs for 10 changes");
}
