//! Queries of the product list: filters, search and invalid parameters. The submodules test paging, caching, limits per
//! user and the use of indexes.

mod cache;
mod chunks;
mod decoders;
mod history;
mod indexes;
mod limits;
mod paging;
mod selection;
mod strategies;

use std::io::Cursor;

use calamine::{Reader, Xlsx};
use serde_json::{Value, json};

use crate::harness::{TestApp, TestClient, TestResponse};

/// Creates 12 products in 3 categories with 3 tags. Two products have the same price, and all products of a category
/// have the same creation time.
async fn spawn_with_products() -> (TestApp, TestClient) {
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

/// Returns the ids in the list that matches the query.
async fn list_ids(client: &TestClient, query: &str) -> Vec<i64> {
    let response = client.get(&format!("/api/products/?{query}")).await;
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    ids(&response.json())
}

/// Returns the target of a relation in the `Link` header.
fn link_target(response: &TestResponse, relation: &str) -> Option<String> {
    let links = response.header("link").split(", ");
    let link = links.into_iter().find(|link| link.ends_with(&format!("; rel=\"{relation}\"")))?;
    Some(link.split_once('>')?.0.strip_prefix('<')?.to_owned())
}

#[tokio::test]
async fn filters_return_exact_matches() {
    let (_app, user) = spawn_with_products().await;
    let all = user.get("/api/products/").await.json();
    let expected = |matches: &dyn Fn(&Value) -> bool| -> Vec<i64> {
        ids(&all.as_array().unwrap().iter().filter(|product| matches(product)).cloned().collect())
    };
    let has_tag = |product: &Value, tag: &str| product["tags"].as_array().unwrap().contains(&json!(tag));
    let price = |product: &Value| product["price"].as_f64().unwrap();
    let cases: Vec<(&str, Vec<i64>)> = vec![
        ("category=Sport", expected(&|p| p["category_name"] == "Sport")),
        ("category=Books+%26+Co&category=Sport", expected(&|p| p["category_name"] != "Кухня")),
        ("category=%D0%9A%D1%83%D1%85%D0%BD%D1%8F", expected(&|p| p["category_name"] == "Кухня")),
        ("category=sport", vec![]),
        ("category=Nothing", vec![]),
        ("category=Nothing&category=Sport", expected(&|p| p["category_name"] == "Sport")),
        ("tag=new", expected(&|p| has_tag(p, "new"))),
        ("tag=new&tag=eco", expected(&|p| has_tag(p, "new") && has_tag(p, "eco"))),
        ("tag=new&tag=eco&tag=50%25+off", expected(&|p| ["new", "eco", "50% off"].iter().all(|tag| has_tag(p, tag)))),
        ("tag=new&tag=nothing", vec![]),
        ("price_min=5.5", expected(&|p| price(p) >= 5.5)),
        ("price_max=5.5", expected(&|p| price(p) <= 5.5)),
        ("price_min=5.50&price_max=5.50", expected(&|p| price(p) == 5.5)),
        ("price_min=9&price_max=1", vec![]),
        ("created_after=2024-01-02T00:00:00Z", expected(&|p| p["created_at"].as_str() >= Some("2024-01-02"))),
        ("created_before=2024-01-02", expected(&|p| p["created_at"].as_str() <= Some("2024-01-02T23:59:59.999999Z"))),
        ("created_before=9999-12-31", expected(&|_| true)),
        ("created_before=9999-12-31T23:59:59.999999Z", expected(&|_| true)),
        ("created_after=9999-12-31", vec![]),
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
            expected(&|p| p["category_name"] == "Sport" && has_tag(p, "new") && price(p) >= 1.0),
        ),
        ("ordering=id", expected(&|_| true)),
        ("category=", expected(&|_| true)),
    ];
    for (query, expected) in cases {
        assert_eq!(list_ids(&user, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn unknown_query_params_are_rejected() {
    let (_app, user) = spawn_with_products().await;
    let error = |name: &str, message: &str| json!({name: [message]});
    for (query, errors) in [
        ("categry=Sport", error("categry", "Unknown parameter. Did you mean \"category\"?")),
        ("pagesize=5", error("pagesize", "Unknown parameter. Did you mean \"page_size\"?")),
        ("Search=x", error("Search", "Unknown parameter. Did you mean \"search\"?")),
        ("utm_source=x", error("utm_source", "Unknown parameter.")),
        ("format=csv", error("format", "Unknown parameter.")),
        ("ordering=color", error("ordering", "\"color\" is not a valid choice.")),
        ("ordering=--id", error("ordering", "\"--id\" is not a valid choice.")),
        ("page_size=0", error("page_size", "Ensure this value is greater than or equal to 1.")),
        ("page_size=1001", error("page_size", "Ensure this value is less than or equal to 1000.")),
        ("page_size=99999999999999999999", error("page_size", "Ensure this value is less than or equal to 1000.")),
        ("page_size=ten", error("page_size", "A valid integer is required.")),
        ("page=0", error("page", "Ensure this value is greater than or equal to 1.")),
        ("page=-1", error("page", "Ensure this value is greater than or equal to 1.")),
        ("page=1.5", error("page", "A valid integer is required.")),
        ("page=1&page=2", error("page", "This parameter may be given once only.")),
        ("price_min=cheap", error("price_min", "A valid number is required.")),
        ("price_min=1.234", error("price_min", "Ensure that there are no more than 2 decimal places.")),
        ("price_min=-1", error("price_min", "Ensure this value is greater than or equal to 0.")),
        (
            "price_max=99999999999",
            error("price_max", "Ensure that there are no more than 10 digits before the decimal point."),
        ),
        (
            "created_after=yesterday",
            error("created_after", "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."),
        ),
        (
            "created_after=-000500-01-01T00:00:00Z",
            error("created_after", "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."),
        ),
        ("search=%00", error("search", "Null characters are not allowed.")),
        ("id=one", error("id", "A valid integer is required.")),
        ("id=1.0&id=x", error("id", "A valid integer is required.")),
        ("id=1,2", error("id", "A valid integer is required.")),
        ("id=%2B1", error("id", "A valid integer is required.")),
        ("id=-", error("id", "A valid integer is required.")),
        ("id=%D9%A1", error("id", "A valid integer is required.")),
        ("id=9223372036854775808", error("id", "Ensure this value is less than or equal to 9223372036854775807.")),
        (
            "id=1&id=-99999999999999999999",
            error("id", "Ensure this value is greater than or equal to -9223372036854775808."),
        ),
        ("ids=1", error("ids", "Unknown parameter. Did you mean \"id\"?")),
        ("field=id", error("field", "Unknown parameter. Did you mean \"fields\"?")),
        ("fields=id,prise", error("fields", "\"prise\" is not a valid choice. Did you mean \"price\"?")),
        ("fields=*", error("fields", "\"*\" is not a valid choice.")),
        ("fields=Name", error("fields", "\"Name\" is not a valid choice. Did you mean \"name\"?")),
        ("fields=id,,name,", error("fields", "\"\" is not a valid choice.")),
        ("fields=category", error("fields", "\"category\" is not a valid choice.")),
        ("fields=id&fields=name", error("fields", "This parameter may be given once only.")),
        ("fields=a,b,a", json!({"fields": ["\"a\" is not a valid choice.", "\"b\" is not a valid choice."]})),
        ("bom=true", error("bom", "Unknown parameter.")),
        ("cursor=x&page=1", error("cursor", "May not be combined with \"page\".")),
    ] {
        assert_eq!(user.get(&format!("/api/products/?{query}")).await.status_and_json(), (400, errors), "{query}");
    }
    let errors = user.get("/api/products/?page=x&ordering=x&x=1&id=x&fields=x").await.json();
    assert_eq!(errors.as_object().unwrap().len(), 5, "errors are returned together: {errors}");
    let many_ids: String = (0..1001).map(|id| format!("id={id}&")).collect();
    for many_ids in [many_ids, "id=1&".repeat(1001)] {
        let errors = user.get(&format!("/api/products/?{many_ids}")).await.json();
        assert_eq!(errors, error("id", "Ensure this field has no more than 1000 elements."));
    }
    let many_fields = (0..5000).map(|number| format!("{number:x}")).collect::<Vec<_>>().join(",");
    let errors = user.get(&format!("/api/products/?fields={}", &many_fields[..15_000])).await.json();
    assert_eq!(errors["fields"].as_array().unwrap().len(), 10, "{errors}");
    let long = format!("/api/products/?search={}", "x".repeat(201));
    assert_eq!(user.get(&long).await.json(), error("search", "Ensure this field has no more than 200 characters."));
    let tags: String = (0..11).map(|number| format!("tag={number}&")).collect();
    let errors = user.get(&format!("/api/products/?{tags}")).await.json();
    assert_eq!(errors, error("tag", "Ensure this field has no more than 10 elements."));
    // thousands of parameters and invalid UTF-8 are harmless
    let many = "a&".repeat(7000);
    assert_eq!(user.get(&format!("/api/products/?{many}")).await.json(), error("a", "Unknown parameter."));
    assert_eq!(list_ids(&user, "search=%ED%A0%80%FF").await, Vec::<i64>::new());
    assert_eq!(user.get("/api/products/?").await.status, 200);
}

#[tokio::test]
async fn export_applies_list_query() {
    let (_app, user) = spawn_with_products().await;
    let exported_ids = async |query: &str| -> Vec<i64> {
        let response = user.get(&format!("/api/products/export/?{query}")).await;
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        let mut workbook: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(response.body)).unwrap();
        let sheet = workbook.worksheet_range("Products").unwrap();
        sheet.rows().skip(1).map(|row| row[0].to_string().parse().unwrap()).collect()
    };
    for query in ["category=Sport", "tag=new&ordering=-price", "search=number+1", "page=2&page_size=5", "page_size=3"] {
        assert_eq!(exported_ids(query).await, list_ids(&user, query).await, "{query}");
    }
    let by_category = user.get("/api/products/export/?category=Sport").await;
    let by_tag = user.get("/api/products/export/?tag=new").await;
    assert_ne!(by_category.header("etag"), by_tag.header("etag"));
    assert_eq!(user.get("/api/products/export/?page=9").await.status, 404);
    assert_eq!(user.get("/api/products/export/?categry=9").await.status, 400);
}

#[tokio::test]
async fn names_stored_with_surrounding_spaces_are_found() {
    let (app, user) = spawn_with_products().await;
    app.batch_execute(
        "insert into categories (id, name) overriding system value values (101, ' Sport'), (102, 'Padded ');
         insert into tags (id, name) overriding system value values (101, ' new'), (102, 'padded ');
         insert into products (id, category_id, name, price) overriding system value
         values (101, 101, 'p', 1), (102, 102, 'p', 1);
         insert into product_tags values (101, 101), (102, 102)",
    )
    .await;
    let sport = list_ids(&user, "category=Sport").await;
    for (query, expected) in [
        ("category=%20Sport", vec![101]),
        ("category=Padded%20", vec![102]),
        ("category=Padded", vec![]),
        ("tag=%20new", vec![101]),
        ("tag=padded%20", vec![102]),
        ("tag=padded%20&tag=%20new", vec![]),
        // a name that no row has as it is given means the one without the spaces
        ("category=%20Sport%20", sport.clone()),
        ("category=Sport%20&category=%20Sport", [sport.clone(), vec![101]].concat()),
        ("tag=new&tag=%20%20new", list_ids(&user, "tag=new").await),
    ] {
        assert_eq!(list_ids(&user, query).await, expected, "{query}");
    }
    assert!(!sport.is_empty() && !sport.contains(&101));
}
