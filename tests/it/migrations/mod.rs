//! `migrate` and `check` on databases with the history of another version.

mod concurrent;

use std::process::Output;

use crate::harness::{
    JWT_SECRET, Process, TestApp, TestClient,
    process::{command, serve_command},
    required_env,
};

/// Runs the program on the database of `app`; returns its exit code and output.
fn run(app: &TestApp, subcommand: &str) -> (Option<i32>, String) {
    let mut command = command(&[subcommand]);
    command.env("DATABASE_URL", app.database_url()).env("REDIS_URL", required_env("REDIS_URL"));
    command.env("JWT_SECRET", JWT_SECRET).env("LISTEN_ADDR", "127.0.0.1:0").env("ADMIN_ADDR", "127.0.0.1:0");
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

async fn history(app: &TestApp) -> String {
    app.query_scalar(
        "select string_agg(version || name || checksum, ' ' order by version) from refinery_schema_history",
    )
    .await
}

#[tokio::test]
async fn pre_release_history_is_rejected_with_instructions() {
    let app = TestApp::spawn().await;
    // the history of the thirteen migrations that the baseline replaced
    app.batch_execute(
        "delete from refinery_schema_history where version > 4;
         update refinery_schema_history set checksum = '1' where version <= 3;
         update refinery_schema_history set name = 'session_generation' where version = 4;
         insert into refinery_schema_history (version, name, applied_on, checksum)
         select version, 'another', '2026-01-01T00:00:00Z', '1' from generate_series(5, 13) version",
    )
    .await;
    let before = history(&app).await;

    let (code, output) = run(&app, "migrate");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.starts_with("testshop: a version before the first release created this schema"), "{output}");
    assert!(
        output.contains("testshop migrate --database-url NEW") && output.contains("pg_dump --data-only"),
        "{output}"
    );
    assert_eq!(history(&app).await, before);

    let (code, output) = run(&app, "check");
    assert_eq!(code, Some(1), "{output}");
    let finding = output.lines().find(|line| line.starts_with("FAIL schema:")).unwrap_or_default();
    assert!(finding.contains("before the first release") && finding.contains("testshop migrate"), "{output}");
}

/// Records a migration of a newer program that works with programs from `oldest` on.
async fn record_newer_migration(app: &TestApp, oldest: i32) {
    app.batch_execute(
        "insert into refinery_schema_history (version, name, applied_on, checksum)
         values (9999, 'later', '2026-01-01T00:00:00Z', '1')",
    )
    .await;
    app.execute("insert into schema_compatibility values (9999, $1, '9.9.9')", &[&oldest]).await;
}

async fn newest_migration(app: &TestApp) -> i32 {
    app.query_scalar("select max(version) from refinery_schema_history").await
}

#[tokio::test(flavor = "multi_thread")]
async fn compatible_newer_schema_is_served_and_left_alone() {
    let app = TestApp::spawn().await;
    let level = newest_migration(&app).await;
    record_newer_migration(&app, level).await;
    let before = history(&app).await;

    let (code, output) = run(&app, "migrate");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.starts_with("nothing to migrate: the schema is V9999__later of testshop 9.9.9"), "{output}");
    assert!(output.contains(&format!("V{level}")), "{output}");
    let (code, output) = run(&app, "check");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("ok   schema: the schema is V9999__later"), "{output}");
    assert_eq!(history(&app).await, before);

    let mut server = Process::start(serve_command(app.database_url()).arg("--migrate"));
    assert_eq!(TestClient::new(server.address).get("/readyz").await.status, 200);
    assert!(server.stop().success());
}

#[tokio::test]
async fn incompatible_newer_schema_is_refused_with_both_versions() {
    let app = TestApp::spawn().await;
    let level = newest_migration(&app).await;
    record_newer_migration(&app, level + 1).await;
    for subcommand in ["migrate", "check", "serve"] {
        let (code, output) = run(&app, subcommand);
        assert_eq!(code, Some(1), "{subcommand}: {output}");
        assert!(
            output.contains("V9999__later of testshop 9.9.9")
                && output.contains(&format!("from V{} on", level + 1))
                && output.contains(&format!("this is testshop {}, V{level}", env!("CARGO_PKG_VERSION"))),
            "{subcommand}: {output}"
        );
    }
    // a server that has been running since before
    let ready = app.anonymous().get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["schema"]), (503, &"incompatible".into()));
}

#[tokio::test]
async fn changed_missing_and_unrecorded_migrations_are_refused() {
    for (change, expected) in [
        (
            "update refinery_schema_history set checksum = '1' where version = 2",
            "V2__accounts was applied with another",
        ),
        ("delete from refinery_schema_history where version = 3", "but lacks V3__catalogue"),
        (
            "insert into refinery_schema_history values (9999, 'later', '2026-01-01T00:00:00Z', '1')",
            "V9999__later of testshop of an unknown version and works with programs from V9999 on",
        ),
    ] {
        let app = TestApp::spawn().await;
        app.batch_execute(change).await;
        for subcommand in ["migrate", "check"] {
            let (code, output) = run(&app, subcommand);
            assert!(code == Some(1) && output.contains(expected), "{subcommand}: {output}");
        }
    }
}

#[tokio::test]
async fn edited_migrations_are_accepted_with_their_former_checksum() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "update refinery_schema_history set checksum = '63682368200280378' where version = 11;
         update refinery_schema_history set checksum = '13090342960961094839' where version = 12",
    )
    .await;
    let (code, output) = run(&app, "migrate");
    assert_eq!((code, output.as_str()), (Some(0), "the schema is up to date\n"));
    let (code, output) = run(&app, "check");
    assert!(code == Some(0) && output.contains("ok   schema"), "{output}");
}

#[tokio::test]
async fn every_migration_since_the_fifth_records_its_compatibility() {
    let app = TestApp::spawn().await;
    let unrecorded: i64 = app
        .query_scalar(
            "select count(*)
               from refinery_schema_history
               full join schema_compatibility on migration = version
              where migration is distinct from version
                and version is distinct from least(version, 4)",
        )
        .await;
    assert_eq!(unrecorded, 0);
}

#[tokio::test]
async fn migrate_without_pending_migrations_changes_nothing() {
    let app = TestApp::spawn().await;
    let before = history(&app).await;
    let (code, output) = run(&app, "migrate");
    assert_eq!((code, output.as_str()), (Some(0), "the schema is up to date\n"));
    assert_eq!(history(&app).await, before);
}
