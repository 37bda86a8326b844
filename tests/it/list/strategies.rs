//! Pages whose statement depends on a sample of the list: of tags in a category, of several tags, and of search terms
//! that no index finds.

use serde_json::Value;

use super::{ids, link_target, paging::collect_pages};
use crate::harness::{TestApp, TestClient};

const PRODUCTS: i64 = 20_000;

/// Whether a product matches a query.
type Condition<'a> = &'a dyn Fn(&Value) -> bool;

/// Creates products whose tags depend on their price, so that a sample of the first ones is misleading. Products with an
/// even id are in category A, the others in B. `early` becomes rare after the first 540, `late` is only on the last ones,
/// `odd` never in category A.
async fn spawn_with_correlated_tags() -> (TestApp, TestClient) {
    let app = TestApp::spawn().await;
    app.batch_execute(&format!(
        "insert into categories (name) values ('A'), ('B');
         insert into tags (name) values ('early'), ('late'), ('odd'), ('pair');
         insert into products (category_id, name, description, price, created_at)
         select 1 + i % 2, 'N' || lpad((i * 7 % {PRODUCTS})::text, 5, '0'), case when i % 2900 = 0 then 'Zq, žö' else 'wxv' end,
                i / 3, timestamptz '2024-01-01Z' + (i / 5) * interval '1 minute'
           from generate_series(1, {PRODUCTS}) i;
         insert into product_tags
         select p.id, t.id from products p, tags t
          where case t.name when 'early' then p.id <= 540 and p.id % 3 = 0 or p.id > 1000 and p.id % 18 = 0
                            when 'late' then p.id > 18500
                            when 'odd' then p.id % 2 = 1
                            else p.id % 4 < 2 end;
         analyze"
    ))
    .await;
    let user = app.create_user("ann").await;
    (app, user)
}

fn text(product: &Value) -> String {
    // `to_lowercase` maps the dotted capital I to two characters
    let text = format!("{}\n{}", product["name"].as_str().unwrap(), product["description"].as_str().unwrap());
    text.replace('İ', "i").to_lowercase()
}

/// Returns the ids of the products that satisfy a condition, in an order.
fn select(all: &[Value], ordering: &str, matches: Condition) -> Vec<i64> {
    let mut selected: Vec<&Value> = all.iter().filter(|product| matches(product)).collect();
    let column = ordering.trim_start_matches('-');
    let key = |product: &Value| match &product[column] {
        Value::Number(number) => format!("{:012.2}", number.as_f64().unwrap()),
        text => text.as_str().unwrap().to_owned(),
    };
    if ordering.starts_with('-') {
        selected.sort_by_key(|product| std::cmp::Reverse(key(product)));
    } else {
        selected.sort_by_key(|product| key(product));
    }
    selected.iter().map(|product| product["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn pages_of_correlated_tags_add_up_to_the_list() {
    let (app, user) = spawn_with_correlated_tags().await;
    let all = user.get("/api/products/").await.json();
    let all = all.as_array().unwrap();
    let tagged = |product: &Value, tag: &str| product["tags"].as_array().unwrap().iter().any(|name| name == tag);
    let in_a = |product: &Value| product["category_name"] == "A";
    let price = |product: &Value| product["price"].as_f64().unwrap();
    let cases: [(&str, Condition); 10] = [
        ("category=A&tag=early", &|p| in_a(p) && tagged(p, "early")),
        ("category=A&tag=late", &|p| in_a(p) && tagged(p, "late")),
        ("category=A&tag=odd", &|_| false),
        ("category=B&tag=odd", &|p| !in_a(p)),
        ("category=A&tag=early&tag=pair", &|p| in_a(p) && tagged(p, "early") && tagged(p, "pair")),
        ("tag=early&tag=pair", &|p| tagged(p, "early") && tagged(p, "pair")),
        ("tag=late&tag=odd", &|p| tagged(p, "late") && tagged(p, "odd")),
        ("category=A&tag=pair&price_min=150&price_max=2700", &|p| {
            in_a(p) && tagged(p, "pair") && (150.0..=2700.0).contains(&price(p))
        }),
        ("category=A&tag=late&search=99", &|p| in_a(p) && tagged(p, "late") && text(p).contains("99")),
        ("category=A&tag=early&created_after=2024-01-01T10:00:00Z", &|p| {
            in_a(p) && tagged(p, "early") && p["created_at"].as_str() >= Some("2024-01-01T10")
        }),
    ];
    app.reset_statement_stats().await;
    for (query, matches) in cases {
        for ordering in ["id", "name", "-name", "price", "-price", "created_at", "-created_at"] {
            let expected = select(all, ordering, matches);
            for &size in if expected.len() > 2000 { &[1000][..] } else { &[100, 37] } {
                let query = format!("{query}&ordering={ordering}&page_size={size}");
                if expected.is_empty() {
                    assert_eq!(ids(&user.get(&format!("/api/products/?{query}")).await.json()), expected, "{query}");
                } else {
                    assert_eq!(collect_pages(&user, &query, size).await, expected, "{query}");
                }
            }
        }
    }
    for statement in
        ["with sample as%", "%join product_tags t0%", "select exists%as has_more", "%with page%offset $%) p%"]
    {
        assert!(app.statement_calls(statement).await > 0, "{statement}");
    }
}

#[tokio::test]
async fn short_search_terms_match_any_case_in_any_script() {
    let (app, user) = spawn_with_correlated_tags().await;
    app.batch_execute(
        "update products set name = 'Kelvin \u{212a}Y', description = '' where id = 5101;
         update products set name = 'Dotted \u{130}Y', description = '' where id = 5202;
         update products set name = 'Cyrillic ЖЯ', description = '100% #-# \\ _' where id = 5303;
         update products set name = 'Greek ΟΔΟΣ' where id = 5404;
         analyze",
    )
    .await;
    let all = user.get("/api/products/").await.json();
    let all = all.as_array().unwrap();
    app.reset_statement_stats().await;
    for terms in [
        "n",
        "N0",
        "zq",
        "ZQ",
        "xv",
        "ky",
        "KY",
        "iy",
        "k",
        "жя",
        "ЖЯ",
        "Ж",
        "ос",
        "ος",
        "žö",
        "n zq",
        "žö zq",
        "zq ж",
        "q 7",
        "%",
        "-#",
        "#-",
        "\\",
        "_",
        "0%",
        "n w x v 0 1 2 3 4 5",
        "qq",
        "ÿ",
    ] {
        let words: Vec<String> = terms.split(' ').map(|word| word.to_lowercase().replace('ς', "σ")).collect();
        let matches = |product: &Value| {
            let text = text(product).replace('ς', "σ");
            words.iter().all(|word| text.contains(word))
        };
        for ordering in ["id", "-price", "name"] {
            let expected = select(all, ordering, &matches);
            let search = form_urlencoded::byte_serialize(terms.as_bytes()).collect::<String>();
            let query = format!("search={search}&ordering={ordering}");
            let unpaged = ids(&user.get(&format!("/api/products/?{query}")).await.json());
            assert_eq!(unpaged, expected, "{query}");
            let numbered = user.get(&format!("/api/products/?{query}&page=1&page_size=1000")).await;
            assert_eq!(numbered.header("x-total-count"), expected.len().to_string(), "{query}");
            assert_eq!(ids(&numbered.json()), expected[..expected.len().min(1000)], "{query}");
            let first = user.get(&format!("/api/products/?{query}&page_size=20")).await;
            assert_eq!(ids(&first.json()), expected[..expected.len().min(20)], "{query}");
            if expected.len() > 20 {
                let second = user.get(&link_target(&first, "next").unwrap()).await;
                assert_eq!(ids(&second.json()), expected[20..expected.len().min(40)], "{query}");
            }
        }
        let category = list_in_category(&user, terms).await;
        let expected = select(all, "id", &|product| product["category_name"] == "B" && matches(product));
        assert_eq!(category, expected[..expected.len().min(100)], "{terms} in B");
    }
    for statement in ["select exists%as has_more", "%with page%offset $%) p%"] {
        assert!(app.statement_calls(statement).await > 0, "{statement}");
    }
}

async fn list_in_category(user: &TestClient, terms: &str) -> Vec<i64> {
    let search = form_urlencoded::byte_serialize(terms.as_bytes()).collect::<String>();
    ids(&user.get(&format!("/api/products/?category=B&search={search}&page_size=100")).await.json())
}
