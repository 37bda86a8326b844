//! Changes of others appear while the page is open.

use super::{DIALOG, MAIN, Page, navigation::HOLD};
use crate::harness::{LinkState, TestApp};

#[tokio::test]
async fn changes_appear_and_no_row_moves() {
    let app = TestApp::spawn().await;
    app.seed_products(50).await;
    let Some(page) = Page::open_as_staff(&app, "?search=Product&ordering=name").await else { return };
    page.wait_until_live().await;
    page.browser.wait_for("document.querySelectorAll('td.name').length > 10").await;
    let before = page.rows().await;

    app.batch_execute("update products set price = 777, name = 'Zebra' where name = 'Product 10'").await;
    page.browser.wait_for("document.querySelector('tr.changed')?.innerText.includes('777.00')").await;
    app.batch_execute("delete from products where name = 'Product 11'").await;
    page.browser.wait_for("document.querySelector('tr.deleted')?.innerText.includes('Product 11')").await;
    let after = page.rows().await;
    assert_eq!(after.len(), before.len());
    assert!(after[1].contains("Zebra") && after[2].contains("Product 11"), "{after:?}");
    assert_eq!(after[3..], before[3..]);

    // only new products that match the filters are announced
    app.batch_execute(
        "insert into products (category_id, name, description, price)
         values (1, 'Product 0 new', '', 1), (1, 'Another', '', 1)",
    )
    .await;
    page.browser.wait_for_text("New or changed products: 1").await;
    page.click(MAIN, "Show").await;
    page.browser.wait_for_text("Product 0 new").await;
    page.browser.wait_for("!document.querySelector('tr.deleted, tr.changed')").await;

    // a renamed category changes all of its products
    app.batch_execute("update categories set name = 'Games'").await;
    page.browser.wait_for("document.querySelector('td.category_name')?.innerText === 'Games'").await;
    page.finish().await;
}

#[tokio::test]
async fn change_does_not_disturb_someone_who_edits() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let Some(page) = Page::open_as_staff(&app, "?edit=2").await else { return };
    page.wait_until_live().await;
    page.type_into(DIALOG, "Name", " being edited").await;
    app.batch_execute("update products set price = price + 1000").await;
    page.browser.wait_for("document.querySelectorAll('tr.changed').length === 3").await;
    page.browser.wait_for_text("Somebody else has changed this meanwhile").await;
    assert_eq!(page.value(DIALOG, "Name").await, "Product 2 being edited");
    let is_focused = "document.activeElement.value === 'Product 2 being edited'";
    page.browser.wait_for(is_focused).await;
    // what only they have changed is taken over, and nothing is left to choose
    page.click(DIALOG, "Show").await;
    page.browser.wait_for("document.querySelector('.conflict table')?.innerText.includes('1002.99')").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    let stored: String = app.query_scalar("select name || ' ' || price from products where id = 2").await;
    assert_eq!(stored, "Product 2 being edited 1002.99");
    page.finish().await;
}

#[tokio::test]
async fn lost_connection_is_shown_and_recovers() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let Some((proxy, page)) = Page::open_via_proxy(&app, "").await else { return };
    page.wait_for_names(&["Product 1", "Product 2", "Product 3"]).await;
    proxy.set_state(LinkState::Cut);
    page.browser.wait_for_text("Connection lost").await;
    app.batch_execute("update products set name = 'Changed meanwhile' where id = 2").await;
    page.click(MAIN, "Product 1").await;
    page.browser.wait_for_text("The server cannot be reached.").await;
    proxy.set_state(LinkState::Open);
    page.wait_until_live().await;
    page.wait_for_names(&["Product 1", "Changed meanwhile", "Product 3"]).await;
    page.finish().await;
}

#[tokio::test]
async fn page_under_way_is_older_than_a_change() {
    let app = TestApp::spawn().await;
    app.seed_products(300).await;
    let Some(page) = Page::open(app.server.address, "").await else { return };
    app.create_staff("sam").await;
    page.browser.client.execute(HOLD, vec!["cursor=".into()]).await.unwrap();
    page.log_in("sam").await;
    page.wait_until_live().await;
    page.browser.wait_for_text("Loaded: 200").await;
    page.scroll_until(1_000_000, "held === 1").await;
    app.batch_execute(
        "update products set name = 'Changed meanwhile' where id = 290; update products set price = 777 where id = 200",
    )
    .await;
    page.browser.wait_for("document.querySelector('tr.changed')?.innerText.includes('777.00')").await;
    page.browser.script("release()").await;
    page.browser.wait_for_text("Loaded: 300").await;
    page.scroll_until(1_000_000, "document.body.innerText.includes('Changed meanwhile')").await;

    // an id that is used again is no deleted product
    page.scroll_until(0, "document.querySelector('td.id').innerText === '1'").await;
    app.batch_execute("delete from products where id in (2, 290)").await;
    page.browser.wait_for("document.querySelector('tr.deleted')?.innerText.includes('Product 2')").await;
    app.batch_execute(
        "insert into products (id, category_id, name, description, price)
         values (2, 1, 'Again', '', 1), (290, 1, 'Again', '', 1)",
    )
    .await;
    page.browser.wait_for("document.querySelector('tr.changed')?.innerText.includes('Again')").await;
    page.scroll_until(1_000_000, "document.querySelector('tr[aria-rowindex=\"291\"]:not(.deleted)')").await;
    page.finish().await;
}

#[tokio::test]
async fn steady_changes_are_shown() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "?view=tags").await else { return };
    page.wait_until_live().await;
    page.wait_for_names(&["eco", "new"]).await;
    // a change every 50 ms
    let change = async {
        for number in 0..i32::MAX {
            app.execute("insert into tags (name) values ('tag ' || $1::int4)", &[&number]).await;
            app.execute(
                "insert into products (category_id, name, description, price) values (1, 'New ' || $1::int4, '', 1)",
                &[&number],
            )
            .await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let watch = async {
        page.browser.wait_for_text("tag 0").await;
        page.browser.css("[data-view=products]").await.click().await.unwrap();
        page.browser.wait_for_text("New or changed products").await;
    };
    tokio::select! { () = change => {}, () = watch => {} }
    page.finish().await;
}
