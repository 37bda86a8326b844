//! Languages, colours and sizes. The pictures are those of the README.

use super::{MAIN, Page};
use crate::harness::{PASSWORD, TestApp};

async fn seed(app: &TestApp) {
    app.batch_execute(
        "insert into categories (name) values ('Bags'), ('Kitchen'), ('Sport');
         insert into tags (name) values ('eco'), ('gift'), ('new'), ('sale');
         insert into products (category_id, name, description, price, created_at)
         select 1 + i % 3, (array['Canvas bag', 'Moka pot', 'Climbing rope'])[1 + i % 3] || ' No. ' || i, '',
                9.9 + i * 3.35, '2026-03-01T09:30Z'::timestamptz + i * interval '7 hours'
           from generate_series(1, 60) i;
         insert into product_tags select p.id, t.id from products p, tags t where (p.id + t.id) % 3 = 0",
    )
    .await;
}

#[tokio::test]
async fn pictures_in_light_dark_and_narrow() {
    let app = TestApp::spawn().await;
    seed(&app).await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.wait_until_live().await;
    page.browser.resize(1200, 720).await;
    app.batch_execute("update products set price = 24.5 where id = 4").await;
    page.browser.wait_for("document.querySelector('tr.changed')").await;
    let settled = "document.getAnimations().every((animation) => animation.playState === 'finished')";
    page.browser.wait_for(settled).await;
    page.browser.save_screenshot("admin-light.png").await;
    let colour = "return getComputedStyle(document.body).backgroundColor";
    let light = page.browser.script(colour).await;
    page.browser.emulate_media("prefers-color-scheme", "dark").await;
    assert_ne!(page.browser.script(colour).await, light);
    page.click(MAIN, "Moka pot No. 7").await;
    page.browser.css("dialog.product").await;
    page.browser.save_screenshot("admin-dark.png").await;
    page.press("\u{e00c}").await;
    page.wait_until_closed().await;
    page.browser.emulate_media("prefers-color-scheme", "light").await;
    page.browser.resize(375, 720).await;
    page.browser.script("document.querySelector('details').open = false").await;
    page.browser.save_screenshot("admin-narrow.png").await;
    // users who ask for less motion get none
    page.browser.emulate_media("prefers-reduced-motion", "reduce").await;
    app.batch_execute("update products set price = 25.5 where id = 1").await;
    let is_marked = "[...document.querySelectorAll('tr.changed')].some((row) => row.innerText.includes('25.50'))";
    page.browser.wait_for(is_marked).await;
    let animations = page.browser.script("return document.getAnimations().length").await;
    assert_eq!(animations, 0);
    page.finish().await;
}

#[tokio::test]
async fn page_is_in_the_language_of_the_browser() {
    let app = TestApp::spawn().await;
    seed(&app).await;
    app.create_staff("sam").await;
    let url = format!("http://{}/admin/", app.server.address);
    let Some(page) = Page::open_in("ru", &url).await else { return };
    page.type_into(MAIN, "Имя пользователя", "sam").await;
    page.type_into(MAIN, "Пароль", PASSWORD).await;
    page.click(MAIN, "Войти").await;
    page.browser.wait_for_text("Показано: 60").await;
    assert_eq!(page.browser.script("return document.documentElement.lang").await, "ru");
    for part in ["Новый товар", "Категории", "13,25"] {
        page.browser.wait_for_text(part).await;
    }
    page.finish().await;
}
