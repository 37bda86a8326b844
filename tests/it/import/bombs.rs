//! Small files that describe much: each is rejected or imported within the memory and CPU time of an import.

use std::fmt::Write;

use testshop::limits::IMPORT_POOL_BYTES;

use super::{
    XLSX,
    files::{HEADER_CELL, RELATIONSHIPS, workbook, zip},
};
use crate::harness::{Process, TestApp, TestClient, TestResponse};

/// The memory that an import may take over an idle server.
const MAX_IMPORT_KIB: i64 = 128 * 1024;
/// Products with a long text, fewer than a batch of rows.
const LARGE_PRODUCTS: i32 = 600;
/// CPU time of any file, on a build without optimisation.
const MAX_CPU_SECONDS: f64 = 30.0;

/// Inserts products that take more memory together than an import may.
pub async fn seed_large_products(app: &TestApp) {
    app.seed_products(LARGE_PRODUCTS).await;
    app.execute("update products set description = repeat('x', 250000)", &[]).await;
}

/// Returns a workbook whose sheets are these elements, each of which refers to the relationship `a`.
fn workbook_with_sheets(target: &str, sheets: &str) -> Vec<u8> {
    let relationship = |kind: &str, target: &str| {
        format!(
            "<Relationships><Relationship Id=\"a\" Type=\"{RELATIONSHIPS}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    let main = format!("<workbook xmlns:r=\"{RELATIONSHIPS}\"><sheets>{sheets}</sheets></workbook>");
    let sheet = format!("<worksheet><sheetData><row>{HEADER_CELL}</row></sheetData></worksheet>");
    zip(&[
        ("_rels/.rels", relationship("officeDocument", "xl/workbook.xml").as_bytes()),
        ("xl/_rels/workbook.xml.rels", relationship("worksheet", target).as_bytes()),
        ("xl/workbook.xml", main.as_bytes()),
        ("xl/s.xml", sheet.as_bytes()),
    ])
}

/// Returns a sheet whose cells outside of rows refer to the shared string 0.
fn cells_outside_of_rows(count: usize) -> String {
    let mut sheet = format!("<worksheet><sheetData><row r=\"1\">{HEADER_CELL}</row>");
    for row in 2..count + 2 {
        write!(sheet, "<c r=\"A{row}\" t=\"s\"><v>0</v></c>").unwrap();
    }
    sheet + "</sheetData></worksheet>"
}

/// Returns a row with many cells in one column, which refer to the shared string 0.
fn repeated_cell(count: usize) -> String {
    let cell = "<c r=\"A2\" t=\"s\"><v>0</v></c>".repeat(count);
    format!("<worksheet><sheetData><row r=\"1\">{HEADER_CELL}</row><row>{cell}</row></sheetData></worksheet>")
}

fn shared_strings(count: usize, length: usize) -> String {
    format!("<sst>{}</sst>", format!("<si><t>{}</t></si>", "x".repeat(length)).repeat(count))
}

/// A file that describes much.
pub struct Bomb {
    name: &'static str,
    content_type: &'static str,
    content: Vec<u8>,
    /// A part of the response.
    expected: &'static str,
}

impl Bomb {
    fn workbook(name: &'static str, content: Vec<u8>, expected: &'static str) -> Self {
        Self { name, content_type: XLSX, content, expected }
    }

    fn csv(name: &'static str, content: String, expected: &'static str) -> Self {
        Self { name, content_type: "text/csv", content: content.into_bytes(), expected }
    }
}

impl Bomb {
    /// Checks the file on the server.
    pub async fn send(self, staff: &TestClient) -> TestResponse {
        staff.import("?dry_run=true", self.content_type, self.content).await
    }
}

/// Returns the bombs that take little time to build.
pub fn small_bombs() -> Vec<Bomb> {
    let shared = shared_strings(1, 250_000);
    let nested = format!("<worksheet><sheetData><row r=\"1\">{HEADER_CELL}</row>{}", "<a>".repeat(15_000_000));
    let numbered: String =
        (1..=20_000).map(|number| format!("<sheet name=\"Products {number}\" r:id=\"a\"/>")).collect();
    let quadratic = workbook_with_sheets("s.xml", &("<sheet name=\"Products\" r:id=\"a\"/>".to_owned() + &numbered));
    let long_target = workbook_with_sheets(&"n".repeat(900_000), &"<sheet name=\"S\" r:id=\"a\"/>".repeat(20_000));
    let long_id = workbook_with_sheets("s.xml", &format!("<sheet name=\"S\" r:id=\"{}\"/>", "a".repeat(900_000)));
    let blank_tags = format!("Tags\n{}", format!("\"a{}\"\n", ",".repeat(99)).repeat(400));
    vec![
        Bomb::workbook("cells outside of rows", workbook(&shared, &cells_outside_of_rows(700)), "\"skipped\":700"),
        Bomb::workbook("a cell that occurs often", workbook(&shared, &repeated_cell(700)), "The rows of the file take"),
        Bomb::workbook("sheets with a long target", long_target, "a name longer than 1024 bytes"),
        Bomb::workbook("a sheet with a long id", long_id, "a name longer than 1024 bytes"),
        Bomb::workbook("numbered sheets", quadratic, "more than 256 sheets"),
        Bomb::workbook("nested elements", workbook("<sst/>", &nested), "nested too deeply"),
        Bomb::csv("a row of commas", ",".repeat(2_000_000), "too many columns"),
        Bomb::csv("blank tags", blank_tags, "\"errors_omitted\":"),
    ]
}

/// Returns larger files, and one that names the products of [`seed_large_products`].
pub fn large_bombs() -> Vec<Bomb> {
    let shared = shared_strings(1, 250_000);
    let header_only = format!("<worksheet><sheetData><row r=\"1\">{HEADER_CELL}</row></sheetData></worksheet>");
    let ids: String = (1..=LARGE_PRODUCTS).map(|id| format!("{id}\n")).collect();
    let with_strings = |strings: &str| workbook(strings, &header_only);
    vec![
        Bomb::workbook("20,000 cells outside of rows", workbook(&shared, &cells_outside_of_rows(20_000)), "2 GiB"),
        Bomb::workbook("many shared strings", with_strings(&shared_strings(4_000_000, 0)), "\"skipped\":0"),
        Bomb::workbook("much shared text", with_strings(&shared_strings(240, 250_000)), "\"skipped\":0"),
        Bomb::workbook("too much shared text", with_strings(&shared_strings(400, 250_000)), "shared strings"),
        Bomb::csv("large products", format!("ID\n{ids}"), "\"unchanged\":600"),
    ]
}

/// Imports all files on a server process, and checks the memory and the CPU time of each. Returns the largest of both,
/// in KiB and seconds.
pub async fn defuse(app: &TestApp, bombs: fn() -> Vec<Bomb>) -> (i64, f64) {
    let token = app.create_staff("sam").await.token().to_owned();
    let server = Process::serve(app, &[]);
    let staff = TestClient::new(server.address).with_token(&token);
    assert_eq!(staff.import_csv("?dry_run=true", ",New,,Sport,1,,\n").await.status, 200);
    let (idle, mut max) = (server.memory_kib("VmRSS"), (0, 0.0_f64));
    for bomb in tokio::task::spawn_blocking(bombs).await.unwrap() {
        let (name, expected) = (bomb.name, bomb.expected);
        let (length, cpu_before) = (bomb.content.len(), server.cpu_seconds());
        server.reset_peak_memory();
        let response = bomb.send(&staff).await;
        let peak = server.memory_kib("VmHWM") - idle;
        let cpu = server.cpu_seconds() - cpu_before;
        println!("{name}: {length} bytes take {peak} KiB and {cpu:.2} s of CPU time");
        let text = response.text();
        assert!(text.contains(expected), "{name}: {} {}", response.status, &text[..text.len().min(300)]);
        assert!(text.len() < 3 << 20, "{name}: a response of {} bytes", text.len());
        assert!(peak <= MAX_IMPORT_KIB, "{name}: {peak} KiB");
        assert!(cpu <= MAX_CPU_SECONDS, "{name}: {cpu} s");
        max = (max.0.max(peak), max.1.max(cpu));
    }
    max
}

#[tokio::test]
async fn imports_share_one_pool_of_memory() {
    const FREE_BYTES: usize = 100 << 10;
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let file = format!("Name,Description\n{}", format!("A,{}\n", "d".repeat(10_000)).repeat(50)).into_bytes();
    let pool = &app.server.app.import_pool;
    assert!(pool.take(IMPORT_POOL_BYTES - FREE_BYTES));
    let refused = staff.import("?on_error=skip", "text/csv", file.clone()).await;
    assert_eq!(refused.status, 503, "another import holds the memory: {}", refused.text());
    assert!(refused.headers.contains_key("retry-after"));
    pool.put_back(IMPORT_POOL_BYTES - FREE_BYTES);
    assert_eq!(staff.import("?on_error=skip", "text/csv", file).await.status, 200);
    assert!(pool.take(IMPORT_POOL_BYTES), "an import that has ended holds no memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_bombs_stay_within_memory_and_time() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    defuse(&app, small_bombs).await;
}
