//! A creation with an `Idempotency-Key` is executed once, also when it is repeated concurrently.

use hyper::Method;
use serde_json::json;

use crate::harness::{TestApp, TestClient, TestResponse};

async fn create(client: &TestClient, key: &str, name: &str) -> TestResponse {
    let body = json!({"name": name, "price": "1.50", "category_name": "Sport", "tags": ["new"]});
    client.with_header("idempotency-key", key).post("/api/products/", body).await
}

#[tokio::test]
async fn repeated_creation_replays_first_response() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let first = create(&staff, "one", "Kettle").await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    // the replayed response does not change when the product does
    let location = first.header("location").to_owned();
    assert_eq!(staff.patch(&location, json!({"name": "Renamed"})).await.status, 200);
    let replayed = create(&staff, "one", "Kettle").await;
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotent-replayed")), (201, "true"));
    assert_eq!(
        (&replayed.body, replayed.header("location"), replayed.header("etag")),
        (&first.body, &*location, first.header("etag"))
    );
    // a body with its fields in another order is the same body
    let reordered = r#"{"tags":["new"],"category_name":"Sport","price":"1.50","name":"Kettle"}"#;
    let with_key = staff.with_header("idempotency-key", "one");
    let replayed =
        with_key.send_bytes(Method::POST, "/api/products/", Some("application/json"), reordered.into()).await;
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);

    let other = create(&staff, "one", "Pot").await;
    assert_eq!(
        other.status_and_json(),
        (422, json!({"detail": "This Idempotency-Key was used with another request body."}))
    );
    assert_eq!(create(&staff, "one", " ").await.status, 422, "422 takes precedence over validation errors");
    assert_eq!(create(&staff, "two", "Pot").await.status, 201);
    // each user has own keys
    let bob = app.create_staff("bob").await;
    assert_eq!(create(&bob, "one", "Bob's").await.header("idempotent-replayed"), "");
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 4);
}

#[tokio::test]
async fn concurrent_creations_with_one_key_create_once() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    let staff_on_other = staff.on_instance(other.address);
    for round in 0..5 {
        let key = format!("key {round}");
        let calls = (0..12).map(|number| {
            let client = if number % 2 == 0 { staff.clone() } else { staff_on_other.clone() };
            let key = key.clone();
            tokio::spawn(async move { create(&client, &key, "Kettle").await })
        });
        let responses = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
        let responses: Vec<_> = responses.into_iter().map(Result::unwrap).collect();
        for response in &responses {
            assert_eq!((response.status.as_u16(), response.text()), (201, responses[0].text()));
        }
        let created = responses.iter().filter(|response| response.header("idempotent-replayed").is_empty()).count();
        assert_eq!(created, 1);
    }
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1 + 5);
}

#[tokio::test]
async fn rejected_creation_can_be_retried_with_same_key() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 400, "the category does not exist yet");
    assert_eq!(create(&staff, "one", "").await.status, 400);
    app.seed_products(1).await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 201);
    // keys expire after a day
    app.execute("update idempotency_keys set created_at = now() - interval '25 hours'", &[]).await;
    let later = create(&staff, "one", "Pot").await;
    assert_eq!((later.status.as_u16(), later.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn aborted_creation_leaves_no_product_and_no_key() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // the last statement of the transaction fails
    app.batch_execute(
        "create function reject() returns trigger language plpgsql as 'begin raise exception ''no''; end';
         create trigger reject before update on idempotency_keys for each row execute function reject()",
    )
    .await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 500);
    assert_eq!(app.query_scalar::<i64>("select count(*) from idempotency_keys").await, 0);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1);
    app.batch_execute("drop trigger reject on idempotency_keys").await;
    let created = create(&staff, "one", "Kettle").await;
    assert_eq!((created.status.as_u16(), created.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn invalid_idempotency_key_is_rejected() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let errors = json!({"Idempotency-Key": ["Ensure this header has from 1 to 255 visible characters, once."]});
    for key in ["", " ", &"x".repeat(256)] {
        assert_eq!(create(&staff, key, "Kettle").await.status_and_json(), (400, errors.clone()), "{key}");
    }
    assert_eq!(
        create(&staff.with_header("idempotency-key", "a"), "b", "Kettle").await.status_and_json(),
        (400, errors)
    );
    assert_eq!(create(&staff, &"x".repeat(255), "Kettle").await.status, 201);
}
