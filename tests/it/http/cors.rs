//! Cross-origin requests of browsers: `CORS_ORIGINS`.

use hyper::{HeaderMap, Method};
use serde_json::json;

use crate::harness::{LinkState, Proxy, TestApp, TestAppBuilder, TestClient, host_and_port, required_env};

const SHOP: &str = "https://shop.example";
const EXPOSED: [&str; 10] = [
    "ETag",
    "Link",
    "Location",
    "Retry-After",
    "X-Total-Count",
    "X-Sync-Token",
    "X-Request-Id",
    "Cache-Status",
    "Content-Disposition",
    "Idempotent-Replayed",
];

/// Returns the items of all lines of a header.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap().split(','));
    values.map(str::trim).collect()
}

/// Asserts that a script of an origin may read a response, or may not.
fn assert_readable(headers: &HeaderMap, origin: Option<&str>, varies: bool, case: &str) {
    assert_eq!(list(headers, "access-control-allow-origin"), Vec::from_iter(origin), "{case}");
    let exposed = if origin.is_some() { EXPOSED.to_vec() } else { Vec::new() };
    assert_eq!(list(headers, "access-control-expose-headers"), exposed, "{case}");
    assert_eq!(list(headers, "vary").contains(&"Origin"), varies, "{case}");
    assert!(!headers.contains_key("access-control-allow-credentials"), "{case}");
}

/// Sends requests with many outcomes as a script of `origin` would, and asserts the headers of each response.
async fn assert_responses(app: &TestApp, origin: Option<&str>, allowed: Option<&str>, varies: bool) {
    let from_origin = |client: TestClient| match origin {
        Some(origin) => client.with_header("origin", origin),
        None => client,
    };
    let (user, anonymous) = (from_origin(app.login("ann").await), from_origin(app.anonymous()));
    let etag = user.get("/api/products/").await.header("etag").to_owned();
    let get = async |client: &TestClient, path: &str| client.get(path).await;
    let responses = [
        (200, get(&user, "/api/products/?page_size=1").await),
        (200, get(&user, "/api/products/export/?format=csv").await),
        (200, get(&anonymous, "/openapi.json").await),
        (304, get(&user.with_header("if-none-match", &etag), "/api/products/").await),
        (204, user.send(Method::OPTIONS, "/api/products/", None).await),
        (204, user.post("/api/logout/", json!({})).await),
        (400, anonymous.post("/api/login/", json!({})).await),
        (401, get(&anonymous, "/api/products/").await),
        (403, from_origin(app.login("ann").await).delete("/api/products/1/").await),
        (404, get(&anonymous, "/nowhere").await),
        (405, anonymous.delete("/api/login/").await),
        (413, anonymous.send_bytes(Method::POST, "/api/login/", Some("application/json"), vec![b' '; 1 << 20]).await),
        (415, anonymous.send_bytes(Method::POST, "/api/login/", Some("text/plain"), b"x".to_vec()).await),
    ];
    for (status, response) in responses {
        assert_eq!(response.status, status, "{}", response.text());
        assert_readable(&response.headers, allowed, varies, &format!("{status} for {origin:?}"));
    }
}

/// Origins of requests, and whether the setting allows each.
type Requests<'a> = &'a [(Option<&'a str>, bool)];

#[tokio::test]
async fn responses_are_readable_by_configured_origins_only() {
    let origins = format!(" {SHOP}:443 , http://localhost:3000");
    let cases: [(&str, Requests<'_>, bool); 3] = [
        ("", &[(Some(SHOP), false), (None, false)], false),
        ("*", &[(Some("https://any.example"), true), (Some("null"), true), (None, true)], false),
        (
            &origins,
            &[
                (Some(SHOP), true),
                (Some("http://localhost:3000"), true),
                (Some("https://shop.example.evil"), false),
                (Some("http://shop.example"), false),
                (Some("null"), false),
                (None, false),
            ],
            true,
        ),
    ];
    for (setting, requests, varies) in cases {
        let app = TestAppBuilder::default().with("cors-origins", setting).spawn().await;
        app.seed_products(2).await;
        app.create_user("ann").await;
        for (origin, is_allowed) in requests {
            let allowed = if setting == "*" { Some("*") } else { *origin };
            assert_responses(&app, *origin, allowed.filter(|_| *is_allowed), varies).await;
        }
    }
}

#[tokio::test]
async fn preflight_gets_methods_of_route_and_headers_of_api() {
    let app = TestAppBuilder::default().with("cors-origins", SHOP).spawn().await;
    let preflight = async |path: &str, origin: &str| {
        let client = app.anonymous().with_header("origin", origin).with_header("access-control-request-method", "PUT");
        let client = client.with_header("access-control-request-headers", "authorization,if-match");
        client.send(Method::OPTIONS, path, None).await
    };
    for (path, methods) in [
        ("/api/products/", "GET, POST, HEAD, OPTIONS"),
        ("/api/products/1", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("/api/products/import/", "POST, OPTIONS"),
        ("/api/login/", "POST, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let response = preflight(path, SHOP).await;
        assert_eq!((response.status.as_u16(), response.body.len()), (204, 0), "{path}");
        assert_eq!(response.header("access-control-allow-origin"), SHOP, "{path}");
        assert_eq!(response.header("access-control-allow-methods"), methods, "{path}");
        assert_eq!(response.header("access-control-max-age"), "7200", "{path}");
        assert_eq!(list(&response.headers, "vary"), ["Origin"], "{path}");
        let headers = list(&response.headers, "access-control-allow-headers");
        for header in [
            "Authorization",
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "Idempotency-Key",
            "X-Request-Id",
            "Prefer",
            "Last-Event-ID",
        ] {
            assert!(headers.contains(&header), "{path}: {header}");
        }
    }
    let unknown = preflight("/nowhere", SHOP).await;
    assert_eq!((unknown.status.as_u16(), unknown.header("access-control-allow-origin")), (404, SHOP));
    assert!(!unknown.headers.contains_key("access-control-allow-methods"));
    // another origin, and an OPTIONS request that is no preflight
    let options = app.anonymous().with_header("origin", SHOP).send(Method::OPTIONS, "/api/login/", None).await;
    for response in [preflight("/api/login/", "https://other.example").await, options] {
        assert_eq!((response.status.as_u16(), response.header("allow")), (204, "POST, OPTIONS"));
        for header in ["methods", "headers"].map(|name| format!("access-control-allow-{name}")) {
            assert!(!response.headers.contains_key(&header), "{header}");
        }
    }
    let admin = TestClient::new(app.server.admin_address).with_header("origin", SHOP).get("/healthz").await;
    assert!(!admin.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn errors_without_request_are_readable_with_any_origin_only() {
    for (setting, line) in [("*", Some("access-control-allow-origin: *")), (SHOP, None)] {
        let proxy = Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await;
        let app = TestAppBuilder::default().with("cors-origins", setting).database_via_proxy(&proxy).spawn().await;
        let head = |header: &str| format!("GET / HTTP/1.1\r\nhost: x\r\norigin: {SHOP}\r\n{header}\r\n\r\n");
        let malformed = app.anonymous().raw(head("no colon").as_bytes()).await;
        let too_large = app.anonymous().raw(head(&format!("x: {}", "x".repeat(17_000))).as_bytes()).await;
        // one network has half of the connections
        let full = app.start_instance_with("max-connections", 2).await;
        let _connection = tokio::net::TcpStream::connect(full.address).await.unwrap();
        let over_limit = app.anonymous().on_instance(full.address).raw(b"").await;
        for (response, status) in [(malformed, "400"), (too_large, "431"), (over_limit, "503")] {
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            let found = response.lines().find(|line| line.starts_with("access-control-allow-origin"));
            assert_eq!(found, line, "{response}");
        }
        proxy.set_state(LinkState::Cut);
        let unavailable = app.anonymous().with_header("origin", SHOP).get("/readyz").await;
        assert_eq!(unavailable.status, 503);
        assert!(unavailable.headers.contains_key("access-control-allow-origin"));
    }
}
