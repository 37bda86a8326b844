//! What tells people and programs how to use the server: `/`, `/docs` and `/openapi.json`. All of it is in the binary and
//! works without another host.

mod openapi;
mod packed;

use std::sync::LazyLock;

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

pub use openapi::document;

use self::packed::StaticAsset;
use crate::{
    app::App,
    auth::Anonymous,
    error::{Error, Result},
    http::{Request, Response, response},
};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

// constants that are made when they are first asked for
static ROOT: LazyLock<StaticAsset> = LazyLock::new(|| {
    let page = include_str!("root.html").replace("{version}", env!("CARGO_PKG_VERSION"));
    StaticAsset::text(HTML, page.as_bytes())
});
static OPENAPI: LazyLock<StaticAsset> =
    LazyLock::new(|| StaticAsset::text("application/json", document().to_string().as_bytes()));
static PAGE: LazyLock<StaticAsset> = LazyLock::new(|| StaticAsset::text(HTML, include_bytes!("page.html")));
static PAGE_SCRIPT: LazyLock<StaticAsset> = LazyLock::new(|| StaticAsset::text(SCRIPT, include_bytes!("page.js")));
static UI_STYLE: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::of_zip(STYLE, SWAGGER_UI_VENDORED, "/dist/swagger-ui.css").ok());
static UI_SCRIPT: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::of_zip(SCRIPT, SWAGGER_UI_VENDORED, "/dist/swagger-ui-bundle.js").ok());

/// `GET /`: name, version, and where the docs are; a page for browsers.
pub(crate) async fn root(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    if request.header(&header::ACCEPT).is_some_and(|accepted| accepted.contains("text/html")) {
        return ROOT.serve(&request).map(by_what_is_accepted);
    }
    let about = json!({
        "name": "TestShop",
        "version": env!("CARGO_PKG_VERSION"),
        "docs": "/docs",
        "openapi": "/openapi.json",
    });
    Ok(by_what_is_accepted(response::json(StatusCode::OK, &about)))
}

/// The front door has two faces.
fn by_what_is_accepted(mut reply: Response) -> Response {
    let vary = const { HeaderValue::from_static("Accept, Accept-Encoding") };
    reply.headers_mut().insert(header::VARY, vary);
    reply
}

/// `GET /openapi.json`
pub(crate) async fn openapi(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    OPENAPI.serve(&request)
}

/// `GET /docs`: reads `openapi.json`, and lets its reader try it out.
pub(crate) async fn page(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    PAGE.serve(&request)
}

/// `GET /docs/page.js`
pub(crate) async fn page_script(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    PAGE_SCRIPT.serve(&request)
}

/// `GET /docs/swagger-ui.css`
pub(crate) async fn ui_style(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    UI_STYLE.as_ref().ok_or_else(not_there)?.serve(&request)
}

/// `GET /docs/swagger-ui.js`
pub(crate) async fn ui_script(_: &App, request: Request, _: Anonymous) -> Result<Response> {
    UI_SCRIPT.as_ref().ok_or_else(not_there)?.serve(&request)
}

fn not_there() -> Error {
    Error::internal("the vendored Swagger UI has other files than before")
}
