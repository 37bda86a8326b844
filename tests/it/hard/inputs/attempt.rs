//! Any bytes, put into a request where a client could put them, and what must come of it.

use std::{io::Write, net::SocketAddr, num::NonZeroU32, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest;
use testshop::auth::password_hashing::{Check, PasswordHasherPool};
use tokio::time::timeout;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{Caller, Plan, Shop};

/// Where the bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All that is said on a connection.
    Head,
    /// The query of the list and of the export.
    Query,
    /// A cursor whose sum is right.
    Cursor,
    /// A JSON body, of each request that takes one.
    Json,
    /// `Authorization`.
    Authorization,
    /// `X-Forwarded-For`, from a proxy that is trusted.
    Forwarded,
    /// A file for the import: CSV, a workbook, or one part of a workbook.
    Import,
    /// The text that is stored of a password.
    StoredHash,
}

/// All of them, with the names of their folders in `fuzz/corpus`.
pub const PLACES: [(Place, &str); 8] = [
    (Place::Head, "head"),
    (Place::Query, "query"),
    (Place::Cursor, "cursor"),
    (Place::Json, "json"),
    (Place::Authorization, "authorization"),
    (Place::Forwarded, "forwarded"),
    (Place::Import, "import"),
    (Place::StoredHash, "stored_hash"),
];

/// What takes JSON.
const BODIES: [(&str, &str); 11] = [
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
/// The parts that a workbook's reader looks into.
const PARTS: [&str; 5] = [
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "xl/styles.xml",
    "xl/workbook.xml",
    "xl/_rels/workbook.xml.rels",
];
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/// An answer takes no longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// So often is asked again where the answer is "not now", after so long.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// A shop to try them on, and the token of its staff.
pub async fn shop() -> (Shop, String) {
    let shop = Plan::default().with("head-timeout", "2s").with("trusted-proxies", "127.0.0.0/8").open().await;
    shop.stock(20).await;
    let token = shop.staff("sam").await.token().to_owned();
    (shop, token)
}

/// Puts the bytes into their place, and judges what comes of it.
///
/// # Panics
/// When a promise is broken: the server has a fault, or does not answer.
pub async fn attempt(place: Place, bytes: &[u8], address: SocketAddr, token: &str) {
    if place == Place::StoredHash {
        return stored_hash(bytes).await;
    }
    let (caller, words) = (Caller::new(address), request(place, bytes, token));
    // the machine may be too busy for one, but not for all
    for _ in 0..TRIES {
        let answering = async {
            if place == Place::Head { caller.raw_and_no_more(&words).await } else { caller.raw(&words).await }
        };
        let answer = timeout(PATIENCE, answering).await;
        let answer = answer.unwrap_or_else(|_| panic!("{place:?}: no end to the answer of {}", words.escape_ascii()));
        let statuses = statuses(&answer);
        if statuses.contains(&503) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let as_promised = |status: &u16| match place {
            Place::Authorization | Place::Forwarded => matches!(status, 400 | 401 | 431),
            _ => matches!(status, 100..=499 | 501 | 505),
        };
        // nothing that was asked, or a request that its client did not end, is answered by nothing
        let answered = place == Place::Head || !statuses.is_empty();
        assert!(
            answered && statuses.iter().all(as_promised),
            "{place:?}: {} was answered {answer:?}",
            words.escape_ascii()
        );
        return;
    }
    panic!("{place:?}: {} was answered 503 each time", words.escape_ascii());
}

/// The statuses of all that was answered on a connection.
fn statuses(mut answers: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(rest) = answers.strip_prefix("HTTP/1.1 ").or_else(|| answers.strip_prefix("HTTP/1.0 ")) {
        statuses.extend(rest.get(..3).and_then(|status| status.parse::<u16>().ok()));
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        // an answer to HEAD has no body
        let length = if body.starts_with("HTTP/1.") { 0 } else { length.unwrap_or(0) };
        answers = body.get(length..).unwrap_or("");
    }
    statuses
}

fn request(place: Place, bytes: &[u8], token: &str) -> Vec<u8> {
    // which of several, where there are several
    let (choice, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest));
    match place {
        Place::Head => bytes.to_vec(),
        Place::Query => {
            let path = ["/api/products/?", "/api/products/export/?format=csv&"][choice % 2];
            bodiless("GET", &[path.as_bytes(), &printable(rest)].concat(), "Authorization: Bearer ", token.as_bytes())
        }
        Place::Cursor => {
            let ordering = ORDERINGS[choice % ORDERINGS.len()];
            let query = if ordering == "id" { String::new() } else { format!("ordering={ordering}") };
            let sum = digest::digest(&digest::SHA256, &[format!("{query}\n{ordering}\n").as_bytes(), rest].concat());
            let cursor = BASE64_URL_SAFE_NO_PAD.encode([rest, &sum.as_ref()[..8]].concat());
            let target = format!("/api/products/?ordering={ordering}&cursor={cursor}");
            bodiless("GET", target.as_bytes(), "Authorization: Bearer ", token.as_bytes())
        }
        Place::Json => {
            let (method, path) = BODIES[choice % BODIES.len()];
            with_body(method, path, "application/json", token, rest)
        }
        Place::Authorization => bodiless("GET", b"/api/me/", "Authorization: ", &one_line(bytes)),
        Place::Forwarded => {
            let head = bodiless("POST", b"/api/login/", "X-Forwarded-For: ", &one_line(bytes));
            let body = br#"{"username": "nobody", "password": "a password"}"#;
            let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            [&head[..head.len() - 2], more.as_bytes(), body].concat()
        }
        Place::Import => {
            let path = "/api/products/import/?on_error=skip&dry_run=true";
            match choice % (PARTS.len() + 2) {
                0 => with_body("POST", path, "text/csv", token, rest),
                1 => with_body("POST", path, XLSX, token, rest),
                part => with_body("POST", path, XLSX, token, &workbook(PARTS[part - 2], rest)),
            }
        }
        Place::StoredHash => unreachable!("nobody sends it"),
    }
}

fn bodiless(method: &str, target: &[u8], header: &str, value: &[u8]) -> Vec<u8> {
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
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// As a query can hold it; what cannot stand there as it is becomes an escape.
fn printable(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'#' => text.push(*byte),
            _ => write!(text, "%{byte:02x}").unwrap(),
        }
    }
    text
}

/// As a header can hold it.
fn one_line(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).copied().collect()
}

/// A workbook of one sheet, with one part replaced.
fn workbook(replaced: &str, with: &[u8]) -> Vec<u8> {
    const SPACE: &str = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main' xmlns:r='http://schemas.openxmlformats.org/officeDocument/2006/relationships'";
    const TYPE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let titles = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"];
    let titles: String = titles.iter().map(|title| format!("<c t='inlineStr'><is><t>{title}</t></is></c>")).collect();
    let row = "<row r='2'><c r='B2' t='s'><v>0</v></c><c r='D2' t='s'><v>1</v></c><c r='E2'><v>9.5</v></c><c r='F2' s='1'><v>45000</v></c></row>";
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in [
        (PARTS[0], format!("<worksheet {SPACE}><sheetData><row r='1'>{titles}</row>{row}</sheetData></worksheet>")),
        (PARTS[1], format!("<sst {SPACE}><si><t>A ball</t></si><si><r><t>Spo</t></r><r><t>rt</t></r></si></sst>")),
        (
            PARTS[2],
            format!("<styleSheet {SPACE}><cellXfs><xf numFmtId='0'/><xf numFmtId='14'/></cellXfs></styleSheet>"),
        ),
        (
            PARTS[3],
            format!("<workbook {SPACE}><sheets><sheet name='One' sheetId='1' r:id='rId1'/></sheets></workbook>"),
        ),
        (
            PARTS[4],
            format!(
                "<Relationships><Relationship Id='rId1' Type='{TYPE}/worksheet' Target='worksheets/sheet1.xml'/><Relationship Id='rId2' Type='{TYPE}/sharedStrings' Target='sharedStrings.xml'/><Relationship Id='rId3' Type='{TYPE}/styles' Target='styles.xml'/></Relationships>"
            ),
        ),
    ] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(if name == replaced { with } else { text.as_bytes() }).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A text that is stored of a password: no password is right but the one it was made of.
async fn stored_hash(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    // millions of iterations are many seconds, as they are meant to be
    if text.split('$').nth(1).is_some_and(|iterations| iterations.len() > 4) {
        return;
    }
    let passwords = PasswordHasherPool::start(1, NonZeroU32::MIN);
    let verdict = timeout(PATIENCE, passwords.verify("not this one".to_owned().into(), Some(text.clone()))).await;
    assert_eq!(verdict.expect("an end").expect("a verdict"), Check::Wrong, "{text}");
}
