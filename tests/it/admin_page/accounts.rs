//! Logins, rights, and sessions that end.

use super::{DIALOG, MAIN, Page, navigation::HOLD};
use crate::harness::{PASSWORD, TestApp, TestAppBuilder, wait_until};

#[tokio::test]
async fn user_who_is_not_staff_can_only_look() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.create_user("ann").await;
    let Some(page) = Page::open(app.server.address, "?view=import").await else { return };
    page.type_into(MAIN, "Username", "ann").await;
    page.type_into(MAIN, "Password", "wrong password").await;
    page.click(MAIN, "Log in").await;
    page.browser.wait_for_text("Wrong username or password.").await;
    page.replace(MAIN, "Password", PASSWORD).await;
    page.click(MAIN, "Log in").await;
    page.wait_for_names(&["Product 1", "Product 2"]).await;
    let text = page.browser.text().await;
    for absent in ["New product", "Import"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    page.button(MAIN, "Export: XLSX").await;
    page.click(MAIN, "Product 1").await;
    assert_eq!(page.value(DIALOG, "Name").await, "Product 1");
    let controls = page.browser.css("dialog").await.text().await.unwrap();
    assert!(!controls.contains("Save") && !controls.contains("Delete"), "{controls}");
    assert_eq!(page.field(DIALOG, "Name").await.prop("readOnly").await.unwrap().as_deref(), Some("true"));
    let tags = "return document.querySelectorAll('dialog .names li').length";
    let before = page.browser.script(tags).await;
    page.type_into(DIALOG, "Tags", "\u{e003}").await;
    assert_eq!(page.browser.script(tags).await, before);
    page.click(DIALOG, "Close").await;
    page.wait_until_closed().await;
    // nothing to create
    page.browser.script("history.pushState(null, '', '?edit=new'); dispatchEvent(new PopStateEvent('popstate'))").await;
    assert_eq!(page.browser.script("return document.querySelector('dialog')").await, serde_json::Value::Null);
    page.browser.css("[data-view=categories]").await.click().await.unwrap();
    page.wait_for_names(&["Sport"]).await;
    assert!(!page.browser.text().await.contains("Rename"));
    page.finish().await;
}

#[tokio::test]
async fn edit_survives_the_end_of_the_session() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "?edit=1").await else { return };
    page.replace(DIALOG, "Name", "Typed before the end").await;
    end_sessions(&app).await;
    // the change feed notices the end of the session, too, so the dialog may already be open
    page.browser.script("document.querySelector('dialog button.main').click()").await;
    page.browser.wait_for_text("Nothing that you typed is lost.").await;
    assert_eq!(page.value(DIALOG, "Username").await, "sam");
    page.type_into(DIALOG, "Password", PASSWORD).await;
    page.click(DIALOG, "Log in").await;
    page.browser.wait_for("document.querySelectorAll('dialog').length < 2").await;
    // a save that was under way has been repeated; otherwise the user saves now
    page.browser.script("document.querySelector('dialog button.main')?.click()").await;
    page.wait_until_closed().await;
    assert_eq!(app.query_scalar::<String>("select name from products").await, "Typed before the end");
    page.finish().await;
}

#[tokio::test]
async fn refused_login_is_shown_and_can_be_repeated() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_for_names(&["Product 1", "Product 2"]).await;
    end_sessions(&app).await;
    page.click(MAIN, "Price").await;
    page.field(DIALOG, "Password").await;
    page.press("\u{e00c}").await;
    page.wait_until_closed().await;
    page.browser
        .wait_for("document.querySelector('main .status').innerText.startsWith('Your session has ended')")
        .await;
    page.click(MAIN, "Try again").await;
    page.type_into(DIALOG, "Password", PASSWORD).await;
    page.click(DIALOG, "Log in").await;
    page.wait_until_closed().await;
    page.browser.wait_for_text("Loaded: 2").await;
    page.wait_until_live().await;
    // the button is gone, the focus is at the rows
    page.browser.wait_for("document.activeElement.matches('.table')").await;
    page.finish().await;
}

#[tokio::test]
async fn another_account_does_not_save_what_the_first_one_typed() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.create_staff("olga").await;
    let Some(page) = Page::open_as_staff(&app, "?edit=1").await else { return };
    page.replace(DIALOG, "Name", "Typed by Sam").await;
    end_sessions(&app).await;
    page.browser.script("document.querySelector('dialog button.main').click()").await;
    page.replace(DIALOG, "Username", "olga").await;
    page.type_into(DIALOG, "Password", PASSWORD).await;
    page.click(DIALOG, "Log in").await;
    page.wait_until_closed().await;
    page.browser.wait_for("document.querySelector('#account').innerText.includes('olga')").await;
    page.browser.wait_for_text("Your session has ended").await;
    page.wait_for_names(&["Product 1"]).await;
    assert_eq!(app.query_scalar::<String>("select name from products").await, "Product 1");
    page.finish().await;
}

#[tokio::test]
async fn nothing_appears_after_a_logout() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_for_names(&["Product 1"]).await;
    page.browser.client.execute(HOLD, vec!["/products/1/".into()]).await.unwrap();
    page.click(MAIN, "Product 1").await;
    page.browser.wait_for("held === 1").await;
    page.browser.css("#account button").await.click().await.unwrap();
    page.field(MAIN, "Password").await;
    // the response has been handled when a later task runs
    page.browser.client.execute_async("release(); setTimeout(arguments[0], 0)", vec![]).await.unwrap();
    assert_eq!(page.browser.script("return document.querySelector('dialog')").await, serde_json::Value::Null);
    page.finish().await;
}

/// Ends all sessions of the page's account.
async fn end_sessions(app: &TestApp) {
    let other = app.login("sam").await;
    assert_eq!(other.post("/api/logout/all/", serde_json::json!({})).await.status, 204);
}

#[tokio::test]
async fn token_is_renewed_before_it_expires_and_never_stored() {
    let app = TestAppBuilder::default().with("access-token-ttl", "4s").spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_until_live().await;
    // a request renews a token after half of its lifetime
    let refresh_hash = "select encode(refresh_hash, 'hex') from sessions order by started_at desc limit 1";
    let before = app.query_scalar::<String>(refresh_hash).await;
    wait_until("a token is renewed", async || {
        page.click(MAIN, "Price").await;
        app.query_scalar::<String>(refresh_hash).await != before
    })
    .await;
    let stored = "return [localStorage.length, sessionStorage.length, document.cookie.length]";
    assert_eq!(page.browser.script(stored).await, serde_json::json!([0, 0, 0]));
    page.wait_for_names(&["Product 1"]).await;
    page.browser.css("#account button").await.click().await.unwrap();
    page.field(MAIN, "Password").await;
    // the session of the page has ended on the server, that of the test has not
    assert_eq!(app.query_scalar::<i64>("select count(*) from sessions").await, 1);
    page.finish().await;
}
