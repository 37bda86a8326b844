//! The admin page: its files, and the page in a real browser. At the end of each test in a browser, the page must have
//! logged no error and no violation of its security policy.

mod accessibility;
mod accounts;
mod appearance;
mod bad_input;
mod files;
mod import;
mod live;
mod long_list;
mod names;
mod navigation;
mod path_prefix;
mod products;

use std::net::SocketAddr;

use fantoccini::{Locator, elements::Element};

use crate::{
    browser::{Browser, Driver},
    harness::{PASSWORD, Proxy, TestApp, wait_until},
};

/// The part of the page outside dialogs.
const MAIN: &str = "//main";
/// The dialog that was opened last.
const DIALOG: &str = "(//dialog)[last()]";

/// The admin page in a browser.
struct Page {
    browser: Browser,
    _driver: Driver,
}

impl Page {
    /// Opens the page of this server. Returns `None` when there is no browser.
    async fn open(address: SocketAddr, query: &str) -> Option<Self> {
        Self::open_in("en", &format!("http://{address}/admin/{query}")).await
    }

    /// Opens this URL in a browser for a user of this language.
    async fn open_in(language: &str, url: &str) -> Option<Self> {
        let driver = Driver::start()?;
        let browser = driver.open(url, language).await;
        Some(Self { browser, _driver: driver })
    }

    /// Opens the page for a new staff account, and logs in.
    async fn open_as_staff(app: &TestApp, query: &str) -> Option<Self> {
        app.create_staff("sam").await;
        let page = Self::open(app.server.address, query).await?;
        page.log_in("sam").await;
        Some(page)
    }

    /// Opens the page through a proxy for a new staff account, logs in, and waits until the page follows the change feed.
    async fn open_via_proxy(app: &TestApp, query: &str) -> Option<(Proxy, Self)> {
        app.create_staff("sam").await;
        let proxy = Proxy::start(app.server.address.to_string()).await;
        let page = Self::open(proxy.address, query).await?;
        page.log_in("sam").await;
        page.wait_until_live().await;
        Some((proxy, page))
    }

    async fn log_in(&self, name: &str) {
        self.type_into(MAIN, "Username", name).await;
        self.type_into(MAIN, "Password", PASSWORD).await;
        self.click(MAIN, "Log in").await;
        self.browser.wait_for("document.querySelector('main > section:not(.login-page)')").await;
    }

    /// Returns the button with this label.
    async fn button(&self, scope: &str, label: &str) -> Element {
        let xpath = format!("{scope}//button[normalize-space()=\"{label}\" or @aria-label=\"{label}\"]");
        self.browser.find(Locator::XPath(&xpath)).await
    }

    async fn click(&self, scope: &str, label: &str) {
        // a row is replaced when it changes
        wait_until(label, async || self.button(scope, label).await.click().await.is_ok()).await;
    }

    /// Returns the field with this label.
    async fn field(&self, scope: &str, label: &str) -> Element {
        let xpath = format!(
            "{scope}//label[normalize-space()=\"{label}\"]/following-sibling::*[self::input or self::textarea or \
             self::select][1]"
        );
        self.browser.find(Locator::XPath(&xpath)).await
    }

    /// Types this text into an empty field or after its text.
    async fn type_into(&self, scope: &str, label: &str, text: &str) {
        self.field(scope, label).await.send_keys(text).await.unwrap();
    }

    /// Replaces the text of a field.
    async fn replace(&self, scope: &str, label: &str, text: &str) {
        let field = self.field(scope, label).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    async fn value(&self, scope: &str, label: &str) -> String {
        self.field(scope, label).await.prop("value").await.unwrap().unwrap()
    }

    /// Presses a key where the focus is.
    async fn press(&self, key: &str) {
        let active = self.browser.client.active_element().await.unwrap();
        active.send_keys(key).await.unwrap();
    }

    /// Returns the text of each visible row of the table, with a line per cell.
    async fn rows(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('.table tbody tr:not(.space)')].map((row) => row.innerText)";
        let rows = self.browser.script(script).await;
        rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the table shows exactly the rows with these names.
    async fn wait_for_names(&self, names: &[&str]) {
        let names = serde_json::to_string(names).unwrap();
        let shown = "[...document.querySelectorAll('.table td.name button')].map((button) => button.innerText)";
        self.browser.wait_for(&format!("JSON.stringify({shown}) === {}", serde_json::json!(names))).await;
    }

    /// Scrolls to a position (pixels; more than there are: to the end) until an expression is true: rows that have been
    /// loaded appear with the next frame.
    async fn scroll_until(&self, position: u32, expression: &str) {
        let scroll = format!("document.querySelector('.table').scrollTop = {position}");
        self.browser.wait_for(&format!("({scroll}, {expression})")).await;
    }

    /// Waits until no dialog is open.
    async fn wait_until_closed(&self) {
        self.browser.wait_for("!document.querySelector('dialog')").await;
    }

    /// Waits until the page follows the change feed.
    async fn wait_until_live(&self) {
        self.browser.wait_for("document.getElementById('connection').dataset.state === 'connected'").await;
    }

    /// Checks that the page has logged no error, and closes the browser.
    async fn finish(self) {
        assert_eq!(self.browser.logged_errors().await, [""; 0]);
        self.browser.close().await;
    }
}
