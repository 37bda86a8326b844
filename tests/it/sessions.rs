//! Logins that are renewed and ended, and passwords that are changed: what is refused from then on, and what is not.

use serde_json::{Value, json};

use crate::harness::{Answer, Caller, PASSWORD, Plan, Shop, until};

async fn logged_in(shop: &Shop, name: &str) -> (Caller, String) {
    let answer = shop.anyone().post("/api/login/", json!({"username": name, "password": PASSWORD})).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    (shop.anyone().bearing(told["token"].as_str().unwrap()), told["refresh"].as_str().unwrap().to_owned())
}

async fn refresh(caller: &Caller, token: &str) -> Answer {
    caller.post("/api/token/refresh/", json!({"refresh": token})).await
}

fn dead() -> (u16, Value) {
    (
        401,
        json!({
            "detail": "Given token not valid for any token type", "code": "token_not_valid",
            "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
        }),
    )
}

#[tokio::test]
async fn a_login_is_renewed_and_each_refresh_token_is_good_once() {
    let shop = Shop::open().await;
    shop.user("ann").await;
    let (user, first) = logged_in(&shop, "ann").await;
    let renewed = refresh(&shop.anyone(), &first).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let told = renewed.json();
    assert_eq!(told["expires_in"], 3600);
    let (second, token) = (told["refresh"].as_str().unwrap(), told["token"].as_str().unwrap());
    assert!(second != first && token != user.token());
    let next = shop.anyone().bearing(token);
    assert_eq!(next.get("/api/me/").await.json()["username"], "ann");
    assert_eq!(user.get("/api/me/").await.status, 200, "the token before lives as long as it was said to");
    assert_eq!(refresh(&shop.anyone(), second).await.status, 200);

    // only what cannot be turned into a token is stored
    let stored: i64 = shop.value("select count(*) from sessions where length(refresh_hash) = 32").await;
    assert_eq!(stored, 2);
    let copies = format!("select count(*) from sessions s where s::text like '%{}%'", &second[33..]);
    assert_eq!(shop.value::<i64>(&copies).await, 0);
}

#[tokio::test]
async fn a_spent_refresh_token_ends_its_whole_family_on_every_instance_and_no_other() {
    let shop = Shop::open().await;
    let other = shop.another_instance().await;
    shop.user("ann").await;
    let (stolen_from, first) = logged_in(&shop, "ann").await;
    let (elsewhere, kept) = logged_in(&shop, "ann").await;
    let renewed = refresh(&shop.anyone(), &first).await.json();
    let (second, token) = (renewed["refresh"].as_str().unwrap(), renewed["token"].as_str().unwrap());
    let next = shop.anyone().bearing(token);
    assert_eq!(next.at(other.address).get("/api/me/").await.status, 200);

    assert_eq!(refresh(&shop.anyone(), &first).await.told(), dead());
    assert_eq!(refresh(&shop.anyone(), second).await.told(), dead(), "the one in force died with it");
    for caller in [&stolen_from, &next, &next.at(other.address)] {
        assert_eq!(caller.get("/api/me/").await.told(), dead());
    }
    assert_eq!(elsewhere.get("/api/me/").await.status, 200);
    assert_eq!(refresh(&shop.anyone(), &kept).await.status, 200);
    let counted = shop.anyone().at(shop.server.admin_address).get("/metrics").await.text();
    assert!(counted.contains("testshop_sessions_copied_total 1\n"), "operators hear of it, once: {counted}");
}

#[tokio::test]
async fn of_two_that_present_the_same_token_at_once_at_most_one_is_served_and_then_none() {
    let shop = Shop::open().await;
    shop.user("ann").await;
    for _ in 0..5 {
        let (_, token) = logged_in(&shop, "ann").await;
        let anyone = shop.anyone();
        let (one, two) = tokio::join!(refresh(&anyone, &token), refresh(&anyone, &token));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
        let winner = if one.status == 200 { one } else { two };
        let next = winner.json()["refresh"].as_str().unwrap().to_owned();
        assert_eq!(refresh(&anyone, &next).await.status, 401, "nobody knows which of the two was the thief");
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let shop = Shop::open().await;
    let (user, token) = {
        shop.user("ann").await;
        logged_in(&shop, "ann").await
    };
    let anyone = shop.anyone();
    let foreign = format!("{}.{}", "0".repeat(32), &token[33..]);
    // whoever has seen an access token knows the session's name
    let made_up = format!("{}.{}", &token[..32], "A".repeat(token.len() - 33));
    let damaged = format!("{}{}", &token[..token.len() - 4], "AAAA");
    for wrong in
        ["", " ", "x", ".", "a.b", &token[..32], &foreign, &made_up, &damaged, user.token(), &"9".repeat(512), "ё.ё"]
    {
        let answer = refresh(&anyone, wrong).await;
        let status = if wrong.trim().is_empty() { 400 } else { 401 };
        assert_eq!(answer.status, status, "{wrong}: {}", answer.text());
    }
    for (body, told) in [
        (json!({}), json!({"refresh": ["This field is required."]})),
        (json!({"refresh": null}), json!({"refresh": ["This field may not be null."]})),
        (json!({"refresh": [token]}), json!({"refresh": ["Not a valid string."]})),
        (
            json!({"refresh": "9".repeat(513)}),
            json!({"refresh": ["Ensure this field has no more than 512 characters."]}),
        ),
    ] {
        assert_eq!(anyone.post("/api/token/refresh/", body).await.told(), (400, told));
    }
    assert_eq!(refresh(&anyone, &token).await.status, 200, "none of it did any harm");
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_logout_its_account_and_its_tokens() {
    let shop = Plan::default().with("refresh-token-ttl", "10d").open().await;
    let anyone = shop.anyone();
    shop.user("ann").await;
    let (_, token) = logged_in(&shop, "ann").await;
    let days: i32 =
        shop.value("select round(extract(epoch from max(expires_at) - now()) / 86400)::int from sessions").await;
    assert_eq!(days, 10);
    shop.run("update sessions set expires_at = now()", &[]).await;
    assert_eq!(refresh(&anyone, &token).await.told(), dead());

    let (user, token) = logged_in(&shop, "ann").await;
    assert_eq!(user.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(refresh(&anyone, &token).await.told(), dead());

    // deactivated by somebody else, and activated again: what was ended stays ended
    let (_, token) = logged_in(&shop, "ann").await;
    shop.run("update users set is_active = false", &[]).await;
    shop.run("update users set is_active = true", &[]).await;
    assert_eq!(refresh(&anyone, &token).await.told(), dead());

    let (_, token) = logged_in(&shop, "ann").await;
    shop.run("delete from users", &[]).await;
    assert_eq!(refresh(&anyone, &token).await.told(), dead());
}

#[tokio::test]
async fn a_session_has_a_last_day_however_often_it_is_renewed() {
    let shop = Plan::default().with("session-ttl", "20d").open().await;
    let anyone = shop.anyone();
    shop.user("ann").await;
    let (user, first) = logged_in(&shop, "ann").await;
    shop.run("update sessions set started_at = now() - interval '15 days'", &[]).await;
    let renewed = refresh(&anyone, &first).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let days = "select round(extract(epoch from min(expires_at) - now()) / 86400)::int from sessions";
    assert_eq!(shop.value::<i32>(days).await, 5, "14 more days would be too many");

    // also where the operator allowed more when its last token was issued
    shop.run("update sessions set started_at = now() - interval '20 days'", &[]).await;
    assert_eq!(refresh(&anyone, renewed.json()["refresh"].as_str().unwrap()).await.told(), dead());
    assert_eq!(user.get("/api/me/").await.told(), dead());

    let shop = Plan::default().with("session-ttl", "3d").open().await;
    shop.user("ann").await;
    logged_in(&shop, "ann").await;
    assert_eq!(shop.value::<i32>(days).await, 3);
}

#[tokio::test]
async fn a_logout_of_all_ends_every_login_of_this_user_alone() {
    let shop = Shop::open().await;
    let other = shop.another_instance().await;
    let bob = shop.user("bob").await;
    shop.user("ann").await;
    let (first, one) = logged_in(&shop, "ann").await;
    let (second, two) = logged_in(&shop, "ann").await;
    assert_eq!(second.at(other.address).get("/api/me/").await.status, 200);
    let answer = first.post("/api/logout/all/", json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    for caller in [&first, &second, &second.at(other.address)] {
        assert_eq!(caller.get("/api/me/").await.told(), dead());
    }
    for token in [one, two] {
        assert_eq!(refresh(&shop.anyone(), &token).await.told(), dead());
    }
    assert_eq!(bob.get("/api/me/").await.status, 200);
    let (again, _) = logged_in(&shop, "ann").await;
    assert_eq!(again.get("/api/me/").await.status, 200);
    assert_eq!(shop.anyone().post("/api/logout/all/", json!({})).await.status, 401);
}

#[tokio::test]
async fn another_password_ends_every_token_issued_before_it() {
    let shop = Shop::open().await;
    shop.user("ann").await;
    let (user, token) = logged_in(&shop, "ann").await;
    let (elsewhere, _) = logged_in(&shop, "ann").await;
    let change = async |old: &str, new: &str| {
        user.post("/api/password/", json!({"old_password": old, "new_password": new})).await
    };
    let faults = |name: &str, words: &str| (400, json!({name: [words]}));
    assert_eq!(change("not it", "a fine password").await.told(), faults("old_password", "Invalid password."));
    let both = json!({"old_password": ["Invalid password."], "new_password": ["This password is entirely numeric."]});
    assert_eq!(change("not it", "8675309867530").await.told(), (400, both));
    let short = change(PASSWORD, "q-8z").await;
    assert_eq!(short.told(), faults("new_password", "Ensure this field has at least 8 characters."));
    assert_eq!(
        user.post("/api/password/", json!({"new_password": "Ann"})).await.told(),
        (
            400,
            json!({
                "old_password": ["This field is required."],
                "new_password": [
                    "Ensure this field has at least 8 characters.",
                    "This password is too common.",
                    "The password is too similar to the username.",
                ],
            })
        )
    );
    assert_eq!(user.get("/api/me/").await.status, 200, "what was refused changed nothing");

    assert_eq!(change(PASSWORD, " a fine password ").await.status, 204);
    for caller in [&user, &elsewhere] {
        assert_eq!(caller.get("/api/me/").await.told(), dead());
    }
    assert_eq!(refresh(&shop.anyone(), &token).await.told(), dead());
    let login = async |password: &str| {
        shop.anyone().post("/api/login/", json!({"username": "ann", "password": password})).await.status.as_u16()
    };
    assert_eq!((login(PASSWORD).await, login("a fine password").await), (401, 401));
    assert_eq!(login(" a fine password ").await, 200, "passwords are never trimmed");
}

#[tokio::test]
async fn of_two_changes_of_a_password_at_once_the_second_is_refused() {
    let shop = Shop::open().await;
    let user = shop.user("ann").await;
    // an operator's change, which the user's own has to wait for
    shop.script("begin; update users set password = 'another' where username = 'ann'").await;
    let changing = tokio::spawn(async move {
        user.post("/api/password/", json!({"old_password": PASSWORD, "new_password": "a fine password"})).await
    });
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    until("it waits", async || shop.value::<i64>(waiting).await > 0).await;
    shop.script("commit").await;
    assert_eq!(changing.await.unwrap().told(), dead());
    assert_eq!(shop.value::<String>("select password from users").await, "another");
}

#[tokio::test]
async fn a_stolen_token_is_no_licence_to_guess_the_password() {
    let shop = Plan::default().with("rate-limit", "on").open().await;
    let user = shop.user("ann").await;
    let guess = json!({"old_password": "guess", "new_password": "a fine password"});
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(user.post("/api/password/", guess.clone()).await.status.as_u16());
    }
    assert_eq!(statuses[..4], [400; 4]);
    assert_eq!(statuses[5..], [429; 3]);
}

#[tokio::test]
async fn who_knows_the_old_password_may_try_many_new_ones() {
    let shop = Plan::default().with("rate-limit", "on").open().await;
    let user = shop.user("ann").await;
    let poor = json!({"old_password": PASSWORD, "new_password": "8675309867530"});
    for _ in 0..8 {
        let told = user.post("/api/password/", poor.clone()).await.told();
        assert_eq!(told, (400, json!({"new_password": ["This password is entirely numeric."]})));
    }
}
