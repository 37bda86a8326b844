//! What needs a PostgreSQL server of its own: prepared transactions, crashes, and the promotion of a standby.

use std::time::Duration;

use tokio_postgres::Client;

use super::{
    DURATION, newest_wait, read_leased, set_duration,
    surrender::{draw_ticket, surrender},
};
use crate::harness::{Services, TestAppBuilder, as_serving_role, connect, wait_until, with_database};

const WRITE: &str = "update products set price = price + 1 where id = 1";

async fn wait_of_newest(sql: &Client) -> i32 {
    let newest = "select lease_wait_ms from catalogue_versions order by version desc limit 1";
    sql.query_one(newest, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_writers_and_crashes_leave_no_lease_beside_a_commit() {
    let services = Services::up("leases");
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    app.seed_products(2).await;
    set_duration(&app.sql, DURATION).await;
    app.batch_execute(WRITE).await;
    let serving = connect(&as_serving_role(app.database_url())).await;

    read_leased(&serving).await;
    app.batch_execute(&format!("begin; {WRITE}; prepare transaction 'p'")).await;
    let before = read_leased(&serving).await;
    assert_eq!(before.duration, Duration::ZERO);
    services.kill_database();
    services.start();
    // the prepared transaction has its locks again
    let (sql, serving) = (connect(app.database_url()).await, connect(&as_serving_role(app.database_url())).await);
    assert_eq!(read_leased(&serving).await, before);
    sql.batch_execute("commit prepared 'p'").await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 300);
    let after = read_leased(&serving).await;
    assert_eq!((after.catalogue, after.duration), (before.catalogue + 1, DURATION));

    // PostgreSQL may have lost the last tickets from before a crash
    sql.batch_execute(WRITE).await.unwrap();
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 0);
    services.kill_database();
    services.start();
    let sql = connect(app.database_url()).await;
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 300);
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 0);
    // the first ticket after the crash
    let serving = connect(&as_serving_role(app.database_url())).await;
    assert_eq!(read_leased(&serving).await.duration, DURATION);
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 300);
}

/// PostgreSQL may draw the same numbers again.
#[tokio::test(flavor = "multi_thread")]
async fn leases_that_were_surrendered_before_a_crash_do_not_count_after_it() {
    let services = Services::up("surrender");
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    app.seed_products(2).await;
    set_duration(&app.sql, DURATION).await;
    app.batch_execute(WRITE).await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    draw_ticket(&serving).await;
    let before = draw_ticket(&serving).await;
    services.kill_database();
    services.start();
    let (sql, serving) = (connect(app.database_url()).await, connect(&as_serving_role(app.database_url())).await);
    // the first writer waits
    sql.batch_execute(WRITE).await.unwrap();
    let last = before.number - 1;
    let repeat = format!("select setval('lease_tickets', {last}), setval('expired_lease_tickets', {last})");
    sql.batch_execute(&repeat).await.unwrap();
    let after = draw_ticket(&serving).await;
    assert_eq!(after.number, before.number);
    assert!(!surrender(&serving, before.number, before).await);
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 300);
    let after = draw_ticket(&serving).await;
    assert!(surrender(&serving, after.number, after).await);
    sql.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&sql).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_grants_no_lease_and_its_first_writer_after_promotion_waits() {
    let primary = Services::up("leasesprimary");
    let replica = primary.replica();
    let app = TestAppBuilder::default().on_server(&primary.database_url).spawn().await;
    app.seed_products(2).await;
    set_duration(&app.sql, DURATION).await;
    // no ticket is left to wait for
    app.batch_execute(WRITE).await;
    app.batch_execute(WRITE).await;
    assert_eq!(newest_wait(&app).await, Duration::ZERO);
    let newest: i64 = app.query_scalar("select max(version) from catalogue_versions").await;

    let url = with_database(&replica.database_url, app.database_name());
    let caught_up = async || {
        let sql = connect(&url).await;
        sql.query_one("select max(version) from catalogue_versions", &[]).await.unwrap().get::<_, Option<i64>>(0)
            == Some(newest)
    };
    wait_until("the standby has caught up", caught_up).await;
    let (standby, serving) = (connect(&url).await, connect(&as_serving_role(&url)).await);
    assert_eq!(read_leased(&serving).await.duration, Duration::ZERO);
    primary.kill_database();
    standby.execute("select pg_promote()", &[]).await.unwrap();
    standby.batch_execute(WRITE).await.unwrap();
    assert_eq!(wait_of_newest(&standby).await, 300, "leases of the former primary may be alive");
    assert_eq!(read_leased(&serving).await.duration, DURATION);
}
