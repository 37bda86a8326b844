//! The documentation of the API: `/`, `/docs` and `/openapi.json`. All files are part of the binary, so they work
//! offline.

mod openapi;
mod static_asset;

use std::sync::LazyLock;

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

pub(crate) use self::{openapi::document, static_asset::StaticAsset};
use crate::{
    app::App,
    auth::Anonymous,
    error::{Error, Result},
    http::{Request, Response, response},
};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

static ROOT: LazyLock<StaticAsset> = LazyLock::new(|| {
    let page = include_str!("root.html").replace("{version}", env!("CARGO_PKG_VERSION"));
    StaticAsset::text(HTML, page.as_bytes())
});
static PAGE: LazyLock<StaticAsset> = LazyLock::new(|| StaticAsset::text(HTML, include_bytes!("page.html")));
static PAGE_SCRIPT: LazyLock<StaticAsset> = LazyLock::new(|| StaticAsset::text(SCRIPT, include_bytes!("page.js")));
static UI_STYLE: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::from_zip(STYLE, SWAGGER_UI_VENDORED, "/dist/swagger-ui.css").ok());
static UI_SCRIPT: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::from_zip(SCRIPT, SWAGGER_UI_VENDORED, "/dist/swagger-ui-bundle.js").ok());

/// `GET /`: name, version and links to the documentation, as HTML for browsers and as JSON otherwise.
pub(crate) async fn root(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    if request.header(&header::ACCEPT).is_some_and(|accepted| accepted.contains("text/html")) {
        return ROOT.serve(&request).map(vary_on_accept);
    }
    let about = json!({
        "name": "TestShop",
        "version": env!("CARGO_PKG_VERSION"),
        "docs": "/docs",
        "openapi": "/openapi.json",
    });
    Ok(vary_on_accept(response::json(StatusCode::OK, &about)))
}

fn vary_on_accept(mut response: Response) -> Response {
    let vary = const { HeaderValue::from_static("Accept, Accept-Encoding") };
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// `GET /docs`: Swagger UI for `openapi.json`.
pub(crate) async fn page(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    PAGE.serve(&request)
}

/// `GET /docs/page.js`
pub(crate) async fn page_script(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    PAGE_SCRIPT.serve(&request)
}

/// `GET /docs/swagger-ui.css`
pub(crate) async fn ui_style(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    UI_STYLE.as_ref().ok_or_else(missing_asset)?.serve(&request)
}

/// `GET /docs/swagger-ui.js`
pub(crate) async fn ui_script(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    UI_SCRIPT.as_ref().ok_or_else(missing_asset)?.serve(&request)
}

fn missing_asset() -> Error {
    Error::internal("the vendored Swagger UI does not contain the expected files")
}
