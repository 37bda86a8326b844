//! Categories and tags.

use serde_json::json;

use crate::harness::{TestApp, TestClient};

/// Creates, reads, changes and deletes rows of one resource. `model` is its name in error messages.
async fn check_crud(staff: &TestClient, collection: &str, model: &str) {
    let created = staff.post(collection, json!({"name": " First "})).await;
    let id = created.json()["id"].as_i64().unwrap();
    assert_eq!(created.status_and_json(), (201, json!({"id": id, "name": "First"})));
    let path = format!("{collection}{id}/");
    assert_eq!(created.header("location"), path);
    let exists = (400, json!({"name": [format!("{} with this name already exists.", model.to_lowercase())]}));
    assert_eq!(staff.post(collection, json!({"name": "First"})).await.status_and_json(), exists);
    let second = staff.post(collection, json!({"name": "Second"})).await.json()["id"].as_i64().unwrap();
    let renamed_to_first = staff.put(&format!("{collection}{second}/"), json!({"name": "First"})).await;
    assert_eq!(renamed_to_first.status_and_json(), exists);

    let renamed = (200, json!({"id": id, "name": "Renamed"}));
    assert_eq!(staff.put(&path, json!({"name": "Renamed"})).await.status_and_json(), renamed);
    assert_eq!(staff.patch(&path, json!({})).await.status_and_json(), renamed);
    assert_eq!(staff.get(&path).await.status_and_json(), renamed);
    let list = staff.get(collection).await.json();
    assert!(list.as_array().unwrap().contains(&json!({"id": second, "name": "Second"})));
    let required = (400, json!({"name": ["This field is required."]}));
    assert_eq!(staff.put(&path, json!({})).await.status_and_json(), required);
    let too_long = (400, json!({"name": ["Ensure this field has no more than 100 characters."]}));
    assert_eq!(staff.post(collection, json!({"name": "x".repeat(101)})).await.status_and_json(), too_long);

    assert_eq!(staff.delete(&path).await.status, 204);
    let not_found = (404, json!({"detail": format!("No {model} matches the given query.")}));
    for response in [
        staff.get(&path).await,
        staff.delete(&path).await,
        staff.put(&path, json!({"name": "N"})).await,
        staff.patch(&path, json!({"name": ""})).await,
    ] {
        assert_eq!(response.status_and_json(), not_found);
    }
}

#[tokio::test]
async fn categories_and_tags_have_the_same_api() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    check_crud(&staff, "/api/categories/", "Category").await;
    check_crud(&staff, "/api/tags/", "Tag").await;
    let user = app.create_user("ann").await;
    assert_eq!(user.get("/api/categories/").await.status, 200);
    assert_eq!(user.get("/api/tags/").await.status, 200);
}

#[tokio::test]
async fn category_in_use_cannot_be_deleted_and_tag_in_use_can() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    let in_use = staff.delete("/api/categories/1/").await;
    assert_eq!(in_use.status_and_json(), (409, json!({"detail": "Category is used by 3 products."})));
    assert_eq!(staff.delete("/api/tags/1/").await.status, 204);
    assert_eq!(staff.get("/api/products/1/").await.json()["tags"], json!(["eco"]));
    app.execute("delete from products where id > 1", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.json(), json!({"detail": "Category is used by 1 product."}));
    app.execute("delete from products", &[]).await;
    assert_eq!(staff.delete("/api/categories/1/").await.status, 204);
}
