//! The import of files.

use std::path::Path;

use super::{MAIN, Page};
use crate::harness::{LinkState, TestApp, wait_until};

async fn choose_file(page: &Page, path: &Path) {
    page.browser.css("input[type=file]").await.send_keys(path.to_str().unwrap()).await.unwrap();
}

const IS_DONE: &str = "document.querySelector('progress').hidden && document.querySelector('.result').innerText";

/// Checks the file. While the server still works on a check that was cancelled, it may reject another one.
async fn check_after_cancellation(page: &Page) {
    wait_until("the file is checked", async || {
        page.click(MAIN, "Check the file").await;
        page.browser.wait_for(IS_DONE).await;
        page.browser.script("return Boolean(document.querySelector('.counts'))").await == true
    })
    .await;
}

async fn counts(page: &Page) -> Vec<String> {
    page.browser.wait_for(IS_DONE).await;
    let script = "return [...document.querySelectorAll('.counts td')].map((cell) => cell.innerText)";
    let counts = page.browser.script(script).await;
    assert_ne!(counts, serde_json::json!([]), "{}", page.browser.text().await);
    counts.as_array().unwrap().iter().map(|count| count.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn file_is_checked_first_and_then_imported() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.browser.css("[data-view=import]").await.click().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("products.csv");
    let rows =
        "ID,Name,Category,Price\n1,Product 1,Sport,1.99\n2,Changed,Sport,2.99\n,New,Sport,5\n,=cmd(),Nowhere,x\n";
    std::fs::write(&file, rows).unwrap();

    choose_file(&page, &file).await;
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["1", "1", "1", "1"], "created, updated, unchanged, refused");
    page.browser.css(".result .table td").await;
    let errors = page.browser.css(".result .table").await.text().await.unwrap();
    assert!(errors.contains("A valid number is required.") && errors.contains('5'), "{errors}");
    page.click(MAIN, "Download errors as CSV").await;
    let csv = String::from_utf8(page.browser.download("import-errors.csv").await).unwrap();
    assert!(csv.contains("\"5\",\"price\",\"A valid number is required.\""), "{csv}");
    // by default one invalid row rejects the file, so there is nothing to import
    assert!(!page.browser.text().await.contains("Import this file"));
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);

    page.field(MAIN, "If rows are invalid").await.select_by_value("skip").await.unwrap();
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["1", "1", "1", "1"]);
    page.click(MAIN, "Import this file").await;
    page.browser.wait_for_text("The import is complete.").await;
    assert_eq!(counts(&page).await, ["1", "1", "1", "1"]);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products where name in ('Changed', 'New')").await, 2);

    // what the file is not
    let other = directory.path().join("old.xls");
    std::fs::write(&other, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 an old workbook").unwrap();
    choose_file(&page, &other).await;
    page.click(MAIN, "Check the file").await;
    page.browser.wait_for_text("Nothing was imported.").await;
    assert!(!page.browser.css(".result").await.text().await.unwrap().is_empty());
    page.finish().await;
}

#[tokio::test]
async fn dropped_file_is_imported_with_the_chosen_options() {
    let app = TestApp::spawn().await;
    let Some(page) = Page::open_as_staff(&app, "?view=import").await else { return };
    page.field(MAIN, "If no product has the ID of a row").await.select_by_value("create").await.unwrap();
    page.field(MAIN, "If columns are unknown").await.select_by_value("ignore").await.unwrap();
    page.field(MAIN, "Encoding of a CSV file").await.select_by_value("windows-1251").await.unwrap();
    page.field(MAIN, "Create missing categories").await.click().await.unwrap();
    // in windows-1251, "Мяч" is cc ff f7
    page.browser
        .script(
            "const bytes = Uint8Array.from('ID;Name;Category;Price;Colour\\r\\n7;\\xcc\\xff\\xf7;Sport;1 299,90;red\\r\\n', \
             (character) => character.charCodeAt(0)); \
             const transfer = new DataTransfer(); \
             transfer.items.add(new File([bytes], 'products.csv')); \
             const event = new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }); \
             document.querySelector('.drop').dispatchEvent(event)",
        )
        .await;
    page.browser.wait_for_text("products.csv").await;
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["1", "0", "0", "0"]);
    page.click(MAIN, "Import this file").await;
    page.browser.wait_for_text("The import is complete.").await;
    let stored: String = app.query_scalar("select id || ' ' || name || ' ' || price from products").await;
    assert_eq!(stored, "7 Мяч 1299.90");
    page.finish().await;
}

#[tokio::test]
async fn file_that_has_changed_can_be_selected_again() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some(page) = Page::open_as_staff(&app, "?view=import").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("products.csv");
    std::fs::write(&file, "ID,Name,Category,Price\n1,Product 1,Nowhere,x\n").unwrap();
    choose_file(&page, &file).await;
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["0", "0", "0", "1"]);
    // keyboard users go on from where they are
    page.browser.wait_for("document.activeElement.innerText === 'Check the file'").await;
    std::fs::write(&file, "ID,Name,Category,Price\n1,Corrected,Sport,5\n").unwrap();
    // Chromium compares seconds
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    page.click(MAIN, "Check the file").await;
    page.browser.wait_for_text("The file has changed or is gone").await;
    choose_file(&page, &file).await;
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["0", "1", "0", "0"]);
    page.click(MAIN, "Import this file").await;
    page.browser.wait_for_text("The import is complete.").await;
    page.browser.wait_for("document.activeElement.innerText === 'Check the file'").await;
    page.finish().await;
}

#[tokio::test]
async fn import_that_ends_early_claims_nothing_that_is_unknown() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some((proxy, page)) = Page::open_via_proxy(&app, "?view=import").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("products.csv");
    std::fs::write(&file, "Name,Category,Price\nNew,Sport,5\n").unwrap();
    choose_file(&page, &file).await;

    // a check that is cancelled
    proxy.set_state(LinkState::SilentFromServer);
    page.click(MAIN, "Check the file").await;
    page.browser.wait_for_text("The server reads the file").await;
    page.click(MAIN, "Cancel").await;
    page.browser.wait_for("!document.body.innerText.includes('The server reads the file')").await;
    page.browser.wait_for("document.activeElement.innerText === 'Check the file'").await;
    proxy.set_state(LinkState::Open);
    check_after_cancellation(&page).await;
    assert_eq!(counts(&page).await, ["1", "0", "0", "0"]);

    // the server does the import, and its response is lost
    proxy.set_state(LinkState::SilentFromServer);
    page.click(MAIN, "Import this file").await;
    wait_until("the file is imported", async || app.query_scalar::<i64>("select count(*) from products").await == 2)
        .await;
    // nothing can be cancelled any more
    page.browser.wait_for("!document.querySelector('.bar').innerText.includes('Cancel')").await;
    // what the proxy holds is lost, also the response to a repetition by the browser
    proxy.set_state(LinkState::Silent);
    proxy.close_connections();
    page.browser.wait_for_text("Connection lost").await;
    proxy.set_state(LinkState::Cut);
    page.browser.wait_for_text("The server cannot be reached.").await;
    assert!(!page.browser.text().await.contains("Nothing was imported."));
    // the repetition does nothing again, and shows the result
    proxy.set_state(LinkState::Open);
    page.click(MAIN, "Import this file").await;
    page.browser.wait_for_text("The import is complete.").await;
    assert_eq!(counts(&page).await, ["1", "0", "0", "0"]);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);

    // an import that the server has goes on in another view
    std::fs::write(&file, "Name,Category,Price\nThird,Sport,5\n").unwrap();
    choose_file(&page, &file).await;
    page.click(MAIN, "Check the file").await;
    assert_eq!(counts(&page).await, ["1", "0", "0", "0"]);
    page.browser.script("document.querySelectorAll('.messages p').forEach((note) => note.remove())").await;
    proxy.set_state(LinkState::SilentFromServer);
    page.click(MAIN, "Import this file").await;
    page.browser.wait_for_text("The server reads the file").await;
    page.browser.css("[data-view=products]").await.click().await.unwrap();
    page.browser.wait_for("!document.querySelector('.import')").await;
    proxy.set_state(LinkState::Open);
    page.browser.wait_for_text("The import is complete.").await;
    page.finish().await;
}

#[tokio::test]
async fn progress_of_the_upload_is_shown() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let Some((proxy, page)) = Page::open_via_proxy(&app, "?view=import").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("products.csv");
    // more than the buffers of the connection hold
    let description = "x".repeat(200_000);
    let rows: String = (0..100).map(|number| format!("Product {number},Sport,1,{description}\n")).collect();
    std::fs::write(&file, format!("Name,Category,Price,Description\n{rows}")).unwrap();
    choose_file(&page, &file).await;
    proxy.set_state(LinkState::SilentToServer);
    page.click(MAIN, "Check the file").await;
    page.browser.wait_for_text("Uploading").await;
    let is_partial =
        "(({ hidden, position }) => !hidden && position > 0 && position < 1)(document.querySelector('progress'))";
    page.browser.wait_for(is_partial).await;
    proxy.set_state(LinkState::Open);
    assert_eq!(counts(&page).await, ["100", "0", "0", "0"]);
    page.finish().await;
}
