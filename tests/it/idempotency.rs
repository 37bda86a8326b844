//! A creation under an `Idempotency-Key` happens once, however often and however fast it is repeated.

use serde_json::json;

use crate::harness::{TestApp, TestClient, TestResponse};

async fn create(caller: &TestClient, key: &str, name: &str) -> TestResponse {
    let body = json!({"name": name, "price": "1.50", "category_name": "Sport", "tags": ["new"]});
    caller.with_header("idempotency-key", key).post("/api/products/", body).await
}

#[tokio::test]
async fn repeated_creation_replays_first_response() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let first = create(&staff, "one", "Kettle").await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    // meanwhile others change it; the answer stays what it was
    let location = first.header("location").to_owned();
    assert_eq!(staff.patch(&location, json!({"name": "Renamed"})).await.status, 200);
    let again = create(&staff, "one", "Kettle").await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(
        (&again.body, again.header("location"), again.header("etag")),
        (&first.body, &*location, first.header("etag"))
    );
    // the order of fields is no other body
    let turned = r#"{"tags":["new"],"category_name":"Sport","price":"1.50","name":"Kettle"}"#;
    let keyed = staff.with_header("idempotency-key", "one");
    let turned = keyed.send_bytes(hyper::Method::POST, "/api/products/", Some("application/json"), turned.into()).await;
    assert_eq!(turned.header("idempotent-replayed"), "true");
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);

    let other = create(&staff, "one", "Pot").await;
    assert_eq!(
        other.status_and_json(),
        (422, json!({"detail": "This Idempotency-Key was used with another request body."}))
    );
    assert_eq!(create(&staff, "one", " ").await.status, 422, "whatever is wrong with it");
    assert_eq!(create(&staff, "two", "Pot").await.status, 201);
    // keys are each user's own
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
    let elsewhere = staff.on_instance(other.address);
    for round in 0..5 {
        let key = format!("key {round}");
        let calls = (0..12).map(|number| {
            let caller = if number % 2 == 0 { staff.clone() } else { elsewhere.clone() };
            let key = key.clone();
            tokio::spawn(async move { create(&caller, &key, "Kettle").await })
        });
        let responses = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
        let responses: Vec<_> = responses.into_iter().map(Result::unwrap).collect();
        for response in &responses {
            assert_eq!((response.status.as_u16(), response.text()), (201, responses[0].text()));
        }
        let first = responses.iter().filter(|response| response.header("idempotent-replayed").is_empty()).count();
        assert_eq!(first, 1);
    }
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1 + 5);
}

#[tokio::test]
async fn rejected_creation_can_be_retried_with_same_key() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 400, "no such category yet");
    assert_eq!(create(&staff, "one", "").await.status, 400);
    app.seed_products(1).await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 201);
    // a day later the key is free again
    app.execute("update idempotency_keys set created_at = now() - interval '25 hours'", &[]).await;
    let later = create(&staff, "one", "Pot").await;
    assert_eq!((later.status.as_u16(), later.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn aborted_creation_leaves_no_product_and_no_key() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // the last step of the transaction fails
    app.batch_execute(
        "create function refuse() returns trigger language plpgsql as 'begin raise exception ''no''; end';
         create trigger refuse before update on idempotency_keys for each row execute function refuse()",
    )
    .await;
    assert_eq!(create(&staff, "one", "Kettle").await.status, 500);
    assert_eq!(app.query_scalar::<i64>("select count(*) from idempotency_keys").await, 0);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1);
    app.batch_execute("drop trigger refuse on idempotency_keys").await;
    let again = create(&staff, "one", "Kettle").await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn invalid_idempotency_key_is_rejected() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let told = json!({"Idempotency-Key": ["Ensure this header has from 1 to 255 visible characters, once."]});
    for key in ["", " ", &"x".repeat(256)] {
        assert_eq!(create(&staff, key, "Kettle").await.status_and_json(), (400, told.clone()), "{key}");
    }
    assert_eq!(create(&staff.with_header("idempotency-key", "a"), "b", "Kettle").await.status_and_json(), (400, told));
    assert_eq!(create(&staff, &"x".repeat(255), "Kettle").await.status, 201);
}
