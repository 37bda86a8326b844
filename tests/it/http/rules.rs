//! Rules of HTTP: `Host`, transfer and content codings, charsets, numbers in paths, half-closed connections.

use hyper::Method;
use serde_json::json;

use super::assert_error_response;
use crate::harness::{TestApp, wait_until};

#[tokio::test]
async fn http_1_1_requires_exactly_one_valid_host() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let request = |version: &str, headers: &str| {
        format!("GET /healthz HTTP/{version}\r\n{headers}connection: close\r\n\r\n").into_bytes()
    };
    for headers in [
        "",
        "host: x\r\nhost: x\r\n",
        "host: x\r\nHost: y\r\n",
        "host:\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@x\r\n",
        "host: x:port\r\n",
        "host: [::1\r\n",
        "host: a, b\r\n",
    ] {
        let response = anonymous.raw(&request("1.1", headers)).await;
        assert_error_response(&response, "400", "Invalid Host header.");
    }
    for target in ["http://shop.test/healthz", "/nowhere", "/api/products/"] {
        let response = anonymous.raw(format!("GET {target} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert_error_response(&response, "400", "Invalid Host header.");
    }
    for headers in ["host: x\r\n", "host: shop.example:8000\r\n", "host: [::1]:8000\r\n", "host: 127.0.0.1\r\n"] {
        let response = anonymous.raw(&request("1.1", headers)).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{headers}: {response}");
    }
    assert!(anonymous.raw(&request("1.0", "")).await.starts_with("HTTP/1.0 200 "));
    assert!(anonymous.raw(&request("1.0", "host: x\r\nhost: x\r\n")).await.starts_with("HTTP/1.0 400 "));
}

#[tokio::test]
async fn unsupported_transfer_coding_gets_501_and_closes() {
    let app = TestApp::spawn().await;
    for coding in ["gzip, chunked", "identity,chunked", "gzip\r\ntransfer-encoding: chunked", "deflate, gzip, chunked"]
    {
        let request = format!(
            "POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: {coding}\r\n\r\n\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        let response = app.anonymous().raw(request.as_bytes()).await;
        assert_error_response(&response, "501", "Unsupported transfer coding.");
    }
}

#[tokio::test]
async fn id_out_of_range_names_no_row() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let max = i64::MAX;
    app.execute("insert into products (id, category_id, name, price) values ($1, 1, 'Last', 1)", &[&max]).await;
    app.execute("insert into tags (id, name) values ($1, 'last')", &[&max]).await;
    let (staff, user) = (app.create_staff("sam").await, app.create_user("ann").await);
    for (path, model) in [("products", "Product"), ("tags", "Tag"), ("categories", "Category")] {
        let not_found = json!({"detail": format!("No {model} matches the given query.")});
        for id in ["9223372036854775808", "18446744073709551617", &"9".repeat(1000)] {
            let path = format!("/api/{path}/{id}/");
            assert_eq!(user.get(&path).await.status_and_json(), (404, not_found.clone()), "{path}");
            assert_eq!(staff.delete(&path).await.status_and_json(), (404, not_found.clone()), "{path}");
            let renamed = staff.patch(&path, json!({"name": "Aliased"})).await;
            assert_eq!(renamed.status_and_json(), (404, not_found.clone()), "{path}");
            assert_eq!(app.anonymous().get(&path).await.status, 401, "{path}");
            assert_eq!(user.delete(&path).await.status, 403, "{path}");
        }
    }
    assert_eq!(user.get(&format!("/api/products/{max}/")).await.json()["name"], "Last");
    assert_eq!(user.get(&format!("/api/tags/{max}/")).await.json()["name"], "last");
    assert_eq!(user.get("/api/products/0001/").await.json()["id"], 1, "leading zeros do not change a number");
    assert_eq!(user.get("/api/products/+1/").await.json(), json!({"detail": "Not found."}));
}

#[tokio::test]
async fn encoded_bodies_and_other_charsets_are_unsupported() {
    let app = TestApp::spawn().await;
    let body = || json!({"username": "ann", "password": "x"}).to_string().into_bytes();
    let post = async |headers: &[(&str, &str)], content_type: &str| {
        let client = headers.iter().fold(app.anonymous(), |client, (name, value)| client.with_header(name, value));
        client.send_bytes(Method::POST, "/api/login/", Some(content_type), body()).await
    };
    for coding in ["gzip", "GZIP", "br", "identity, gzip"] {
        let response = post(&[("content-encoding", coding)], "application/json").await;
        let detail = format!("Unsupported content coding \"{coding}\" in request.");
        assert_eq!(response.status_and_json(), (415, json!({"detail": detail})));
        assert_eq!(response.header("accept-encoding"), "identity");
    }
    assert_eq!(post(&[("content-encoding", "identity")], "application/json").await.status, 401);
    for charset in ["iso-8859-1", "utf-16", "\"windows-1251\"", "us-ascii", "utf-8; charset=latin1", ""] {
        for media_type in ["application/json", "application/x-www-form-urlencoded"] {
            let content_type = format!("{media_type}; charset={charset}");
            let detail = format!("Unsupported media type \"{content_type}\" in request.");
            assert_eq!(post(&[], &content_type).await.status_and_json(), (415, json!({"detail": detail})));
        }
    }
    for content_type in
        ["application/json;charset=UTF-8", "application/json; charset=\"utf-8\"", "application/json; q=1"]
    {
        assert_eq!(post(&[], content_type).await.status, 401, "{content_type}");
    }
}

#[tokio::test]
async fn content_coding_follows_the_weights_of_the_client() {
    let app = TestApp::spawn().await;
    app.seed_products(20).await;
    let user = app.create_user("ann").await;
    for (accepted, coding) in [
        ("identity;q=1, gzip;q=0.5", ""),
        ("gzip;q=0.5, identity;q=0.6", ""),
        ("identity, *;q=0.1", ""),
        ("*;q=1, gzip;q=0.5", ""),
        ("gzip;q=0, *", ""),
        ("br, deflate", ""),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("gzip, identity", "gzip"),
        ("gzip;q=0.5, br", "gzip"),
        ("identity;q=0, *;q=0.5", "gzip"),
        ("*", "gzip"),
    ] {
        let response = user.with_header("accept-encoding", accepted).get("/api/products/").await;
        assert_eq!((response.status.as_u16(), response.header("content-encoding")), (200, coding), "{accepted}");
    }
}

#[tokio::test]
async fn percent_encoded_letters_and_digits_of_a_path_are_decoded() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    for path in ["/api/%70roducts/1/", "/%61pi/products/%31", "/api/%50roducts/1/", "/api/products%2F1/", "/api/%00/"] {
        let expected = if path.contains("%70") || path.contains("%61") { 200 } else { 404 };
        assert_eq!(user.get(path).await.status, expected, "{path}");
    }
    assert_eq!(user.delete("/api/products/%31/").await.status, 403, "the route of the decoded path decides on access");
}

#[tokio::test]
async fn two_authorization_headers_are_rejected() {
    let app = TestApp::spawn().await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    for second in [format!("Bearer {}", bob.token()), format!("Bearer {}", ann.token()), "Basic eDp4".into()] {
        let response = ann.with_header("authorization", &second).get("/api/me/").await;
        assert_eq!(response.status, 401, "{second}");
        assert_eq!(response.json()["code"], "bad_authorization_header");
        assert_eq!(response.header("www-authenticate"), "Bearer realm=\"api\"");
    }
}

/// A client may close its sending side after its last request (RFC 9112, 9.6).
#[tokio::test]
async fn half_closed_client_gets_its_response() {
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let user = app.create_user("ann").await;
    let authorization = format!("authorization: Bearer {}\r\n", user.token());
    for path in ["/api/products/1/", "/api/products/", "/api/products/export/?format=csv", "/healthz"] {
        for _ in 0..10 {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{authorization}\r\n");
            let response = user.raw_half_close(request.as_bytes()).await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{path}: {response:?}");
        }
    }
    let pipelined = format!("GET /api/products/1/ HTTP/1.1\r\nhost: x\r\n{authorization}\r\n").repeat(5);
    let responses = user.raw_half_close(pipelined.as_bytes()).await;
    assert_eq!(responses.matches("HTTP/1.1 200 ").count(), 5, "{responses}");
    wait_until("the connections are closed", async || app.metric("testshop_http_connections").await == 0.0).await;
}
