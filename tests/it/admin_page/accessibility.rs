//! axe-core, the accessibility checker, finds no serious violation on any view.

use serde_json::Value;

use super::{DIALOG, MAIN, Page};
use crate::harness::TestApp;

/// The script of axe-core, or `None` if `make test` could not install it.
fn axe() -> Option<String> {
    let path = std::env::var("AXE_CORE").ok().filter(|path| !path.is_empty());
    if path.is_none() {
        eprintln!("SKIPPED: axe-core is not installed");
    }
    path.map(|path| std::fs::read_to_string(path).unwrap())
}

impl Page {
    /// Checks what the page shows.
    async fn assert_accessible(&self, axe: &str, view: &str) {
        self.browser.script(axe).await;
        let run = "const [done] = arguments; axe.run().then((result) => done(result.violations))";
        let violations = self.browser.client.execute_async(run, vec![]).await.unwrap();
        let is_serious = |violation: &&Value| violation["impact"] == "serious" || violation["impact"] == "critical";
        let serious: Vec<String> = violations
            .as_array()
            .unwrap()
            .iter()
            .filter(is_serious)
            .map(|violation| format!("{}: {}", violation["id"], violation["nodes"]))
            .collect();
        assert!(serious.is_empty(), "{view}: {serious:#?}");
    }
}

#[tokio::test]
async fn axe_finds_no_serious_violation() {
    let Some(axe) = axe() else { return };
    let app = TestApp::spawn().await;
    app.seed_products(30).await;
    app.create_staff("sam").await;
    let Some(page) = Page::open(app.server.address, "").await else { return };
    page.assert_accessible(&axe, "login").await;
    page.log_in("sam").await;
    for colours in ["light", "dark"] {
        page.browser.emulate_media("prefers-color-scheme", colours).await;
        page.browser.css("[data-view=products]").await.click().await.unwrap();
        page.browser.wait_for_text("Loaded: 30").await;
        page.assert_accessible(&axe, &format!("products, {colours}")).await;
        page.click(MAIN, "Product 1").await;
        page.replace(DIALOG, "Price", "x").await;
        page.click(DIALOG, "Save").await;
        page.browser.wait_for_text("A valid number is required.").await;
        page.assert_accessible(&axe, &format!("form with an error, {colours}")).await;
        page.replace(DIALOG, "Price", &format!("{}.99", if colours == "light" { 10 } else { 20 })).await;
        app.batch_execute("update products set price = price + 1 where id = 1").await;
        page.click(DIALOG, "Save").await;
        page.browser.wait_for_text("Choose what to keep").await;
        page.assert_accessible(&axe, &format!("conflict, {colours}")).await;
        page.click(DIALOG, "Save").await;
        page.wait_until_closed().await;
        page.browser.css("[data-view=categories]").await.click().await.unwrap();
        page.wait_for_names(&["Sport"]).await;
        page.assert_accessible(&axe, &format!("categories, {colours}")).await;
        page.browser.css("[data-view=import]").await.click().await.unwrap();
        page.browser.css(".drop").await;
        page.assert_accessible(&axe, &format!("import, {colours}")).await;
    }
    page.browser.resize(320, 700).await;
    page.browser.css("[data-view=products]").await.click().await.unwrap();
    page.browser.wait_for_text("Loaded: 30").await;
    page.assert_accessible(&axe, "narrow").await;
    page.finish().await;
}
