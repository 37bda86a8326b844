//! The docs page in a real browser.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

use crate::harness::{PASSWORD, TestApp, wait_until};

/// A ChromeDriver process. It is killed when this is dropped.
pub struct Driver {
    process: Child,
    url: String,
}

impl Driver {
    /// Returns `None` when ChromeDriver is not installed.
    pub fn start() -> Option<Self> {
        let mut driver = Command::new("chromedriver");
        driver.args(["--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = driver.spawn().ok()?;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        // drains the pipe, so that ChromeDriver can go on writing
        std::thread::spawn(move || lines.count());
        Some(Self { process, url: format!("http://127.0.0.1:{}", port.expect("ChromeDriver prints its port")) })
    }

    /// Starts a browser that keeps its files in `profile`, and opens a page.
    pub async fn open(&self, url: &str, profile: &Path) -> Client {
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let capabilities = capabilities.as_object().unwrap().clone();
        let page = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .expect("the browser starts");
        page.goto(url).await.unwrap();
        page
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An operation of the API on the page.
struct Operation<'a> {
    page: &'a Client,
    css: String,
}

impl Operation<'_> {
    async fn find(&self, inside: &str) -> fantoccini::elements::Element {
        let css = format!("{} {inside}", self.css);
        let found = self.page.wait().at_most(Duration::from_secs(20)).for_element(Locator::Css(&css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Executes the operation with this body, and returns the shown response.
    async fn try_out(&self, body: Option<&str>) -> (String, String) {
        self.find(".opblock-summary-control").await.click().await.unwrap();
        if let Some(body) = body {
            let field = self.find("textarea.body-param__text").await;
            field.clear().await.unwrap();
            field.send_keys(body).await.unwrap();
        }
        self.find("button.execute").await.click().await.unwrap();
        self.response().await
    }

    /// Returns the shown status, and the other parts of the shown response.
    async fn response(&self) -> (String, String) {
        // the page replaces both elements with each response
        let text = async |column: &str| {
            let element = self.find(&format!(".live-responses-table tr.response .response-col_{column}")).await;
            element.text().await.unwrap_or_default()
        };
        (text("status").await, text("description").await)
    }
}

#[tokio::test]
async fn docs_page_logs_in_and_executes_list_request() {
    let Some(driver) = Driver::start() else {
        eprintln!("SKIPPED: chromedriver is not installed");
        return;
    };
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.create_user("ann").await;
    let profile = tempfile::tempdir().unwrap();
    let page = driver.open(&format!("http://{}/docs", app.server.address), profile.path()).await;

    let operation = |id: &str| Operation { page: &page, css: format!("[id$='-{id}']") };
    let list = operation("get_products");
    let (status, response) = list.try_out(None).await;
    assert_eq!(status, "401", "{response}");
    let credentials = json!({"username": "ann", "password": PASSWORD}).to_string();
    let (status, response) = operation("post_login").try_out(Some(&credentials)).await;
    assert_eq!(status, "200", "{response}");
    assert!(response.contains("\"expires_in\": 3600"), "{response}");

    // the page uses the token of the login for further requests
    list.find("button.execute").await.click().await.unwrap();
    wait_until("the list is shown", || async {
        let (status, response) = list.response().await;
        status == "200" && response.contains("\"Product 3\"")
    })
    .await;
    // the source of the picture in the README
    let scroll_to_response = format!("document.querySelector(\"{} .execute\").scrollIntoView()", list.css);
    page.execute(&scroll_to_response, vec![]).await.unwrap();
    let picture = page.screenshot().await.unwrap();
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/docs.png"), picture).unwrap();
    page.close().await.unwrap();
}
