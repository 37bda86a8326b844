//! Uniqueness and search without regard to case, on databases with different locales.

use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, connect, process::command, product_names, required_env};

/// Options of `create database`, and a condition on the server that offers the locale.
const LOCALES: [(&str, &str, &str); 5] = [
    ("C", "locale 'C'", "true"),
    ("C.UTF-8", "locale 'C.UTF-8'", "exists (select from pg_collation where collname in ('C.utf8', 'C.UTF-8'))"),
    ("en_US", "locale 'en_US.UTF-8'", "exists (select from pg_collation where collname = 'en_US.utf8')"),
    (
        "ICU tr",
        "locale 'C' locale_provider icu icu_locale 'tr'",
        "exists (select from pg_collation where collname = 'und-x-icu')",
    ),
    (
        "ICU en-US",
        "locale 'C' locale_provider icu icu_locale 'en-US'",
        "exists (select from pg_collation where collname = 'und-x-icu')",
    ),
];

/// Starts an app on a database with this locale, or returns `None` if the server does not offer it.
async fn spawn_with_locale(name: &str, options: &str, condition: &str) -> Option<TestApp> {
    let server = connect(&required_env("DATABASE_URL")).await;
    if !server.query_one(&format!("select {condition}"), &[]).await.unwrap().get::<_, bool>(0) {
        println!("SKIPPED: the server does not offer the locale {name}");
        return None;
    }
    let options = format!("template template0 encoding 'UTF8' {options}");
    let app = TestAppBuilder::default().with_database_options(&options).spawn().await;
    // small tables would be read sequentially
    app.batch_execute(&format!("alter database {} set enable_seqscan = off", app.database_name())).await;
    Some(app)
}

async fn assert_accounts_ignore_case(app: &TestApp, locale: &str) {
    for (index, (name, other)) in [("Анна", "АННА"), ("iris", "IRIS"), ("ΝΊΚΟΣ", "νίκος")].into_iter().enumerate()
    {
        app.create_user_with_email(name, &format!("first.i{index}@example.com")).await;
        let again = json!({"username": other, "email": format!("x{index}@example.com"), "password": PASSWORD});
        let errors = app.anonymous().post("/api/register/", again).await.status_and_json();
        let expected = json!({"username": ["A user with that username already exists."]});
        assert_eq!(errors, (400, expected), "{locale}: {name}, {other}");
        let same_email = json!({
            "username": format!("other{index}"), "email": format!("FIRST.I{index}@EXAMPLE.COM"), "password": PASSWORD,
        });
        let errors = app.anonymous().post("/api/register/", same_email).await.status_and_json();
        let expected = json!({"email": ["A user with that email already exists."]});
        assert_eq!(errors, (400, expected), "{locale}: {name}");
        // a program that writes by SQL
        let insert = "insert into users (username, email, password) values ($1, $1, '!')";
        let error = app.sql.execute(insert, &[&other]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{locale}: {other}");
        assert_eq!(app.login(other).await.get("/api/me/").await.json()["username"], name, "{locale}");
    }
}

async fn assert_search_ignores_case(app: &TestApp, locale: &str) {
    let user = app.login("iris").await;
    app.batch_execute(
        "insert into categories (name) values ('Кухня');
         insert into products (category_id, name, description, price)
         values (1, 'Чайник IRIS', 'для ΝΊΚΟΣ', 1), (1, 'Kettle', 'ISTANBUL İzmir νίκοσα', 2), (1, 'Other', '', 3)",
    )
    .await;
    for (search, expected) in [
        ("чайник", vec!["Чайник IRIS"]),
        ("ЧАЙНИК iris", vec!["Чайник IRIS"]),
        ("Iris", vec!["Чайник IRIS"]),
        ("IRIS", vec!["Чайник IRIS"]),
        ("νίκος", vec!["Чайник IRIS", "Kettle"]),
        ("ΝΊΚΟΣ", vec!["Чайник IRIS", "Kettle"]),
        ("istanbul izmir", vec!["Kettle"]),
        ("kettle", vec!["Kettle"]),
        ("чайникх", vec![]),
    ] {
        let found = user.get(&format!("/api/products/?search={}", percent_encode(search))).await;
        assert_eq!(found.status, 200, "{locale}: {}", found.text());
        assert_eq!(product_names(&found.json()), expected, "{locale}: {search}");
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// `products/list/search.rs` reads these letters without mapping the text to lower case.
async fn assert_no_other_character_becomes_an_ascii_letter(app: &TestApp, locale: &str) {
    let sql = "select string_agg(chr(code) || fold_case(chr(code)), ' ' order by code)
                 from generate_series(128, 1114111) code
                where code not between 55296 and 57343
                  and fold_case(chr(code)) ~ '[\x01-\x7f]'";
    assert_eq!(app.query_scalar::<String>(sql).await, "\u{130}i \u{212a}k", "{locale}");
    let upper_and_lower = "select count(*) from generate_series(1, 127) code
                            where fold_case(chr(code)) <> lower(chr(code) collate \"C\")";
    assert_eq!(app.query_scalar::<i64>(upper_and_lower).await, 0, "{locale}");
}

#[tokio::test]
async fn names_and_search_ignore_case_in_every_locale() {
    for (name, options, condition) in LOCALES {
        let Some(app) = spawn_with_locale(name, options, condition).await else { continue };
        assert_accounts_ignore_case(&app, name).await;
        assert_search_ignores_case(&app, name).await;
        assert_no_other_character_becomes_an_ascii_letter(&app, name).await;
    }
}

#[tokio::test]
async fn accounts_that_differ_only_in_case_stop_the_migration() {
    let app =
        TestAppBuilder::default().with_database_options("template template0 encoding 'UTF8' locale 'C'").spawn().await;
    // the schema before case folding
    app.batch_execute(
        "delete from refinery_schema_history where version >= 7;
         delete from schema_compatibility where migration >= 7;
         drop function fold_case cascade;
         create unique index users_username_key on users (lower(username));
         insert into users (username, email, password) values
             ('Анна', 'a@example.com', '!'), ('АННА', 'b@example.com', '!'), ('Bob', 'c@example.com', '!')",
    )
    .await;
    let output = command(&["migrate"]).env("DATABASE_URL", app.database_url()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected = "accounts differ only in the case of letters: usernames Анна (id 1), АННА (id 2)";
    assert!(text.contains(expected) && !text.contains("Bob"), "{text}");
}
