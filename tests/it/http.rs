//! What HTTP clients rely on everywhere: words, headers, bounds.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{TestApp, TestAppBuilder};

#[tokio::test]
async fn responses_have_security_headers_and_request_id() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    for (caller, path) in [
        (&user, "/api/products/"),
        (&user, "/api/me/"),
        (&user, "/nowhere"),
        (&app.anonymous(), "/api/products/"),
        (&app.anonymous(), "/healthz"),
    ] {
        let response = caller.get(path).await;
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(response.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(response.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(response.header("x-request-id").len(), 16, "{path}");
        assert!(response.header("content-type").starts_with("application/json"), "{path}");
    }
}

#[tokio::test]
async fn valid_request_id_is_kept_and_invalid_is_replaced() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let kept = anonymous.with_header("x-request-id", "Trace-1.2:3_4").get("/healthz").await;
    assert_eq!(kept.header("x-request-id"), "Trace-1.2:3_4");
    for insane in ["", "with space", "quote\"", &"x".repeat(129)] {
        let response = anonymous.with_header("x-request-id", insane).get("/healthz").await;
        assert_ne!(response.header("x-request-id"), insane);
        assert_eq!(response.header("x-request-id").len(), 16);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_reported_before_authentication() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    for path in [
        "//",
        "/api",
        "/api/product/",
        "/api/products/x/",
        "/api/products/1/2/",
        "/api//products/",
        "/api/products/%31/",
    ] {
        assert_eq!(anonymous.get(path).await.status_and_json(), (404, json!({"detail": "Not found."})), "{path}");
    }
    let wrong = anonymous.delete("/api/products/").await;
    assert_eq!(wrong.status_and_json(), (405, json!({"detail": "Method \"DELETE\" not allowed."})));
    assert_eq!(wrong.header("allow"), "GET, POST, HEAD, OPTIONS");
    let wrong = anonymous.get("/api/login/").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "POST, OPTIONS"));
}

#[tokio::test]
async fn options_returns_allowed_methods() {
    let app = TestApp::spawn().await;
    let response = app.anonymous().send(Method::OPTIONS, "/api/products/1/", None).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("allow"), "GET, PUT, PATCH, DELETE, HEAD, OPTIONS");
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn head_matches_get_without_body() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await;
    for path in ["/api/products/", "/api/products/1/", "/api/products/export/", "/api/me/"] {
        let get = user.get(path).await;
        let head = user.send(Method::HEAD, path, None).await;
        assert_eq!(head.status, 200, "{path}");
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
    }
}

#[tokio::test]
async fn bodies_are_parsed_like_rest_framework() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let post = async |content_type: Option<&str>, body: &str| {
        anonymous
            .send_bytes(Method::POST, "/api/login/", content_type, body.as_bytes().to_vec())
            .await
            .status_and_json()
    };
    let json_type = Some("application/json");
    for (body, kind) in
        [("[]", "list"), ("\"x\"", "str"), ("1", "int"), ("1.5", "float"), ("true", "bool"), ("null", "NoneType")]
    {
        let words = format!("Invalid data. Expected a dictionary, but got {kind}.");
        assert_eq!(post(json_type, body).await, (400, json!({"non_field_errors": [words]})), "{body}");
    }
    for body in ["{", "{\"a\":}", "\u{feff}{}", "{\"username\":\"\\ud800\"}", "nonsense", &"[".repeat(100_000)[..4000]]
    {
        let (status, response) = post(json_type, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(response["detail"].as_str().unwrap().starts_with("JSON parse error - "), "{response}");
    }
    let bytes = anonymous.send_bytes(Method::POST, "/api/login/", json_type, b"{\"username\":\"\xff\"}".to_vec()).await;
    assert!(bytes.json()["detail"].as_str().unwrap().starts_with("JSON parse error - "));

    let required = json!({"username": ["This field is required."], "password": ["This field is required."]});
    assert_eq!(post(json_type, "").await, (400, required.clone()));
    assert_eq!(post(json_type, "{}").await, (400, required.clone()));
    assert_eq!(post(Some("application/x-www-form-urlencoded"), "a=b").await, (400, required.clone()));
    assert_eq!(post(Some("application/json; charset=utf-8"), "{}").await, (400, required));
    let unsupported = json!({"detail": "Unsupported media type \"application/xml\" in request."});
    assert_eq!(post(Some("application/xml"), "<a/>").await, (415, unsupported));
    assert_eq!(post(None, "{}").await, (415, json!({"detail": "Unsupported media type \"\" in request."})));
}

#[tokio::test]
async fn forms_are_accepted_only_by_register_and_login() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let form = Some("application/x-www-form-urlencoded");
    let response = staff.send_bytes(Method::POST, "/api/tags/", form, b"name=new".to_vec()).await;
    assert_eq!(response.status, 415);
    let account = b"username=bob&email=bob%40example.com&password=s3cret+of+a+test".to_vec();
    let response = app.anonymous().send_bytes(Method::POST, "/api/register/", form, account).await;
    assert_eq!(response.status_and_json(), (201, json!({"message": "User registered successfully."})));
    app.login("bob").await;
}

#[tokio::test]
async fn body_over_limit_is_rejected() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let too_large = (413, json!({"detail": "Request body too large."}));
    let long = |bytes: usize| json!({"name": "x".repeat(bytes)});
    assert_eq!(staff.post("/api/tags/", long(300_000)).await.status_and_json(), too_large);
    assert_eq!(app.anonymous().post("/api/login/", long(9000)).await.status_and_json(), too_large);
    assert_eq!(staff.post("/api/tags/", long(200_000)).await.status, 400, "within the bound it is looked at");

    // without a length, in chunks
    let head = format!(
        "POST /api/tags/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        staff.token()
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let response = staff.raw((head + &chunk.repeat(8)).as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

#[tokio::test]
async fn head_over_limit_is_rejected() {
    let app = TestApp::spawn().await;
    let large = app.anonymous().with_header("x-large", &"x".repeat(17_000)).get("/healthz").await;
    assert_eq!(large.status, 431);
    assert_eq!(app.anonymous().with_header("x-large", &"x".repeat(15_000)).get("/healthz").await.status, 200);
    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let response = app.anonymous().raw(endless.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    let many: String = (0..300).map(|number| format!("x-{number}: 1\r\n")).collect();
    let response = app.anonymous().raw(format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}

/// What every answer carries, and a body that is as long as it says.
fn is_an_answer_of_ours(response: &str, status: &str, detail: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert_eq!(body, json!({ "detail": detail }).to_string(), "{response}");
    let length = format!("content-length: {}", body.len());
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect(response);
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{response}");
    for line in [
        &length,
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: same-origin",
        "connection: close",
    ] {
        assert_eq!(head.lines().filter(|found| found == &line).count(), 1, "{line}: {response}");
    }
}

#[tokio::test]
async fn unparsable_requests_get_standard_error_response() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let large = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(300));
    for (words, status, detail) in [
        ("GET /healthz HTTP/1.1\r\nno header\r\n\r\n", "400", "Malformed request."),
        ("\0\r\n\r\n", "400", "Malformed request."),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "400", "Malformed request."),
        (&large, "431", "Request header fields too large."),
    ] {
        let response = anonymous.raw(words.as_bytes()).await;
        is_an_answer_of_ours(&response, status, detail);
        assert!(response.contains("\r\ndate: "), "{response}");
        // behind another one
        let responses = anonymous.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{words}").as_bytes()).await;
        let (first, second) = responses.split_at(responses.rfind("HTTP/1.1 ").unwrap());
        assert!(first.starts_with("HTTP/1.1 200 "), "{responses}");
        is_an_answer_of_ours(second, status, detail);
    }
    let counted = app.metric("testshop_http_requests_total{method=\"\",route=\"unmatched\",status=\"400\"}").await;
    assert_eq!(counted, 6.0, "each is counted");
}

#[tokio::test]
async fn slow_and_idle_connections_time_out() {
    let plan =
        TestAppBuilder::default().with("head-timeout", "1s").with("idle-timeout", "2s").with("body-timeout", "1s");
    let app = plan.spawn().await;
    let ended_after = async |first: &[u8]| {
        let mut socket = TcpStream::connect(app.server.address).await.unwrap();
        socket.write_all(first).await.unwrap();
        let began = Instant::now();
        let mut response = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut response)).await.expect("an end");
        (began.elapsed(), String::from_utf8(response).unwrap())
    };
    let (silent, dribbling, resting, body) = tokio::join!(
        ended_after(b""),
        ended_after(b"GET /healthz HT"),
        ended_after(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        ended_after(
            b"POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        ),
    );
    for (what, (after, response)) in [("silent", &silent), ("dribbling", &dribbling)] {
        assert!(response.is_empty(), "{what}: {response}");
        assert!(*after >= Duration::from_millis(900), "{what}: {after:?}");
    }
    assert!(resting.1.starts_with("HTTP/1.1 200 ") && resting.0 >= Duration::from_millis(1900), "{resting:?}");
    assert!(body.1.starts_with("HTTP/1.1 408 "), "{body:?}");
}

#[tokio::test]
async fn parked_connection_resumes() {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let app = TestApp::spawn().await;
    let answered = async |socket: &mut TcpStream| {
        let (mut response, mut piece) = (Vec::new(), [0; 1024]);
        while !response.ends_with(b"}") {
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut piece)).await.expect("an answer");
            response.extend_from_slice(&piece[..read.expect("a connection")]);
        }
        String::from_utf8(response).unwrap()
    };
    // one with the beginning of its next request, which came with the first, and one without
    let mut early = TcpStream::connect(app.server.address).await.unwrap();
    early.write_all(&[REQUEST, &REQUEST[..9]].concat()).await.unwrap();
    assert!(answered(&mut early).await.starts_with("HTTP/1.1 200 "));
    let mut plain = TcpStream::connect(app.server.address).await.unwrap();
    for _ in 0..2 {
        plain.write_all(REQUEST).await.unwrap();
        assert!(answered(&mut plain).await.starts_with("HTTP/1.1 200 "));
        crate::harness::wait_until("it rests", async || app.metric("testshop_http_connections_resting").await == 1.0)
            .await;
    }
    early.write_all(&REQUEST[9..]).await.unwrap();
    assert!(answered(&mut early).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn head_timeout_applies_to_partial_pipelined_request() {
    let app = TestAppBuilder::default().with("head-timeout", "1s").spawn().await;
    let mut socket = TcpStream::connect(app.server.address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea").await.unwrap();
    let mut response = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut response)).await;
    assert!(ended.is_ok(), "it was left open");
    assert!(response.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn stalled_reader_is_reset() {
    let app = TestAppBuilder::default().with("write-timeout", "1s").spawn().await;
    app.seed_products(50_000).await;
    let user = app.create_user("ann").await;
    let mut socket = TcpStream::connect(app.server.address).await.unwrap();
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", user.token());
    socket.write_all(request.as_bytes()).await.unwrap();
    crate::harness::wait_until("the list is on its way", async || {
        let mut byte = [0];
        socket.peek(&mut byte).await.is_ok_and(|read| read == 1)
    })
    .await;
    crate::harness::wait_until("the connection is gone", async || app.metric("testshop_http_connections").await == 0.0)
        .await;
    // nor does the kernel keep anything for it
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await.expect("an end");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn streams_are_limited_per_user() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", 1000).with("stream-concurrency", 4).spawn().await;
    app.seed_products(50_000).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", ann.token());
    let mut slow = TcpStream::connect(app.server.address).await.unwrap();
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.read_exact(&mut [0; 12]).await.unwrap();
    let refused = ann.get("/api/products/").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"), "a quarter is hers");
    assert_eq!(bob.get("/api/products/").await.status, 200);
    drop(slow);
    crate::harness::wait_until("it is her turn again", async || ann.get("/api/products/").await.status == 200).await;
}

#[tokio::test]
async fn connections_over_limit_get_503() {
    let app = TestAppBuilder::default().with("max-connections", 2).spawn().await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(app.server.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut response = [0; 12];
        socket.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 200");
        open.push(socket);
    }
    let response = app.anonymous().raw(b"").await;
    assert!(response.contains("\r\nretry-after: 1\r\n"), "{response}");
    is_an_answer_of_ours(&response, "503", "Service temporarily unavailable.");
    drop(open);
    crate::harness::wait_until("there is room again", async || {
        let response = app.anonymous().try_send(Method::GET, "/healthz", None, Vec::new()).await;
        response.is_some_and(|response| response.status == 200)
    })
    .await;
}

#[tokio::test]
async fn request_timeout_returns_503_and_write_is_atomic() {
    let app = TestAppBuilder::default().with("request-timeout", "1s").spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    app.batch_execute("begin; select from categories where id = 1 for update").await;
    let began = Instant::now();
    let write = staff.post("/api/products/", json!({"name": "Late", "price": 1, "category_id": 1})).await;
    assert_eq!((write.status.as_u16(), write.header("retry-after")), (503, "1"));
    assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    app.batch_execute("commit; begin; lock table products in access exclusive mode").await;
    assert_eq!(staff.get("/api/products/1/").await.status, 503);
    app.batch_execute("commit").await;
    crate::harness::wait_until("the late write is whole", async || {
        staff.get("/api/products/").await.text().contains("\"name\":\"Late\"")
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::spawn().await;
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: id{more}\r\n\r\n");
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: id3\r\nconnection: close\r\n\r\n";
    let all = request("/healthz", "1") + &request("/nowhere", "2") + last;
    let response = app.anonymous().raw(all.as_bytes()).await;
    let ids: Vec<_> =
        response.match_indices("x-request-id: id").map(|(place, _)| &response[place + 16..=place + 16]).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test]
async fn shutdown_finishes_running_requests_and_accepts_no_connections() {
    let app = TestAppBuilder::default().with("pbkdf2-iterations", 2_000_000).spawn().await;
    let address = app.server.address;
    let anonymous = app.anonymous();
    let account = json!({"username": "slow", "email": "slow@example.com", "password": "a slow password"});
    let registering = tokio::spawn(async move { anonymous.post("/api/register/", account).await });
    crate::harness::wait_until("the registration hashes", async || {
        app.statement_calls("%lower(email) = lower($2)%").await > 0
    })
    .await;
    let mut resting = TcpStream::connect(address).await.unwrap();
    let stopping = tokio::spawn(app.server.stop());
    assert_eq!(registering.await.unwrap().status, 201, "what ran was finished");
    assert!(stopping.await.unwrap(), "all of it came to its end");
    let mut rest = Vec::new();
    assert_eq!(resting.read_to_end(&mut rest).await.unwrap_or(0), 0, "a resting connection was closed");
    assert!(TcpStream::connect(address).await.is_err(), "nothing new is taken");
}
