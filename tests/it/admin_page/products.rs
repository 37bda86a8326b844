//! Lists, filters, and edits of products.

use serde_json::json;

use super::{DIALOG, MAIN, Page};
use crate::harness::TestApp;

/// Inserts a category, and a product of each name with prices 1, 2, 3 and so on.
async fn seed(app: &TestApp, names: &[&str]) {
    app.batch_execute("insert into categories (name) values ('Sport'), ('Books')").await;
    for (number, name) in names.iter().enumerate() {
        let sql = "insert into products (category_id, name, description, price) values (1, $1, '', $2::int4)";
        app.execute(sql, &[name, &i32::try_from(number + 1).unwrap()]).await;
    }
}

#[tokio::test]
async fn staff_filter_sort_and_edit_products() {
    let app = TestApp::spawn().await;
    seed(&app, &["Red ball", "Blue ball", "Green kite"]).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_for_names(&["Red ball", "Blue ball", "Green kite"]).await;

    // the slash key moves to the search field; what is typed is in the URL
    page.press("/").await;
    page.press("ball").await;
    page.wait_for_names(&["Red ball", "Blue ball"]).await;
    page.browser.wait_for("location.search === '?search=ball'").await;
    // Tab goes on in the order in which the fields are read
    let focused = "return document.activeElement.labels?.[0]?.innerText ?? document.activeElement.innerText";
    for label in ["Category", "Tags", "Price from", "Price to"] {
        page.press("\u{e004}").await;
        assert_eq!(page.browser.script(focused).await, label);
    }
    page.click(MAIN, "Price").await;
    page.click(MAIN, "Price").await;
    page.wait_for_names(&["Blue ball", "Red ball"]).await;
    page.browser.wait_for("location.search === '?search=ball&ordering=-price'").await;
    page.browser.wait_for("document.querySelector('th.price').getAttribute('aria-sort') === 'descending'").await;

    // the back button undoes one step after the other
    page.browser.client.back().await.unwrap();
    page.browser.client.back().await.unwrap();
    page.wait_for_names(&["Red ball", "Blue ball"]).await;
    page.browser.client.back().await.unwrap();
    page.wait_for_names(&["Red ball", "Blue ball", "Green kite"]).await;
    assert_eq!(page.value(MAIN, "Search").await, "");

    // an error of a filter stands beside its field
    page.type_into(MAIN, "Price from", "cheap").await;
    page.browser.wait_for_text("A valid number is required.").await;
    page.replace(MAIN, "Price from", "2").await;
    page.wait_for_names(&["Blue ball", "Green kite"]).await;

    // Enter opens the form, and saving sends only what has changed
    page.button(MAIN, "Green kite").await.send_keys("\u{e007}").await.unwrap();
    page.browser.wait_for("location.search.includes('edit=3')").await;
    page.replace(DIALOG, "Name", "  ").await;
    page.replace(DIALOG, "Price", "1 299,9").await;
    page.click(DIALOG, "Save").await;
    page.browser.wait_for_text("This field may not be blank.").await;
    let is_focused = "document.activeElement.value.trim() === '' && document.activeElement.ariaInvalid === 'true'";
    page.browser.wait_for(is_focused).await;
    page.replace(DIALOG, "Name", "Green dragon").await;
    page.replace(DIALOG, "Category", "Books").await;
    page.type_into(DIALOG, "Tags", "wind\u{e007}").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    page.wait_for_names(&["Blue ball", "Green dragon"]).await;
    let row = page.rows().await.remove(1);
    for part in ["1,299.90", "Books", "wind", "changed"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let stored: String = app.query_scalar("select name || price || category_id from products where id = 3").await;
    assert_eq!(stored, "Green dragon1299.902");
    page.finish().await;
}

#[tokio::test]
async fn product_is_created_and_deleted() {
    let app = TestApp::spawn().await;
    seed(&app, &["Red ball"]).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_for_names(&["Red ball"]).await;
    page.click(MAIN, "New product").await;
    page.type_into(DIALOG, "Name", "Kite").await;
    page.type_into(DIALOG, "Price", "12.5").await;
    page.click(DIALOG, "Save").await;
    page.browser.wait_for_text("This field may not be blank.").await;
    page.type_into(DIALOG, "Category", "Sport").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;

    // a new product is announced, and no row moves
    page.browser.wait_for_text("New or changed products: 1").await;
    page.click(MAIN, "Show").await;
    page.wait_for_names(&["Red ball", "Kite"]).await;

    // Escape asks before it discards something
    page.click(MAIN, "Kite").await;
    page.type_into(DIALOG, "Name", "!").await;
    page.press("\u{e00c}").await;
    page.browser.wait_for_text("Discard your changes?").await;
    page.click(DIALOG, "Continue editing").await;
    assert_eq!(page.value(DIALOG, "Name").await, "Kite!");
    page.press("\u{e00c}").await;
    page.click(DIALOG, "Discard").await;
    page.wait_until_closed().await;

    page.click(MAIN, "Kite").await;
    page.click(DIALOG, "Delete").await;
    page.browser.wait_for_text("Delete “Kite”?").await;
    page.click(DIALOG, "Cancel").await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);
    page.click(DIALOG, "Delete").await;
    page.browser.wait_for_text("Delete “Kite”?").await;
    page.click(DIALOG, "Delete").await;
    page.wait_until_closed().await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 1);
    page.browser.wait_for("document.querySelector('tr.deleted')").await;
    page.finish().await;
}

#[tokio::test]
async fn conflict_shows_both_versions_and_keeps_what_the_user_chooses() {
    let app = TestApp::spawn().await;
    seed(&app, &["Red ball"]).await;
    let Some(page) = Page::open_as_staff(&app, "?edit=1").await else { return };
    page.replace(DIALOG, "Name", "My ball").await;
    page.replace(DIALOG, "Price", "5.00").await;
    let other = app.create_staff("olga").await;
    let theirs = json!({"name": "Her ball", "price": "7.00", "tags": ["hers"]});
    assert_eq!(other.patch("/api/products/1/", theirs).await.status, 200);
    // the form says so before the user saves
    page.browser.wait_for_text("Somebody else has changed this meanwhile").await;
    page.click(DIALOG, "Save").await;
    page.browser.wait_for_text("Choose what to keep").await;
    let conflict = page.browser.css("dialog .conflict").await.text().await.unwrap();
    for part in ["My ball", "Her ball", "5.00", "7.00", "hers"] {
        assert!(conflict.contains(part), "{part}: {conflict}");
    }
    assert_eq!(app.query_scalar::<String>("select name from products").await, "Her ball");

    // their name, my price, and the tags that only they have changed
    let theirs =
        "[...document.querySelectorAll('.conflict tbody tr')].find((row) => row.innerText.includes('Her ball'))";
    page.browser.script(&format!("{theirs}.querySelectorAll('input')[1].click()")).await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    let product = other.get("/api/products/1/").await.json();
    assert_eq!((&product["name"], &product["tags"]), (&json!("Her ball"), &json!(["hers"])));
    assert_eq!(product["price"].as_f64(), Some(5.0));

    // a product that is deleted meanwhile is not created again
    page.click(MAIN, "Her ball").await;
    page.replace(DIALOG, "Name", "My ball").await;
    assert_eq!(other.delete("/api/products/1/").await.status, 204);
    page.click(DIALOG, "Save").await;
    page.browser.wait_for_text("somebody has deleted it").await;
    assert_eq!(page.value(DIALOG, "Name").await, "My ball");
    page.finish().await;
}

#[tokio::test]
async fn export_contains_what_is_shown() {
    let app = TestApp::spawn().await;
    seed(&app, &["Red ball", "Blue ball", "Green kite"]).await;
    let Some(page) = Page::open_as_staff(&app, "?search=ball&ordering=-id").await else { return };
    page.wait_for_names(&["Blue ball", "Red ball"]).await;
    page.click(MAIN, "Export: CSV").await;
    let csv = String::from_utf8(page.browser.download("products.csv").await).unwrap();
    let names: Vec<_> = csv.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(names, ["Blue ball", "Red ball"], "{csv}");
    page.click(MAIN, "Export: XLSX").await;
    assert!(page.browser.download("products.xlsx").await.starts_with(b"PK"));
    page.finish().await;
}

#[tokio::test]
async fn filters_select_by_category_tag_and_date() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.batch_execute(
        "insert into categories (name) values ('Books');
         insert into products (category_id, name, description, price, created_at)
         values (2, 'Novel', '', 1, '2024-05-01T10:00:00Z')",
    )
    .await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    let all = ["Product 1", "Product 2", "Novel"];
    page.wait_for_names(&all).await;
    page.type_into(MAIN, "Category", "Books\u{e007}").await;
    page.wait_for_names(&["Novel"]).await;
    page.browser.wait_for("location.search === '?category=Books'").await;
    page.click(MAIN, "Remove Books").await;
    page.wait_for_names(&all).await;
    page.type_into(MAIN, "Tags", "eco\u{e007}new\u{e007}").await;
    page.wait_for_names(&all[..2]).await;
    page.browser.wait_for("location.search === '?tag=eco&tag=new'").await;
    page.click(MAIN, "Clear filters").await;
    page.wait_for_names(&all).await;
    page.field(MAIN, "Created from").await;
    page.browser
        .script(
            "const date = document.querySelector('input[type=date]'); date.value = '2024-01-01'; \
             date.dispatchEvent(new InputEvent('input', { bubbles: true }))",
        )
        .await;
    page.wait_for_names(&["Novel"]).await;
    page.browser.wait_for("location.search === '?created_after=2024-01-01'").await;
    page.finish().await;
}
