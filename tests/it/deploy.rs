//! The files under `deploy/` name only metrics and settings that the program has.

use std::{collections::BTreeSet, fs, path::Path};

use crate::harness::{TestApp, process::command};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the identifiers in a text that start with `prefix`.
fn identifiers<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character: char| !is_part(character)).filter(|word| word.starts_with(prefix)).collect()
}

#[tokio::test]
async fn dashboards_and_alerts_use_existing_metrics() {
    let app = TestApp::spawn().await;
    // the counters of the replica exist only when one is configured
    let server = app.start_instance_with("database-replica-url", app.database_url()).await;
    app.create_user("ann").await.on_instance(server.address).get("/api/products/").await;
    let metrics = app.anonymous().on_instance(server.admin_address).get("/metrics").await.text();
    let metrics = identifiers(&metrics, "testshop_");
    for file in ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = text(file);
        let named = identifiers(&text, "testshop_");
        assert!(named.len() >= 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&metrics).collect();
        assert!(unknown.is_empty(), "{file} names metrics that do not exist: {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&text("deploy/grafana/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 10);
}

#[test]
fn containers_and_units_use_existing_settings() {
    let help_of = |subcommand: &str| {
        let output = command(&[subcommand, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let help = help_of("serve") + &help_of("migrate") + &help_of("secrets");
    // names in capitals before one of `separators`: the variables of an environment block
    let variables = |text: &str, separators: &[char]| -> Vec<String> {
        let lines =
            text.lines().map(|line| line.trim().trim_start_matches("- name: ").trim_start_matches("Environment="));
        let names = lines.filter_map(|line| line.split_once(separators).map(|(name, _)| name).or(Some(line)));
        let is_name = |name: &&str| {
            name.len() > 3
                && name.contains('_')
                && name.chars().all(|character| character.is_ascii_uppercase() || character == '_')
        };
        names.filter(is_name).filter(|name| !name.starts_with("POSTGRES_")).map(str::to_owned).collect()
    };
    for (file, min_count) in [
        ("docker-compose.yml", 15),
        ("deploy/pgbouncer/docker-compose.yml", 1),
        ("deploy/kubernetes/shop.yaml", 5),
        ("deploy/systemd/testshop.service", 3),
    ] {
        let text = text(file);
        let names = variables(&text, &[':', '=']);
        assert!(names.len() >= min_count, "{file} sets {names:?}");
        for name in names {
            let entries = [format!("[env: {name}="), format!("[env: {name}]")];
            assert!(entries.iter().any(|entry| help.contains(entry)), "{file} sets {name}, which no subcommand has");
        }
    }
}
