//! The back button, URLs, and forms that open while the user goes on.

use serde_json::json;

use super::{DIALOG, MAIN, Page};
use crate::harness::TestApp;

/// Holds back the responses whose URL contains a text until `window.release()` is called.
pub(super) const HOLD: &str = "
    const [part] = arguments;
    const original = window.fetch;
    const released = new Promise((resolve) => { window.release = resolve; });
    window.held = 0;
    window.fetch = async (url, options) => {
        const response = await original(url, options);
        if (String(url).includes(part)) {
            window.held += 1;
            await released;
        }
        return response;
    };
";

#[tokio::test]
async fn edit_survives_the_back_button() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let Some(page) = Page::open_as_staff(&app, "?view=tags").await else { return };
    page.browser.css("[data-view=products]").await.click().await.unwrap();
    page.click(MAIN, "Product 1").await;
    page.type_into(DIALOG, "Name", " edited").await;
    // leaving the page asks, too
    let leave = "return dispatchEvent(new Event('beforeunload', { cancelable: true }))";
    assert_eq!(page.browser.script(leave).await, json!(false));
    page.browser.script("history.back()").await;
    page.browser.wait_for_text("Discard your changes?").await;
    page.browser.script("history.back()").await;
    page.browser.wait_for("location.search === '?view=tags'").await;
    page.click(DIALOG, "Continue editing").await;
    page.browser.wait_for("location.search === '?edit=1'").await;
    assert_eq!(page.value(DIALOG, "Name").await, "Product 1 edited");
    page.browser.script("history.back()").await;
    page.click(DIALOG, "Discard").await;
    page.wait_until_closed().await;
    page.wait_for_names(&["eco", "new"]).await;
    assert_eq!(page.browser.script(leave).await, json!(true));

    // other dialogs belong to their view
    page.click(MAIN, "New tag").await;
    page.field(DIALOG, "Name").await;
    page.browser.script("dispatchEvent(new PopStateEvent('popstate', history.replaceState(null, '', '?')))").await;
    page.wait_for_names(&["Product 1", "Product 2", "Product 3"]).await;
    page.wait_until_closed().await;
    page.finish().await;
}

#[tokio::test]
async fn forms_that_were_closed_do_not_fill_the_history() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    let length = "return history.length";
    let before = page.browser.script(length).await.as_i64().unwrap();
    for name in ["Product 1", "Product 2", "Product 3"] {
        page.click(MAIN, name).await;
        page.click(DIALOG, "Close").await;
        page.wait_until_closed().await;
        page.browser.wait_for("location.search === ''").await;
    }
    assert_eq!(page.browser.script(length).await.as_i64().unwrap(), before + 1);
    page.finish().await;
}

#[tokio::test]
async fn form_shows_the_product_of_the_url() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_for_names(&["Product 1", "Product 2", "Product 3"]).await;
    page.browser.client.execute(HOLD, vec![json!("/products/1/")]).await.unwrap();
    page.click(MAIN, "Product 1").await;
    page.browser.wait_for("held === 1").await;
    page.browser.script("history.back()").await;
    page.browser.wait_for("location.search === ''").await;
    page.click(MAIN, "Product 2").await;
    page.browser.script("release()").await;
    assert_eq!(page.value(DIALOG, "Name").await, "Product 2");
    page.click(DIALOG, "Close").await;
    page.wait_until_closed().await;

    // no product has these ids
    for query in ["?edit=abc", "?edit=0", "?edit=1.5", "?edit=9999", "?edit=../tags"] {
        let show = format!("history.pushState(null, '', '{query}'); dispatchEvent(new PopStateEvent('popstate'))");
        page.browser.script(&show).await;
        page.browser.wait_for_text("somebody has deleted it").await;
        page.browser.wait_for("location.search === ''").await;
        assert_eq!(page.browser.script("return document.querySelector('dialog')").await, json!(null), "{query}");
        page.browser.script("document.querySelectorAll('.messages p').forEach((note) => note.remove())").await;
    }
    page.finish().await;
}

#[tokio::test]
async fn pages_that_were_left_hold_no_connection() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.create_staff("sam").await;
    let Some(page) = Page::open(app.server.address, "").await else { return };
    // a browser opens six connections to a server
    for visit in 0..10 {
        page.browser.client.goto(&format!("http://{}/admin/?visit={visit}", app.server.address)).await.unwrap();
        page.log_in("sam").await;
        page.wait_until_live().await;
        page.wait_for_names(&["Product 1"]).await;
    }
    page.finish().await;
}
