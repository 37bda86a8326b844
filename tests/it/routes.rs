//! The route table, walked: whoever may not call is refused, on every row.

use hyper::Method;
use serde_json::json;
use testshop::routes;

use crate::harness::Shop;

const NOT_AUTHENTICATED: &str = "Authentication credentials were not provided.";

fn path_of(pattern: &str) -> String {
    pattern.replace("{id}", "999999")
}

#[tokio::test]
async fn every_row_that_is_not_for_anyone_refuses_anyone() {
    let shop = Shop::open().await;
    for (method, path, access) in routes::summary() {
        let answer = shop.anyone().send(method.clone(), &path_of(path), None).await;
        if access == "anyone" {
            assert_ne!(answer.status, 401, "{method} {path}");
            continue;
        }
        assert_eq!(answer.told(), (401, json!({"detail": NOT_AUTHENTICATED})), "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"api\"", "{method} {path}");
    }
}

#[tokio::test]
async fn every_row_for_staff_refuses_a_user_before_it_looks_at_the_body() {
    let shop = Shop::open().await;
    let user = shop.user("ann").await;
    let mut refused = 0;
    for (method, path, _) in routes::summary().into_iter().filter(|(.., access)| *access == "staff") {
        let answer = user.send_bytes(method.clone(), &path_of(path), Some("text/nonsense"), b"{".to_vec()).await;
        let words = json!({"detail": "You do not have permission to perform this action."});
        assert_eq!(answer.told(), (403, words), "{method} {path}");
        refused += 1;
    }
    assert!(refused >= 12);
}

/// What callers do about their own accounts.
const ACCOUNTS: &[&str] =
    &["/api/register/", "/api/login/", "/api/token/refresh/", "/api/logout/", "/api/logout/all/", "/api/password/"];

#[tokio::test]
async fn every_write_outside_accounts_is_for_staff() {
    for (method, path, access) in routes::summary() {
        if method != Method::GET && !ACCOUNTS.contains(&path) {
            assert_eq!(access, "staff", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_path_works_with_and_without_its_trailing_slash() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    shop.staff("sam").await;
    // the root has nothing but its slash
    for (method, path, _) in routes::summary().into_iter().filter(|(_, path, _)| *path != "/") {
        let body = (method != Method::GET).then(|| json!([]));
        let path = path_of(path);
        let bare = path.trim_end_matches('/');
        // a login each: one of the rows ends it
        let without = shop.login("sam").await.send(method.clone(), bare, body.clone()).await;
        let with = shop.login("sam").await.send(method.clone(), &format!("{bare}/"), body).await;
        assert_eq!(without.status, with.status, "{method} {path}");
        assert!(!without.status.is_redirection() && without.status != 405, "{method} {path}");
    }
}

#[tokio::test]
async fn every_row_that_takes_no_parameter_names_the_one_it_was_given() {
    let shop = Shop::open().await;
    let staff = shop.staff("sam").await;
    let lists = [
        (Method::GET, "/api/products/"),
        (Method::GET, "/api/products/export/"),
        (Method::POST, "/api/products/import/"),
    ];
    let takes_any = |path: &str| ACCOUNTS.contains(&path) || !path.starts_with("/api/");
    for (method, path, _) in routes::summary().into_iter().filter(|(_, path, _)| !takes_any(path)) {
        if lists.contains(&(method.clone(), path)) {
            continue;
        }
        let answer = staff.send(method.clone(), &(path_of(path) + "?categry=1&categry=2&x"), None).await;
        let words = json!({"categry": ["Unknown parameter."], "x": ["Unknown parameter."]});
        assert_eq!(answer.told(), (400, words), "{method} {path}");
    }
}
