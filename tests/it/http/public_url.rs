//! `PUBLIC_URL`: URLs in responses behind a proxy that serves the API under a path prefix.

use serde_json::{Value, json};

use crate::harness::{TestApp, TestAppBuilder, TestClient, TestResponse, wait_until};

const BASE: &str = "https://shop.example:8443/api-root";

/// Returns the path that a proxy requests when its client requests `url`: the prefix is removed.
fn proxied(url: &str) -> &str {
    url.strip_prefix(BASE).filter(|path| path.starts_with('/')).unwrap_or_else(|| panic!("{url} begins with {BASE}"))
}

/// Returns the target of a relation in `Link`.
fn link<'a>(response: &'a TestResponse, relation: &str) -> Option<&'a str> {
    let links = response.headers.get("link")?.to_str().unwrap();
    let suffix = format!(">; rel=\"{relation}\"");
    links.split(", ").find_map(|link| link.strip_suffix(&suffix)).map(|link| link.trim_start_matches('<'))
}

async fn ids(client: &TestClient, path: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    let mut page = client.get(path).await;
    loop {
        assert_eq!(page.status, 200, "{}", page.text());
        ids.extend(page.json().as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()));
        match link(&page, "next").map(proxied) {
            Some(next) => page = client.get(next).await,
            None => return ids,
        }
    }
}

async fn assert_locations_are_reachable(staff: &TestClient) {
    for (path, body) in [
        ("/api/categories/", json!({"name": "Books"})),
        ("/api/tags/", json!({"name": "illustrated"})),
        ("/api/products/", json!({"name": "Atlas", "price": "5", "category_name": "Books"})),
    ] {
        let client = staff.with_header("idempotency-key", path);
        let created = client.post(path, body.clone()).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let found = staff.get(proxied(created.header("location"))).await;
        assert_eq!(found.json(), created.json());
        if path == "/api/products/" {
            let replayed = client.post(path, body).await;
            assert_eq!(replayed.header("idempotent-replayed"), "true");
            assert_eq!(replayed.header("location"), created.header("location"));
        }
    }
}

async fn assert_pages_link_to_each_other(app: &TestApp) {
    let anonymous = app.anonymous();
    let root = anonymous.get("/").await.json();
    let html = anonymous.with_header("accept", "text/html");
    let mut urls: Vec<String> = ["docs", "openapi"].map(|key| root[key].as_str().unwrap().to_owned()).into();
    for page in ["/", "/docs", "/docs/", "/admin", "/admin/"] {
        let text = html.get(page).await.text();
        let links = ["href=\"", "src=\""].into_iter().flat_map(|attribute| text.split(attribute).skip(1));
        let links = links.map(|rest| rest.split('"').next().unwrap().to_owned());
        urls.extend(links.filter(|url| url != "data:,"));
    }
    assert_eq!(urls.len(), 15, "{urls:?}");
    for url in urls {
        assert_eq!(html.get(proxied(&url)).await.status, 200, "{url}");
    }
    let script = anonymous.get("/docs/page.js").await.text();
    assert!(script.contains(&format!("const base = \"{BASE}\";")), "{script}");
    let document: Value = anonymous.get("/openapi.json").await.json();
    assert_eq!(document["servers"], json!([{"url": BASE}]));
}

#[tokio::test]
async fn urls_in_responses_begin_with_public_url() {
    let app = TestAppBuilder::default().with("public-url", format!("{BASE}/")).spawn().await;
    app.seed_products(7).await;
    let staff = app.create_staff("sam").await;
    let all: Vec<i64> = (1..=7).collect();
    for paging in ["page_size=2", "page_size=2&page=1"] {
        // the second time from the cache
        for _ in 0..2 {
            assert_eq!(ids(&staff, &format!("/api/products/?{paging}&ordering=id")).await, all, "{paging}");
        }
    }
    let page = staff.get("/api/products/?page_size=2&page=2").await;
    for relation in ["first", "prev", "next", "last"] {
        assert_eq!(staff.get(proxied(link(&page, relation).unwrap())).await.status, 200, "{relation}");
    }
    let unchanged =
        staff.with_header("if-none-match", page.header("etag")).get("/api/products/?page_size=2&page=2").await;
    assert_eq!(unchanged.status, 304);
    // another server with the same Redis
    let path_only = app.start_instance_with_settings(&[("public-url", ""), ("cache-mode", "redis")]).await;
    let other = staff.on_instance(path_only.address);
    wait_until("the page comes from Redis", async || {
        let page = other.get("/api/products/?page_size=2&page=2").await;
        assert!(link(&page, "next").unwrap().starts_with("/api/products/?"), "{:?}", page.headers);
        page.header("cache-status") == "TestShop; hit; detail=redis"
    })
    .await;
    let root = TestClient::new(path_only.address).get("/").await.json();
    assert_eq!((&root["docs"], &root["openapi"]), (&json!("/docs"), &json!("/openapi.json")));
    assert_locations_are_reachable(&staff).await;
    assert_pages_link_to_each_other(&app).await;
}
