//! Validation of products.

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::TestApp;

#[tokio::test]
async fn product_validation_errors_are_returned_together_and_nothing_is_written() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let post = async |body: Value| staff.post("/api/products/", body).await.status_and_json();
    let required = json!(["This field is required."]);
    assert_eq!(post(json!({})).await, (400, json!({"name": required, "price": required, "category_id": required})));
    let invalid = json!({
        "name": "x".repeat(101),
        "price": "1.999",
        "category_name": " ",
        "tags": ["ok", " ", 5, true, null],
        "description": null,
    });
    let errors = json!({
        "name": ["Ensure this field has no more than 100 characters."],
        "price": ["Ensure that there are no more than 2 decimal places."],
        "category_name": ["This field may not be blank."],
        "description": ["This field may not be null."],
        "tags": {
            "1": ["This field may not be blank."],
            "3": ["Not a valid string."],
            "4": ["This field may not be null."],
        },
    });
    assert_eq!(post(invalid).await, (400, errors));

    // errors that only the database can detect are returned together with the others
    for (field, value, message) in [
        ("category_id", json!(99), "Invalid pk \"99\" - object does not exist."),
        ("category_name", json!("Nope"), "Object with name=Nope does not exist."),
    ] {
        let body = json!({"name": " ", "price": "1", field: value});
        let errors = json!({"name": ["This field may not be blank."], field: [message]});
        assert_eq!(post(body.clone()).await, (400, errors.clone()));
        assert_eq!(staff.put("/api/products/1/", body.clone()).await.status_and_json(), (400, errors.clone()));
        assert_eq!(staff.patch("/api/products/1/", body).await.status_and_json(), (400, errors));
    }

    let valid_except = |field: &str, value: Value| {
        let mut body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": ["created"]});
        body[field] = value;
        body
    };
    for (field, value, message) in [
        ("price", json!("abc"), "A valid number is required."),
        ("price", json!(true), "A valid number is required."),
        ("price", json!(-0.01), "Ensure this value is greater than or equal to 0."),
        ("price", json!("10000000000"), "Ensure that there are no more than 10 digits before the decimal point."),
        ("price", json!("99999999999.99"), "Ensure that there are no more than 12 digits in total."),
        ("tags", json!("new"), "Expected a list of items but got type \"str\"."),
        ("tags", json!({"a": 1}), "Expected a list of items but got type \"dict\"."),
        ("name", json!("a\u{0}b"), "Null characters are not allowed."),
        ("name", json!(["a"]), "Not a valid string."),
        ("category_id", json!(99), "Invalid pk \"99\" - object does not exist."),
        ("category_id", json!("99999999999999999999"), "Invalid pk \"99999999999999999999\" - object does not exist."),
        ("category_id", json!("one"), "Incorrect type. Expected pk value, received str."),
        ("category_id", json!(true), "Incorrect type. Expected pk value, received bool."),
    ] {
        let body = valid_except(field, value.clone());
        assert_eq!(post(body).await, (400, json!({field: [message]})), "{field} {value}");
    }
    let unknown_category = json!({"name": "Ball", "price": 1, "category_name": "Nowhere", "tags": ["created"]});
    let errors = json!({"category_name": ["Object with name=Nowhere does not exist."]});
    assert_eq!(post(unknown_category).await, (400, errors));
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1);
    assert_eq!(app.query_scalar::<i64>("select count(*) from tags").await, 2, "a rejected product creates no tags");

    let tags: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    let errors = json!({"tags": ["Ensure this field has no more than 100 elements."]});
    assert_eq!(post(valid_except("tags", json!(tags))).await, (400, errors));
}

#[tokio::test]
async fn numeric_strings_are_accepted_and_prices_are_exact() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    for (sent, returned) in
        [("0.10", "0.10"), ("9999999999.99", "9999999999.99"), ("0", "0.00"), ("1e3", "1000.00"), ("2.50", "2.50")]
    {
        let body = format!(r#"{{"name":1.5,"price":{sent},"category_id":"1"}}"#);
        let response =
            staff.send_bytes(Method::POST, "/api/products/", Some("application/json"), body.into_bytes()).await;
        assert_eq!(response.status, 201, "{}", response.text());
        assert!(response.text().contains(&format!("\"price\":{returned},")), "{}", response.text());
        assert_eq!(response.json()["name"], "1.5");
    }
}
