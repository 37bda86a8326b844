//! The documentation of the API: `/`, `/docs` and `/openapi.json`. All files are part of the binary, so they work
//! offline.

mod openapi;

use std::sync::LazyLock;

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

pub(crate) use self::openapi::document;
use crate::{
    app::App,
    auth::Anonymous,
    error::{Error, Result},
    http::{
        Request, Response, response,
        static_asset::{HTML, SCRIPT, STYLE, StaticAsset},
    },
};

/// Allows no other origin and no inline script. Swagger UI needs inline styles.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                                       img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'";
/// A link of the root page.
const ADMIN_PAGE_LINK: &str =
    "<li><a href=\"{base}/admin/\">/admin/</a>: the page on which staff maintain the catalogue</li>";

static UI_STYLE: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::from_zip(STYLE, SWAGGER_UI_VENDORED, "/dist/swagger-ui.css").ok());
static UI_SCRIPT: LazyLock<Option<StaticAsset>> =
    LazyLock::new(|| StaticAsset::from_zip(SCRIPT, SWAGGER_UI_VENDORED, "/dist/swagger-ui-bundle.js").ok());

/// `GET /`: name, version and links to the documentation, as HTML for browsers and as JSON otherwise.
pub(crate) async fn root(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    if request.header(&header::ACCEPT).is_some_and(|accepted| accepted.contains("text/html")) {
        return serve_text(app, &request, "/", HTML, include_str!("root.html")).map(vary_on_accept);
    }
    let base_url = app.config.http.base_url();
    let about = json!({
        "name": "TestShop",
        "version": env!("CARGO_PKG_VERSION"),
        "docs": format!("{base_url}/docs"),
        "openapi": format!("{base_url}/openapi.json"),
    });
    Ok(vary_on_accept(response::json(StatusCode::OK, &about)))
}

/// Serves a file of the pages. `{base}` stands for what precedes a path in a link, `{version}` for that of the program.
fn serve_text(
    app: &App,
    request: &Request,
    path: &'static str,
    media_type: &'static str,
    text: &str,
) -> Result<Response> {
    let build = || {
        let admin_page_link = if app.config.http.admin_page { ADMIN_PAGE_LINK } else { "" };
        let text = text
            .replace("{admin_page_link}", admin_page_link)
            .replace("{base}", app.config.http.base_url())
            .replace("{version}", env!("CARGO_PKG_VERSION"));
        StaticAsset::text(media_type, text.as_bytes()).with_content_security_policy(CONTENT_SECURITY_POLICY)
    };
    app.static_assets.get_or_build(path, build).serve(request)
}

fn vary_on_accept(mut response: Response) -> Response {
    let vary = const { HeaderValue::from_static("Accept, Accept-Encoding") };
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// `GET /docs`: Swagger UI for `openapi.json`.
pub(crate) async fn page(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    serve_text(app, &request, "/docs", HTML, include_str!("page.html"))
}

/// `GET /docs/page.js`
pub(crate) async fn page_script(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    serve_text(app, &request, "/docs/page.js", SCRIPT, include_str!("page.js"))
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
