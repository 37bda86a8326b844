//! A list of 100,000 products.

use std::time::Duration;

use super::{MAIN, Page};
use crate::harness::TestApp;

const PRODUCTS: i32 = 100_000;
/// Longest time between two frames (ms), beyond that of the page at rest.
const MAX_FRAME: f64 = 100.0;
/// Other tests run on the same processors: the pass with the least interference counts.
const MAX_PASSES: usize = 6;

/// Scrolls by a page per frame for two seconds, and returns the longest time between two frames. With 0 as its
/// direction, the page is at rest.
const SCROLL: &str = "
    const [direction, done] = arguments;
    const table = document.querySelector('.table');
    const start = performance.now();
    let [last, longest] = [start, 0];
    const step = () => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        table.scrollTop += direction * table.clientHeight;
        now - start < 2000 ? requestAnimationFrame(step) : done(longest);
    };
    requestAnimationFrame(step);
";

/// Types into the search field, and returns the longest time between two frames meanwhile.
const TYPE: &str = "
    const [word, done] = arguments;
    const search = document.getElementById('search');
    const start = performance.now();
    let [last, longest, typed] = [start, 0, 0];
    const step = () => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        if (typed < word.length && now - start > typed * 60) {
            typed += 1;
            search.value = word.slice(0, typed);
            search.dispatchEvent(new InputEvent('input', { bubbles: true }));
        }
        now - start < 2000 ? requestAnimationFrame(step) : done(longest);
    };
    requestAnimationFrame(step);
";

/// Loads all pages by scrolling to the end of what is loaded.
const LOAD_ALL: &str = "
    const [done] = arguments;
    const table = document.querySelector('.table');
    const timer = setInterval(() => {
        table.scrollTop = table.scrollHeight;
        if (document.querySelector('.table tr:nth-last-child(2) td.id')?.innerText === '100000') {
            clearInterval(timer);
            done(true);
        }
    }, 5);
";

async fn measure(page: &Page, script: &str, argument: serde_json::Value) -> f64 {
    let longest = page.browser.client.execute_async(script, vec![argument]).await.unwrap();
    longest.as_f64().unwrap()
}

#[tokio::test]
async fn scrolling_and_typing_stay_smooth() {
    let app = TestApp::spawn().await;
    app.batch_execute("insert into categories (name) values ('Sport')").await;
    let sql = "insert into products (category_id, name, description, price)
               select 1, 'Product ' || i, 'Number ' || i, i from generate_series(1, $1) i";
    app.execute(sql, &[&PRODUCTS]).await;
    app.batch_execute("analyze products").await;
    let Some(page) = Page::open_as_staff(&app, "").await else { return };
    page.browser.wait_for_text("Product 1").await;
    let mut timeouts = page.browser.client.get_timeouts().await.unwrap();
    timeouts.set_script(Some(Duration::from_secs(120)));
    page.browser.client.update_timeouts(timeouts).await.unwrap();

    let mut best = f64::MAX;
    for pass in 0..MAX_PASSES {
        let at_rest = measure(&page, SCROLL, 0.into()).await;
        let down = measure(&page, SCROLL, 1.into()).await;
        let up = measure(&page, SCROLL, (-1).into()).await;
        let typing = measure(&page, TYPE, format!("product {pass}{pass}").into()).await;
        page.click(MAIN, "Clear filters").await;
        page.browser.wait_for("document.querySelector('td.id')?.innerText === '1'").await;
        eprintln!("longest frame: {at_rest:.0} ms at rest, {down:.0} down, {up:.0} up, {typing:.0} typing");
        best = best.min(down.max(up).max(typing) - at_rest);
        if best <= MAX_FRAME {
            break;
        }
    }
    assert!(best <= MAX_FRAME, "{best:.0} ms");

    // the end of the list; rows far above are dropped, and come back
    page.browser.client.execute_async(LOAD_ALL, vec![]).await.unwrap();
    let rows = "return document.querySelectorAll('.table tr').length";
    assert!(page.browser.script(rows).await.as_i64().unwrap() < 100);
    page.browser.script("history.replaceState(null, '', location.pathname)").await;
    let at_end = measure(&page, SCROLL, (-1).into()).await;
    eprintln!("longest frame at the end of the list: {at_end:.0} ms");
    // the URL names the position, and opens the list there
    page.browser.wait_for("location.search.includes('cursor=')").await;
    let position = page.browser.script("return document.querySelector('td.id').innerText").await;
    let position: i64 = position.as_str().unwrap().parse().unwrap();
    page.browser.client.refresh().await.unwrap();
    page.log_in("sam").await;
    page.browser.wait_for("document.querySelector('td.id')").await;
    let first = page.browser.script("return document.querySelector('td.id').innerText").await;
    let first: i64 = first.as_str().unwrap().parse().unwrap();
    assert!((first - position).abs() <= 600, "{first} instead of {position}");
    page.finish().await;
}
