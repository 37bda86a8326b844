//! Leases and isolation levels: writers at every level are waited for, and readers need read committed.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::{DURATION, newest_wait, read_leased, spawn, timed};
use crate::harness::{as_serving_role, connect};

#[tokio::test]
async fn writers_whose_snapshot_is_older_than_the_lease_wait_at_every_level() {
    let (app, serving) = spawn().await;
    for (price, level) in ["read committed", "repeatable read", "serializable"].iter().enumerate() {
        let writer = connect(app.database_url()).await;
        let begin = format!(
            "begin isolation level {level}; update products set price = {} where id = 1; select from products",
            price + 10
        );
        writer.batch_execute(&begin).await.unwrap();
        assert_eq!(read_leased(&serving).await.duration, DURATION);
        assert!(timed(&writer, "commit").await >= DURATION, "{level}");
        assert_eq!(newest_wait(&app).await, DURATION, "{level}");
    }
}

#[tokio::test]
async fn concurrent_serializable_writers_do_not_fail_because_of_leases() {
    let (app, serving) = spawn().await;
    app.batch_execute(
        "insert into products (category_id, name, price) select 1, 'x', 1 from generate_series(1, 5000); analyze",
    )
    .await;
    let writers = [connect(app.database_url()).await, connect(app.database_url()).await];
    for (writer, id) in writers.iter().zip([1, 5000]) {
        let begin = format!("begin isolation level serializable; update products set price = 9 where id = {id}");
        writer.batch_execute(&begin).await.unwrap();
    }
    for writer in &writers {
        assert_eq!(read_leased(&serving).await.duration, DURATION);
        writer.batch_execute("commit").await.unwrap();
        assert_eq!(newest_wait(&app).await, DURATION);
    }
}

#[tokio::test]
async fn lease_needs_read_committed_and_a_transaction_that_may_write() {
    let (app, serving) = spawn().await;
    for (mode, duration) in [
        ("isolation level read committed", DURATION),
        ("isolation level repeatable read", Duration::ZERO),
        ("isolation level serializable", Duration::ZERO),
        ("read only", Duration::ZERO),
    ] {
        serving.batch_execute(&format!("begin {mode}")).await.unwrap();
        assert_eq!(read_leased(&serving).await.duration, duration, "{mode}");
        serving.batch_execute("commit").await.unwrap();
    }
    // each statement of the function has a snapshot of its own, also in a transaction that has begun before
    serving.batch_execute("begin; select from products").await.unwrap();
    app.batch_execute("update products set price = 7 where id = 1").await;
    let newest: i64 = app.query_scalar("select max(version) from catalogue_versions").await;
    assert_eq!(read_leased(&serving).await.catalogue, newest);
    serving.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn only_the_serving_role_may_take_leases_and_no_role_may_stop_writers() {
    let (app, serving) = spawn().await;
    let role = format!("{}_reader", app.database_name());
    app.batch_execute(&format!(
        "create role {role} login password 'reader'; grant select on all tables in schema public to {role}"
    ))
    .await;
    let (_, address) = app.database_url().split_once('@').unwrap();
    let reader = connect(&format!("postgres://{role}:reader@{address}")).await;
    for (client, statement) in [
        (&reader, "select * from read_versions_leased(0)"),
        (&reader, "select surrender_leases(1, 1, gen_random_uuid())"),
        (&reader, "begin; lock table lease_lock in share mode"),
        (&serving, "begin; lock table lease_lock in share mode"),
        (&serving, "select nextval('lease_tickets')"),
        (&serving, "select setval('expired_lease_tickets', 100)"),
        (&serving, "insert into lease_epoch default values"),
        (&serving, "select set_lease_duration(0)"),
        (&serving, "select wait_for_leases(1000)"),
        (&serving, "update catalogue_commit_lock set lease_ms = 0"),
    ] {
        let error = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        client.batch_execute("rollback").await.unwrap();
    }
    drop(reader);
    app.batch_execute(&format!("drop owned by {role}; drop role {role}")).await;
    assert_eq!(read_leased(&connect(&as_serving_role(app.database_url())).await).await.duration, DURATION);
}
