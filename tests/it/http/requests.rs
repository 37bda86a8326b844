//! Requests and responses: headers, methods, body formats, size limits, parse errors.

use hyper::Method;
use serde_json::json;

use super::assert_error_response;
use crate::harness::TestApp;

#[tokio::test]
async fn responses_have_security_headers_and_request_id() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    for (client, path) in [
        (&user, "/api/products/"),
        (&user, "/api/me/"),
        (&user, "/nowhere"),
        (&app.anonymous(), "/api/products/"),
        (&app.anonymous(), "/healthz"),
    ] {
        let response = client.get(path).await;
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
    for invalid in ["", "with space", "quote\"", &"x".repeat(129)] {
        let response = anonymous.with_header("x-request-id", invalid).get("/healthz").await;
        assert_ne!(response.header("x-request-id"), invalid);
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
        "/api/products%2F1/",
    ] {
        assert_eq!(anonymous.get(path).await.status_and_json(), (404, json!({"detail": "Not found."})), "{path}");
    }
    let rejected = anonymous.delete("/api/products/").await;
    assert_eq!(rejected.status_and_json(), (405, json!({"detail": "Method \"DELETE\" not allowed."})));
    assert_eq!(rejected.header("allow"), "GET, POST, HEAD, OPTIONS");
    let rejected = anonymous.get("/api/login/").await;
    assert_eq!((rejected.status.as_u16(), rejected.header("allow")), (405, "POST, OPTIONS"));
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
        let message = format!("Invalid data. Expected a dictionary, but got {kind}.");
        assert_eq!(post(json_type, body).await, (400, json!({"non_field_errors": [message]})), "{body}");
    }
    for body in ["{", "{\"a\":}", "\u{feff}{}", "{\"username\":\"\\ud800\"}", "nonsense", &"[".repeat(100_000)[..4000]]
    {
        let (status, response) = post(json_type, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(response["detail"].as_str().unwrap().starts_with("JSON parse error - "), "{response}");
    }
    let not_utf8 =
        anonymous.send_bytes(Method::POST, "/api/login/", json_type, b"{\"username\":\"\xff\"}".to_vec()).await;
    assert!(not_utf8.json()["detail"].as_str().unwrap().starts_with("JSON parse error - "));

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
    assert_eq!(staff.post("/api/tags/", long(200_000)).await.status, 400, "a body within the limit is parsed");

    // chunked, without a Content-Length
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

#[tokio::test]
async fn unparsable_requests_get_standard_error_response() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let large = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(300));
    for (request, status, detail) in [
        ("GET /healthz HTTP/1.1\r\nno header\r\n\r\n", "400", "Malformed request."),
        ("\0\r\n\r\n", "400", "Malformed request."),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "400", "Malformed request."),
        (&large, "431", "Request header fields too large."),
    ] {
        let response = anonymous.raw(request.as_bytes()).await;
        assert_error_response(&response, status, detail);
        assert!(response.contains("\r\ndate: "), "{response}");
        // pipelined after a valid request
        let responses = anonymous.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{request}").as_bytes()).await;
        let (first, second) = responses.split_at(responses.rfind("HTTP/1.1 ").unwrap());
        assert!(first.starts_with("HTTP/1.1 200 "), "{responses}");
        assert_error_response(second, status, detail);
    }
    let counted = app.metric("testshop_http_requests_total{method=\"\",route=\"unmatched\",status=\"400\"}").await;
    assert_eq!(counted, 6.0, "3 requests with 400, each sent twice");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::spawn().await;
    let request = |path: &str, id: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: id{id}\r\n\r\n");
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: id3\r\nconnection: close\r\n\r\n";
    let requests = request("/healthz", "1") + &request("/nowhere", "2") + last;
    let responses = app.anonymous().raw(requests.as_bytes()).await;
    let ids: Vec<_> = responses.split("x-request-id: id").skip(1).map(|rest| &rest[..1]).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}
