//! Places any bytes in a request wherever a client can place them, and checks the response.

use std::{io::Write, net::SocketAddr, num::NonZeroU32, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest;
use testshop::auth::password_hashing::{Check, PasswordHasherPool, StoredPassword};
use tokio::time::timeout;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{TestApp, TestAppBuilder, TestClient};

// the crate of the fuzz targets includes this file under another path
#[path = "workbook.rs"]
mod workbook;

/// The part of a request that holds the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All bytes that the client sends on a connection.
    Head,
    /// The query string of the list or of the export.
    Query,
    /// A cursor with a valid checksum.
    Cursor,
    /// A JSON body of any request that takes one.
    Json,
    /// The `Authorization` header.
    Authorization,
    /// The `X-Forwarded-For` header of a trusted proxy.
    Forwarded,
    /// An import file: CSV, a workbook, one part of a workbook, or the decisions from which a workbook is generated.
    Import,
    /// A stored password hash. It is not part of a request.
    StoredHash,
}

/// All targets, with the names of their directories in `fuzz/corpus`.
pub const TARGETS: [(Target, &str); 8] = [
    (Target::Head, "head"),
    (Target::Query, "query"),
    (Target::Cursor, "cursor"),
    (Target::Json, "json"),
    (Target::Authorization, "authorization"),
    (Target::Forwarded, "forwarded"),
    (Target::Import, "import"),
    (Target::StoredHash, "stored_hash"),
];

/// The requests that take JSON.
const JSON_REQUESTS: [(&str, &str); 11] = [
    ("POST", "/api/register/"),
    ("POST", "/api/login/"),
    ("POST", "/api/token/refresh/"),
    ("POST", "/api/password/"),
    ("POST", "/api/products/"),
    ("PUT", "/api/products/1/"),
    ("PATCH", "/api/products/2/"),
    ("POST", "/api/categories/"),
    ("PATCH", "/api/categories/1/"),
    ("POST", "/api/tags/"),
    ("PUT", "/api/tags/1/"),
];
const ORDERINGS: [&str; 8] = ["id", "-id", "name", "-name", "price", "-price", "created_at", "-created_at"];
/// The parts of a workbook that the import reads.
const WORKBOOK_PARTS: [&str; 5] = [
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "xl/styles.xml",
    "xl/workbook.xml",
    "xl/_rels/workbook.xml.rels",
];
/// First bytes from this on select a generated workbook.
const GENERATED_WORKBOOKS: usize = 192;
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/// Time for a response, also on a slow machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that gets 503 is repeated after [`BACKOFF`].
const MAX_ATTEMPTS: usize = 10;
const BACKOFF: Duration = Duration::from_secs(1);

/// Starts the server under test, and returns the token of a staff account.
pub async fn spawn_app() -> (TestApp, String) {
    let app = TestAppBuilder::default().with("head-timeout", "2s").with("trusted-proxies", "127.0.0.0/8").spawn().await;
    app.seed_products(20).await;
    let token = app.create_staff("sam").await.token().to_owned();
    (app, token)
}

/// Sends a request with the bytes in the target, and checks the statuses of the responses.
///
/// # Panics
/// When a status is unexpected or the server does not respond.
pub async fn run_case(target: Target, bytes: &[u8], address: SocketAddr, token: &str) {
    if target == Target::StoredHash {
        return check_stored_hash(bytes).await;
    }
    let (client, request) = (TestClient::new(address), request(target, bytes, token));
    // a busy machine may cause a 503, but not in every attempt
    for _ in 0..MAX_ATTEMPTS {
        let exchange = async {
            if target == Target::Head { client.raw_half_close(&request).await } else { client.raw(&request).await }
        };
        let responses = timeout(RESPONSE_TIMEOUT, exchange).await;
        let responses =
            responses.unwrap_or_else(|_| panic!("{target:?}: {} got no complete response", request.escape_ascii()));
        let statuses = statuses(&responses);
        if statuses.contains(&503) {
            tokio::time::sleep(BACKOFF).await;
            continue;
        }
        let is_expected = |status: &u16| match target {
            Target::Authorization | Target::Forwarded => matches!(status, 400 | 401 | 431),
            _ => matches!(status, 100..=499 | 501 | 505),
        };
        // an empty or incomplete request may get no response
        let is_answered = target == Target::Head || !statuses.is_empty();
        assert!(
            is_answered && statuses.iter().all(is_expected),
            "{target:?}: {} got {responses:?}",
            request.escape_ascii()
        );
        return;
    }
    panic!("{target:?}: {} got 503 in every attempt", request.escape_ascii());
}

/// Returns the statuses of all responses on a connection.
fn statuses(mut responses: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(rest) = responses.strip_prefix("HTTP/1.1 ").or_else(|| responses.strip_prefix("HTTP/1.0 ")) {
        statuses.extend(rest.get(..3).and_then(|status| status.parse::<u16>().ok()));
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        // a response to HEAD has no body
        let length = if body.starts_with("HTTP/1.") { 0 } else { length.unwrap_or(0) };
        responses = body.get(length..).unwrap_or("");
    }
    statuses
}

/// Returns the request that carries the bytes.
pub fn request(target: Target, bytes: &[u8], token: &str) -> Vec<u8> {
    // the first byte selects one of several requests of a target
    let (choice, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest));
    match target {
        Target::Head => bytes.to_vec(),
        Target::Query => {
            let path = ["/api/products/?", "/api/products/export/?format=csv&"][choice % 2];
            without_body(
                "GET",
                &[path.as_bytes(), &percent_encoded(rest)].concat(),
                "Authorization: Bearer ",
                token.as_bytes(),
            )
        }
        Target::Cursor => {
            let ordering = ORDERINGS[choice % ORDERINGS.len()];
            let query = if ordering == "id" { String::new() } else { format!("ordering={ordering}") };
            let checksum =
                digest::digest(&digest::SHA256, &[format!("{query}\n{ordering}\n").as_bytes(), rest].concat());
            let cursor = BASE64_URL_SAFE_NO_PAD.encode([rest, &checksum.as_ref()[..8]].concat());
            let target = format!("/api/products/?ordering={ordering}&cursor={cursor}");
            without_body("GET", target.as_bytes(), "Authorization: Bearer ", token.as_bytes())
        }
        Target::Json => {
            let (method, path) = JSON_REQUESTS[choice % JSON_REQUESTS.len()];
            with_body(method, path, "application/json", token, rest)
        }
        Target::Authorization => without_body("GET", b"/api/me/", "Authorization: ", &header_value(bytes)),
        Target::Forwarded => {
            let head = without_body("POST", b"/api/login/", "X-Forwarded-For: ", &header_value(bytes));
            let body = br#"{"username": "nobody", "password": "a password"}"#;
            let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            [&head[..head.len() - 2], headers.as_bytes(), body].concat()
        }
        Target::Import => {
            let path = "/api/products/import/?on_error=skip&dry_run=true";
            if choice >= GENERATED_WORKBOOKS {
                return with_body("POST", path, XLSX, token, &workbook::generate(rest));
            }
            match choice % (WORKBOOK_PARTS.len() + 2) {
                0 => with_body("POST", path, "text/csv", token, rest),
                1 => with_body("POST", path, XLSX, token, rest),
                part => with_body("POST", path, XLSX, token, &workbook_with_part(WORKBOOK_PARTS[part - 2], rest)),
            }
        }
        Target::StoredHash => unreachable!("run_case handles it"),
    }
}

fn without_body(method: &str, target: &[u8], header: &str, value: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 8] = [
        method.as_bytes(),
        b" ",
        target,
        b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
        header.as_bytes(),
        value,
        b"\r\n",
        b"\r\n",
    ];
    parts.concat()
}

fn with_body(method: &str, path: &str, media_type: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Encodes the bytes that a query string cannot contain.
fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'#' => text.push(*byte),
            _ => write!(text, "%{byte:02x}").unwrap(),
        }
    }
    text
}

/// Removes the bytes that a header cannot contain.
fn header_value(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).copied().collect()
}

/// Returns a workbook with one sheet, and with one part replaced.
fn workbook_with_part(replaced: &str, replacement: &[u8]) -> Vec<u8> {
    const NAMESPACES: &str = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main' \
         xmlns:r='http://schemas.openxmlformats.org/officeDocument/2006/relationships'";
    const TYPE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let titles = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];
    let titles: String = titles.iter().map(|title| format!("<c t='inlineStr'><is><t>{title}</t></is></c>")).collect();
    let row = "<row r='2'><c r='B2' t='s'><v>0</v></c><c r='D2' t='s'><v>1</v></c>\
               <c r='E2'><v>9.5</v></c><c r='F2' s='1'><v>45000</v></c></row>";
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in [
        (
            WORKBOOK_PARTS[0],
            format!("<worksheet {NAMESPACES}><sheetData><row r='1'>{titles}</row>{row}</sheetData></worksheet>"),
        ),
        (
            WORKBOOK_PARTS[1],
            format!("<sst {NAMESPACES}><si><t>A ball</t></si><si><r><t>Spo</t></r><r><t>rt</t></r></si></sst>"),
        ),
        (
            WORKBOOK_PARTS[2],
            format!("<styleSheet {NAMESPACES}><cellXfs><xf numFmtId='0'/><xf numFmtId='14'/></cellXfs></styleSheet>"),
        ),
        (
            WORKBOOK_PARTS[3],
            format!("<workbook {NAMESPACES}><sheets><sheet name='One' sheetId='1' r:id='rId1'/></sheets></workbook>"),
        ),
        (
            WORKBOOK_PARTS[4],
            format!(
                "<Relationships><Relationship Id='rId1' Type='{TYPE}/worksheet' Target='worksheets/sheet1.xml'/>\
                 <Relationship Id='rId2' Type='{TYPE}/sharedStrings' Target='sharedStrings.xml'/>\
                 <Relationship Id='rId3' Type='{TYPE}/styles' Target='styles.xml'/></Relationships>"
            ),
        ),
    ] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(if name == replaced { replacement } else { text.as_bytes() }).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Verifies a password against a stored hash: it never matches, and the verification ends.
async fn check_stored_hash(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    // a high number of iterations takes many seconds, which is correct
    if text.split('$').nth(1).is_some_and(|iterations| iterations.len() > 4) {
        return;
    }
    let hashers = PasswordHasherPool::start(1, NonZeroU32::MIN);
    let stored = StoredPassword { text: Some(text.clone()), max_iterations: 1 };
    let check = timeout(RESPONSE_TIMEOUT, hashers.verify("not this one".to_owned().into(), stored)).await;
    assert_eq!(check.expect("a result in time").expect("no error"), Check::Mismatch, "{text}");
}
