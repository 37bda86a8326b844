//! `POST /api/register/`: validation errors, normalization, uniqueness.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestApp};

fn account(username: &str, email: &str, password: &str) -> Value {
    json!({"username": username, "email": email, "password": password})
}

#[tokio::test]
async fn registered_user_can_log_in_and_read_profile() {
    let app = TestApp::spawn().await;
    let registered =
        app.anonymous().post("/api/register/", account("user123", "user@example.com", "securepassword")).await;
    assert_eq!(registered.status_and_json(), (201, json!({"message": "User registered successfully."})));
    let login = app.anonymous().post("/api/login/", json!({"username": "user123", "password": "securepassword"})).await;
    assert_eq!(login.status, 200);
    let login = login.json();
    assert_eq!(login["expires_in"], 3600);
    assert!(login["refresh"].as_str().unwrap().len() > 40);
    assert_eq!(login.as_object().unwrap().len(), 3, "unexpected keys: {login}");

    let me = app.anonymous().with_token(login["token"].as_str().unwrap()).get("/api/me/").await.json();
    assert_eq!((&me["id"], &me["username"], &me["email"]), (&json!(1), &json!("user123"), &json!("user@example.com")));
    assert_eq!(me["is_staff"], false);
    assert!(me["date_joined"].as_str().unwrap().ends_with('Z'));
    assert_eq!(me.as_object().unwrap().len(), 5, "unexpected keys: {me}");
}

#[tokio::test]
async fn registration_errors_are_returned_together() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let register = async |body: Value| app.anonymous().post("/api/register/", body).await.status_and_json();
    let required = json!(["This field is required."]);
    assert_eq!(
        register(json!({})).await,
        (400, json!({"username": required, "email": required, "password": required}))
    );
    assert_eq!(
        register(json!({"username": "  ", "email": null, "password": true})).await,
        (
            400,
            json!({
                "username": ["This field may not be blank."],
                "email": ["This field may not be null."],
                "password": ["Not a valid string."],
            })
        )
    );
    let username_rule =
        "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.";
    assert_eq!(
        register(account("not allowed!", "nobody", "8675309867530")).await,
        (
            400,
            json!({
                "username": [username_rule],
                "email": ["Enter a valid email address."],
                "password": ["This password is entirely numeric."],
            })
        )
    );
    assert_eq!(
        register(account("ANN", "Ann@Example.com", "sh0rt!x")).await,
        (
            400,
            json!({
                "username": ["A user with that username already exists."],
                "email": ["A user with that email already exists."],
                "password": ["Ensure this field has at least 8 characters."],
            })
        ),
        "names are compared without regard to case, and their errors are returned with the others"
    );
    assert_eq!(
        register(account(&"x".repeat(151), &format!("{}@example.com", "x".repeat(250)), "a\u{0}bcdefghi")).await,
        (
            400,
            json!({
                "username": ["Ensure this field has no more than 150 characters."],
                "email": ["Ensure this field has no more than 254 characters."],
                "password": ["Null characters are not allowed."],
            })
        )
    );
    // NFKC maps this ligature to three letters
    assert_eq!(
        register(account(&"ﬃ".repeat(51), "long@example.com", PASSWORD)).await,
        (400, json!({"username": ["Ensure this field has no more than 150 characters."]}))
    );
    assert_eq!(app.query_scalar::<i64>("select count(*) from users").await, 1);
}

#[tokio::test]
async fn usernames_and_emails_are_trimmed_and_passwords_are_not() {
    let app = TestApp::spawn().await;
    let response =
        app.anonymous().post("/api/register/", account("  ann ", " ann@example.com ", " spaces around ")).await;
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(app.query_scalar::<String>("select username || '|' || email from users").await, "ann|ann@example.com");
    let login = async |password: &str| {
        app.anonymous().post("/api/login/", json!({"username": "Ann", "password": password})).await.status.as_u16()
    };
    assert_eq!(login(" spaces around ").await, 200, "usernames are compared without regard to case");
    assert_eq!(login("spaces around").await, 401);
}

#[tokio::test]
async fn concurrent_registrations_of_one_name_have_one_winner() {
    let app = TestApp::spawn().await;
    let registrations =
        (0..8).map(|number| {
            let anonymous = app.anonymous();
            let username = if number % 2 == 0 { "racer" } else { "RACER" };
            async move {
                anonymous.post("/api/register/", account(username, &format!("r{number}@example.com"), PASSWORD)).await
            }
        });
    let responses = futures_util::future::join_all(registrations).await;
    let (created, rejected): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.status == 201);
    assert_eq!(created.len(), 1);
    for response in rejected {
        let taken = json!({"username": ["A user with that username already exists."]});
        assert_eq!(response.status_and_json(), (400, taken));
    }
}
