//! Import of XLSX and CSV files: rows, round trips with exports, invalid files and transactions.

pub mod bombs;
mod concurrency;
mod corpus;
mod dialects;
mod files;
mod idempotency;
mod preconditions;
mod restore;
mod round_trip;
mod rows;
mod transactions;
mod uploads;
mod workbooks;

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{TestClient, TestResponse};

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const PATH: &str = "/api/products/import/";
/// The header row of a CSV file.
const HEADER: &str = "ID,Name,Description,Category,Price,Created at,Tags\n";

impl TestClient {
    async fn import(&self, query: &str, content_type: &str, file: impl Into<Vec<u8>>) -> TestResponse {
        self.send_bytes(Method::POST, &format!("{PATH}{query}"), Some(content_type), file.into()).await
    }

    async fn import_csv(&self, query: &str, rows: &str) -> TestResponse {
        self.import(query, "text/csv", format!("{HEADER}{rows}")).await
    }
}

/// Returns the report of an import without errors.
fn report(created: u64, updated: u64, unchanged: u64) -> Value {
    json!({"created": created, "updated": updated, "unchanged": unchanged, "skipped": 0, "errors": []})
}

/// Returns a JSON number with exactly these digits.
fn exact_number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
