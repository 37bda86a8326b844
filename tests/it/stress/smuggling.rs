//! Request smuggling: no request hides another one that a proxy in front of the server would see differently.

use std::time::Duration;

use tokio::time::timeout;

use super::record_result;
use crate::harness::{TestAppBuilder, TestClient};

/// An empty chunked body.
const CHUNKS: &str = "0\r\n\r\n";
const DUPLICATE_CODING: &str = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";

/// Transfer codings beside a Content-Length. Most are not a final `chunked`.
const CODINGS: [&str; 15] = [
    "chunked",
    "Chunked",
    "xchunked",
    "chunked, identity",
    "identity, chunked",
    "identity",
    "gzip, chunked",
    "chunked, chunked",
    "\x0bchunked",
    "chunked;a=b",
    "\"chunked\"",
    "chunked,",
    ", chunked",
    "chu nked",
    "",
];
const UNSUPPORTED_CODINGS: [&str; 4] =
    ["xchunked", "chunked, identity", "identity", "chunked\r\nTransfer-Encoding: identity"];
/// Codings that end with `chunked`: their framing is known, but the body cannot be decoded.
const UNSUPPORTED_BEFORE_CHUNKED: [&str; 2] = ["identity, chunked", "gzip, chunked"];
/// Headers whose names some servers trim or normalize.
const MALFORMED_HEADERS: [&str; 8] = [
    "Transfer-Encoding : chunked",
    "Transfer_Encoding: chunked\r\nTransfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding\t: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding:\n chunked",
    "Content-Length : 5",
];
/// Values of Content-Length that are not one number.
const INVALID_LENGTHS: [&str; 14] = [
    "5, 5",
    "5, 6",
    "+5",
    "-5",
    "0x5",
    "5 5",
    "5.0",
    "1e1",
    "99999999999999999999",
    "5\r\nContent-Length: 6",
    "5\r\nContent-Length: 0",
    "",
    "five",
    "٥",
];
const INVALID_CHUNKS: [&str; 10] = [
    "0x5\r\nhello\r\n0\r\n\r\n",
    "-1\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhelloX0\r\n\r\n",
    "fffffffffffffffff\r\nhello",
    "5 5\r\nhello\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "G\r\nhello\r\n0\r\n\r\n",
    "5\r\rhello\r\n0\r\n\r\n",
];
const INVALID_HEADS: [&str; 12] = [
    "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /healthz HTTP/1.1 \r\nHost: x\r\n\r\n",
    "GET /healthz\r\nHost: x\r\n\r\n",
    "GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "GET /healthz HTTP/1.11\r\nHost: x\r\n\r\n",
    "G\0T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /hea lthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHo st: x\r\n\r\n",
    "GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    "\0\r\n\r\n",
];

fn post(headers: &str, body: &str) -> String {
    format!("POST /api/login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}")
}

/// Requests that two servers can parse differently (RFC 9112, 11.2): two kinds of framing, partial framing, or none.
fn payloads() -> Vec<String> {
    let mut payloads = Vec::new();
    for coding in CODINGS {
        payloads.push(post(&format!("Content-Length: 5\r\nTransfer-Encoding: {coding}"), CHUNKS));
        payloads.push(post(&format!("Transfer-Encoding: {coding}\r\nContent-Length: 5"), CHUNKS));
    }
    payloads.extend(UNSUPPORTED_CODINGS.map(|coding| post(&format!("Transfer-Encoding: {coding}"), CHUNKS)));
    payloads.extend(MALFORMED_HEADERS.map(|header| post(header, CHUNKS)));
    payloads.extend(INVALID_LENGTHS.map(|length| post(&format!("Content-Length: {length}"), CHUNKS)));
    payloads.extend(INVALID_CHUNKS.map(|body| post("Transfer-Encoding: chunked", body)));
    payloads.extend(INVALID_HEADS.map(str::to_owned));
    payloads
}

/// Sends a payload with another request behind it, and returns the statuses of all responses until the server closes
/// the connection.
async fn response_statuses(client: &TestClient, payload: &str) -> Vec<u16> {
    let next = "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let responses = timeout(Duration::from_secs(30), client.raw(format!("{payload}{next}").as_bytes())).await;
    let responses = responses.unwrap_or_else(|_| panic!("the connection stays open after {payload:?}"));
    let status = |offset: usize| responses[offset + "HTTP/1.1 ".len()..].get(..3)?.parse().ok();
    responses.match_indices("HTTP/1.1 ").filter_map(|(offset, _)| status(offset)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn request_smuggling_is_rejected() {
    let app = TestAppBuilder::default().with("head-timeout", "1s").with("body-timeout", "1s").spawn().await;
    let (client, payloads) = (app.anonymous(), payloads());
    // Behind an unambiguous request the next one gets a response. So the check below would detect a smuggled request.
    // A duplicate `chunked` is unambiguous: servers that read either line, or both, find the same framing.
    let unambiguous =
        [post("Content-Length: 2", "{}"), post("Transfer-Encoding: chunked", CHUNKS), post(DUPLICATE_CODING, CHUNKS)];
    for payload in &unambiguous {
        assert_eq!(response_statuses(&client, payload).await, [400, 404], "{payload:?}");
    }
    for payload in &payloads {
        let is_unsupported = UNSUPPORTED_BEFORE_CHUNKED.iter().any(|coding| payload.contains(coding));
        let expected = if is_unsupported { 501 } else { 400 };
        assert_eq!(response_statuses(&client, payload).await, [expected], "{payload:?}");
    }
    let observed = format!(
        "{} ambiguous requests: each answered with 400 or 501, then the connection closed; behind {} unambiguous requests the \
         next one was answered",
        payloads.len(),
        unambiguous.len()
    );
    record_result("no request smuggles another", &observed);
}
