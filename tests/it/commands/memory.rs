//! Settings of memory: sizes that follow from the limit, and settings that the memory cannot hold.

use serde_json::Value;

use super::{output_text, run};
use crate::harness::{JWT_SECRET, process::command};

/// 768 MiB, the limit of the containers that the project ships.
const SHIPPED_LIMIT: &str = "805306368";

/// Runs a subcommand with these settings, and returns its exit status and its output.
fn run_with(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = command(arguments);
    command.env("JWT_SECRET", JWT_SECRET).env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let output = run(
        {
            command.envs(settings.iter().copied());
            command
        },
        "",
    );
    (output.status.code(), output_text(&output))
}

#[test]
fn settings_over_the_memory_limit_are_refused_with_the_sum() {
    for (setting, value) in [("MAX_CONNECTIONS", "100000"), ("CACHE_BYTES", "1073741824"), ("IMPORT_CONCURRENCY", "20")]
    {
        let settings = [("MEMORY_LIMIT", SHIPPED_LIMIT), (setting, value), ("STALE_IF_ERROR", "soon")];
        let (status, text) = run_with(&["serve"], &settings);
        let error = format!("{setting} needs too much memory: the sum of all limits is ");
        assert!(status == Some(2) && text.contains(&error), "{text}");
        assert!(text.contains(" CACHE_BYTES + ") && text.contains("but MEMORY_LIMIT is 768 MiB"), "{text}");
        assert!(text.contains("STALE_IF_ERROR is \"soon\""), "all errors are reported together: {text}");
    }
    let (status, text) = run_with(&["serve"], &[("MEMORY_LIMIT", "67108864")]);
    assert!(status == Some(2) && text.contains("needs too much memory"), "{text}");
    let (status, text) = run_with(&["serve"], &[("MEMORY_LIMIT", "much")]);
    assert!(status == Some(2) && text.contains("MEMORY_LIMIT is \"much\""), "{text}");
}

#[test]
fn automatic_sizes_follow_the_memory_limit() {
    let finding = |limit: &str| {
        let (_, text) = run_with(&["check", "--json"], &[("MEMORY_LIMIT", limit)]);
        let findings: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let finding = findings.as_array().unwrap().iter().find(|finding| finding["subject"] == "memory").unwrap();
        finding["message"].as_str().unwrap().to_owned()
    };
    let (shipped, large) = (finding(SHIPPED_LIMIT), finding("8589934592"));
    assert!(shipped.starts_with("at most 76") && shipped.contains("MEMORY_LIMIT is 768 MiB"), "{shipped}");
    assert!(shipped.ends_with("; 8192 connections"), "{shipped}");
    assert!(large.contains(" + 1024 CACHE_BYTES") && large.ends_with("; 8192 connections"), "{large}");
    let small = finding("536870912");
    assert!(small.contains("MEMORY_LIMIT is 512 MiB") && !small.ends_with("; 8192 connections"), "{small}");
}
