//! `migrate` and `check` on databases with the history of another version.

use std::process::Output;

use crate::harness::{JWT_SECRET, TestApp, process::command, required_env};

/// Runs the program on the database of `app`; returns its exit code and output.
fn run(app: &TestApp, subcommand: &str) -> (Option<i32>, String) {
    let mut command = command(&[subcommand]);
    command.env("DATABASE_URL", app.database_url()).env("REDIS_URL", required_env("REDIS_URL"));
    command.env("JWT_SECRET", JWT_SECRET);
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
        "update refinery_schema_history set checksum = '1' where version <= 3;
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

#[tokio::test]
async fn unknown_newer_migration_is_rejected() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into refinery_schema_history (version, name, applied_on, checksum)
         values (9999, 'later', '2026-01-01T00:00:00Z', '1')",
    )
    .await;
    let (code, output) = run(&app, "migrate");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("V9999__later is missing") && !output.contains("first release"), "{output}");
}

#[tokio::test]
async fn migrate_without_pending_migrations_changes_nothing() {
    let app = TestApp::spawn().await;
    let before = history(&app).await;
    let (code, output) = run(&app, "migrate");
    assert_eq!((code, output.as_str()), (Some(0), "the schema is up to date\n"));
    assert_eq!(history(&app).await, before);
}
