//! Request smuggling: no shape of a request hides another, which a proxy in front would have seen otherwise.

use std::time::Duration;

use tokio::time::timeout;

use super::record_result;
use crate::harness::{TestAppBuilder, TestClient};

/// No bytes, in chunks.
const CHUNKS: &str = "0\r\n\r\n";
const DUPLICATE_CODING: &str = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";

fn post(headers: &str, body: &str) -> String {
    format!("POST /api/login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}")
}

/// Requests that two servers could take for different ones (RFC 9112, 11.2): framed twice, by halves, or not at all.
fn payloads() -> Vec<String> {
    let mut payloads = Vec::new();
    // a length and chunks, and codings that are no chunks
    for coding in [
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
    ] {
        payloads.push(post(&format!("Content-Length: 5\r\nTransfer-Encoding: {coding}"), CHUNKS));
        payloads.push(post(&format!("Transfer-Encoding: {coding}\r\nContent-Length: 5"), CHUNKS));
    }
    for coding in ["xchunked", "chunked, identity", "identity", "chunked\r\nTransfer-Encoding: identity"] {
        payloads.push(post(&format!("Transfer-Encoding: {coding}"), CHUNKS));
    }
    // names that some trim
    for header in [
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked\r\nTransfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\t: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding:\n chunked",
        "Content-Length : 5",
    ] {
        payloads.push(post(header, CHUNKS));
    }
    // lengths that are none, or two
    for length in [
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
    ] {
        payloads.push(post(&format!("Content-Length: {length}"), CHUNKS));
    }
    // chunks that are none
    for body in [
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
    ] {
        payloads.push(post("Transfer-Encoding: chunked", body));
    }
    // heads that are none
    for head in [
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
    ] {
        payloads.push(head.to_owned());
    }
    payloads
}

/// The statuses that come back for a shape and the request behind it, until the server ends the connection.
async fn response_statuses(caller: &TestClient, payload: &str) -> Vec<u16> {
    let behind = "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let response = timeout(Duration::from_secs(30), caller.raw(format!("{payload}{behind}").as_bytes())).await;
    let response = response.unwrap_or_else(|_| panic!("no end of {payload:?}"));
    response.match_indices("HTTP/1.1 ").filter_map(|(place, _)| response[place + 9..].get(..3)?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn request_smuggling_is_rejected() {
    let app = TestAppBuilder::default().with("head-timeout", "1s").with("body-timeout", "1s").spawn().await;
    let (caller, payloads) = (app.anonymous(), payloads());
    // of requests that mean one thing only, the one behind is seen and answered: what is not seen here would not be there either.
    // Chunks that are told twice are chunks to whoever reads one of the two lines, or both
    let plain =
        [post("Content-Length: 2", "{}"), post("Transfer-Encoding: chunked", CHUNKS), post(DUPLICATE_CODING, CHUNKS)];
    for payload in &plain {
        assert_eq!(response_statuses(&caller, payload).await, [400, 404], "{payload:?}");
    }
    // all else is refused, and nothing behind it is looked at
    for payload in &payloads {
        assert_eq!(response_statuses(&caller, payload).await, [400], "{payload:?}");
    }
    let numbers = format!(
        "{} shapes: each refused with 400, and the connection ended; of {} plain requests the one behind was answered",
        payloads.len(),
        plain.len()
    );
    record_result("no shape of a request smuggles another", &numbers);
}
