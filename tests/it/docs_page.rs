//! The docs page in a real browser.

use serde_json::json;

use crate::{
    browser::{Browser, Driver},
    harness::{PASSWORD, TestApp, wait_until},
};

/// An operation of the API on the page.
struct Operation<'a> {
    page: &'a Browser,
    css: String,
}

impl Operation<'_> {
    async fn find(&self, inside: &str) -> fantoccini::elements::Element {
        self.page.css(&format!("{} {inside}", self.css)).await
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
    let Some(driver) = Driver::start() else { return };
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.create_user("ann").await;
    let page = driver.open(&format!("http://{}/docs", app.server.address), "en").await;

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
    page.script(&scroll_to_response).await;
    page.save_screenshot("docs.png").await;
    page.close().await;
}
