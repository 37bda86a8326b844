//! Orderings, numbered pages and cursors.

use serde_json::{Value, json};

use super::{ids, link_target, list_ids, spawn_with_products};
use crate::harness::TestClient;

/// Follows `next` links from the first page to the last, and `prev` links back. Both directions must return the same
/// pages. Returns the ids of all pages in order.
pub(super) async fn collect_pages(user: &TestClient, query: &str, size: usize) -> Vec<i64> {
    let mut path = format!("/api/products/?{query}");
    let (mut pages, mut all_ids) = (Vec::new(), Vec::new());
    loop {
        let response = user.get(&path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        let page = ids(&response.json());
        assert!(page.len() <= size && !page.is_empty(), "{path}: {page:?}");
        assert_eq!(link_target(&response, "prev").is_some(), !pages.is_empty(), "{path}");
        all_ids.extend(&page);
        pages.push((page, link_target(&response, "prev")));
        match link_target(&response, "next") {
            Some(next) => path = next,
            None => break,
        }
    }
    let (_, mut prev) = pages.pop().unwrap();
    while let Some((page, _)) = pages.pop() {
        let response = user.get(&prev.expect("a link to the previous page")).await;
        assert_eq!(ids(&response.json()), page);
        assert!(link_target(&response, "next").is_some());
        prev = link_target(&response, "prev");
    }
    assert_eq!(prev, None, "the first page has no previous page");
    all_ids
}

#[tokio::test]
async fn orderings_are_total_with_ties_by_id() {
    let (_app, user) = spawn_with_products().await;
    let all = user.get("/api/products/").await.json();
    let all = all.as_array().unwrap();
    for column in ["id", "name", "price", "created_at"] {
        let key = |product: &Value| match &product[column] {
            Value::Number(number) => format!("{:012.2}", number.as_f64().unwrap()),
            text => text.as_str().unwrap().to_owned(),
        };
        let mut ascending: Vec<&Value> = all.iter().collect();
        ascending.sort_by_key(|product| key(product));
        let mut descending: Vec<&Value> = all.iter().collect();
        descending.sort_by_key(|product| std::cmp::Reverse(key(product)));
        for (ordering, expected) in [(column.to_owned(), ascending), (format!("-{column}"), descending)] {
            let expected: Vec<i64> = expected.iter().map(|product| product["id"].as_i64().unwrap()).collect();
            assert_eq!(list_ids(&user, &format!("ordering={ordering}")).await, expected, "{ordering}");
            // pages of every size add up to the same list
            for size in [1, 2, 5, 11, 12, 13] {
                assert_eq!(
                    collect_pages(&user, &format!("ordering={ordering}&page_size={size}"), size).await,
                    expected
                );
            }
        }
    }
    let filtered = list_ids(&user, "category=Sport&ordering=-price").await;
    assert_eq!(collect_pages(&user, "category=Sport&ordering=-price&page_size=2", 2).await, filtered);
    for bound in ["created_before=9999-12-31", "created_before=9999-12-31T23:59:59Z", "created_before=9999-12-29"] {
        assert_eq!(
            collect_pages(&user, &format!("{bound}&page_size=5"), 5).await,
            list_ids(&user, "").await,
            "{bound}"
        );
    }
}

#[tokio::test]
async fn numbered_pages_report_total_count() {
    let (app, user) = spawn_with_products().await;
    let page = async |query: &str| user.get(&format!("/api/products/?{query}")).await;
    let first = page("page=1&page_size=5").await;
    assert_eq!((ids(&first.json()), first.header("x-total-count")), (vec![1, 2, 3, 4, 5], "12"));
    assert_eq!(link_target(&first, "prev"), None);
    let last = user.get(&link_target(&first, "last").unwrap()).await;
    assert_eq!((ids(&last.json()), link_target(&last, "next")), (vec![11, 12], None));
    let middle = user.get(&link_target(&first, "next").unwrap()).await;
    assert_eq!(ids(&middle.json()), [6, 7, 8, 9, 10]);
    assert_eq!(link_target(&middle, "first"), link_target(&first, "first"));
    assert_eq!(ids(&user.get(&link_target(&middle, "prev").unwrap()).await.json()), ids(&first.json()));
    for query in ["page=4&page_size=5", "page=2", "page=9223372036854775807&page_size=1000"] {
        assert_eq!(page(query).await.status_and_json(), (404, json!({"detail": "Invalid page."})), "{query}");
    }
    let empty = page("page=1&search=nothing").await;
    assert_eq!((empty.text().as_str(), empty.header("x-total-count")), ("[]", "0"));
    assert_eq!(page("category=Sport&page=1").await.header("x-total-count"), "4");

    // the count is cached for each version
    app.reset_statement_stats().await;
    for number in 1..=3 {
        page(&format!("page={number}&page_size=4&ordering=name")).await;
    }
    let count_statement = "select count(*) from products%";
    assert!(app.statement_calls(count_statement).await <= 1);
    app.execute("delete from products where id = 12", &[]).await;
    let after_delete = page("page=1&page_size=5").await;
    assert_eq!(after_delete.header("x-total-count"), "11");
    let unchanged =
        user.with_header("if-none-match", after_delete.header("etag")).get("/api/products/?page=1&page_size=5").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("x-total-count")), (304, "11"));
    assert_eq!(unchanged.header("link"), after_delete.header("link"));
}

#[tokio::test]
async fn cursor_pages_are_stable_under_inserts_and_deletes() {
    let (app, user) = spawn_with_products().await;
    let first = user.get("/api/products/?page_size=4").await;
    let next = link_target(&first, "next").unwrap();
    app.execute("delete from products where id in (1, 4)", &[]).await;
    app.execute("insert into products (id, category_id, name, price) values (0, 1, 'Early', 1)", &[]).await;
    assert_eq!(ids(&user.get(&next).await.json()), [5, 6, 7, 8], "no product is repeated or skipped");
}

#[tokio::test]
async fn cursor_is_valid_only_for_its_own_query() {
    let (_app, user) = spawn_with_products().await;
    let first = user.get("/api/products/?ordering=price&page_size=3").await;
    let next = link_target(&first, "next").unwrap();
    let cursor = next.split("cursor=").nth(1).unwrap();
    let invalid = (404, json!({"detail": "Invalid cursor"}));
    assert_eq!(user.get(&format!("/api/products/?ordering=price&cursor={cursor}")).await.status, 200);
    for query in [
        format!("cursor={cursor}"),
        format!("ordering=-price&cursor={cursor}"),
        format!("ordering=name&cursor={cursor}"),
        format!("ordering=price&category=Sport&cursor={cursor}"),
        format!("ordering=price&cursor={}", &cursor[1..]),
        format!("ordering=price&cursor={}", &cursor[..cursor.len() - 1]),
        format!("ordering=price&cursor={cursor}A"),
        "ordering=price&cursor=x".to_owned(),
        format!("ordering=price&cursor={}", "A".repeat(3000)),
        "cursor=%00%FF".replace("%00", ""),
    ] {
        assert_eq!(user.get(&format!("/api/products/?{query}")).await.status_and_json(), invalid, "{query}");
    }
}
