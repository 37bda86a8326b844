//! `/openapi.json`, `/docs` and `/`: complete, correct, and usable without another host.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value, json};
use testshop::routes;

use crate::harness::{TestApp, TestClient};

/// Method, path and access of each operation.
fn documented(document: &Value) -> BTreeSet<(String, String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| {
            let access = operation["x-access"].as_str().unwrap().to_owned();
            (method.to_ascii_uppercase(), path.clone(), access)
        })
    });
    operations.collect()
}

#[test]
fn document_has_exactly_the_routes_with_their_access() {
    let document = routes::openapi_document();
    let is_page_file = |path: &str| path.starts_with("/docs/") || path.starts_with("/admin/");
    let table = routes::summary().into_iter().filter(|route| !is_page_file(route.path));
    let table: BTreeSet<_> =
        table.map(|route| (route.method.to_string(), route.path.to_owned(), route.access.to_owned())).collect();
    assert_eq!(documented(&document), table);
    for (method, path, access) in table {
        let operation = &document["paths"][&path][method.to_ascii_lowercase()];
        let requires_token = operation["security"] != json!([]);
        assert_eq!(requires_token, access != "anyone", "{method} {path}");
        assert_eq!(operation["responses"]["403"].is_object(), access == "staff", "{method} {path}");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
    }
}

/// Collects the values of a key at all depths.
fn collect_values<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| collect_values(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_values(value, key, found)),
        _ => {}
    }
}

#[test]
fn references_resolve_and_components_are_used() {
    let document = routes::openapi_document();
    let mut references = Vec::new();
    collect_values(&document, "$ref", &mut references);
    let references: BTreeSet<&str> = references.into_iter().map(|reference| reference.as_str().unwrap()).collect();
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(references.contains(format!("#/components/{kind}/{name}").as_str()), "unused: {kind}/{name}");
        }
    }
    let mut ids = Vec::new();
    collect_values(&document, "operationId", &mut ids);
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
}

/// Returns what a schema contains that generators of clients fail on, or leave out of the types that they write.
fn unsupported_by_generators(schema: &Map<String, Value>) -> Option<&'static str> {
    let alternatives = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema.get(*key));
    let is_bare_object = |schema: &Value| schema["type"] == "object" && schema.as_object().unwrap().len() == 1;
    let is_moment = schema.get("format").is_some_and(|format| format == "date-time" || format == "date");
    if schema.contains_key("not") {
        Some("`not`")
    } else if alternatives.is_some() && (schema.contains_key("properties") || schema.contains_key("type")) {
        Some("`oneOf`, `anyOf` or `allOf` beside `properties` or `type`")
    } else if alternatives.is_some_and(|list| list.as_array().unwrap().iter().any(is_bare_object)) {
        Some("an alternative that is an object without properties")
    } else if schema.get("type").is_some_and(Value::is_array) {
        Some("several types")
    } else if is_moment && schema.contains_key("pattern") {
        Some("a pattern for a date or time, which clients parse")
    } else if schema.get("enum").is_some_and(|values| values.as_array().unwrap().contains(&json!(""))) {
        Some("an empty value, which has no name")
    } else {
        None
    }
}

fn assert_supported_by_generators(value: &Value, path: &str) {
    match value {
        Value::Object(fields) => {
            assert_eq!(unsupported_by_generators(fields), None, "{path}");
            fields.iter().for_each(|(key, value)| assert_supported_by_generators(value, &format!("{path}/{key}")));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_supported_by_generators(item, path)),
        _ => {}
    }
}

#[test]
fn description_has_only_what_client_generators_support() {
    let document = routes::openapi_document();
    assert_supported_by_generators(&document, "");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["operationId"].is_string() && operation["tags"][0].is_string(), "{name}");
            let bodies = operation["responses"].as_object().unwrap().values().chain([&operation["requestBody"]]);
            for body in bodies.filter_map(|body| body["content"].get("application/json")) {
                let is_named = body["schema"]["$ref"].is_string() || path == "/openapi.json";
                assert!(is_named, "{name}: a body without a named schema");
            }
            // with several media types, some clients use the first one, and some send none
            let mut media_types = operation["requestBody"]["content"].as_object().into_iter().flat_map(Map::keys);
            let is_json = media_types.all(|media_type| media_type == "application/json");
            assert!(is_json || path == "/api/products/import/", "{name}");
        }
    }
    let binary = json!({"type": "string", "format": "binary"});
    for files in [
        &document["paths"]["/api/products/import/"]["post"]["requestBody"]["content"],
        &document["paths"]["/api/products/export/"]["get"]["responses"]["200"]["content"],
    ] {
        let files = files.as_object().unwrap();
        assert_eq!(files.keys().next().unwrap(), "application/octet-stream");
        assert!(files.values().all(|content| content["schema"] == binary), "{files:?}");
    }
}

/// The example of an operation's JSON body.
fn example(document: &Value, method: &str, path: &str) -> Value {
    let content = &document["paths"][path][method]["requestBody"]["content"]["application/json"];
    let schema = content["schema"]["$ref"].as_str().unwrap();
    document.pointer(&schema[1..]).unwrap()["example"].clone()
}

#[tokio::test]
async fn every_example_request_works() {
    let app = TestApp::spawn().await;
    let document = routes::openapi_document();
    let anonymous = app.anonymous();
    let send = async |client: &TestClient, method: Method, path: &str, expected: u16| {
        let body = example(&document, &method.as_str().to_ascii_lowercase(), path);
        let response = client.send(method.clone(), &path.replace("{id}", "1"), Some(body)).await;
        assert_eq!(response.status, expected, "{method} {path}: {}", response.text());
        response
    };
    send(&anonymous, Method::POST, "/api/register/", 201).await;
    app.execute("update users set is_staff = true", &[]).await;
    let tokens = send(&anonymous, Method::POST, "/api/login/", 200).await.json();
    let staff = anonymous.with_token(tokens["token"].as_str().unwrap());
    send(&staff, Method::POST, "/api/categories/", 201).await;
    send(&staff, Method::POST, "/api/tags/", 201).await;
    for method in [Method::PUT, Method::PATCH] {
        send(&staff, method.clone(), "/api/categories/{id}/", 200).await;
        send(&staff, method, "/api/tags/{id}/", 200).await;
    }
    send(&staff, Method::POST, "/api/products/", 201).await;
    send(&staff, Method::PUT, "/api/products/{id}/", 200).await;
    send(&staff, Method::PATCH, "/api/products/{id}/", 200).await;
    let table = &document["paths"]["/api/products/import/"]["post"]["requestBody"]["content"]["text/csv"]["example"];
    let table = table.as_str().unwrap().as_bytes().to_vec();
    let imported = staff.send_bytes(Method::POST, "/api/products/import/", Some("text/csv"), table).await;
    assert_eq!((imported.status.as_u16(), &imported.json()["created"]), (200, &json!(1)));
    send(&staff, Method::POST, "/api/password/", 204).await;
    send(&anonymous, Method::POST, "/api/token/refresh/", 401).await;
}

#[tokio::test]
async fn served_document_matches_printed_one_and_page_uses_no_other_host() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let served = anonymous.get("/openapi.json").await;
    assert_eq!((served.status.as_u16(), served.json()), (200, routes::openapi_document()));
    assert_eq!(served.header("content-type"), "application/json");
    let unchanged = anonymous.with_header("if-none-match", served.header("etag")).get("/openapi.json").await;
    assert_eq!(unchanged.status, 304);

    let page = anonymous.get("/docs").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert!(!page.text().contains("//"), "the page refers to another host: {}", page.text());
    let mut files = 0;
    for path in routes::summary().into_iter().map(|route| route.path).filter(|path| path.starts_with("/docs/")) {
        assert!(page.text().contains(&format!("\"{path}\"")), "{path}");
        let plain = anonymous.get(path).await;
        let compressed = anonymous.with_header("accept-encoding", "gzip").get(path).await;
        let mut decompressed = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*compressed.body), &mut decompressed).unwrap();
        assert_eq!(
            (plain.status.as_u16(), compressed.status.as_u16(), compressed.header("content-encoding")),
            (200, 200, "gzip")
        );
        assert!(plain.body == decompressed && !decompressed.is_empty(), "{path}");
        assert_ne!(plain.header("etag"), compressed.header("etag"));
        files += 1;
    }
    assert_eq!(files, 3);
}

#[tokio::test]
async fn root_links_to_docs() {
    let app = TestApp::spawn().await;
    let about = app.anonymous().get("/").await.json();
    assert_eq!((&about["name"], &about["docs"]), (&json!("TestShop"), &json!("/docs")));
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let page = app.anonymous().with_header("accept", "text/html,*/*").get("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for part in ["href=\"/docs\"", "href=\"/admin/\"", env!("CARGO_PKG_VERSION")] {
        assert!(page.text().contains(part), "{part}");
    }
}
