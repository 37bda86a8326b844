//! Error responses during an upload reach clients that send the whole body before they read the response.

use hyper::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use crate::harness::{TestApp, TestAppBuilder, TestClient};

const BODY_BYTES: usize = 20 << 20;
const CHUNK_BYTES: usize = 1 << 16;
const JSON: &str = "application/json";

/// A request with a body of [`BODY_BYTES`] zeros.
struct Upload<'a> {
    method: &'a str,
    path: &'a str,
    content_type: &'a str,
    is_chunked: bool,
}

impl Upload<'_> {
    /// Writes the whole request, then reads the response to its end.
    async fn send(&self, client: &TestClient, token: &str) -> std::io::Result<String> {
        let Self { method, path, content_type, is_chunked } = self;
        let framing =
            if *is_chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {BODY_BYTES}") };
        let mut socket = TcpStream::connect(client.address).await?;
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{token}content-type: {content_type}\r\n{framing}\r\n\r\n");
        socket.write_all(head.as_bytes()).await?;
        let mut chunk = vec![b'0'; CHUNK_BYTES];
        if *is_chunked {
            chunk = [format!("{CHUNK_BYTES:x}\r\n").as_bytes(), &chunk, b"\r\n"].concat();
        }
        for _ in 0..BODY_BYTES / CHUNK_BYTES {
            socket.write_all(&chunk).await?;
        }
        if *is_chunked {
            socket.write_all(b"0\r\n\r\n").await?;
        }
        let mut response = String::new();
        socket.read_to_string(&mut response).await?;
        Ok(response)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_during_upload_reach_the_client() {
    let app = TestAppBuilder::default().with("import-bytes", 1 << 20).spawn().await;
    let bearer = |client: &TestClient| format!("authorization: Bearer {}\r\n", client.token());
    let (staff, user) = (bearer(&app.create_staff("sam").await), bearer(&app.create_user("ann").await));
    for (token, method, path, content_type, status) in [
        (&*staff, "POST", "/api/products/import/", "text/csv", "413"),
        (&*staff, "POST", "/api/products/import/?nonsense=1", "text/csv", "400"),
        (&*staff, "POST", "/api/tags/", "text/plain", "415"),
        (&*staff, "POST", "/api/tags/", JSON, "413"),
        (&*user, "POST", "/api/tags/", JSON, "403"),
        ("", "POST", "/api/tags/", JSON, "401"),
        ("", "POST", "/api/login/", JSON, "413"),
        ("", "POST", "/nowhere", JSON, "404"),
        ("", "PUT", "/api/tags/", JSON, "405"),
        ("host: y\r\n", "POST", "/api/tags/", JSON, "400"),
        ("", "OPTIONS", "/api/tags/", JSON, "204"),
        ("", "GET", "/healthz", JSON, "200"),
    ] {
        for is_chunked in [false, true] {
            let upload = Upload { method, path, content_type, is_chunked };
            let response = timeout(Duration::from_secs(30), upload.send(&app.anonymous(), token)).await;
            let response = response.expect("a response in time");
            let response = response.unwrap_or_else(|error| panic!("{method} {path} {is_chunked}: {error}"));
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {response}");
            assert!(response.contains("\r\nconnection: close\r\n"), "{method} {path}: {response}");
        }
    }
}

#[tokio::test]
async fn connection_is_kept_after_a_refused_small_body() {
    let app = TestApp::spawn().await;
    let mut keep_alive = crate::harness::KeepAliveClient::default();
    for _ in 0..20 {
        let body = Some(serde_json::json!({"name": "new"}));
        let response = keep_alive.send(&app.anonymous(), Method::POST, "/api/tags/", body).await.unwrap();
        assert_eq!((response.status.as_u16(), response.header("connection")), (401, ""));
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let head = |token: &str| {
        format!(
            "POST /api/tags/ HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n{token}content-type: application/json\r\n\
             content-length: 14\r\nconnection: close\r\n\r\n"
        )
    };
    let mut socket = TcpStream::connect(app.server.address).await.unwrap();
    let token = format!("authorization: Bearer {}\r\n", staff.token());
    socket.write_all(head(&token).as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"{\"name\":\"new\"}").await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
    // without a token, the final status comes instead of the interim one
    assert!(app.anonymous().raw(head("").as_bytes()).await.starts_with("HTTP/1.1 401 "));
}
