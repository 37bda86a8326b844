//! The setting `LEASE`: `migrate` stores it in the database, and values that writers cannot wait for are refused.

use crate::harness::{JWT_SECRET, TestApp, process::command};

/// Runs a subcommand with this `LEASE`; returns its exit code and output.
fn run(app: &TestApp, subcommand: &str, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = command(&[subcommand]);
    command.env("DATABASE_URL", app.database_url()).env("JWT_SECRET", JWT_SECRET).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test]
async fn migrate_sets_the_duration_in_the_database() {
    let app = TestApp::spawn().await;
    let stored = "select c.lease_ms || ' ' || a.lease_ms from catalogue_commit_lock c, accounts_commit_lock a";
    for (lease, change, expected) in [
        ("25ms", "changed the duration of leases from 0 to 25 ms\n", "25 25"),
        ("25ms", "", "25 25"),
        ("0s", "changed the duration of leases from 25 to 0 ms\n", "0 0"),
    ] {
        let (code, output) = run(&app, "migrate", &[("LEASE", lease)]);
        assert_eq!((code, output), (Some(0), format!("the schema is up to date\n{change}")), "{lease}");
        assert_eq!(app.query_scalar::<String>(stored).await, expected, "{lease}");
    }
}

#[tokio::test]
async fn durations_that_writers_cannot_wait_for_are_refused() {
    let app = TestApp::spawn().await;
    for (settings, message) in [
        (vec![("LEASE", "soon")], "LEASE is \"soon\", which is not a duration"),
        (vec![("LEASE", "1ms")], "LEASE is \"1ms\", which is neither 0s nor between 5ms and 1s"),
        (vec![("LEASE", "1001ms")], "LEASE is \"1001ms\", which is neither 0s nor between 5ms and 1s"),
        (
            vec![("LEASE", "600ms"), ("STATEMENT_TIMEOUT", "1s")],
            "LEASE is \"600ms\", which is more than half of STATEMENT_TIMEOUT",
        ),
    ] {
        for subcommand in ["migrate", "serve"] {
            let (code, output) = run(&app, subcommand, &settings);
            assert!(code == Some(2) && output.contains(message), "{subcommand}: {output}");
        }
    }
}
