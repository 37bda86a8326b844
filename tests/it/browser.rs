//! A real browser: Chromium, driven by ChromeDriver.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{TestClient, wait_until};

/// Time for an element to appear.
const FIND_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_STARTS: usize = 5;

/// Held by the test that uses a browser: one takes several processors, and other tests have time limits.
static BROWSER: Mutex<()> = Mutex::new(());

/// A ChromeDriver process. It is killed when this is dropped.
pub struct Driver {
    process: Child,
    address: SocketAddr,
    _only: MutexGuard<'static, ()>,
}

impl Driver {
    /// Returns `None` when ChromeDriver is not installed. Waits for other tests that use a browser.
    pub fn start() -> Option<Self> {
        // a test that failed leaves nothing behind
        let only = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
        // now and then it ends without a port
        for _ in 0..MAX_STARTS {
            let mut driver = Command::new("chromedriver");
            driver.args(["--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
            let Ok(mut process) = driver.spawn() else {
                eprintln!("SKIPPED: chromedriver is not installed");
                return None;
            };
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
            let port = lines.find_map(|line| {
                let port = line.split_once("started successfully on port ")?.1;
                port.trim_end_matches('.').parse().ok()
            });
            let Some(port) = port else {
                let _ = process.wait();
                continue;
            };
            // drains the pipe, so that ChromeDriver can go on writing
            std::thread::spawn(move || lines.count());
            return Some(Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)), _only: only });
        }
        panic!("ChromeDriver does not start");
    }

    /// Starts a browser for a user of this language, and opens a page.
    pub async fn open(&self, url: &str, language: &str) -> Browser {
        let directory = tempfile::tempdir().unwrap();
        let downloads = directory.path().join("downloads");
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
            &format!("--lang={language}"),
            &format!("--user-data-dir={}", directory.path().join("profile").display()),
        ];
        let options = json!({
            "args": arguments,
            "prefs": {
                "intl.accept_languages": language,
                "download.default_directory": downloads,
                "credentials_enable_service": false,
            },
        });
        let capabilities = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let capabilities = capabilities.as_object().unwrap().clone();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}", self.address))
            .await
            .expect("the browser starts");
        let session = client.session_id().await.unwrap().expect("the browser has a session");
        client.goto(url).await.unwrap();
        // ChromeDriver rejects other hosts
        let driver = TestClient::new(self.address).with_header("host", &self.address.to_string());
        Browser { client, driver, session, directory }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A browser with one page.
pub struct Browser {
    pub client: Client,
    driver: TestClient,
    session: String,
    directory: TempDir,
}

impl Browser {
    pub async fn find(&self, locator: Locator<'_>) -> Element {
        let found = self.client.wait().at_most(FIND_TIMEOUT).for_element(locator).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("{locator:?}: {error}; the page logged {:?}", self.logged_errors().await),
        }
    }

    pub async fn css(&self, selector: &str) -> Element {
        self.find(Locator::Css(selector)).await
    }

    /// Runs a script, and returns what it returns.
    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression is true.
    pub async fn wait_for(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        wait_until(expression, async || {
            self.client.execute(&script, vec![]).await.is_ok_and(|value| value == json!(true))
        })
        .await;
    }

    /// Returns the text of the page as a user sees it.
    pub async fn text(&self) -> String {
        self.script("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// Waits until the page shows this text.
    pub async fn wait_for_text(&self, text: &str) {
        self.wait_for(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let path = format!("/session/{}/goog/cdp/execute", self.session);
        let response = self.driver.post(&path, json!({"cmd": command, "params": params})).await;
        assert_eq!(response.status, 200, "{command}: {}", response.text());
        response.json()["value"].clone()
    }

    /// Changes the size of the page (CSS pixels).
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Emulates a media feature such as `prefers-color-scheme`.
    pub async fn emulate_media(&self, name: &str, value: &str) {
        let features = json!({"features": [{"name": name, "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Writes a picture of the page into the directory for test results.
    pub async fn save_screenshot(&self, name: &str) {
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), picture).unwrap();
    }

    /// Waits for a downloaded file, and returns its bytes.
    pub async fn download(&self, name: &str) -> Vec<u8> {
        let path = self.directory.path().join("downloads").join(name);
        wait_until("the file is downloaded", async || path.exists()).await;
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        bytes
    }

    /// Returns what the page has logged since the last call: errors of scripts and violations of its policy. Responses
    /// with an error status, which the browser logs too, are left out.
    pub async fn logged_errors(&self) -> Vec<String> {
        let path = format!("/session/{}/se/log", self.session);
        let response = self.driver.post(&path, json!({"type": "browser"})).await;
        let entries = response.json()["value"].as_array().expect("a list of entries").clone();
        let entries = entries.iter().filter(|entry| entry["source"] != "network");
        entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn close(self) {
        self.client.close().await.unwrap();
    }
}
