//! Texts and numbers that could break the page.

use super::{DIALOG, MAIN, Page};
use crate::harness::TestApp;

/// Whether the page or a part of it that scrolls is wider than its place.
const OVERFLOWS: &str = "[document.documentElement, ...document.querySelectorAll('main > section, dialog, .table')]\
                         .some((part) => part.scrollWidth > part.clientWidth)";

#[tokio::test]
async fn hostile_values_are_shown_as_text_and_the_layout_holds() {
    let app = TestApp::spawn().await;
    let names = [
        "<img src=x onerror=\"window.hacked = 1\"><script>window.hacked = 1</script>".to_owned(),
        "\u{202e}מחיר שולחן \u{2067}عربى".to_owned(),
        "🛒".repeat(100),
        "W".repeat(100),
        "{base} ${window.hacked = 1} &lt;b&gt; '\"`".to_owned(),
    ];
    app.batch_execute("insert into categories (name) values ('<b>' || repeat('C', 97))").await;
    for name in &names {
        let sql = "insert into products (category_id, name, description, price, created_at)
                   values (1, $1, repeat('<i>x ', 52428), 9999999999.99, '2023-08-08')";
        app.execute(sql, &[name]).await;
    }
    app.batch_execute(
        "insert into tags (name) select 'tag ' || i || case when i % 100 = 0 then '<u>🙂' else '' end
           from generate_series(1, 10000) i;
         insert into product_tags select 1, id from tags where id <= 90",
    )
    .await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    let expected: Vec<&str> = names.iter().map(String::as_str).collect();
    let texts = "return [...document.querySelectorAll('.table td.name bdi')].map((name) => name.textContent)";
    page.browser.wait_for("document.querySelectorAll('.table td.name').length === 5").await;
    assert_eq!(page.browser.script(texts).await, serde_json::json!(expected));
    assert!(page.browser.text().await.contains("9,999,999,999.99"));

    for (width, height) in [(320, 640), (375, 700), (768, 900), (1600, 900)] {
        page.browser.resize(width, height).await;
        for query in ["", "?edit=1", "?view=tags", "?view=categories", "?view=import"] {
            let show = format!(
                "history.pushState(null, '', location.pathname + '{query}'); dispatchEvent(new PopStateEvent('popstate'))"
            );
            page.browser.script(&show).await;
            let shown = match query {
                "?edit=1" => "document.querySelector('dialog.product')",
                "?view=import" => "document.querySelector('.drop')",
                _ => "document.querySelector('.table td.name') && !document.querySelector('dialog')",
            };
            page.browser.wait_for(shown).await;
            page.browser.wait_for(&format!("!({OVERFLOWS})")).await;
            // rows have the height that the table computes with
            let heights = "return [...document.querySelectorAll('.table tbody tr:not(.space)')].every((row) => \
                           Math.abs(row.getBoundingClientRect().height - parseFloat(getComputedStyle(document.documentElement).fontSize) \
                           * parseFloat(getComputedStyle(row.closest('.table')).getPropertyValue('--row-height'))) < 1.5)";
            assert_eq!(page.browser.script(heights).await, serde_json::json!(true), "{query} at {width}");
        }
    }
    assert_eq!(page.browser.script("return window.hacked ?? null").await, serde_json::Value::Null);
    page.finish().await;
}

#[tokio::test]
async fn long_values_can_be_edited() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "?edit=1").await else { return };
    let name = "🙂".repeat(100);
    // ChromeDriver types no characters beyond the basic multilingual plane
    let fill = format!(
        "const [name] = document.querySelectorAll('dialog input'); name.value = '{name}'; \
         document.querySelector('dialog textarea').value = 'x'.repeat(250000)"
    );
    page.field(DIALOG, "Name").await;
    page.browser.script(&fill).await;
    page.replace(DIALOG, "Price", "9999999999.99").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    let stored: String = app.query_scalar("select name || length(description) || price from products").await;
    assert_eq!(stored, format!("{name}2500009999999999.99"));

    // more than the server accepts
    page.click(MAIN, &name).await;
    page.field(DIALOG, "Description").await;
    page.browser.script("document.querySelector('dialog textarea').value = 'y'.repeat(300000)").await;
    page.click(DIALOG, "Save").await;
    page.browser.wait_for_text("Request body too large.").await;
    assert_eq!(page.value(DIALOG, "Description").await.len(), 300_000);
    page.finish().await;
}
