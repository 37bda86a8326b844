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
