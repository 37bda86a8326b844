//! Pruning: old versions are deleted with their changes, from the oldest on, within bounds.

use testshop::db::statements::VERSIONS_PRUNE;
use tokio_postgres::Client;

use crate::harness::{TestApp, as_serving_role, connect};

/// Inserts versions of this age, numbered after the newest one, with one change each.
async fn add_versions(app: &TestApp, count: i32, age: &str) {
    app.batch_execute(&format!(
        "begin;
         set local session_replication_role = replica;
         alter table catalogue_changes disable trigger insert_catalogue_version;
         with added as (
             insert into catalogue_versions (transaction, changed_at)
             select (1000000 + nextval('added'))::text::xid8, clock_timestamp() - interval '{age}'
               from generate_series(1, {count})
             returning version, transaction
         )
         insert into catalogue_changes (transaction, products) select transaction, array[version] from added;
         alter table catalogue_changes enable always trigger insert_catalogue_version;
         commit"
    ))
    .await;
}

/// Prunes as the serving role does. Returns the number of steps.
async fn prune(serving: &Client) -> usize {
    let mut steps = 0;
    while let Some(row) = serving.query_opt(VERSIONS_PRUNE.sql, &[]).await.unwrap() {
        let pruned: i64 = row.get(0);
        assert!((1..=10_000).contains(&pruned), "{pruned}");
        steps += 1;
    }
    steps
}

/// Returns the numbers of versions, of versions up to the newest that are missing after the first one, and of changes
/// that belong to no version.
async fn counts(app: &TestApp) -> (i64, i64, i64) {
    let row = app
        .sql
        .query_one(
            "select count(*), max(version) - min(version) + 1 - count(*),
                    (select count(*) from catalogue_changes c
                      where not exists (select from catalogue_versions v where v.transaction = c.transaction))
               from catalogue_versions",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn old_versions_are_pruned_with_their_changes() {
    let app = TestApp::spawn().await;
    app.batch_execute("create sequence added; delete from catalogue_versions").await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    add_versions(&app, 9_000, "2 hours").await;
    assert_eq!(prune(&serving).await, 0, "the newest 10,000 are kept");
    add_versions(&app, 16_500, "2 hours").await;
    let newest = "select max(version) from catalogue_versions";
    let before: i64 = app.query_scalar(newest).await;
    assert_eq!(prune(&serving).await, 2);
    assert_eq!(counts(&app).await, (10_000, 0, 0));
    assert_eq!(app.query_scalar::<i64>(newest).await, before);

    add_versions(&app, 30_000, "59 minutes").await;
    assert_eq!(prune(&serving).await, 1, "those of the last hour are kept");
    assert_eq!(counts(&app).await, (30_000, 0, 0));
    add_versions(&app, 75_000, "1 second").await;
    assert_eq!(prune(&serving).await, 1, "at most 100,000 are kept");
    assert_eq!(counts(&app).await, (100_000, 0, 0));
}

#[tokio::test]
async fn pruning_leaves_no_gap_when_the_clock_steps_and_keeps_changes_of_repeated_transaction_ids() {
    let app = TestApp::spawn().await;
    app.batch_execute("create sequence added; delete from catalogue_versions").await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    add_versions(&app, 20, "2 hours").await;
    // the clock was ahead, and has been set back
    add_versions(&app, 1, "-1 hours").await;
    add_versions(&app, 11_000, "2 hours").await;
    // the first transaction id is assigned again, in another server
    app.batch_execute(
        "update catalogue_versions
            set transaction = (select transaction from catalogue_versions order by version limit 1)
          where version = (select max(version) from catalogue_versions)",
    )
    .await;
    assert_eq!(prune(&serving).await, 1);
    assert_eq!(counts(&app).await.0, 11_001, "20 versions were before the gap");
    let kept = "select count(*) from catalogue_changes
                 where transaction = (select transaction from catalogue_versions order by version desc limit 1)";
    assert_eq!(app.query_scalar::<i64>(kept).await, 1);
}
