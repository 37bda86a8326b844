//! A restored backup revives no session after `testshop end-sessions --all`.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestApp, TestClient, process::command};

const NEW_PASSWORD: &str = "changed after the backup";

/// Copies the tables of the accounts, as a backup contains them.
const BACK_UP: &str = "
    create schema backup;
    create table backup.users as select * from users;
    create table backup.sessions as select * from sessions;
    create table backup.revocations as select * from revocations;
    create table backup.accounts_versions as select * from accounts_versions";

/// Replaces the accounts by those of the backup, on the database that the servers are connected to, without triggers,
/// as `pg_restore --disable-triggers` does.
const RESTORE: &str = "
    begin;
    set local session_replication_role = replica;
    alter table users disable trigger user; alter table revocations disable trigger user;
    delete from sessions; delete from users; delete from revocations; delete from accounts_versions;
    insert into users select * from backup.users;
    insert into sessions select * from backup.sessions;
    insert into revocations select * from backup.revocations;
    insert into accounts_versions select * from backup.accounts_versions;
    select setval('users_id_seq', (select max(id) from users));
    alter table users enable trigger user; alter table revocations enable trigger user;
    alter table users enable replica trigger record_replicated_user_revocation;
    alter table users enable always trigger bump_token_generation;
    alter table users enable always trigger record_all_users_revocation;
    alter table revocations enable always trigger defer_revocation;
    commit";

/// Logs in; returns a client with the access token, and the refresh token.
async fn log_in(app: &TestApp, name: &str, password: &str) -> (TestClient, Value) {
    let credentials = json!({"username": name, "password": password});
    let response = app.anonymous().post("/api/login/", credentials).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let pair = response.json();
    (app.anonymous().with_token(pair["token"].as_str().unwrap()), pair["refresh"].clone())
}

/// Creates accounts and tokens before and after a backup, and restores it. Returns every token that was issued.
async fn issue_tokens_and_restore(app: &TestApp) -> Vec<(&'static str, TestClient, Value)> {
    let mut issued = Vec::new();
    for name in ["ann", "bob", "carl"] {
        app.create_user(name).await;
        let (client, refresh) = log_in(app, name, PASSWORD).await;
        issued.push(("before the backup", client, refresh));
    }
    app.batch_execute(BACK_UP).await;
    let [ann, bob, carl] = [0, 1, 2].map(|index: usize| issued[index].1.clone());
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(bob.post("/api/logout/all/", json!({})).await.status, 204);
    let change = json!({"old_password": PASSWORD, "new_password": NEW_PASSWORD});
    assert_eq!(carl.post("/api/password/", change).await.status, 204);
    for (name, password) in [("ann", PASSWORD), ("bob", PASSWORD), ("carl", NEW_PASSWORD)] {
        let (client, refresh) = log_in(app, name, password).await;
        issued.push(("after the backup", client, refresh));
    }
    // the restored database assigns this account's id again
    app.create_user("lost").await;
    let (client, refresh) = log_in(app, "lost", PASSWORD).await;
    issued.push(("of a lost account", client, refresh));
    app.batch_execute(RESTORE).await;
    issued
}

#[tokio::test(flavor = "multi_thread")]
async fn end_sessions_revokes_every_token_after_a_restore() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let issued = issue_tokens_and_restore(&app).await;
    let restarted = app.start_instance().await;
    // without the command, the backup revives the token that was logged out
    assert_eq!(issued[0].1.on_instance(restarted.address).get("/api/me/").await.status, 200);

    let mut end_sessions = command(&["end-sessions", "--all"]);
    let output = end_sessions.env("DATABASE_URL", app.setting("database-url")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.starts_with("ended all sessions of 3 accounts"), "{text}");

    let account = json!({"username": "new", "email": "new@example.com", "password": PASSWORD});
    assert_eq!(app.anonymous().post("/api/register/", account).await.status, 201);
    let started_later = app.start_instance().await;
    for address in [app.server.address, other.address, restarted.address, started_later.address] {
        for (when, client, refresh) in &issued {
            let client = client.on_instance(address);
            assert_eq!(client.get("/api/me/").await.status, 401, "access token from {when}");
            let refresh = json!({"refresh": refresh});
            let response = TestClient::new(address).post("/api/token/refresh/", refresh).await;
            assert_eq!(response.status, 401, "refresh token from {when}");
        }
    }
    // passwords are those of the backup
    for name in ["ann", "carl", "new"] {
        let (client, _) = log_in(&app, name, PASSWORD).await;
        assert_eq!(client.get("/api/me/").await.json()["username"], name);
    }
}

#[test]
fn end_sessions_requires_all() {
    let output = command(&["end-sessions"]).env("DATABASE_URL", "postgres://nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--all"));
}
