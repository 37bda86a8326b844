//! The log of the accounts' versions: each commit that revokes something adds one version.

use serde_json::json;
use testshop::db::statements::VERSIONS_PRUNE;

use super::isolation::pages_of_version_read;
use crate::harness::{TestApp, as_serving_role, connect};

const COUNT: &str = "select count(*) from accounts_versions";
const NEWEST: &str = "select max(version) from accounts_versions";

async fn add_accounts(app: &TestApp, count: i32) {
    app.batch_execute(&format!(
        "insert into users (username, email, password)
         select 'bulk' || i, 'bulk' || i || '@example.com', '' from generate_series(1, {count}) i"
    ))
    .await;
}

#[tokio::test]
async fn writers_of_different_accounts_commit_at_repeatable_read() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let users = [app.create_user("ann").await, app.create_user("bob").await];
    let ids = ["ann", "bob"].map(|name| format!("(select id from users where username = '{name}')"));
    let before: i64 = app.query_scalar(COUNT).await;
    let writers = [connect(app.database_url()).await, connect(app.database_url()).await];
    for (writer, id) in writers.iter().zip(&ids) {
        // the snapshot is taken before the other transaction commits
        let begin = format!(
            "begin isolation level repeatable read; update users set is_active = false where id = {id};
             savepoint s; update users set is_staff = true where id = {id}; rollback to s"
        );
        writer.batch_execute(&begin).await.unwrap();
    }
    for (writer, user) in writers.iter().zip(&users) {
        assert_eq!(user.on_instance(other.address).get("/api/me/").await.status, 200, "not committed");
        writer.batch_execute("commit").await.unwrap();
        assert_eq!(user.on_instance(other.address).get("/api/me/").await.status, 401);
    }
    assert_eq!(app.query_scalar::<i64>(COUNT).await, before + 2);
    let newest: i64 = app.query_scalar(NEWEST).await;
    assert_eq!(newest, app.query_scalar::<i64>("select max(seq) from revocations").await);
}

#[tokio::test]
async fn write_that_revokes_nothing_adds_no_version() {
    let app = TestApp::spawn().await;
    add_accounts(&app, 3).await;
    let before: i64 = app.query_scalar(NEWEST).await;
    app.batch_execute(
        "update users set is_staff = is_staff; update users set email = 'x' || email; delete from users where false;
         begin; update users set is_active = false; rollback",
    )
    .await;
    assert_eq!(app.query_scalar::<i64>(NEWEST).await, before);
    app.batch_execute("truncate users cascade").await;
    assert!(app.query_scalar::<i64>(NEWEST).await > before);
}

#[tokio::test]
async fn revocations_beside_an_open_snapshot_leave_version_reads_short() {
    let app = TestApp::spawn().await;
    let snapshot = connect(app.database_url()).await;
    snapshot.batch_execute("begin isolation level repeatable read; select count(*) from users").await.unwrap();
    app.batch_execute(
        "do $$ begin
             for i in 1..3000 loop insert into revocations (token_id) values (i); commit; end loop;
         end $$",
    )
    .await;
    let pages = pages_of_version_read(&app).await;
    assert!(pages <= 8, "{pages} pages");
}

#[tokio::test]
async fn old_versions_are_pruned_and_unknown_ones_forget_what_was_verified() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    let bob = app.create_user("bob").await;
    for user in [&ann, &bob] {
        assert_eq!(user.get("/api/me/").await.status, 200);
    }
    let serving = connect(&as_serving_role(app.database_url())).await;
    app.batch_execute(
        "insert into accounts_versions (version, token, changed_at)
         select nextval('accounts_versions_version_seq'), gen_random_uuid(), now() - interval '61 minutes'
           from generate_series(1, 10500);
         insert into accounts_versions (version, token, changed_at)
         select nextval('accounts_versions_version_seq'), gen_random_uuid(), now() - interval '59 minutes'
           from generate_series(1, 100);
         -- what no server reads: ann's tokens are revoked, and nobody says so
         set session_replication_role = replica;
         alter table users disable trigger record_replicated_user_revocation;
         update users set is_active = false where username = 'ann';
         alter table users enable replica trigger record_replicated_user_revocation;
         set session_replication_role = origin",
    )
    .await;
    let newest: i64 = app.query_scalar(NEWEST).await;
    let mut steps = 0;
    while serving.query_opt(VERSIONS_PRUNE.sql, &[]).await.unwrap().is_some() {
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(app.query_scalar::<i64>(NEWEST).await, newest);
    let oldest = "select count(*) from accounts_versions where changed_at < now() - interval '1 hour'";
    assert_eq!(app.query_scalar::<i64>(oldest).await, 0);
    // the version that the server knows is no longer in the log: it looks both accounts up again
    assert_eq!(ann.get("/api/me/").await.status, 401);
    assert_eq!(bob.get("/api/me/").await.status, 200);

    app.batch_execute("update accounts_versions set changed_at = now() - interval '1 day'").await;
    while serving.query_opt(VERSIONS_PRUNE.sql, &[]).await.unwrap().is_some() {}
    assert_eq!(app.query_scalar::<i64>(COUNT).await, 1, "the newest is kept");
    assert_eq!(bob.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(bob.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn revocation_fails_when_its_version_cannot_be_inserted() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    app.batch_execute("delete from accounts_commit_lock").await;
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 500);
    app.batch_execute("insert into accounts_commit_lock default values").await;
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(ann.get("/api/me/").await.status, 401);
}
