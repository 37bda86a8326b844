//! What stands under `deploy/` speaks of a shop that exists: metrics, settings and paths are the program's own.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::harness::TestApp;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a text that begin like this.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter: char| !is_part(letter)).filter(|word| word.starts_with(prefix)).collect()
}

#[tokio::test]
async fn dashboards_and_alerts_use_existing_metrics() {
    let app = TestApp::spawn().await;
    // a replica's counters are there only where one is
    let server = app.start_instance_with("database-replica-url", app.database_url()).await;
    app.create_user("ann").await.on_instance(server.address).get("/api/products/").await;
    let shown = app.anonymous().on_instance(server.admin_address).get("/metrics").await.text();
    let shown = words(&shown, "testshop_");
    for file in ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = text(file);
        let named = words(&text, "testshop_");
        assert!(named.len() >= 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&shown).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&text("deploy/grafana/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 10);
}

#[test]
fn containers_and_units_use_existing_settings() {
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_testshop")).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let help = program(&["serve", "--help"]) + &program(&["migrate", "--help"]);
    // a variable in capitals that an environment block sets
    let set = |text: &str, ends: &[char]| -> Vec<String> {
        let lines =
            text.lines().map(|line| line.trim().trim_start_matches("- name: ").trim_start_matches("Environment="));
        let names = lines.filter_map(|line| line.split_once(ends).map(|(name, _)| name).or(Some(line)));
        let is_name = |name: &&str| {
            name.len() > 3
                && name.contains('_')
                && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
        };
        names.filter(is_name).filter(|name| !name.starts_with("POSTGRES_")).map(str::to_owned).collect()
    };
    for (file, least) in [
        ("docker-compose.yml", 15),
        ("deploy/pgbouncer/docker-compose.yml", 1),
        ("deploy/kubernetes/shop.yaml", 5),
        ("deploy/systemd/testshop.service", 3),
    ] {
        let text = text(file);
        let names = set(&text, &[':', '=']);
        assert!(names.len() >= least, "{file} sets {names:?}");
        for name in names {
            let known = [format!("[env: {name}="), format!("[env: {name}]")];
            assert!(known.iter().any(|known| help.contains(known)), "{file} sets {name}, which no subcommand knows");
        }
    }
}
