//! Categories and tags.

use super::{DIALOG, MAIN, Page};
use crate::harness::TestApp;

#[tokio::test]
async fn staff_add_rename_and_delete_categories_and_tags() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let Some(page) = Page::open_as_staff(&app, "?view=categories").await else { return };
    page.wait_for_names(&["Sport"]).await;
    page.click(MAIN, "New category").await;
    page.type_into(DIALOG, "Name", "Sport\u{e007}").await;
    page.browser.wait_for_text("category with this name already exists.").await;
    page.replace(DIALOG, "Name", "Books\u{e007}").await;
    page.wait_until_closed().await;
    page.wait_for_names(&["Books", "Sport"]).await;

    // a rename does not overwrite that of another person unnoticed
    page.click(MAIN, "Rename: Books").await;
    page.field(DIALOG, "Name").await;
    app.batch_execute("update categories set name = 'Journals' where name = 'Books'").await;
    page.replace(DIALOG, "Name", "Magazines\u{e007}").await;
    page.browser.wait_for_text("Somebody else has changed this meanwhile: Journals").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    page.wait_for_names(&["Magazines", "Sport"]).await;

    // the rows are built again while the question is open
    page.click(MAIN, "Delete: Sport").await;
    page.browser.wait_for_text("Delete “Sport”?").await;
    app.batch_execute("insert into categories (name) values ('Travel')").await;
    page.wait_for_names(&["Magazines", "Sport", "Travel"]).await;
    page.click(DIALOG, "Cancel").await;
    page.browser.wait_for("document.activeElement.ariaLabel === 'Delete: Sport'").await;

    // 409: the category is in use
    page.click(MAIN, "Delete: Sport").await;
    page.browser.wait_for_text("Delete “Sport”?").await;
    page.click(DIALOG, "Delete").await;
    page.browser.wait_for_text("Category is used by 2 products.").await;
    page.browser.wait_for_text("Give them another category first.").await;
    page.click(DIALOG, "Show its products").await;
    page.wait_for_names(&["Product 1", "Product 2"]).await;
    page.browser.wait_for("location.search === '?category=Sport'").await;

    page.browser.css("[data-view=tags]").await.click().await.unwrap();
    page.wait_for_names(&["eco", "new"]).await;
    page.click(MAIN, "Delete: eco").await;
    page.browser.wait_for_text("Delete “eco”?").await;
    page.click(DIALOG, "Delete").await;
    page.wait_for_names(&["new"]).await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from tags").await, 1);
    // another program adds one
    app.batch_execute("insert into tags (name) values ('zero')").await;
    page.wait_for_names(&["new", "zero"]).await;
    page.type_into(MAIN, "Filter", "ZE").await;
    page.wait_for_names(&["zero"]).await;
    page.finish().await;
}
