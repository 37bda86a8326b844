//! The corpus of files in `tests/data/import`, with the expected outcome of each (`scripts/import_corpus` writes both).

use std::{collections::BTreeMap, fmt::Write, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::harness::{TestApp, TestAppBuilder, TestClient};

/// The products that the files refer to; `scripts/import_corpus/case.py` has them as rows of an export.
const CATALOGUE: &str = "
    truncate product_tags, products, tags, categories restart identity;
    insert into categories (name) values ('Sport'), ('Books');
    insert into tags (name) values ('eco'), ('new'), ('été');
    insert into products (category_id, name, description, price, created_at) values
        (1, 'Ball', 'A round ball', 19.99, '2023-08-08T12:00:00Z'),
        (2, 'Книга', 'О море', 1299.90, '2024-02-29T23:59:59Z'),
        (1, 'Café crème', E'two\\nlines', 0.10, '2026-11-23T13:01:47.542885Z'),
        (2, '日本語の本', '', 5.00, '2000-01-01T00:00:00Z');
    insert into product_tags (product_id, tag_id) values (1, 1), (1, 2), (3, 3)";

/// Files that are imported at the same time.
const WORKERS: usize = 4;
const MAX_ATTEMPTS: usize = 10;

/// A row of the table: a file, how it is sent, and what the import returns.
#[derive(Deserialize)]
struct Case {
    file: String,
    media_type: String,
    query: String,
    status: u16,
    /// Parts of the message of a file that is refused as a whole.
    detail: Option<Vec<String>>,
    /// The counts of an import that skips invalid rows.
    #[serde(default)]
    created: u64,
    #[serde(default)]
    updated: u64,
    #[serde(default)]
    unchanged: u64,
    #[serde(default)]
    skipped: u64,
    /// The invalid rows: `row`, `sheet`, and for each field a part of its message; `*` stands for any fields.
    #[serde(default)]
    errors: Vec<Map<String, Value>>,
    /// Fields of products after the import, by id.
    #[serde(default)]
    products: BTreeMap<String, Map<String, Value>>,
}

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/import"))
}

fn cases() -> Vec<Case> {
    let table = std::fs::read_to_string(corpus().join("expected.jsonl")).unwrap();
    table.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

impl Case {
    /// Returns status and body. Repeats the request while the server is overloaded by other tests.
    async fn import(&self, staff: &TestClient, options: &str) -> (u16, Value) {
        let file = std::fs::read(corpus().join(&self.file)).unwrap();
        let query = if self.query.is_empty() { options.to_owned() } else { format!("{}&{options}", self.query) };
        for _ in 0..MAX_ATTEMPTS {
            let response = staff.import(&format!("?{query}"), &self.media_type, file.clone()).await;
            if response.status != 503 {
                return response.status_and_json();
            }
        }
        (503, Value::Null)
    }

    /// Checks a response of a run that rejects the file with its first invalid row, or that skips invalid rows.
    fn check(&self, status: u16, response: &Value, skips: bool) -> Result<(), String> {
        let expected_status = if skips && self.detail.is_none() { 200 } else { self.status };
        if status != expected_status {
            return Err(format!("status {status} instead of {expected_status}"));
        }
        if let Some(parts) = &self.detail {
            // the message of the file, or of a field of the form that contains it
            let message = response.to_string();
            return match parts.iter().find(|part| !message.contains(part.as_str())) {
                Some(part) => Err(format!("the message does not contain {part:?}")),
                None => Ok(()),
            };
        }
        let records = self.created + self.updated + self.unchanged + self.skipped;
        let counts = if !skips && self.skipped > 0 {
            [0, 0, 0, records]
        } else {
            [self.created, self.updated, self.unchanged, self.skipped]
        };
        for (name, count) in ["created", "updated", "unchanged", "skipped"].into_iter().zip(counts) {
            if response[name] != count {
                return Err(format!("{name} is {} instead of {count}", response[name]));
            }
        }
        self.check_errors(response)
    }

    fn check_errors(&self, response: &Value) -> Result<(), String> {
        let errors = response["errors"].as_array().ok_or("no errors")?;
        if errors.len() != self.errors.len() {
            return Err(format!("{} errors instead of {}", errors.len(), self.errors.len()));
        }
        for (error, expected) in errors.iter().zip(&self.errors) {
            let error = error.as_object().ok_or("an error is no object")?;
            let is_field = |name: &&String| *name != "row" && *name != "sheet";
            let same_place = error.get("row") == expected.get("row") && error.get("sheet") == expected.get("sheet");
            let same_fields = expected.contains_key("*")
                || error.keys().filter(is_field).count() == expected.keys().filter(is_field).count();
            let mut fields = expected.iter().filter(|(name, _)| is_field(name) && *name != "*");
            let same_messages = fields.all(|(name, part)| {
                let part = part.as_str().unwrap();
                error.get(name).is_some_and(|messages| messages.to_string().contains(part))
            });
            if !(same_place && same_fields && same_messages) {
                return Err(format!("the error is not {}", Value::Object(expected.clone())));
            }
        }
        Ok(())
    }

    /// Imports the file, compares the stored products with the table, and restores the catalogue.
    async fn check_products(&self, app: &TestApp, staff: &TestClient) -> Result<(), String> {
        let (status, response) = self.import(staff, "on_error=skip").await;
        self.check(status, &response, true).map_err(|reason| format!("{reason}: {response}"))?;
        for (id, expected) in &self.products {
            let product = staff.get(&format!("/api/products/{id}/")).await.json();
            for (name, value) in expected {
                let is_equal =
                    if value.is_number() { product[name].as_f64() == value.as_f64() } else { product[name] == *value };
                if !is_equal {
                    return Err(format!("{name} of product {id} is {} instead of {value}", product[name]));
                }
            }
        }
        app.batch_execute(CATALOGUE).await;
        Ok(())
    }
}

/// Checks each file without changing anything. Returns what is wrong.
async fn check_dry_runs(cases: impl Iterator<Item = &Case>, staff: &TestClient) -> String {
    let mut failures = String::new();
    for case in cases {
        for (options, skips) in [("dry_run=true", false), ("dry_run=true&on_error=skip", true)] {
            let (status, response) = case.import(staff, options).await;
            if let Err(reason) = case.check(status, &response, skips) {
                writeln!(failures, "{} ({options}): {reason}: {response}", case.file).unwrap();
                break;
            }
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_corpus_has_its_expected_outcome() {
    // a user may hold half of the permits
    let app = TestAppBuilder::default().with("import-concurrency", 2 * WORKERS).spawn().await;
    app.batch_execute(CATALOGUE).await;
    let (staff, cases) = (app.create_staff("sam").await, cases());
    let before = staff.get("/api/products/").await;
    let workers = (0..WORKERS).map(|worker| check_dry_runs(cases.iter().skip(worker).step_by(WORKERS), &staff));
    let mut failures = futures_util::future::join_all(workers).await.concat();
    assert_eq!(staff.get("/api/products/").await.header("etag"), before.header("etag"), "a dry run changes nothing");
    for case in cases.iter().filter(|case| !case.products.is_empty()) {
        if let Err(reason) = case.check_products(&app, &staff).await {
            writeln!(failures, "{} (imported): {reason}", case.file).unwrap();
            app.batch_execute(CATALOGUE).await;
        }
    }
    assert!(failures.is_empty(), "{} of {} files:\n{failures}", failures.lines().count(), cases.len());
}

#[test]
fn table_and_files_are_those_that_the_script_writes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/import_corpus");
    let done = std::process::Command::new("python3").args([script, "--check"]).output().expect("Python runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr));
}
