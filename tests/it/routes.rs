//! Properties of every route in the table: access, trailing slashes, query parameters.

use hyper::Method;
use serde_json::json;
use testshop::{
    http::router::{QueryParams, RouteSummary},
    routes,
};

use crate::harness::TestApp;

const NOT_AUTHENTICATED: &str = "Authentication credentials were not provided.";

fn path_of(pattern: &str) -> String {
    pattern.replace("{id}", "999999")
}

#[tokio::test]
async fn protected_routes_reject_anonymous_requests() {
    let app = TestApp::spawn().await;
    for RouteSummary { method, path, access, .. } in routes::summary() {
        let response = app.anonymous().send(method.clone(), &path_of(path), None).await;
        if access == "anyone" {
            assert_ne!(response.status, 401, "{method} {path}");
            continue;
        }
        assert_eq!(response.status_and_json(), (401, json!({"detail": NOT_AUTHENTICATED})), "{method} {path}");
        assert_eq!(response.header("www-authenticate"), "Bearer realm=\"api\"", "{method} {path}");
    }
}

#[tokio::test]
async fn staff_routes_reject_users_before_reading_body() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    let mut rejected = 0;
    for RouteSummary { method, path, .. } in routes::summary().into_iter().filter(|route| route.access == "staff") {
        let response = user.send_bytes(method.clone(), &path_of(path), Some("text/nonsense"), b"{".to_vec()).await;
        let error = json!({"detail": "You do not have permission to perform this action."});
        assert_eq!(response.status_and_json(), (403, error), "{method} {path}");
        rejected += 1;
    }
    assert!(rejected >= 12, "{rejected}");
}

/// Routes for the accounts of the clients themselves.
const ACCOUNTS: &[&str] =
    &["/api/register/", "/api/login/", "/api/token/refresh/", "/api/logout/", "/api/logout/all/", "/api/password/"];

#[tokio::test]
async fn writes_outside_accounts_require_staff() {
    for RouteSummary { method, path, access, .. } in routes::summary() {
        if method != Method::GET && !ACCOUNTS.contains(&path) {
            assert_eq!(access, "staff", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_path_works_with_and_without_trailing_slash() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.create_staff("sam").await;
    // the root path is a slash only
    for RouteSummary { method, path, .. } in routes::summary().into_iter().filter(|route| route.path != "/") {
        let body = (method != Method::GET).then(|| json!([]));
        // the response to a GET does not end
        let method = if path == "/api/products/events/" { Method::HEAD } else { method };
        let path = path_of(path);
        let without_slash = path.trim_end_matches('/');
        // a login for each request: one of the routes revokes it
        let without = app.login("sam").await.send(method.clone(), without_slash, body.clone()).await;
        let with = app.login("sam").await.send(method.clone(), &format!("{without_slash}/"), body).await;
        assert_eq!(without.status, with.status, "{method} {path}");
        assert!(!without.status.is_redirection() && without.status != 405, "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_query_params_are_rejected_or_ignored_as_declared() {
    let app = TestApp::spawn().await;
    app.create_staff("sam").await;
    let mut rejected = 0;
    for RouteSummary { method, path, query, .. } in routes::summary() {
        // a login for each request: one of the routes revokes it
        let staff = app.login("sam").await;
        let response = staff.send(method.clone(), &(path_of(path) + "?nosuch=1&nosuch=2&x"), None).await;
        match query {
            QueryParams::Rejected => {
                let expected = json!({"nosuch": ["Unknown parameter."], "x": ["Unknown parameter."]});
                assert_eq!(response.status_and_json(), (400, expected), "{method} {path}");
                rejected += 1;
            }
            QueryParams::Parsed => {
                assert!(response.status == 400 && response.json()["nosuch"].is_array(), "{method} {path}");
            }
            QueryParams::Ignored => assert!(!response.text().contains("nosuch"), "{method} {path}"),
        }
    }
    assert!(rejected >= 15, "{rejected}");
}

#[tokio::test]
async fn encoded_body_is_unsupported_on_every_route_and_charset_on_every_json_route() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.create_staff("sam").await;
    let (mut encoded, mut charsets) = (0, 0);
    for RouteSummary { method, path, .. } in routes::summary().into_iter().filter(|route| !route.method.is_safe()) {
        let (path, staff) = (path.replace("{id}", "1"), app.login("sam").await);
        let coded = staff.with_header("content-encoding", "gzip");
        let response = coded.send_bytes(method.clone(), &path, Some("application/json"), b"{}".to_vec()).await;
        let error = json!({"detail": "Unsupported content coding \"gzip\" in request."});
        assert_eq!(response.status_and_json(), (415, error), "{method} {path}");
        assert_eq!(response.header("accept-encoding"), "identity", "{method} {path}");
        encoded += 1;
        if method == Method::DELETE || path.starts_with("/api/logout/") || path == "/api/products/import/" {
            continue;
        }
        let media_type = "application/json; charset=utf-16";
        let response = staff.send_bytes(method.clone(), &path, Some(media_type), b"{\0}\0".to_vec()).await;
        let error = json!({"detail": format!("Unsupported media type \"{media_type}\" in request.")});
        assert_eq!(response.status_and_json(), (415, error), "{method} {path}");
        charsets += 1;
    }
    assert_eq!((encoded, charsets), (19, 13));
}
