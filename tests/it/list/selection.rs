//! The parameters `id`, which selects products, and `fields`, which selects what is returned of each.

use std::io::Read;

use hyper::Method;
use serde_json::{Value, json};

use super::{ids, link_target, list_ids, spawn_with_products};
use crate::harness::{TestApp, TestAppBuilder};

const ALL_FIELDS: [&str; 7] = ["id", "name", "description", "category_name", "price", "created_at", "tags"];

/// Returns the objects of a list with these fields only.
fn project(list: &Value, fields: &[&str]) -> Value {
    let project = |product: &Value| -> Value {
        fields
            .iter()
            .map(|field| ((*field).to_owned(), product[field].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    list.as_array().unwrap().iter().map(project).collect()
}

/// Returns the keys of the first object of a list, in the order of the text.
fn keys(list: &str) -> Vec<String> {
    let object = list.strip_prefix('[').unwrap().split('}').next().unwrap();
    let keys = object.split('"').skip(1).step_by(2).zip(object.split('"').skip(2).step_by(2));
    keys.filter(|(_, after)| after.starts_with(':')).map(|(key, _)| key.to_owned()).collect()
}

#[tokio::test]
async fn ids_select_products_and_combine_with_other_filters() {
    let (app, user) = spawn_with_products().await;
    app.execute("insert into products (id, category_id, name, price) values (-7, 1, 'Negative', 1)", &[]).await;
    let many: String = (1..=1000).map(|id| format!("id={id}&")).collect();
    for (query, expected) in [
        ("id=3", vec![3]),
        ("id=9&id=2&id=5&id=2", vec![2, 5, 9]),
        ("id=%209+&id=007&id=-7", vec![-7, 7, 9]),
        ("id=&id=4", vec![4]),
        ("id=4&id=99&id=0&id=9223372036854775807&id=-9223372036854775808", vec![4]),
        ("id=99", vec![]),
        ("id=2&id=9&id=5&price_max=5.50", vec![2, 9]),
        ("id=1&id=2&id=3&category=Sport", vec![3]),
        ("id=1&id=2&id=3&category=Nothing", vec![]),
        ("id=2&id=3&id=4&tag=new", vec![2, 4]),
        ("id=2&id=3&id=6&tag=new&tag=eco", vec![6]),
        ("id=10&id=2&id=12&search=number+1", vec![10, 12]),
        ("id=2&id=9&id=5&ordering=-id", vec![9, 5, 2]),
        ("id=2&id=9&id=5&ordering=-price", vec![5, 2, 9]),
        ("id=1&id=2&id=3&id=4&page_size=3", vec![1, 2, 3]),
        ("id=1&id=2&id=3&id=4&page_size=3&page=2", vec![4]),
        (&many, (1..=12).collect()),
    ] {
        assert_eq!(list_ids(&user, query).await, expected, "{query}");
        let export = user.get(&format!("/api/products/export/?format=csv&fields=id&{query}")).await.text();
        let exported: Vec<i64> =
            export.lines().skip(1).map(|id| id.trim_start_matches('\'').parse().unwrap()).collect();
        assert_eq!(exported, expected, "export of {query}");
    }
    // pages of the selection, with a link that repeats the ids
    let page = user.get("/api/products/?id=12&id=3&id=8&id=5&ordering=-name&page_size=2").await;
    assert_eq!(ids(&page.json()), [5, 12]);
    let next = link_target(&page, "next").unwrap();
    assert!(next.starts_with("/api/products/?id=3&id=5&id=8&id=12&ordering=-name&"), "{next}");
    let page = user.get(&next).await;
    assert_eq!((ids(&page.json()), link_target(&page, "next")), (vec![8, 3], None));
    assert_eq!(ids(&user.get(&link_target(&page, "prev").unwrap()).await.json()), [5, 12]);
    let numbered = user.get("/api/products/?id=3&id=5&id=99&page=1&page_size=1").await;
    assert_eq!((ids(&numbered.json()), numbered.header("x-total-count")), (vec![3], "2"));
}

#[tokio::test]
async fn equal_sets_of_ids_and_fields_share_an_entry() {
    let (app, user) = spawn_with_products().await;
    let fills = async || app.metric("testshop_cache_fills_total").await;
    let all = user.get("/api/products/").await;
    for (queries, new_fills) in [
        (&["id=3&id=1", "id=1&id=3", "id=03&id=1&id=+1&id="][..], 1.0),
        (&["fields=price,id", "fields=id,price", "fields=+price,+id,price+", "fields=id%2Cprice"], 1.0),
        (&["fields=id,price&ordering=id", "ordering=id&fields=price,id"], 0.0),
        (&["fields=", "fields=tags,created_at,price,category_name,description,name,id"], 0.0),
    ] {
        let before = fills().await;
        let mut tags = Vec::new();
        for query in queries {
            let response = user.get(&format!("/api/products/?{query}")).await;
            assert_eq!(response.status, 200, "{query}: {}", response.text());
            tags.push(response.header("etag").to_owned());
        }
        assert_eq!(fills().await - before, new_fills, "{queries:?}");
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{queries:?}: {tags:?}");
    }
    assert_eq!(user.get("/api/products/?fields=").await.header("etag"), all.header("etag"));
    // an equal list in Redis, read by another instance
    let instance = app.start_instance().await;
    let other = user.on_instance(instance.address);
    let from_redis = other.get("/api/products/?fields=id,price").await;
    assert_eq!(from_redis.header("cache-status"), "TestShop; hit; detail=redis");
    assert_eq!(from_redis.body, user.get("/api/products/?fields=id,price").await.body);
}

#[tokio::test]
async fn fields_select_keys_in_fixed_order() {
    let (app, user) = spawn_with_products().await;
    let all = user.get("/api/products/").await;
    assert_eq!(keys(&all.text()), ALL_FIELDS);
    for selected in [
        &["id"][..],
        &["tags"],
        &["price", "name", "id"],
        &["description", "category_name"],
        &["tags", "created_at", "price", "category_name", "description", "name"],
        &ALL_FIELDS,
    ] {
        let response = user.get(&format!("/api/products/?fields={}", selected.join(","))).await;
        let expected: Vec<_> = ALL_FIELDS.into_iter().filter(|field| selected.contains(field)).collect();
        assert_eq!(response.json(), project(&all.json(), &expected), "{selected:?}");
        assert_eq!(keys(&response.text()), expected, "{selected:?}");
    }
    assert!(user.get("/api/products/?id=1&fields=price").await.text().contains("\"price\":4.50"), "digits as stored");
    assert_eq!(user.get("/api/products/?id=99&fields=price").await.text(), "[]");

    // a write is visible, and another list has another entity tag
    let path = "/api/products/?fields=name,id&search=product";
    let before = user.get(path).await;
    app.execute("update products set name = 'Product ZZ' where id = 1", &[]).await;
    let after = user.with_header("if-none-match", before.header("etag")).get(path).await;
    assert_eq!((after.status.as_u16(), &after.json()[0]), (200, &json!({"id": 1, "name": "Product ZZ"})));
    let unchanged = user.with_header("if-none-match", after.header("etag")).get(path).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    let head = user.send(Method::HEAD, path, None).await;
    assert_eq!(
        (head.header("etag"), head.header("content-length")),
        (after.header("etag"), &*after.body.len().to_string())
    );
    let gzip = user.with_header("accept-encoding", "gzip").get(path).await;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*gzip.body).read_to_string(&mut text).unwrap();
    assert_eq!((gzip.header("content-encoding"), text), ("gzip", after.text()));
}

#[tokio::test]
async fn pages_keep_fields_and_accept_cursors_of_other_fields() {
    let (_app, user) = spawn_with_products().await;
    for ordering in ["id", "-price", "name", "-created_at"] {
        let expected = user.get(&format!("/api/products/?ordering={ordering}")).await.json();
        let expected = project(&expected, &["name", "tags"]);
        for paging in ["page_size=5", "page=1&page_size=5"] {
            let mut next = Some(format!("/api/products/?fields=tags,name&ordering={ordering}&{paging}"));
            let mut found = Vec::new();
            while let Some(path) = next {
                let page = user.get(&path).await;
                assert_eq!(page.status, 200, "{path}: {}", page.text());
                found.extend(page.json().as_array().unwrap().clone());
                next = link_target(&page, "next");
            }
            assert_eq!(Value::from(found), expected, "{ordering} {paging}");
        }
    }
    let first = user.get("/api/products/?fields=name&page_size=4").await;
    let next = link_target(&first, "next").unwrap();
    assert_eq!(
        list_ids(&user, next.split_once('?').unwrap().1.replace("fields=name&", "").as_str()).await,
        [5, 6, 7, 8]
    );
}

#[tokio::test]
async fn oversized_list_with_fields_is_streamed() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", "2000").with("redis-url", "").spawn().await;
    app.seed_products(200).await;
    let user = app.create_user("ann").await;
    for path in ["/api/products/?fields=name,id", "/api/products/?fields=name,id&price_min=0"] {
        for _ in 0..2 {
            let response = user.get(path).await;
            assert_eq!(response.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
            let list = response.json();
            assert_eq!((list.as_array().unwrap().len(), &list[199]), (200, &json!({"id": 200, "name": "Product 200"})));
            let conditional = user.with_header("if-none-match", response.header("etag"));
            assert_eq!(conditional.get(path).await.status, 304);
            assert_eq!(conditional.get("/api/products/?fields=id,price").await.status, 200);
            assert_eq!(conditional.get("/api/products/").await.status, 200);
        }
    }
    let small = user.get("/api/products/?fields=id&id=7").await;
    assert_eq!((small.text().as_str(), small.header("cache-status").contains("streamed")), ("[{\"id\":7}]", false));
}

#[tokio::test]
async fn list_with_fields_is_filled_by_the_statement_of_the_full_list() {
    let app = TestApp::spawn().await;
    app.seed_products(20).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    app.reset_statement_stats().await;
    user.get("/api/products/?fields=id,name").await;
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
    let statements = (app.statement_calls("%from products p%").await, app.statement_calls("%with page%").await);
    assert_eq!(statements, (1, 0), "the statement of the full list");
}
