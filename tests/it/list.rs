//! What can be asked of the list: filters, search, ordering, pages; and what is said of questions that nobody understands.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use testshop::{cache::Entry, versions::Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::harness::{TestApp, TestClient, TestResponse, product_names};

/// Three categories, three tags, twelve products; two share a price, and all of a category a moment.
async fn stocked() -> (TestApp, TestClient) {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport'), ('Books & Co'), ('Кухня');
         insert into tags (name) values ('new'), ('eco'), ('50% off');
         insert into products (category_id, name, description, price, created_at)
         select 1 + i % 3, 'Product ' || chr(64 + i), 'Number ' || i, (i * 37 % 11) + 0.50,
                timestamptz '2024-01-01T00:00:00Z' + (i % 3) * interval '1 day'
           from generate_series(1, 12) i;
         update products set price = 5.50 where id in (2, 9);
         insert into product_tags select p.id, t.id from products p, tags t where p.id % (t.id + 1) = 0;
         update products set name = 'Чайник СТАЛЬНОЙ' where id = 5;
         update products set description = 'Save 50%_now \\ or never' where id = 6",
    )
    .await;
    let user = app.create_user("ann").await;
    (app, user)
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect()
}

async fn asked(caller: &TestClient, query: &str) -> Vec<i64> {
    let response = caller.get(&format!("/api/products/?{query}")).await;
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    ids(&response.json())
}

/// The address behind a relation of `Link`.
fn link(response: &TestResponse, relation: &str) -> Option<String> {
    let links = response.header("link").split(", ");
    let found = links.into_iter().find(|link| link.ends_with(&format!("; rel=\"{relation}\"")))?;
    Some(found.split_once('>')?.0.strip_prefix('<')?.to_owned())
}

#[tokio::test]
async fn filters_return_exact_matches() {
    let (_shop, user) = stocked().await;
    let all = user.get("/api/products/").await.json();
    let expected = |holds: &dyn Fn(&Value) -> bool| -> Vec<i64> {
        ids(&all.as_array().unwrap().iter().filter(|product| holds(product)).cloned().collect())
    };
    let tagged = |product: &Value, tag: &str| product["tags"].as_array().unwrap().contains(&json!(tag));
    let price = |product: &Value| product["price"].as_f64().unwrap();
    let cases: Vec<(&str, Vec<i64>)> = vec![
        ("category=Sport", expected(&|p| p["category_name"] == "Sport")),
        ("category=Books+%26+Co&category=Sport", expected(&|p| p["category_name"] != "Кухня")),
        ("category=%D0%9A%D1%83%D1%85%D0%BD%D1%8F", expected(&|p| p["category_name"] == "Кухня")),
        ("category=sport", vec![]),
        ("category=Nothing", vec![]),
        ("category=Nothing&category=Sport", expected(&|p| p["category_name"] == "Sport")),
        ("tag=new", expected(&|p| tagged(p, "new"))),
        ("tag=new&tag=eco", expected(&|p| tagged(p, "new") && tagged(p, "eco"))),
        ("tag=new&tag=eco&tag=50%25+off", expected(&|p| ["new", "eco", "50% off"].iter().all(|tag| tagged(p, tag)))),
        ("tag=new&tag=nothing", vec![]),
        ("price_min=5.5", expected(&|p| price(p) >= 5.5)),
        ("price_max=5.5", expected(&|p| price(p) <= 5.5)),
        ("price_min=5.50&price_max=5.50", expected(&|p| price(p) == 5.5)),
        ("price_min=9&price_max=1", vec![]),
        ("created_after=2024-01-02T00:00:00Z", expected(&|p| p["created_at"].as_str() >= Some("2024-01-02"))),
        ("created_before=2024-01-02", expected(&|p| p["created_at"].as_str() <= Some("2024-01-02T23:59:59.999999Z"))),
        ("created_after=2024-01-02T02:00:00%2B02:00", expected(&|p| p["created_at"].as_str() >= Some("2024-01-02"))),
        ("created_after=2024-01-02T02:00:00+02:00", expected(&|p| p["created_at"].as_str() >= Some("2024-01-02"))),
        ("created_after=2024-01-02T00:00:00.000001Z", expected(&|p| p["created_at"].as_str() >= Some("2024-01-03"))),
        ("search=number+1", vec![1, 10, 11, 12]),
        ("search=1+NUMBER", vec![1, 10, 11, 12]),
        ("search=product", expected(&|p| p["id"] != 5)),
        ("search=чайник+стальной", vec![5]),
        ("search=ЧАЙНИК+5", vec![5]),
        ("search=50%25_", vec![6]),
        ("search=%5C", vec![6]),
        ("search=%25", vec![6]),
        ("search=_n", vec![6]),
        ("search=nothing", vec![]),
        ("search=+", expected(&|_| true)),
        (
            "category=Sport&tag=new&price_min=1&search=product",
            expected(&|p| p["category_name"] == "Sport" && tagged(p, "new") && price(p) >= 1.0),
        ),
        ("ordering=id", expected(&|_| true)),
        ("category=", expected(&|_| true)),
    ];
    for (query, expected) in cases {
        assert_eq!(asked(&user, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn orderings_are_total_with_ties_by_id() {
    let (_shop, user) = stocked().await;
    let all = user.get("/api/products/").await.json();
    let all = all.as_array().unwrap();
    for column in ["id", "name", "price", "created_at"] {
        let key = |product: &Value| match &product[column] {
            Value::Number(number) => format!("{:012.2}", number.as_f64().unwrap()),
            text => text.as_str().unwrap().to_owned(),
        };
        let mut up: Vec<&Value> = all.iter().collect();
        up.sort_by_key(|product| key(product));
        let mut down: Vec<&Value> = all.iter().collect();
        down.sort_by_key(|product| std::cmp::Reverse(key(product)));
        for (ordering, expected) in [(column.to_owned(), up), (format!("-{column}"), down)] {
            let expected: Vec<i64> = expected.iter().map(|product| product["id"].as_i64().unwrap()).collect();
            assert_eq!(asked(&user, &format!("ordering={ordering}")).await, expected, "{ordering}");
            // and pages of every size are that very list, there and back
            for size in [1, 2, 5, 11, 12, 13] {
                assert_eq!(walk(&user, &format!("ordering={ordering}&page_size={size}"), size).await, expected);
            }
        }
    }
    let some = asked(&user, "category=Sport&ordering=-price").await;
    assert_eq!(walk(&user, "category=Sport&ordering=-price&page_size=2", 2).await, some);
}

/// Follows `next` to the end and `prev` back to the beginning; both ways must show the same.
async fn walk(user: &TestClient, query: &str, size: usize) -> Vec<i64> {
    let mut address = format!("/api/products/?{query}");
    let (mut pages, mut seen) = (Vec::new(), Vec::new());
    loop {
        let response = user.get(&address).await;
        assert_eq!(response.status, 200, "{address}: {}", response.text());
        let page = ids(&response.json());
        assert!(page.len() <= size && !page.is_empty(), "{address}: {page:?}");
        assert_eq!(link(&response, "prev").is_some(), !pages.is_empty(), "{address}");
        seen.extend(&page);
        pages.push((address, page, link(&response, "prev")));
        match link(&response, "next") {
            Some(next) => address = next,
            None => break,
        }
    }
    let (_, _, mut back) = pages.pop().unwrap();
    while let Some((_, page, _)) = pages.pop() {
        let response = user.get(&back.expect("a way back")).await;
        assert_eq!(ids(&response.json()), page);
        assert!(link(&response, "next").is_some());
        back = link(&response, "prev");
    }
    assert_eq!(back, None, "nothing is before the beginning");
    seen
}

#[tokio::test]
async fn numbered_pages_report_total_count() {
    let (app, user) = stocked().await;
    let page = async |query: &str| user.get(&format!("/api/products/?{query}")).await;
    let first = page("page=1&page_size=5").await;
    assert_eq!((ids(&first.json()), first.header("x-total-count")), (vec![1, 2, 3, 4, 5], "12"));
    assert_eq!(link(&first, "prev"), None);
    let last = user.get(&link(&first, "last").unwrap()).await;
    assert_eq!((ids(&last.json()), link(&last, "next")), (vec![11, 12], None));
    let middle = user.get(&link(&first, "next").unwrap()).await;
    assert_eq!(ids(&middle.json()), [6, 7, 8, 9, 10]);
    assert_eq!(link(&middle, "first"), link(&first, "first"));
    assert_eq!(ids(&user.get(&link(&middle, "prev").unwrap()).await.json()), ids(&first.json()));
    for query in ["page=4&page_size=5", "page=2", "page=9223372036854775807&page_size=1000"] {
        assert_eq!(page(query).await.status_and_json(), (404, json!({"detail": "Invalid page."})), "{query}");
    }
    let empty = page("page=1&search=nothing").await;
    assert_eq!((empty.text().as_str(), empty.header("x-total-count")), ("[]", "0"));
    assert_eq!(page("category=Sport&page=1").await.header("x-total-count"), "4");

    // counted once for a version, and anew for the next
    app.reset_statement_stats().await;
    for number in 1..=3 {
        page(&format!("page={number}&page_size=4&ordering=name")).await;
    }
    let counted = "select count(*) from products%";
    assert!(app.statement_calls(counted).await <= 1);
    app.execute("delete from products where id = 12", &[]).await;
    let fewer = page("page=1&page_size=5").await;
    assert_eq!(fewer.header("x-total-count"), "11");
    // a 304 tells it too
    let again = user.with_header("if-none-match", fewer.header("etag")).get("/api/products/?page=1&page_size=5").await;
    assert_eq!((again.status.as_u16(), again.header("x-total-count")), (304, "11"));
    assert_eq!(again.header("link"), fewer.header("link"));
}

#[tokio::test]
async fn cursor_pages_are_stable_under_inserts_and_deletes() {
    let (app, user) = stocked().await;
    let first = user.get("/api/products/?page_size=4").await;
    let next = link(&first, "next").unwrap();
    app.execute("delete from products where id in (1, 4)", &[]).await;
    app.execute("insert into products (id, category_id, name, price) values (0, 1, 'Early', 1)", &[]).await;
    assert_eq!(ids(&user.get(&next).await.json()), [5, 6, 7, 8], "neither twice nor left out");
}

#[tokio::test]
async fn list_fills_are_limited_per_user() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let fills = &app.server.app.fills;
    let held: Vec<_> = std::iter::from_fn(|| fills.try_take(id)).collect();
    assert!(!held.is_empty() && fills.free() > 0, "{} held, {} free", held.len(), fills.free());
    let path = "/api/products/?search=product";
    assert_eq!(ann.get(path).await.status, 503);
    assert_eq!(bob.get(path).await.status, 200);
    assert_eq!(ann.get("/api/products/").await.status, 200, "the whole list needs no turn");
    assert_eq!(ann.get(path).await.status, 200, "nor what is there already");
    drop(held);
    assert_eq!(ann.get("/api/products/?search=number").await.status, 200);
}

/// Asks for the whole list, reads its beginning, and the rest when the list has changed and another user has read it: how many
/// bytes came, and how many were promised.
async fn reading_slowly(app: &TestApp, slow: &TestClient, other: &TestClient) -> (usize, usize) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(slow.address).await.unwrap();
    let words = format!(
        "GET /api/products/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        slow.token()
    );
    socket.write_all(words.as_bytes()).await.unwrap();
    let mut first = vec![0; 4096];
    let count = socket.read(&mut first).await.unwrap();
    app.execute("update products set price = price + 1 where id = 1", &[]).await;
    assert_eq!(other.get("/api/products/").await.status, 200);
    let mut rest = Vec::new();
    // one that breaks off may do so by a reset
    let _ = socket.read_to_end(&mut rest).await;
    let head = std::str::from_utf8(&first[..count]).unwrap();
    let (head, _) = head.split_once("\r\n\r\n").expect("a head");
    let promised = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    (count - head.len() - 4 + rest.len(), promised)
}

#[tokio::test(flavor = "multi_thread")]
async fn response_memory_is_limited_per_user() {
    let app = TestApp::spawn().await;
    app.seed_products(1000).await;
    // more than sockets hold
    app.execute("update products set description = repeat('x', 20000)", &[]).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let (came, promised) = reading_slowly(&app, &ann, &bob).await;
    assert_eq!(came, promised, "a list that has changed meanwhile goes on");

    let version = Version { number: 0, token: uuid::Uuid::nil() };
    let another = Entry::identity(version, vec![b' '; 64 << 20].into(), Arc::default());
    let held = app.server.app.lent.lend(id, &Arc::new(another)).unwrap();
    let (came, promised) = reading_slowly(&app, &ann, &bob).await;
    assert!(came < promised, "{came}: one that the cache has no more breaks off");
    let (hers, his) = (ann.get("/api/products/").await, bob.get("/api/products/").await);
    assert_eq!((hers.status.as_u16(), hers.body == his.body), (200, true), "who reads at once gets all");
    let (came, promised) = reading_slowly(&app, &bob, &ann).await;
    assert_eq!(came, promised, "that is nothing to others");

    drop(held);
    let (came, promised) = reading_slowly(&app, &ann, &bob).await;
    assert_eq!(came, promised);
}

#[tokio::test]
async fn unknown_query_params_are_rejected() {
    let (_shop, user) = stocked().await;
    let words = |name: &str, words: &str| json!({name: [words]});
    for (query, told) in [
        ("categry=Sport", words("categry", "Unknown parameter. Did you mean \"category\"?")),
        ("pagesize=5", words("pagesize", "Unknown parameter. Did you mean \"page_size\"?")),
        ("Search=x", words("Search", "Unknown parameter. Did you mean \"search\"?")),
        ("utm_source=x", words("utm_source", "Unknown parameter.")),
        ("format=csv", words("format", "Unknown parameter.")),
        ("ordering=color", words("ordering", "\"color\" is not a valid choice.")),
        ("ordering=--id", words("ordering", "\"--id\" is not a valid choice.")),
        ("page_size=0", words("page_size", "Ensure this value is greater than or equal to 1.")),
        ("page_size=1001", words("page_size", "Ensure this value is less than or equal to 1000.")),
        ("page_size=99999999999999999999", words("page_size", "Ensure this value is less than or equal to 1000.")),
        ("page_size=ten", words("page_size", "A valid integer is required.")),
        ("page=0", words("page", "Ensure this value is greater than or equal to 1.")),
        ("page=-1", words("page", "Ensure this value is greater than or equal to 1.")),
        ("page=1.5", words("page", "A valid integer is required.")),
        ("page=1&page=2", words("page", "This parameter may be given once only.")),
        ("price_min=cheap", words("price_min", "A valid number is required.")),
        ("price_min=1.234", words("price_min", "Ensure that there are no more than 2 decimal places.")),
        ("price_min=-1", words("price_min", "Ensure this value is greater than or equal to 0.")),
        (
            "price_max=99999999999",
            words("price_max", "Ensure that there are no more than 10 digits before the decimal point."),
        ),
        (
            "created_after=yesterday",
            words("created_after", "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."),
        ),
        (
            "created_after=-000500-01-01T00:00:00Z",
            words("created_after", "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."),
        ),
        ("search=%00", words("search", "Null characters are not allowed.")),
        ("cursor=x&page=1", words("cursor", "May not be combined with \"page\".")),
    ] {
        assert_eq!(user.get(&format!("/api/products/?{query}")).await.status_and_json(), (400, told), "{query}");
    }
    // all at once
    let told = user.get("/api/products/?page=x&ordering=x&x=1").await.json();
    assert_eq!(told.as_object().unwrap().len(), 3, "{told}");
    let long = format!("/api/products/?search={}", "x".repeat(201));
    assert_eq!(user.get(&long).await.json(), words("search", "Ensure this field has no more than 200 characters."));
    let tags: String = (0..11).map(|number| format!("tag={number}&")).collect();
    let told = user.get(&format!("/api/products/?{tags}")).await.json();
    assert_eq!(told, words("tag", "Ensure this field has no more than 10 elements."));
    // many of them are no harm; nor is what is no text
    let many = "a&".repeat(7000);
    assert_eq!(user.get(&format!("/api/products/?{many}")).await.json(), words("a", "Unknown parameter."));
    assert_eq!(asked(&user, "search=%ED%A0%80%FF").await, Vec::<i64>::new());
    assert_eq!(user.get("/api/products/?").await.status, 200);
}

#[tokio::test]
async fn cursor_is_valid_only_for_its_own_query() {
    let (_shop, user) = stocked().await;
    let first = user.get("/api/products/?ordering=price&page_size=3").await;
    let next = link(&first, "next").unwrap();
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

#[tokio::test]
async fn cache_ignores_parameter_order_and_reflects_writes() {
    let (app, user) = stocked().await;
    let fills = async || app.metric("testshop_cache_fills_total").await;
    let before = fills().await;
    let one = user.get("/api/products/?category=Sport&category=Books+%26+Co&price_max=9&search=number+product").await;
    let two = user
        .get("/api/products/?search=PRODUCT++number&price_max=9.00&category=Books+%26+Co&category=Sport&category=Sport")
        .await;
    assert_eq!((fills().await - before, one.header("etag")), (1.0, two.header("etag")));
    assert!(two.header("cache-status").contains("hit"), "{}", two.header("cache-status"));

    let id = ids(&one.json())[0];
    app.execute("update products set name = 'Renamed number product' where id = $1", &[&id]).await;
    let three = user.get("/api/products/?category=Sport&category=Books+%26+Co&price_max=9&search=number+product").await;
    assert!(product_names(&three.json()).contains(&"Renamed number product"));
    app.execute("update categories set name = 'Games' where name = 'Sport'", &[]).await;
    assert_eq!(asked(&user, "category=Sport").await, Vec::<i64>::new());
    assert_eq!(asked(&user, "category=Games").await.len(), 4);
}

#[tokio::test]
async fn filtered_lists_do_not_evict_full_list() {
    let app =
        crate::harness::TestAppBuilder::default().with("cache-bytes", "200000").with("redis-url", "").spawn().await;
    app.seed_products(50).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    for number in 0..200 {
        assert_eq!(user.get(&format!("/api/products/?price_max={number}")).await.status, 200);
    }
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
    assert!(app.metric("testshop_cache_bytes").await <= 200_000.0);
}

#[tokio::test]
async fn export_applies_list_query() {
    use calamine::{Reader, Xlsx};
    let (_shop, user) = stocked().await;
    let rows = async |query: &str| -> Vec<i64> {
        let response = user.get(&format!("/api/products/export/?{query}")).await;
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        let mut book: Xlsx<_> = calamine::open_workbook_from_rs(std::io::Cursor::new(response.body)).unwrap();
        let sheet = book.worksheet_range("Products").unwrap();
        sheet.rows().skip(1).map(|row| row[0].to_string().parse().unwrap()).collect()
    };
    for query in ["category=Sport", "tag=new&ordering=-price", "search=number+1", "page=2&page_size=5", "page_size=3"] {
        assert_eq!(rows(query).await, asked(&user, query).await, "{query}");
    }
    let one = user.get("/api/products/export/?category=Sport").await;
    let other = user.get("/api/products/export/?tag=new").await;
    assert_ne!(one.header("etag"), other.header("etag"));
    assert_eq!(user.get("/api/products/export/?page=9").await.status, 404);
    assert_eq!(user.get("/api/products/export/?categry=9").await.status, 400);
}

#[tokio::test]
async fn oversized_filtered_lists_are_streamed() {
    let app =
        crate::harness::TestAppBuilder::default().with("cache-entry-bytes", "2000").with("redis-url", "").spawn().await;
    app.seed_products(50).await;
    let user = app.create_user("ann").await;
    for _ in 0..2 {
        let response = user.get("/api/products/?price_min=11&ordering=-price").await;
        assert_eq!(response.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
        assert_eq!(ids(&response.json()), (11..=50).rev().collect::<Vec<_>>());
        let few = user.get("/api/products/?price_min=49").await;
        assert!(!few.header("cache-status").contains("streamed"));
        let tag = response.header("etag").to_owned();
        assert_eq!(
            user.with_header("if-none-match", &tag).get("/api/products/?price_min=11&ordering=-price").await.status,
            304
        );
        assert_eq!(user.with_header("if-none-match", &tag).get("/api/products/?price_min=12").await.status, 200);
    }
}

/// With a million products each of these must be answered from an index: none reads the table from end to end.
#[tokio::test]
async fn every_filter_ordering_and_search_uses_an_index() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) select 'Category ' || i from generate_series(1, 50) i;
         insert into tags (name) select 'Tag ' || i from generate_series(1, 50) i;
         insert into products (category_id, name, description, price, created_at)
         select 1 + i % 50, 'Thing ' || md5(i::text), 'About ' || md5((i * 7)::text), i % 10000,
                timestamptz '2024-01-01Z' + i * interval '1 minute'
           from generate_series(1, 50000) i;
         insert into product_tags select i, 1 + i % 50 from generate_series(1, 50000) i;
         analyze",
    )
    .await;
    // what the server sends is seen by the database itself
    app.batch_execute("create extension if not exists pg_stat_statements").await;
    let user = app.create_user("ann").await;
    let mut checked = BTreeSet::new();
    for query in [
        "page_size=100",
        "ordering=price&page_size=100",
        "ordering=-price&page_size=100",
        "ordering=name&page_size=100",
        "ordering=-name&page_size=100",
        "ordering=created_at&page_size=100",
        "ordering=-created_at&page_size=100",
        "category=Category+7&page_size=100",
        "category=Category+7&ordering=-price&page_size=100",
        "tag=Tag+9&page_size=100",
        "price_min=500&price_max=501&page_size=100",
        "created_after=2024-02-01&ordering=created_at&page_size=100",
        "search=abcde&page_size=100",
        "search=abcde+12345&ordering=price&page_size=100",
        "category=Category+7&tag=Tag+8&search=abc&page_size=100",
    ] {
        let scans = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables where relname = 'products'";
        app.batch_execute("select pg_stat_force_next_flush()").await;
        let before: i64 = app.query_scalar(scans).await;
        let first = user.get(&format!("/api/products/?{query}")).await;
        assert_eq!(first.status, 200, "{query}: {}", first.text());
        if let Some(next) = link(&first, "next") {
            assert_eq!(user.get(&next).await.status, 200, "{next}");
        }
        // statistics arrive with the end of a transaction on that connection, at the latest a moment later
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let read = app.query_scalar::<i64>(scans).await - before;
        assert!(read < 50_000, "{query} read {read} rows from end to end");
        checked.insert(query);
    }
    assert_eq!(checked.len(), 15);
}
